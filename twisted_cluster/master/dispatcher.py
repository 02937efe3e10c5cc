"""
Gives accepted sockets to workers and keeps account of them.  Runs in the
master.

Invariant 1: a socket has exactly one owner.  The master keeps its copy until
the worker has begun to serve the connection; refusal, or the loss of the
worker before that, gives it to another one.  At every moment
C{accepted == acked + shed + in flight}.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from zope.interface import implementer

from twisted_cluster.errors import PeerError
from twisted_cluster.interfaces import Account, ILoad, Peer
from twisted_cluster.kernel import NO_PROGRESS, Progress

MAX_ATTEMPTS = 10
"""To how many workers a connection is given before it is shed."""

MAX_ABANDONED = 1000
"""How many listeners that are no more are remembered: connections that were
accepted on older ones have long found an end."""

_WORN = f"{MAX_ATTEMPTS} workers were lost over it"

Choose = Callable[[Sequence["Recipient"], Peer], "Recipient"]


class HandoffChannel(Protocol):
    """
    Where a recipient's sockets go: the master's end of a channel.
    """

    def sendHandoff(self, first: int, listeners: Sequence[int], descriptors: Sequence[int]) -> None:
        """
        Send sockets, numbered from C{first} on.
        """

    def sendResume(
        self,
        first: int,
        listeners: Sequence[int],
        descriptors: Sequence[int],
        states: Sequence[bytes],
    ) -> None:
        """
        Send sockets whose protocols carry state, numbered from C{first} on.
        """


class Connection:
    """
    An accepted socket that the master still holds.

    @ivar descriptor: The master's copy.
    @ivar listener: The number of the listener that accepted it.
    @ivar peer: The client's address.
    @ivar attempts: To how many workers it has been given.
    @ivar state: What its protocol carries from one worker to the next, or
        L{None}.
    @ivar progress: How far it had got when the master took it, or L{None} if
        the kernel can't tell.
    """

    __slots__ = ("attempts", "descriptor", "listener", "peer", "progress", "state")

    def __init__(
        self,
        descriptor: int,
        listener: int,
        peer: Peer,
        state: bytes | None = None,
        progress: Progress | None = NO_PROGRESS,
    ) -> None:
        self.descriptor = descriptor
        self.listener = listener
        self.peer = peer
        self.state = state
        self.progress = progress
        self.attempts = 0


@implementer(ILoad)
class Recipient:
    """
    One worker, as the dispatcher sees it.

    @ivar slot: Its slot.
    @ivar generation: Its generation.
    @ivar listeners: The numbers of the listeners that its app listens on.
    @ivar connections: Connections dispatched to it and not yet closed.
    @ivar limit: How many sockets one handoff may have.
    @ivar credit: How many more sockets it may be given now.  It is used up
        when a handoff is sent, and back when all of it has arrived: while a
        worker is busy, connections gather in the kernel for the next handoff
        instead of in its channel, where no idle worker could take them.
    @ivar sequence: The number that its next socket gets.
    @ivar received: How many of its sockets have arrived.
    @ivar closed: How many of its connections are over.
    @ivar held: What it has been sent, by number, and has not acknowledged.
    @ivar released: The numbers of what the master has let go of before the
        worker acknowledged it, which it still will.
    @ivar pending: What it is about to be sent in this reactor turn.
    @ivar resumed: The same for connections that carry state.
    """

    __slots__ = (
        "channel",
        "closed",
        "connections",
        "credit",
        "generation",
        "held",
        "limit",
        "listeners",
        "paused",
        "pending",
        "received",
        "released",
        "resumed",
        "sequence",
        "slot",
    )

    def __init__(
        self,
        slot: int,
        channel: HandoffChannel,
        credit: int,
        generation: int = 1,
        listeners: Iterable[int] = (0,),
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.listeners = frozenset(listeners)
        self.channel = channel
        self.limit = credit
        self.credit = credit
        self.connections = 0
        self.sequence = 0
        self.received = 0
        self.closed = 0
        self.paused = False
        self.held: dict[int, Connection] = {}
        self.released: set[int] = set()
        self.pending: list[Connection] = []
        self.resumed: list[Connection] = []


class Dispatcher:
    """
    Collects the sockets of one reactor turn, sends each worker its share as
    one handoff, and settles the account.

    Most often all workers listen on the same, which the paths that every
    connection takes are made for; C{_common} is L{None} while they do not.

    @ivar capacity: How many sockets the scheduled workers would take now,
        less those that wait for one of them.
    @ivar onCapacity: Called when C{capacity} rises from zero, or that of a
        listener may have.
    @ivar onPlaced: Called when nothing waits for an owner any more.
    """

    def __init__(
        self,
        choose: Choose,
        untouched: Callable[[int, Progress | None], bool | None],
        onShed: Callable[[int, str], object],
        close: Callable[[int], None] = os.close,
    ) -> None:
        self._choose = choose
        self._untouched = untouched
        self._onShed = onShed
        self._close = close
        self._scheduled: list[Recipient] = []
        self._eligible: list[Recipient] = []
        self._known: set[Recipient] = set()
        self._waiting: deque[Connection] = deque()
        self._returned: deque[Connection] = deque()
        self._filled: list[Recipient] = []
        self._common: frozenset[int] | None = frozenset()
        self._abandoned: dict[int, str] = {}
        self._accepted = 0
        self._acked = 0
        self._shed = 0
        self.capacity = 0
        self.onCapacity: Callable[[], object] = lambda: None
        self.onPlaced: Callable[[], object] = lambda: None

    def account(self) -> Account:
        """
        The account of all connections so far.
        """
        inFlight = self.waiting + sum(
            len(one.held) + len(one.pending) + len(one.resumed) for one in self._known
        )
        return Account(self._accepted, self._acked, self._shed, inFlight)

    @property
    def waiting(self) -> int:
        """
        How many connections wait for a worker with credit.
        """
        return len(self._waiting) + len(self._returned)

    def capacityOf(self, listener: int) -> int:
        """
        How many connections of a listener could be taken now.
        """
        if self._common is not None:
            return self.capacity if listener in self._common else 0
        fit = [one for one in self._eligible if listener in one.listeners]
        rivals = frozenset().union(*(one.listeners for one in fit))
        ahead = sum(one.listener in rivals for one in self._waiting)
        return sum(one.credit for one in fit) - ahead

    def serves(self, listener: int) -> bool:
        """
        Whether a worker that other workers' connections go to listens there.
        """
        return any(listener in one.listeners for one in self._newest())

    def schedule(self, recipient: Recipient) -> None:
        """
        Begin to give connections to C{recipient}.
        """
        self._known.add(recipient)
        self._scheduled.append(recipient)
        self._scheduled.sort(key=lambda one: one.slot)
        self._compare()
        self._rebuild()
        self._place()

    def listen(self, recipient: Recipient, listeners: Iterable[int]) -> None:
        """
        C{recipient} listens on these from now on, and on nothing else.
        """
        self.flush()
        recipient.listeners = frozenset(listeners)
        self._compare()
        self._rebuild()
        if recipient in self._scheduled:
            # There is as much credit as before, but for other listeners.
            self.onCapacity()
        self._place()

    def abandon(self, listener: int, reason: str) -> None:
        """
        Nobody listens there any more, and nobody will: close the connections
        that wait for somebody who does, and those that are still to be given
        back.
        """
        self._abandoned[listener] = reason
        if len(self._abandoned) > MAX_ABANDONED:
            del self._abandoned[next(iter(self._abandoned))]
        for queue in (self._waiting, self._returned):
            ownerless = [one for one in queue if one.listener == listener]
            kept = [one for one in queue if one.listener != listener]
            queue.clear()
            queue.extend(kept)
            self._shedAll(ownerless, reason)
        self._recount()

    def unschedule(self, recipient: Recipient) -> None:
        """
        Give no more connections to C{recipient}.  What it holds stays its own.
        """
        self.flush()
        if recipient in self._scheduled:
            self._scheduled.remove(recipient)
            self._compare()
            self._rebuild()
            # What waited for its credit may go to an older generation now.
            self._place()

    def submit(self, connection: Connection) -> None:
        """
        Take a freshly accepted connection.  L{flush} sends it.
        """
        self._accepted += 1
        common = self._common
        everywhere = common is not None and connection.listener in common
        fit = self._eligible if everywhere else self._fitFor(connection)
        if fit:
            self._give(connection, self._choose(fit, connection.peer))
        elif connection.listener in self._abandoned:
            # What the kernel had taken in comes after the listener's end.
            self._shedAll([connection], self._abandoned[connection.listener])
        else:
            self._waiting.append(connection)
            self.capacity -= self._competes(connection)

    def takeOver(self, connections: Sequence[Connection]) -> None:
        """
        Take idle connections that a worker had accepted for itself, for
        workers of the newest generation to go on with.  To the account they
        are new.
        """
        self._accepted += len(connections)
        self._returned.extend(connections)
        self._placeReturned()

    def giveBack(self, recipient: Recipient, connections: Sequence[Connection]) -> None:
        """
        Take idle connections that C{recipient} had acknowledged back, for
        workers of the newest generation to go on with.

        @raise PeerError: if it can't have as many.
        """
        unserved = len(recipient.held) + len(recipient.pending) + len(recipient.resumed)
        served = recipient.connections - unserved
        if len(connections) > served:
            for connection in connections:
                self._close(connection.descriptor)
            raise PeerError(f"{len(connections)} connections given back, of {served}")
        self._acked -= len(connections)
        self._returned.extend(connections)
        self._placeReturned()

    def flush(self) -> None:
        """
        Send each worker what it was assigned since the last flush.
        """
        filled, self._filled = self._filled, []
        for recipient in filled:
            if recipient.resumed:
                self._sendResumed(recipient)
            if recipient.pending:
                self._sendPending(recipient)

    def _sendPending(self, recipient: Recipient) -> None:
        pending, recipient.pending = recipient.pending, []
        recipient.channel.sendHandoff(
            self._number(recipient, pending),
            [connection.listener for connection in pending],
            [connection.descriptor for connection in pending],
        )

    def _sendResumed(self, recipient: Recipient) -> None:
        resumed, recipient.resumed = recipient.resumed, []
        recipient.channel.sendResume(
            self._number(recipient, resumed),
            [connection.listener for connection in resumed],
            [connection.descriptor for connection in resumed],
            [connection.state or b"" for connection in resumed],
        )

    def _number(self, recipient: Recipient, connections: Sequence[Connection]) -> int:
        """
        Enter what C{recipient} is about to be sent into its books, and use up
        its credit.

        @return: The number of the first connection.
        """
        first = recipient.sequence
        recipient.sequence = first + len(connections)
        recipient.held.update(enumerate(connections, first))
        self._exhaust(recipient)
        return first

    def acknowledge(
        self, recipient: Recipient, received: int, closed: int, touched: Iterable[int]
    ) -> None:
        """
        Settle what C{recipient} reports of its sockets.

        @raise PeerError: if it reports what can't be.
        """
        ended = closed - recipient.closed
        if not recipient.received <= received <= recipient.sequence or not 0 <= closed <= received:
            raise PeerError(f"an account of {received} received and {closed} closed sockets")
        if ended < 0:
            raise PeerError(f"{closed} closed sockets after {recipient.closed}")
        self._countOver(recipient, ended)
        for number in touched:
            if number in recipient.released:
                recipient.released.discard(number)
            else:
                self._release(self._take(recipient, number))
        recipient.received = received
        recipient.closed = closed
        if recipient.credit < recipient.limit and received == recipient.sequence:
            self._restore(recipient)

    def refuse(self, recipient: Recipient, numbers: Iterable[int]) -> None:
        """
        Give sockets that C{recipient} can't serve to another worker.

        @raise PeerError: if it does not hold them.
        """
        refused: list[Connection] = []
        try:
            for number in numbers:
                self._countOver(recipient, 1)
                refused.append(self._take(recipient, number))
        finally:
            for connection in refused:
                self._requeue(connection)
            self._recount()
        self._place()

    def throttle(self, recipient: Recipient, paused: bool) -> None:
        """
        Leave C{recipient} out, or take it back in, at its own wish.
        """
        recipient.paused = paused
        self._rebuild()
        self._place()

    def lost(self, recipient: Recipient) -> None:
        """
        The worker is gone: give the connections that it has not touched to
        others; those that it had begun to serve died with it.

        Where the kernel can't tell, those that had arrived count as touched:
        workers report the arrival of such sockets before they read.
        """
        self.unschedule(recipient)
        self._known.discard(recipient)
        held, recipient.held = recipient.held, {}
        for number in sorted(held):
            connection = held[number]
            untouched = self._untouched(connection.descriptor, connection.progress)
            if number >= recipient.received if untouched is None else untouched:
                self._requeue(connection)
            else:
                self._release(connection)
        recipient.connections = 0
        self._recount()
        self._place()

    def releaseHeld(self) -> int:
        """
        Close the master's copies of all connections that have arrived at
        their worker: for when descriptors run out.

        @return: How many were closed.
        """
        count = 0
        for recipient in self._known:
            for number in [n for n in recipient.held if n < recipient.received]:
                self._release(recipient.held.pop(number))
                recipient.released.add(number)
                count += 1
        return count

    def shedWaiting(self, reason: str) -> int:
        """
        Close every connection that waits for a worker.

        @return: How many there were.
        """
        waiting = [*self._waiting, *self._returned]
        self._waiting.clear()
        self._returned.clear()
        self._shedAll(waiting, reason)
        self._recount()
        return len(waiting)

    def _requeue(self, connection: Connection) -> None:
        """
        Look for a new owner.  One that carries state, or that has been served
        before, is for the newest generation again.
        """
        if connection.listener in self._abandoned:
            self._shedAll([connection], self._abandoned[connection.listener])
            return
        fresh = connection.state is None and connection.progress == NO_PROGRESS
        (self._waiting if fresh else self._returned).append(connection)

    def _placeReturned(self) -> None:
        """
        Give what has been given back to workers of the newest generation, the
        one with the fewest connections first, even if that means to wait for
        its credit: a reload must not leave most of them with the worker that
        it began with.
        """
        newest = self._newest()
        if not self._returned or not newest:
            return
        returned, self._returned = self._returned, deque()
        for connection in returned:
            fit = [one for one in newest if connection.listener in one.listeners]
            recipient = min(fit, key=_connectionsOf, default=None)
            if connection.listener in self._abandoned:
                self._shedAll([connection], self._abandoned[connection.listener])
            elif recipient is None or recipient.credit <= 0:
                self._returned.append(connection)
            elif connection.attempts < MAX_ATTEMPTS:
                self._give(connection, recipient)
            else:
                self._shedAll([connection], _WORN)
        self.flush()
        if not self.waiting:
            self.onPlaced()

    def _newest(self) -> list[Recipient]:
        """
        The workers that connections of others go to.
        """
        newest = max((one.generation for one in self._scheduled), default=0)
        return [one for one in self._scheduled if one.generation == newest and not one.paused]

    def _fitFor(self, connection: Connection) -> list[Recipient]:
        return [one for one in self._eligible if connection.listener in one.listeners]

    def _give(self, connection: Connection, recipient: Recipient) -> None:
        if not recipient.pending and not recipient.resumed:
            self._filled.append(recipient)
        (recipient.pending if connection.state is None else recipient.resumed).append(connection)
        recipient.connections += 1
        connection.attempts += 1
        recipient.credit -= 1
        self.capacity -= 1
        if recipient.credit <= 0:
            self._eligible.remove(recipient)

    def _countOver(self, recipient: Recipient, count: int) -> None:
        sent = recipient.connections - len(recipient.pending) - len(recipient.resumed)
        if count > sent:
            raise PeerError(f"the end of {count} connections, of {sent} that were open")
        recipient.connections -= count

    def _take(self, recipient: Recipient, number: int) -> Connection:
        try:
            return recipient.held.pop(number)
        except KeyError:
            raise PeerError(f"socket {number} is not held by slot {recipient.slot}") from None

    def _release(self, connection: Connection) -> None:
        self._acked += 1
        self._close(connection.descriptor)

    def _exhaust(self, recipient: Recipient) -> None:
        left, recipient.credit = recipient.credit, 0
        if left > 0 and recipient in self._eligible:
            self.capacity -= left
            self._eligible.remove(recipient)

    def _restore(self, recipient: Recipient) -> None:
        """
        Give back the credit, and use it for whatever waits.
        """
        if recipient.pending or recipient.resumed:
            return
        recipient.credit = recipient.limit
        if not recipient.paused and recipient in self._scheduled:
            self._rebuild()
            self._place()

    def _compare(self) -> None:
        """
        Find out whether all listen on the same.
        """
        different = {one.listeners for one in self._scheduled}
        self._common = next(iter(different), frozenset()) if len(different) < 2 else None

    def _rebuild(self) -> None:
        """
        Work out anew who may be given connections.
        """
        self._eligible = [one for one in self._scheduled if one.credit > 0 and not one.paused]
        self._recount()

    def _recount(self) -> None:
        total = sum(one.credit for one in self._eligible)
        self._grow(total - sum(map(self._competes, self._waiting)) - self.capacity)

    def _competes(self, connection: Connection) -> bool:
        """
        Whether a connection that waits wants credit that there will be.  What
        only a worker that is yet to come can take must not keep others waiting.
        """
        scheduled = self._scheduled
        return not scheduled or any(connection.listener in one.listeners for one in scheduled)

    def _grow(self, count: int) -> None:
        before = self.capacity
        self.capacity = before + count
        if before <= 0 < self.capacity or (count and self._common is None):
            self.onCapacity()

    def _place(self) -> None:
        """
        Assign what waits for an owner, as far as credit goes, and send it.
        """
        self._placeReturned()
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, deque()
        for connection in waiting:
            fit = self._fitFor(connection)
            if not fit:
                self._waiting.append(connection)
            elif connection.attempts < MAX_ATTEMPTS:
                self._give(connection, self._choose(fit, connection.peer))
            else:
                self._shedAll([connection], _WORN)
        self._recount()
        self.flush()
        if not self.waiting:
            self.onPlaced()

    def _shedAll(self, connections: list[Connection], reason: str) -> None:
        for connection in connections:
            self._close(connection.descriptor)
        self._shed += len(connections)
        if connections:
            self._onShed(len(connections), reason)


def _connectionsOf(recipient: Recipient) -> int:
    return recipient.connections
