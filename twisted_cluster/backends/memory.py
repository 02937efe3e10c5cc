"""
State, cache and leases in the memory of one master.  They end with it.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from twisted_cluster.errors import StateUnavailable
from twisted_cluster.interfaces import (
    IBackendListener,
    IStateBackend,
    Snapshot,
    Write,
    Written,
)
from twisted_cluster.policy.cache import Cache
from twisted_cluster.policy.leases import Table
from twisted_cluster.policy.replica import Replica, decide

CACHE_SIZE = 64 << 20
"""Bytes that the cache may take unless something else is said."""

REMEMBERED = 1000
"""How many writes are remembered, lest one that is repeated count twice."""


@implementer(IStateBackend)
class MemoryBackend:
    """
    Everything in this process; all answers are there at once.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cacheSize: int = CACHE_SIZE,
        epoch: str | None = None,
        lastToken: int | None = None,
    ) -> None:
        """
        @param clock: Tells when entries and leases expire.
        @param cacheSize: The most bytes that the cache may take.
        @param epoch: Whose versions these are; by default a new name.
        @param lastToken: Fencing tokens are larger than this; by default the
            microseconds since 1970, so that they grow from one master to the
            next.
        """
        self._clock = clock
        self._replica = Replica(Snapshot(epoch or uuid.uuid4().hex, 0, {}))
        self._cache = Cache(cacheSize)
        self._leases = Table(time.time_ns() // 1000 if lastToken is None else lastToken)
        self._done: OrderedDict[str, Written] = OrderedDict()
        self._listener: IBackendListener | None = None

    # Its life.

    def start(self, listener: IBackendListener) -> Deferred[None]:
        """See L{IStateBackend.start}."""
        self._listener = listener
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See L{IStateBackend.stop}."""
        self._listener = None
        return succeed(None)

    def describe(self) -> dict[str, Any]:
        """See L{IStateBackend.describe}."""
        return {
            "kind": "memory",
            "up": self._listener is not None,
            "version": self._replica.version,
            "keys": len(self._replica.items),
            "bytes": self._replica.size,
            "leases": len(self._leases),
            "cacheKeys": len(self._cache),
            "cacheBytes": self._cache.size,
            "cacheLimit": self._cache.limit,
            "cacheHits": self._cache.hits,
            "cacheMisses": self._cache.misses,
            "cacheEvictions": self._cache.evictions,
        }

    # The state.

    def snapshot(self) -> Snapshot:
        """See L{IStateBackend.snapshot}."""
        return self._replica.snapshot()

    def write(self, write: Write) -> Deferred[Written]:
        """See L{IStateBackend.write}."""
        return maybeDeferred(self._write, write)

    def _write(self, write: Write) -> Written:
        listener = self._running("write the state")
        if write.id in self._done:
            return self._done[write.id]
        change = decide(self._replica, write)
        version = self._replica.version
        if change is None:
            return self._remember(write, Written(False, version, {}))
        if change.items:
            version = change.version
            self._replica.apply(change)
        items = {key: self._replica.items[key] for key in write.increments}
        written = self._remember(write, Written(True, version, items))
        if change.items:
            # Last of all, since the listener may write in turn.
            listener.changed(change)
        return written

    def _remember(self, write: Write, written: Written) -> Written:
        self._done[write.id] = written
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
        return written

    # The cache.

    def cacheGet(self, key: str) -> Deferred[bytes | None]:
        """See L{IStateBackend.cacheGet}."""
        return maybeDeferred(self._cache.get, key, self._clock.seconds())

    def cacheSet(self, key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """See L{IStateBackend.cacheSet}."""
        return maybeDeferred(self._cache.set, key, value, ttl, self._clock.seconds())

    def cacheDelete(self, key: str) -> Deferred[bool]:
        """See L{IStateBackend.cacheDelete}."""
        return maybeDeferred(self._cache.delete, key, self._clock.seconds())

    def cacheIncrement(self, key: str, by: int, ttl: float | None) -> Deferred[int]:
        """See L{IStateBackend.cacheIncrement}."""
        return maybeDeferred(self._cache.increment, key, by, ttl, self._clock.seconds())

    # Leases.

    def acquire(self, name: str, owner: str, seconds: float) -> Deferred[int | None]:
        """See L{IStateBackend.acquire}."""
        return maybeDeferred(self._leases.acquire, name, owner, seconds, self._clock.seconds())

    def renew(self, name: str, owner: str, seconds: float) -> Deferred[bool]:
        """See L{IStateBackend.renew}."""
        return maybeDeferred(self._leases.renew, name, owner, seconds, self._clock.seconds())

    def release(self, name: str, owner: str) -> Deferred[bool]:
        """See L{IStateBackend.release}."""
        return maybeDeferred(self._release, name, owner)

    def _release(self, name: str, owner: str) -> bool:
        had = self._leases.release(name, owner)
        if had and self._listener is not None:
            self._listener.leaseFreed(name)
        return had

    # Messages.

    def publish(self, topic: str, data: bytes) -> Deferred[None]:
        """See L{IStateBackend.publish}."""
        return maybeDeferred(self._publish, topic, data)

    def _publish(self, topic: str, data: bytes) -> None:
        self._running("publish").published(topic, data)

    def _running(self, what: str) -> IBackendListener:
        """
        @raise StateUnavailable: if it is not started, or is stopped.
        """
        if self._listener is None:
            raise StateUnavailable(f"can't {what}: the master is not running; try again when it is")
        return self._listener
