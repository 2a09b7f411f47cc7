-- Return how many jobs are due and wait, and for how many milliseconds the oldest of them.
-- KEYS: the stream, the queue of delayed jobs.  ARGV: the time.
local late = redis.call('ZCOUNT', KEYS[2], '-inf', ARGV[1])
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err or not groups[1] then
    return {redis.call('XLEN', KEYS[1]) + late, 0}
end
local group = {}
for place = 1, #groups[1], 2 do
    group[groups[1][place]] = groups[1][place + 1]
end
local first = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
local oldest_ms = 0
if first then
    local time = redis.call('TIME')
    oldest_ms = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(first[1]:match('^%d+'))
end
return {redis.call('XLEN', KEYS[1]) - group['pending'] + late, math.max(0, oldest_ms)}
