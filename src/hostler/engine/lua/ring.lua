-- Have a key handled: like Docket's own script, but a ring for a key that is being handled is noted in
-- its record, and an earlier time wins.  KEYS, ARGV: of `schedule`, with `replace`.
local state = redis.call('HGET', KEYS[6], 'state')
local at = tonumber(ARGV[2])
if state == 'running' then
    local again = tonumber(redis.call('HGET', KEYS[6], 'again') or math.huge)
    if at < again then
        redis.call('HSET', KEYS[6], 'again', ARGV[2])
    end
    return 'NOTED'
end
if state == 'queued' then
    return 'EXISTS'
end
if state == 'scheduled' and tonumber(redis.call('HGET', KEYS[6], 'when') or math.huge) <= at then
    return 'EXISTS'
end
return schedule(KEYS, ARGV)
