"""
The cache as apps see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from twisted_cluster.errors import AppError
from twisted_cluster.interfaces import RESERVED
from twisted_cluster.shared.desk import IDesk
from twisted_cluster.shared.leases import Leases
from twisted_cluster.shared.state import checkStep
from twisted_cluster.wire import values
from twisted_cluster.wire.sharing import checkKey, checkValue

COMPUTE = RESERVED + "compute/"
"""What the leases of C{getOrCompute} begin with; the key follows."""


class Cache:
    """
    What all processes of the cluster may look up instead of working it out
    again.  It forgets: whatever is in it may be gone at any time.

    All methods return Deferreds.  They may fail with L{AppError} and
    L{twisted_cluster.errors.StateUnavailable}.  Keys and values are those of
    the state.
    """

    def __init__(self, desk: IDesk, leases: Leases) -> None:
        """
        @param desk: Where the cache is.
        @param leases: Tell who computes.
        """
        self.desk = desk
        self._leases = leases
        self._flights: dict[str, list[Deferred[bytes | None]]] = {}

    def get(self, key: str, default: Any = None) -> Deferred[Any]:
        """
        @return: A Deferred of what the cache holds for C{key}, or of
            C{default}.
        """

        def found(encoded: bytes | None) -> Any:
            return default if encoded is None else values.decode(encoded)

        return self._checked(key, lambda: self.desk.cacheGet(key)).addCallback(found)

    def set(self, key: str, value: Any, ttl: float | None = None) -> Deferred[None]:
        """
        Have the cache hold C{value}.

        @param ttl: For how many seconds at the most.
        """
        return self._checked(key, lambda: self._set(key, values.encode(value), ttl))

    def delete(self, key: str) -> Deferred[bool]:
        """
        Have the cache hold nothing for C{key}.

        @return: A Deferred of whether it held something.
        """
        return self._checked(key, lambda: self.desk.cacheDelete(key))

    def increment(self, key: str, by: int = 1, ttl: float | None = None) -> Deferred[int]:
        """
        Add to an integer; an absent one counts as 0.

        @param ttl: For how many seconds the cache holds the key if this is the
            first increment; later ones do not prolong it.
        @return: A Deferred of the sum.
        """

        def increment() -> Deferred[int]:
            checkStep(key, by)
            _checkTtl(key, ttl)
            return self.desk.cacheIncrement(key, by, ttl)

        return self._checked(key, increment)

    def getOrCompute(
        self, key: str, compute: Callable[[], Any], ttl: float | None = None
    ) -> Deferred[Any]:
        """
        Get what the cache holds for C{key}; if that is nothing, have it hold
        what C{compute} returns.  In the whole cluster, one computes and all
        others wait for it.  If that one fails, only its own caller is told,
        and the next one who waits computes; so too if its process dies.

        @param compute: Called without arguments; may return a Deferred or a
            coroutine.  It must not ask for C{key} itself.
        @param ttl: As for L{set}.
        @return: A Deferred of the value.
        """
        done = self._checked(
            key, lambda: Deferred.fromCoroutine(self._getOrCompute(key, compute, ttl))
        )
        return done.addCallback(values.decode)

    async def _getOrCompute(self, key: str, compute: Callable[[], Any], ttl: float | None) -> bytes:
        """
        Within this process too only one asks; the others wait for it.
        """
        _checkTtl(key, ttl)
        while key in self._flights:
            waiting: Deferred[bytes | None] = Deferred()
            self._flights[key].append(waiting)
            encoded = await waiting
            if encoded is not None:
                return encoded
        self._flights[key] = []
        encoded = None
        try:
            encoded = await self._computeOnce(key, compute, ttl)
            return encoded
        finally:
            for waiting in self._flights.pop(key):
                waiting.callback(encoded)

    async def _computeOnce(self, key: str, compute: Callable[[], Any], ttl: float | None) -> bytes:
        encoded = await self.desk.cacheGet(key)
        if encoded is not None:
            return encoded
        async with await self._leases.wait(COMPUTE + key):
            encoded = await self.desk.cacheGet(key)
            if encoded is None:
                encoded = values.encode(await maybeDeferred(compute))
                await self._set(key, encoded, ttl)
            return encoded

    def _set(self, key: str, encoded: bytes, ttl: float | None) -> Deferred[None]:
        checkValue(key, encoded)
        _checkTtl(key, ttl)
        return self.desk.cacheSet(key, encoded, ttl)

    def _checked(self, key: str, call: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        """
        Make a call if C{key} is one.
        """

        def checked() -> Deferred[Any]:
            checkKey(key)
            return call()

        return maybeDeferred(checked)


def _checkTtl(key: str, ttl: float | None) -> None:
    """
    @raise AppError: if C{ttl} is no time to live.
    """
    if ttl is not None and not ttl > 0:
        raise AppError(f"can't cache {key!r} for {ttl} seconds; give more than 0, or None")
