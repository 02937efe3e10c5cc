"""
Who carries out what can't be done locally.
"""

from __future__ import annotations

import uuid
from typing import Protocol

from twisted.internet.defer import Deferred, fail

from twisted_cluster.errors import StateUnavailable
from twisted_cluster.interfaces import Write, Written


class IDesk(Protocol):
    """
    Carries out what state, cache and leases ask for.  The first five methods
    are those of L{twisted_cluster.interfaces.IStateBackend}.
    """

    def write(self, write: Write) -> Deferred[Written]:
        """Write to the state."""

    def cacheGet(self, key: str) -> Deferred[bytes | None]:
        """Get from the cache."""

    def cacheSet(self, key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """Have the cache hold something."""

    def cacheDelete(self, key: str) -> Deferred[bool]:
        """Have the cache hold nothing for a key."""

    def cacheIncrement(self, key: str, by: int, ttl: float | None) -> Deferred[int]:
        """Add to an integer in the cache."""

    def leaseAsk(self, owner: str, name: str) -> None:
        """
        Stand in line for a lease.  C{granted} or C{lost} of the leases is
        called in time.

        @param owner: Unique to this request.
        """

    def leaseEnd(self, owner: str, name: str) -> None:
        """
        Give up a lease, or the place in line.
        """


class NoDesk:
    """
    The desk of a process that is not part of a running cluster.

    @ivar reason: Why it can do nothing, and what to do about that.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def write(self, write: Write) -> Deferred[Written]:
        """See L{IDesk.write}."""
        return fail(self._error("write the state"))

    def cacheGet(self, key: str) -> Deferred[bytes | None]:
        """See L{IDesk.cacheGet}."""
        return fail(self._error(f"get {key!r} from the cache"))

    def cacheSet(self, key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """See L{IDesk.cacheSet}."""
        return fail(self._error(f"cache {key!r}"))

    def cacheDelete(self, key: str) -> Deferred[bool]:
        """See L{IDesk.cacheDelete}."""
        return fail(self._error(f"delete {key!r} from the cache"))

    def cacheIncrement(self, key: str, by: int, ttl: float | None) -> Deferred[int]:
        """See L{IDesk.cacheIncrement}."""
        return fail(self._error(f"increment {key!r} in the cache"))

    def leaseAsk(self, owner: str, name: str) -> None:
        """
        See L{IDesk.leaseAsk}.

        @raise StateUnavailable: always.
        """
        raise self._error(f"get the lease {name!r}")

    def leaseEnd(self, owner: str, name: str) -> None:
        """See L{IDesk.leaseEnd}."""

    def _error(self, what: str) -> StateUnavailable:
        return StateUnavailable(f"can't {what}: {self.reason}")


class Names:
    """
    Makes names that no other process makes, not even one that is a copy of
    this one made before the first name.
    """

    def __init__(self) -> None:
        self._prefix = ""
        self._count = 0

    def next(self) -> str:
        """
        Another one.
        """
        self._prefix = self._prefix or uuid.uuid4().hex
        self._count += 1
        return f"{self._prefix}-{self._count}"
