"""
State, cache and leases in the master: between the backend and the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import AppError, PeerError, StateUnavailable
from twisted_cluster.interfaces import (
    Change,
    IBackendListener,
    IStateBackend,
    Snapshot,
    Write,
    Written,
)
from twisted_cluster.master.followers import Followers, IPost, Peer
from twisted_cluster.master.leases import LeaseDesk
from twisted_cluster.shared.commons import Commons
from twisted_cluster.shared.state import checkStep
from twisted_cluster.wire import sharing
from twisted_cluster.wire.records import Field
from twisted_cluster.wire.sharing import Answer, Operation, Outcome

MASTER = "master"
"""Who the master is to the desk for leases."""


class _Desk:
    """
    The desk of the master's own code.
    """

    def __init__(self, backend: IStateBackend, leases: LeaseDesk) -> None:
        self.write: Callable[[Write], Deferred[Written]] = backend.write
        self.cacheGet: Callable[[str], Deferred[bytes | None]] = backend.cacheGet
        self.cacheSet: Callable[[str, bytes, float | None], Deferred[None]] = backend.cacheSet
        self.cacheDelete: Callable[[str], Deferred[bool]] = backend.cacheDelete
        self.cacheIncrement: Callable[[str, int, float | None], Deferred[int]] = (
            backend.cacheIncrement
        )
        self._leases = leases

    def leaseAsk(self, owner: str, name: str) -> None:
        """See L{IDesk.leaseAsk}."""
        self._leases.ask(MASTER, owner, name)

    def leaseEnd(self, owner: str, name: str) -> None:
        """See L{IDesk.leaseEnd}."""
        self._leases.end(MASTER, owner)


@implementer(IBackendListener)
class Shared:
    """
    What the cluster shares.  Runs in the master.

    @ivar commons: State, cache and leases, for code in the master.
    @ivar onPublished: Called with topic and data of what a master published.
    @ivar onAvailability: Called when the backend is reached again, or can't
        be, with whether it is and with the reason.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, backend: IStateBackend, posts: IPost) -> None:
        self._backend = backend
        self._begun = False
        self._leases = LeaseDesk(reactor, backend)
        self._leases.granted = self._leaseGranted
        self._leases.lost = self._leaseLost
        self._followers = Followers(reactor, posts, self._snapshot)
        self.commons = Commons(_Desk(backend, self._leases), reactor)
        self.onPublished: Callable[[str, bytes], object] = lambda topic, data: None
        self.onAvailability: Callable[[bool, str], object] = lambda up, reason: None
        self._operations: dict[Operation, Callable[..., Deferred[list[Field]]]] = {
            Operation.WRITE: self._write,
            Operation.GET: self._get,
            Operation.SET: self._set,
            Operation.DELETE: self._delete,
            Operation.INCREMENT: self._increment,
        }

    # Its life.

    def start(self) -> Deferred[None]:
        """
        Start the backend.  Until that has come about, workers that join wait
        for their snapshot.

        @return: A Deferred that fires when there is a state.
        """
        started: Deferred[None] = self._backend.start(self)
        return started.addCallback(lambda _: self._begin())

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.resynced(self._backend.snapshot())

    def stop(self) -> Deferred[None]:
        """
        Give back the leases and stop the backend.
        """
        self._followers.stop()
        self.commons.leases.lostAll("the master stops")
        stopped = self._leases.stop()
        return stopped.addCallback(lambda _: self._backend.stop())

    def describe(self) -> dict[str, Any]:
        """
        What status shows: what the backend says of itself, and how many leases
        are held or wanted here.
        """
        found: dict[str, Any] = self._backend.describe()
        return {**found, "leasesHere": len(self._leases)}

    def _snapshot(self) -> Snapshot | None:
        return self._backend.snapshot() if self._begun else None

    # Workers.

    def join(self, worker: Peer) -> None:
        """
        A worker has come.  It gets the snapshot before anything else.
        """
        self._followers.join(worker)

    def leave(self, worker: Peer) -> None:
        """
        A worker is gone: its leases are free.
        """
        self._followers.leave(worker)
        self._leases.forget(worker)

    def heard(self, worker: Peer, topic: str, data: bytes) -> None:
        """
        A worker says something under one of the topics C{ASK}, C{LEASE_ASK}
        and C{LEASE_END}.

        @raise PeerError: if it makes no sense.
        """
        if topic == sharing.ASK:
            self._asked(worker, data)
            return
        owner, name = sharing.decodeLease(data)
        if topic == sharing.LEASE_END:
            self._leases.end(worker, owner)
        elif isinstance(name, str) and len(name) <= sharing.MAX_NAME:
            self._leases.ask(worker, owner, name)
        else:
            raise PeerError("a lease whose name is none")

    def _leaseGranted(self, client: Peer, owner: str, token: int) -> None:
        if client == MASTER:
            self.commons.leases.granted(owner, token)
        else:
            data = sharing.encodeLease(owner, token)
            self._followers.notify(client, sharing.LEASE_GRANTED, data)

    def _leaseLost(self, client: Peer, owner: str, reason: str) -> None:
        if client == MASTER:
            self.commons.leases.lost(owner, reason)
        else:
            data = sharing.encodeLease(owner, reason)
            self._followers.notify(client, sharing.LEASE_LOST, data)

    # Questions.

    def _asked(self, worker: Peer, data: bytes) -> None:
        ask = sharing.decodeAsk(data)
        done = maybeDeferred(self._operations[ask.operation], ask.fields)
        answered = done.addCallbacks(
            lambda fields: Answer(ask.number, Outcome.DONE, fields),
            lambda failure: self._refusal(ask.number, failure),
        )
        answered.addCallback(lambda answer: self._followers.answer(worker, answer))

    def _refusal(self, number: int, failure: Failure) -> Answer:
        if failure.check(StateUnavailable):
            return Answer(number, Outcome.UNAVAILABLE, (str(failure.value),))
        if not failure.check(AppError):
            self.log.failure("a worker's question could not be answered", failure)
        return Answer(number, Outcome.REFUSED, (str(failure.value),))

    def _write(self, fields: Sequence[Any]) -> Deferred[list[Field]]:
        written: Deferred[Written] = self._backend.write(sharing.writeFrom(fields))
        return written.addCallback(sharing.writtenFields)

    def _get(self, fields: Sequence[Any]) -> Deferred[list[Field]]:
        (key,) = _shaped(fields, str)
        found: Deferred[bytes | None] = self._backend.cacheGet(key)
        return found.addCallback(_alone)

    def _set(self, fields: Sequence[Any]) -> Deferred[list[Field]]:
        key, value, ttl = _shaped(fields, str, bytes, (float, int, type(None)))
        sharing.checkValue(key, value)
        done: Deferred[None] = self._backend.cacheSet(key, value, ttl)
        return done.addCallback(lambda _: [])

    def _delete(self, fields: Sequence[Any]) -> Deferred[list[Field]]:
        (key,) = _shaped(fields, str)
        found: Deferred[bool] = self._backend.cacheDelete(key)
        return found.addCallback(_alone)

    def _increment(self, fields: Sequence[Any]) -> Deferred[list[Field]]:
        key, by, ttl = _shaped(fields, str, int, (float, int, type(None)))
        checkStep(key, by)
        total: Deferred[int] = self._backend.cacheIncrement(key, by, ttl)
        return total.addCallback(_alone)

    # IBackendListener.

    def changed(self, change: Change) -> None:
        """See L{IBackendListener.changed}."""
        # Workers first: whoever watches here may write in turn.
        self._followers.changed(change)
        if self._begun and not self.commons.state.apply(change):
            self.log.error("step {version} of the state came too early", version=change.version)
            self.resynced(self._backend.snapshot())

    def resynced(self, snapshot: Snapshot) -> None:
        """See L{IBackendListener.resynced}."""
        self._followers.resync()
        self.commons.state.reset(snapshot)

    def leaseFreed(self, name: str) -> None:
        """See L{IBackendListener.leaseFreed}."""
        self._leases.freed(name)

    def published(self, topic: str, data: bytes) -> None:
        """See L{IBackendListener.published}."""
        self.onPublished(topic, data)

    def availability(self, up: bool, reason: str) -> None:
        """See L{IBackendListener.availability}."""
        self.onAvailability(up, reason)


def _alone(field: Field) -> list[Field]:
    return [field]


def _shaped(fields: Sequence[Any], *kinds: Any) -> Sequence[Any]:
    """
    @return: C{fields}, the first of which is a key.
    @raise PeerError: if they are not of C{kinds}.
    """
    if len(fields) != len(kinds) or not all(map(isinstance, fields, kinds)):
        raise PeerError("a question that makes no sense")
    sharing.checkKey(fields[0])
    return fields
