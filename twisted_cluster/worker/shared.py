"""
State, cache and leases in a worker: its end of what the master shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    AppError,
    ChannelLost,
    ClusterError,
    PeerError,
    QueueFull,
    StateUnavailable,
)
from twisted_cluster.interfaces import Write, Written
from twisted_cluster.shared.commons import Commons
from twisted_cluster.shared.desk import NoDesk
from twisted_cluster.wire import sharing
from twisted_cluster.wire.records import Field
from twisted_cluster.wire.sharing import Answer, Ask, Operation, Outcome

MAX_ASKED = 10_000
"""Questions that may wait for their answers."""

RETRY = 0.25
"""Seconds between two tries to say something about a lease."""

GONE = "the master is gone; this worker is about to exit"


class IPost(Protocol):
    """
    Delivers messages to the master.
    """

    def post(self, topic: str, data: bytes) -> Deferred[None]:
        """
        Send something, after all that was sent before.  It fails at once with
        L{QueueFull} if too much waits already.
        """


class WorkerDesk:
    """
    Has the master do what can't be done here.  Provides
    L{twisted_cluster.shared.desk.IDesk}.
    """

    def __init__(self, reactor: IReactorTime, posts: IPost) -> None:
        self._reactor = reactor
        self._posts = posts
        self._asked: dict[int, Deferred[Sequence[Any]]] = {}
        self._count = 0

    def write(self, write: Write) -> Deferred[Written]:
        """See L{IDesk.write}."""
        asked = self._ask(Operation.WRITE, sharing.writeFields(write))
        return asked.addCallback(sharing.writtenFrom)

    def cacheGet(self, key: str) -> Deferred[bytes | None]:
        """See L{IDesk.cacheGet}."""
        return self._ask(Operation.GET, [key]).addCallback(_first)

    def cacheSet(self, key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """See L{IDesk.cacheSet}."""
        return self._ask(Operation.SET, [key, value, ttl]).addCallback(lambda _: None)

    def cacheDelete(self, key: str) -> Deferred[bool]:
        """See L{IDesk.cacheDelete}."""
        return self._ask(Operation.DELETE, [key]).addCallback(_first).addCallback(bool)

    def cacheIncrement(self, key: str, by: int, ttl: float | None) -> Deferred[int]:
        """See L{IDesk.cacheIncrement}."""
        return self._ask(Operation.INCREMENT, [key, by, ttl]).addCallback(_first)

    def leaseAsk(self, owner: str, name: str) -> None:
        """See L{IDesk.leaseAsk}."""
        self._say(sharing.LEASE_ASK, owner, name)

    def leaseEnd(self, owner: str, name: str) -> None:
        """See L{IDesk.leaseEnd}."""
        self._say(sharing.LEASE_END, owner, name)

    def answered(self, answer: Answer) -> None:
        """
        The master answers.  Nothing happens if nobody waits for it any more.
        """
        asked = self._asked.pop(answer.number, None)
        if asked is None:
            return
        if answer.outcome is Outcome.DONE:
            asked.callback(answer.fields)
            return
        kind = AppError if answer.outcome is Outcome.REFUSED else StateUnavailable
        asked.errback(kind(str(_first(answer.fields))))

    def lost(self) -> None:
        """
        There will be no more answers.
        """
        asked, self._asked = self._asked, {}
        for waiting in asked.values():
            waiting.errback(StateUnavailable(f"can't tell what became of it: {GONE}"))

    def _ask(self, operation: Operation, fields: Sequence[Field]) -> Deferred[Any]:
        if len(self._asked) >= MAX_ASKED:
            text = f"can't ask the master: {MAX_ASKED} answers are waited for; await some first"
            return fail(StateUnavailable(text))
        self._count += 1
        number = self._count
        asked: Deferred[Sequence[Any]] = Deferred(lambda _: self._forget(number))
        self._asked[number] = asked
        data = sharing.encodeAsk(Ask(number, operation, fields))
        self._posts.post(sharing.ASK, data).addErrback(self._notSent, number)
        return asked

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)

    def _notSent(self, failure: Failure, number: int) -> None:
        failure.trap(ClusterError)
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.errback(StateUnavailable(f"can't ask the master: {failure.value}"))

    def _say(self, topic: str, owner: str, name: str) -> None:
        def notSent(failure: Failure) -> None:
            # If the channel is lost, so are the leases.
            if failure.trap(QueueFull, ChannelLost) is QueueFull:
                self._reactor.callLater(RETRY, self._say, topic, owner, name)

        self._posts.post(topic, sharing.encodeLease(owner, name)).addErrback(notSent)


class SharedSession:
    """
    Keeps the commons of a worker up to date.

    @ivar begun: A Deferred that fires when the state is there.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, commons: Commons, posts: IPost) -> None:
        self._commons = commons
        self._desk = WorkerDesk(reactor, posts)
        self.begun: Deferred[None] = Deferred()
        self.topics: dict[str, Callable[[bytes], None]] = {
            sharing.SNAPSHOT: self._snapshot,
            sharing.CHANGES: self._changes,
            sharing.ANSWERS: self._answers,
            sharing.LEASE_GRANTED: self._leaseGranted,
            sharing.LEASE_LOST: self._leaseLost,
        }
        commons.attach(self._desk, reactor)

    def heard(self, topic: str, data: bytes) -> None:
        """
        The master says something.

        @raise PeerError: if it makes no sense.
        """
        hear = self.topics.get(topic)
        if hear is None:
            raise PeerError(f"a message about {topic!r}")
        hear(data)

    def lost(self) -> None:
        """
        The channel is gone.  The state can still be read.
        """
        self._commons.attach(NoDesk(GONE), None)
        self._desk.lost()
        self._commons.leases.lostAll(GONE)

    def _snapshot(self, data: bytes) -> None:
        self._commons.state.reset(sharing.decodeSnapshot(data))
        if not self.begun.called:
            self.begun.callback(None)

    def _changes(self, data: bytes) -> None:
        """
        @raise PeerError: if steps are missing: the master sends a snapshot
            whenever it has left some out.
        """
        for change in sharing.decodeChanges(data):
            if not self._commons.state.apply(change):
                raise PeerError(
                    f"step {change.version} of the state after {self._commons.state.version}"
                )

    def _answers(self, data: bytes) -> None:
        for answer in sharing.decodeAnswers(data):
            self._desk.answered(answer)

    def _leaseGranted(self, data: bytes) -> None:
        owner, token = sharing.decodeLease(data)
        self._commons.leases.granted(owner, token)

    def _leaseLost(self, data: bytes) -> None:
        owner, reason = sharing.decodeLease(data)
        self._commons.leases.lost(owner, reason)


def _first(fields: Sequence[Any]) -> Any:
    """
    @raise PeerError: if there is none.
    """
    if not fields:
        raise PeerError("an answer that lacks something")
    return fields[0]
