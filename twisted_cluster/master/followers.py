"""
The workers that have the state: each is told every step, or else a snapshot.

What comes in one turn of the reactor is serialised once and is one message for
each worker.  Answers to what workers asked for go after it, so that a worker
has what it has written before it hears that it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ChannelLost, QueueFull
from twisted_cluster.interfaces import Change, Snapshot
from twisted_cluster.policy.replica import weight
from twisted_cluster.wire import sharing
from twisted_cluster.wire.sharing import Answer, Outcome

BATCH = 1 << 20
"""Bytes that are put into one message, unless a single item has more."""

RETRY = 0.25
"""Seconds between two tries to reach a worker for which too much waits."""

SNAPSHOT_KEPT = 5.0
"""Seconds for which a serialised snapshot is kept for the next worker."""

MAX_WAITING = 30_000
"""Answers and notices that may wait for one worker.  One that keeps to its own
limits can't have as many."""

Peer = Hashable
"""The identity of a worker process."""

Notice = tuple[str, bytes]
"""A topic and the data."""


class IPost(Protocol):
    """
    Delivers messages to workers.
    """

    def post(self, worker: Any, topic: str, data: bytes) -> Deferred[None]:
        """
        Send something, after all that was sent to the same worker before.  It
        fails at once with L{QueueFull} if too much waits already.
        """


class Standing(Enum):
    """
    What a worker has of the state.

    NEW: nothing, since the backend has nothing to tell yet.
    FOLLOWING: all of it is there or on its way.
    BEHIND: too much waits for it; it gets a snapshot when there is room.
    """

    NEW = "new"
    FOLLOWING = "following"
    BEHIND = "behind"


class _Follower:
    """
    One worker.

    @ivar answers: What waits to be sent.
    @ivar notices: So do these.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.standing = Standing.NEW
        self.answers: list[Answer] = []
        self.notices: list[Notice] = []


class Followers:
    """
    All workers, as far as the state goes.  Runs in the master.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, posts: IPost, snapshot: Callable[[], Snapshot | None]
    ) -> None:
        """
        @param snapshot: Gives the state now; L{None} if it is not known yet.
        """
        self._reactor = reactor
        self._posts = posts
        self._snapshot = snapshot
        self._all: dict[Peer, _Follower] = {}
        self._speaking: dict[_Follower, None] = {}
        self._changes: list[Change] = []
        self._bytes = 0
        self._flushing: IDelayedCall | None = None
        self._encoded: bytes | None = None
        self._forgetting: IDelayedCall | None = None
        self._retry = LoopingCall(self._reach)
        self._retry.clock = reactor

    def standings(self) -> dict[Peer, Standing]:
        """
        What each worker has.
        """
        return {peer: follower.standing for peer, follower in self._all.items()}

    # Who there is.

    def join(self, peer: Peer) -> None:
        """
        A worker has come.
        """
        follower = self._all[peer] = _Follower(peer)
        self._catchUp(follower)

    def leave(self, peer: Peer) -> None:
        """
        A worker is gone.
        """
        follower = self._all.pop(peer, None)
        if follower is not None:
            self._speaking.pop(follower, None)

    def stop(self) -> None:
        """
        Send what there is, and nothing after that.
        """
        self._flush()
        self._forget()
        if self._retry.running:
            self._retry.stop()

    # What they are told.

    def changed(self, change: Change) -> None:
        """
        Tell all of a step, not later than at the end of this turn.
        """
        self._forget()
        self._changes.append(change)
        self._bytes += sum(weight(key, value) for key, value in change.items.items())
        if self._bytes > BATCH:
            self._tellChanges()
        else:
            self._schedule()

    def resync(self) -> None:
        """
        Give all of them a snapshot, at once.
        """
        self._changes.clear()
        self._bytes = 0
        self._forget()
        for follower in list(self._all.values()):
            self._catchUp(follower)

    def answer(self, peer: Peer, answer: Answer) -> None:
        """
        Answer a worker, after the changes that were told before.  Nothing
        happens if it is gone.
        """
        follower = self._all.get(peer)
        if follower is not None and self._hasRoom(follower):
            follower.answers.append(answer)
            self._speaking[follower] = None
            self._schedule()

    def notify(self, peer: Peer, topic: str, data: bytes) -> None:
        """
        Tell a worker something.  Nothing happens if it is gone.
        """
        follower = self._all.get(peer)
        if follower is not None and self._hasRoom(follower):
            follower.notices.append((topic, data))
            self._speaking[follower] = None
            self._schedule()

    def _hasRoom(self, follower: _Follower) -> bool:
        return len(follower.answers) + len(follower.notices) < MAX_WAITING

    # Sending.

    def _schedule(self) -> None:
        if self._flushing is None:
            self._flushing = self._reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        self._tellChanges()
        speaking, self._speaking = self._speaking, {}
        for follower in speaking:
            self._speak(follower)

    def _tellChanges(self) -> None:
        changes, self._changes = self._changes, []
        self._bytes = 0
        if not changes:
            return
        data = sharing.encodeChanges(changes)
        for follower in list(self._all.values()):
            if follower.standing is Standing.FOLLOWING:
                self._post(follower, sharing.CHANGES, data)

    def _speak(self, follower: _Follower) -> None:
        """
        Send what waits for a worker, unless it is behind: what it is answered
        may be about what it has not been told.
        """
        while follower.answers and follower.standing is not Standing.BEHIND:
            batch = list(_batch(follower.answers))
            if self._post(follower, sharing.ANSWERS, sharing.encodeAnswers(batch)):
                del follower.answers[: len(batch)]
        while follower.notices and follower.standing is not Standing.BEHIND:
            if self._post(follower, *follower.notices[0]):
                del follower.notices[0]
        if follower.standing is Standing.BEHIND:
            follower.answers = [_shrunk(answer) for answer in follower.answers]

    def _post(self, follower: _Follower, topic: str, data: bytes) -> bool:
        """
        @return: Whether there was room for it.
        """
        full: list[Failure] = []

        def failed(failure: Failure) -> None:
            # That a channel is lost is told to L{leave}.
            if failure.trap(QueueFull, ChannelLost) is QueueFull:
                full.append(failure)

        self._posts.post(follower.peer, topic, data).addErrback(failed)
        if not full:
            return True
        if follower.standing is not Standing.BEHIND:
            follower.standing = Standing.BEHIND
            self.log.warn(
                "too much waits for {worker}; it gets the state later", worker=follower.peer
            )
        if not self._retry.running:
            self._retry.start(RETRY, now=False)
        return False

    # Snapshots.

    def _catchUp(self, follower: _Follower) -> None:
        data = self._encodedSnapshot()
        if data is not None and self._post(follower, sharing.SNAPSHOT, data):
            follower.standing = Standing.FOLLOWING

    def _encodedSnapshot(self) -> bytes | None:
        """
        Several workers may want the same one; a large one takes as much
        memory as the state.
        """
        if self._encoded is None:
            snapshot = self._snapshot()
            if snapshot is not None:
                self._encoded = sharing.encodeSnapshot(snapshot)
                self._forgetting = self._reactor.callLater(SNAPSHOT_KEPT, self._forget)
        return self._encoded

    def _forget(self) -> None:
        self._encoded = None
        forgetting, self._forgetting = self._forgetting, None
        if forgetting is not None and forgetting.active():
            forgetting.cancel()

    def _reach(self) -> None:
        """
        Try again to reach those that are behind.
        """
        behind = [one for one in self._all.values() if one.standing is Standing.BEHIND]
        if not behind:
            self._retry.stop()
        for follower in behind:
            self._catchUp(follower)
            if follower.standing is Standing.FOLLOWING:
                self._speak(follower)


def _batch(answers: list[Answer]) -> Iterator[Answer]:
    """
    The first of C{answers}, as many as are one message.
    """
    total = 0
    for answer in answers:
        yield answer
        total += _sizeOf(answer)
        if total > BATCH:
            return


def _sizeOf(answer: Answer) -> int:
    return sum(len(field) for field in answer.fields if isinstance(field, (bytes, str)))


def _shrunk(answer: Answer) -> Answer:
    """
    What is sent later instead of an answer that is too large to be kept.
    """
    if _sizeOf(answer) <= BATCH // 8:
        return answer
    text = "can't answer: too much waits for this worker already; ask for less at a time"
    return Answer(answer.number, Outcome.UNAVAILABLE, (text,))
