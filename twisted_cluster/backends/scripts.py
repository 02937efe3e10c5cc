"""
What Redis does for the cluster, as scripts that it runs each in one go, and
how they speak.

Values go in and out as fields: a length of four bytes, then the bytes; the
largest length of all stands for what is absent.

Lua counts in floating point, so sums are left to Redis, which has all 64 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha1

from twisted_cluster.errors import PeerError

_LENGTH = struct.Struct(">I")
_ABSENT = 0xFFFFFFFF


class Script:
    """
    A script, as source and by the name that Redis knows it by.

    @ivar keys: How many of its arguments are keys.
    """

    def __init__(self, keys: int, source: str) -> None:
        self.keys = keys
        self.source = (_PRELUDE + source).encode("ascii")
        self.digest = sha1(self.source).hexdigest().encode("ascii")


def pack(fields: Iterable[bytes | None]) -> bytes:
    """
    The bytes that stand for C{fields}.
    """
    parts: list[bytes] = []
    for field in fields:
        if field is None:
            parts.append(_LENGTH.pack(_ABSENT))
        else:
            parts += (_LENGTH.pack(len(field)), field)
    return b"".join(parts)


def unpack(data: bytes) -> list[bytes | None]:
    """
    The inverse of L{pack}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    fields: list[bytes | None] = []
    position, end = 0, len(data)
    while position < end:
        if position + _LENGTH.size > end:
            raise PeerError("fields from Redis that end too early")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length == _ABSENT:
            fields.append(None)
            continue
        if position + length > end:
            raise PeerError("fields from Redis that end too early")
        fields.append(data[position : position + length])
        position += length
    return fields


_PRELUDE = r"""
local function field(value)
  if not value then return '\255\255\255\255' end
  return struct.pack('>I4', #value) .. value
end

-- A number without the exponent that tostring gives to large ones.
local function digits(number)
  return string.format('%.0f', number)
end

-- Versions begin anew, with an epoch of a new name, when the data are lost.
local function standing(meta, candidate)
  local found = redis.call('HMGET', meta, 'epoch', 'version')
  if found[1] then return found[1], found[2] end
  redis.call('HSET', meta, 'epoch', candidate, 'version', '0', 'bytes', '0')
  return candidate, '0'
end

-- The encoded sum; false if there is none.
local function sum(scratch, value, by)
  if value and string.sub(value, 1, 1) ~= 'i' then return false end
  redis.call('SET', scratch, value and string.sub(value, 2) or '0')
  local done = redis.pcall('INCRBY', scratch, by)
  local text = redis.call('GET', scratch)
  redis.call('DEL', scratch)
  if type(done) == 'table' then return false end
  return 'i' .. text
end
"""

WRITE = Script(
    4,
    r"""
local meta, state, done, scratch = unpack(KEYS)
local before = redis.call('GET', done)
if before then return before end
local epoch, version = standing(meta, ARGV[2])
local limit, inline, overhead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local at = 10

local function answer(outcome, more)
  local text = field(outcome) .. field(epoch) .. field(version) .. (more or '')
  redis.call('SET', done, text, 'PX', ARGV[3])
  return text
end

for _ = 1, tonumber(ARGV[7]) do
  local wanted = ARGV[at + 1] == '1' and ARGV[at + 2]
  if redis.call('HGET', state, ARGV[at]) ~= wanted then return answer('unmet') end
  at = at + 3
end

local touched, growth, sums = {}, 0, {}
local function want(key, now, value)
  if now == value then return end
  touched[#touched + 1] = {key, value}
  if now then growth = growth - overhead - #key - #now end
  if value then growth = growth + overhead + #key + #value end
end
for _ = 1, tonumber(ARGV[8]) do
  local key = ARGV[at]
  want(key, redis.call('HGET', state, key), ARGV[at + 1] == '1' and ARGV[at + 2])
  at = at + 3
end
for _ = 1, tonumber(ARGV[9]) do
  local key, by = ARGV[at], ARGV[at + 1]
  local now = redis.call('HGET', state, key)
  local value = sum(scratch, now, by)
  if not value then return answer('sum', field(key) .. field(now) .. field(by)) end
  want(key, now, value)
  sums[#sums + 1] = field(key) .. field(value)
  at = at + 2
end

local size = tonumber(redis.call('HGET', meta, 'bytes')) + growth
if growth > 0 and size > limit then return answer('size', field(digits(size))) end
if #touched == 0 then return answer('done', table.concat(sums)) end
version = digits(redis.call('HINCRBY', meta, 'version', 1))
redis.call('HSET', meta, 'bytes', digits(size))
local message = {field(epoch), field(version)}
local length = 0
for _, one in ipairs(touched) do
  if one[2] then
    redis.call('HSET', state, one[1], one[2])
  else
    redis.call('HDEL', state, one[1])
  end
  message[#message + 1] = field(one[1]) .. field(one[2])
  length = length + #message[#message]
end
-- A step without items says that the snapshot has it.
if length > inline then message = {message[1], message[2]} end
redis.call('PUBLISH', ARGV[1], table.concat(message))
return answer('done', table.concat(sums))
""",
)
"""
Carries out a write once, and tells all masters.  Keys: those of the meta data,
the state, the write's answer, a scratch value.  Arguments: the channel of the
changes, a candidate for the epoch, the milliseconds for which the answer is
kept, the bytes that the state may have, the most that a step may have to be
published whole, the overhead of an item, the numbers of expects, sets and
increments; then key, whether there is a value, value for each of the first
two, and key, step for each of the last.
"""

STANDING = Script(
    1,
    r"""
return {standing(KEYS[1], ARGV[1])}
""",
)
"""
How far the state has got: epoch and version.  Key: that of the meta data.
Arguments: a candidate for the epoch.
"""

BEAT = Script(
    1,
    r"""
local epoch, version = standing(KEYS[1], ARGV[2])
return redis.call('PUBLISH', ARGV[1], field(epoch) .. field(version))
""",
)
"""
Says on a channel how far the state has got.  What was published before has
arrived when that does.
"""

CACHE_INCREMENT = Script(
    3,
    r"""
local entry, done, scratch = unpack(KEYS)
local before = redis.call('GET', done)
if before then return before end
local now = redis.call('GET', entry)
local value = sum(scratch, now, ARGV[1])
local text = field(value) .. field(now)
if value and now then
  redis.call('SET', entry, value, 'KEEPTTL')
elseif value then
  redis.call('SET', entry, value, 'PX', ARGV[2])
end
redis.call('SET', done, text, 'PX', ARGV[3])
return text
""",
)
"""
Adds to a value of the cache, once.  Keys: those of the value, the answer, a
scratch value.  Arguments: the step, and the milliseconds for which a new value
and the answer are kept.
"""

ACQUIRE = Script(
    2,
    r"""
local held = redis.call('HMGET', KEYS[1], 'owner', 'token')
if held[1] and held[1] ~= ARGV[1] then return false end
local token = held[2]
if not held[1] then
  -- The time makes tokens grow even if the data are lost.
  local now = redis.call('TIME')
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  token = digits(math.max(last + 1, now[1] * 1000000 + now[2]))
  redis.call('SET', KEYS[2], token)
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', token)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return token
""",
)
"""
Gets a lease.  Keys: those of the lease and of the last token.  Arguments: the
owner and the milliseconds.
"""

RENEW = Script(
    1,
    r"""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
)
"""
Renews a lease.  Key: that of the lease.  Arguments: the owner and the
milliseconds.
"""

RELEASE = Script(
    1,
    r"""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return redis.call('DEL', KEYS[1])
""",
)
"""
Gives up a lease, and tells all masters.  Key: that of the lease.  Arguments:
the owner, the channel, the lease's name.
"""
