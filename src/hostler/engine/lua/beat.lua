-- Renew the leases of claims that are still this worker's; return their places.  What Redis itself has
-- forgotten (it began empty) is this worker's too, for as long as it goes on to say so.
-- KEYS: the stream, the name of this memory, the record of each.  ARGV: the group, the worker, that name
-- as it was known, milliseconds of a lease, a new name, then message and claim of each.
local name = redis.call('GET', KEYS[2])
if not name then
    name = ARGV[5]
    redis.call('SET', KEYS[2], name)
end
local forgotten = ARGV[3] ~= '' and ARGV[3] ~= name
local kept = {name}
for place = 3, #KEYS do
    local message, claim = ARGV[2 * place], ARGV[2 * place + 1]  -- the first of them: 6, 7
    local worker = redis.call('HGET', KEYS[place], 'worker')
    if worker == claim then
        redis.pcall('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, message, 'IDLE', 0, 'JUSTID')
        if redis.call('PTTL', KEYS[place]) > 0 then
            redis.call('PEXPIRE', KEYS[place], ARGV[4])
        end
        kept[#kept + 1] = place - 3
    elseif forgotten and redis.call('EXISTS', KEYS[place]) == 0 then
        redis.call('HSET', KEYS[place], 'state', 'running', 'worker', claim)
        redis.call('PEXPIRE', KEYS[place], ARGV[4])
        kept[#kept + 1] = place - 3
    end
end
return kept
