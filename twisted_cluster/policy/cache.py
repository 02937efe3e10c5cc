"""
What the cache holds, and what it pushes out.

Bounded by bytes.  What has expired goes first, then what has been unused for
longest.  Time is an argument, in seconds of any clock that never goes back.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass

from twisted_cluster.errors import AppError
from twisted_cluster.policy.counters import increased, numberIn

OVERHEAD = 200
"""Bytes that an entry takes beside its key and its value."""

SPARE = 64
"""How many expirations of entries that are gone may always be left in place."""


@dataclass(frozen=True)
class _Entry:
    """
    One value.

    @ivar expires: When; L{None} if never.
    """

    value: bytes
    expires: float | None
    size: int

    def hasExpired(self, now: float) -> bool:
        """Whether it is to be held no longer."""
        return self.expires is not None and self.expires <= now


class Cache:
    """
    Encoded values by key, C{limit} bytes at the most.

    @ivar limit: The most bytes that all entries may take.
    @ivar size: The bytes that they take.
    @ivar hits: How often something was found.
    @ivar misses: How often nothing was.
    @ivar evictions: How many entries were pushed out that had not expired.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._expirations: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> bytes | None:
        """
        The value of C{key}, which with this counts as used.
        """
        entry = self._find(key, now)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry.value

    def set(self, key: str, value: bytes, ttl: float | None, now: float) -> None:
        """
        Hold C{value}.

        @param ttl: For how many seconds; L{None}: until it is pushed out.
        @raise AppError: if it alone is too large; then C{key} holds nothing.
        """
        self._put(key, value, None if ttl is None else now + ttl, now)

    def delete(self, key: str, now: float) -> bool:
        """
        Hold C{key} no longer.

        @return: Whether it held something.
        """
        found = self._find(key, now) is not None
        self._drop(key)
        return found

    def increment(self, key: str, by: int, ttl: float | None, now: float) -> int:
        """
        Add to an integer; an absent one counts as 0.

        @param ttl: As with L{set}, for a key that was absent.
        @return: The sum.
        @raise AppError: if what C{key} holds is no integer, or the sum takes
            more than 64 bits.
        """
        entry = self._find(key, now)
        if entry is None:
            expires = None if ttl is None else now + ttl
            total = increased(key, None, by)
        else:
            expires = entry.expires
            total = increased(key, entry.value, by)
        self._put(key, total, expires, now)
        return numberIn(key, total)

    def _find(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.hasExpired(now):
            self._drop(key)
            return None
        return entry

    def _put(self, key: str, value: bytes, expires: float | None, now: float) -> None:
        self._drop(key)
        entry = _Entry(value, expires, OVERHEAD + len(key.encode("utf-8")) + len(value))
        if entry.size > self.limit:
            raise AppError(
                f"can't cache {key!r}: it takes {entry.size} bytes, more than the {self.limit} of "
                "the whole cache; give the master a larger --cache-size"
            )
        self._entries[key] = entry
        self.size += entry.size
        if expires is not None:
            heapq.heappush(self._expirations, (expires, key))
            self._prune()
        self._makeRoom(now)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size

    def _makeRoom(self, now: float) -> None:
        while self.size > self.limit and self._dropExpired(now):
            pass
        while self.size > self.limit:
            self._drop(next(iter(self._entries)))
            self.evictions += 1

    def _dropExpired(self, now: float) -> bool:
        """
        Drop the entry that expired first, if one has.
        """
        if not self._expirations or self._expirations[0][0] > now:
            return False
        _, key = heapq.heappop(self._expirations)
        self._find(key, now)
        return True

    def _prune(self) -> None:
        """
        Forget expirations of entries that were replaced, when they have become
        more than those that hold.
        """
        if len(self._expirations) > 2 * len(self._entries) + SPARE:
            self._expirations = [
                (entry.expires, key)
                for key, entry in self._entries.items()
                if entry.expires is not None
            ]
            heapq.heapify(self._expirations)
