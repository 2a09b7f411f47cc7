-- Forget a worker that has nothing any more.  KEYS: the stream.  ARGV: the group, the worker.
local has = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if not has.err and #has == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
