"""
Leases as apps see them.
"""

from __future__ import annotations

from types import TracebackType

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_cluster.errors import AppError, LeaseTimedOut, StateUnavailable
from twisted_cluster.interfaces import RESERVED
from twisted_cluster.shared.desk import IDesk, Names
from twisted_cluster.wire.sharing import checkKey


class Lease:
    """
    A lease that this process has, until it releases it or loses it.  As an
    asynchronous context manager it is released at the end of the block.

    @ivar name: What it is a lease of.
    @ivar token: The fencing token: larger than that of each holder before.
        Whatever the lease protects can refuse what comes with a smaller one
        than it has seen.
    @ivar held: Whether this process has it, as far as it knows.
    @ivar lost: A Deferred that fires with the reason, a text, when the lease
        is lost without having been released.
    """

    def __init__(self, leases: Leases, owner: str, name: str, token: int) -> None:
        self.name = name
        self.token = token
        self.held = True
        self.lost: Deferred[str] = Deferred()
        self._leases = leases
        self._owner = owner

    def __repr__(self) -> str:
        return f"<Lease {self.name!r} token={self.token} held={self.held}>"

    def release(self) -> Deferred[None]:
        """
        Let the next one have it.  Nothing happens if it is not held.
        """
        if self.held:
            self.held = False
            self._leases.end(self._owner, self.name)
        return succeed(None)

    def lose(self, reason: str) -> None:
        """
        Say that somebody else may have it.
        """
        if self.held:
            self.held = False
            self.lost.callback(reason)

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.release()


class Leases:
    """
    The leases of this process, and those that it waits for.
    """

    def __init__(self, desk: IDesk, clock: IReactorTime | None = None) -> None:
        """
        @param desk: Where to stand in line.
        @param clock: Tells how long somebody has waited.
        """
        self.desk = desk
        self.clock = clock
        self._names = Names()
        self._waiting: dict[str, tuple[str, Deferred[Lease]]] = {}
        self._held: dict[str, Lease] = {}

    def lease(self, name: str, timeout: float | None = None) -> Deferred[Lease]:
        """
        Wait for a lease.  Those who wait are served in their order; whoever
        has it when its process dies has it no longer.

        @param timeout: How many seconds to wait; L{None}: for ever.
        @return: A Deferred of the L{Lease}.  It may fail with
            L{LeaseTimedOut}; to cancel it is to wait no longer.
        """
        return maybeDeferred(self._ask, name, timeout)

    def _ask(self, name: str, timeout: float | None) -> Deferred[Lease]:
        if name.startswith(RESERVED):
            raise AppError(f"can't get the lease {name!r}: {RESERVED}* is reserved; rename it")
        checkKey(name)
        return self.wait(name, timeout)

    def wait(self, name: str, timeout: float | None = None) -> Deferred[Lease]:
        """
        As L{lease}, for the package's own leases too.
        """
        owner = self._names.next()
        waiting: Deferred[Lease] = Deferred(lambda _: self._giveUp(owner))
        self._waiting[owner] = (name, waiting)
        self.desk.leaseAsk(owner, name)
        if timeout is not None:
            self._limit(waiting, name, timeout)
        return waiting

    def _limit(self, waiting: Deferred[Lease], name: str, timeout: float) -> None:
        if self.clock is None:
            raise AppError(f"can't wait {timeout} s for the lease {name!r}: no reactor runs here")

        def timedOut(result: object, seconds: float) -> Failure:
            return Failure(
                LeaseTimedOut(
                    f"can't get the lease {name!r}: others have had it for {seconds} s; "
                    "wait longer, or find out who holds it"
                )
            )

        waiting.addTimeout(timeout, self.clock, onTimeoutCancel=timedOut)

    def _giveUp(self, owner: str) -> None:
        name, _ = self._waiting.pop(owner)
        self.desk.leaseEnd(owner, name)

    # What the lease says.

    def end(self, owner: str, name: str) -> None:
        """
        A lease is released.
        """
        self._held.pop(owner, None)
        self.desk.leaseEnd(owner, name)

    # What the desk says.

    def granted(self, owner: str, token: int) -> None:
        """
        A lease is to be had.  Nothing happens if nobody waits for it any more:
        then the desk has been told, or is going to be.
        """
        if owner in self._waiting:
            name, waiting = self._waiting.pop(owner)
            self._held[owner] = lease = Lease(self, owner, name, token)
            waiting.callback(lease)

    def lost(self, owner: str, reason: str) -> None:
        """
        A lease is lost, or can't be had.
        """
        if owner in self._waiting:
            name, waiting = self._waiting.pop(owner)
            waiting.errback(StateUnavailable(f"can't get the lease {name!r}: {reason}"))
        elif owner in self._held:
            self._held.pop(owner).lose(reason)

    def lostAll(self, reason: str) -> None:
        """
        The desk is gone.
        """
        for owner in (*self._waiting, *self._held):
            self.lost(owner, reason)
