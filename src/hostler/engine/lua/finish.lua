-- End a job if this claim still has it, or queue it again: for the time that the handler asked for (none:
-- ''), or that of a ring that came meanwhile.
-- KEYS: of `schedule`, then the progress.  ARGV: of `schedule`, then the claim, then the time.
local now = tonumber(table.remove(ARGV))
local claim = table.remove(ARGV)
if redis.call('HGET', KEYS[6], 'worker') ~= claim then
    return 0
end
local at = tonumber(ARGV[2])
local again = tonumber(redis.call('HGET', KEYS[6], 'again') or '')
if again and (not at or again < at) then
    at = again
end
redis.call('DEL', KEYS[8])
if not at then
    redis.call('XACK', KEYS[1], ARGV[7], ARGV[5])
    redis.call('XDEL', KEYS[1], ARGV[5])
    redis.call('DEL', KEYS[6])
    return 1
end
redis.call('HDEL', KEYS[6], 'again')
redis.call('PERSIST', KEYS[6])
ARGV[2] = string.format('%.6f', at)
ARGV[3] = at <= now and '1' or '0'
schedule(KEYS, ARGV)
return 2
