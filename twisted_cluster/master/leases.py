"""
Gets leases from the backend for those who stand in line, keeps them, gives
them back.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import count

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ClusterError
from twisted_cluster.interfaces import IStateBackend
from twisted_cluster.policy.leases import GiveBack, Lines, Step

SECONDS = 3.0
"""For how long a lease is taken or renewed: that long other hosts wait for
those of a host that has died."""

INTERVAL = 0.5
"""Seconds between two renewals, and between two tries of who is blocked."""

SAFE = SECONDS * 2 / 3
"""Seconds after its last renewal at which a lease counts as lost.  Nobody else
can have it yet then."""

MAX_REQUESTS = 10_000
"""How many leases one worker may hold and wait for."""

Client = Hashable
"""Whoever may ask for leases: the identity of a worker, or the master's own."""


@dataclass
class _Request:
    """
    A lease that somebody holds or waits for.

    @ivar client: Who.
    @ivar label: What the client calls the request.
    @ivar renewed: When it was got or last renewed.
    @ivar renewing: Whether the backend has been asked to renew it.
    """

    client: Client
    label: str
    name: str
    renewed: float = 0.0
    renewing: bool = False


class LeaseDesk:
    """
    The leases of one master.  What is asked for may be answered before the call
    returns.

    @ivar granted: Called with client, label and token.
    @ivar lost: Called with client, label and the reason, for a lease that was
        held, or that can't be had.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, backend: IStateBackend) -> None:
        self._clock = clock
        self._backend = backend
        self._lines = Lines()
        self._requests: dict[str, _Request] = {}
        self._owners: dict[Client, dict[str, str]] = {}
        self._steps: deque[Step] = deque()
        self._taking = False
        self._names = map(f"{uuid.uuid4().hex}-{{}}".format, count())
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self.granted: Callable[[Client, str, int], object] = lambda client, label, token: None
        self.lost: Callable[[Client, str, str], object] = lambda client, label, reason: None

    def __len__(self) -> int:
        return len(self._requests)

    # What is asked for.

    def ask(self, client: Client, label: str, name: str) -> None:
        """
        Stand in line.

        @param label: Unique to this request of C{client}.
        """
        labels = self._owners.setdefault(client, {})
        if label in labels:
            return
        if len(labels) >= MAX_REQUESTS:
            self.lost(client, label, f"this worker holds or wants {MAX_REQUESTS} leases; want less")
            return
        owner = next(self._names)
        labels[label] = owner
        self._requests[owner] = _Request(client, label, name)
        if not self._loop.running:
            self._loop.start(INTERVAL, now=False)
        self._take(self._lines.ask(name, owner))

    def end(self, client: Client, label: str) -> None:
        """
        Give up a lease or the place in line.
        """
        owner = self._owners.get(client, {}).get(label)
        if owner is not None:
            self._end(owner)

    def forget(self, client: Client) -> None:
        """
        The client is dead: nothing of what it held or wanted is its any more.
        """
        for owner in list(self._owners.get(client, {}).values()):
            self._end(owner)

    def freed(self, name: str) -> None:
        """
        Another host has given back a lease.
        """
        self._take(self._lines.retry(name))

    def stop(self) -> Deferred[None]:
        """
        Give everything back.

        @return: A Deferred that fires when the backend knows.
        """
        if self._loop.running:
            self._loop.stop()
        held = list(self._lines.holders())
        self._lines = Lines()
        self._requests.clear()
        self._owners.clear()
        given = [self._giveBack(name, owner) for name, owner in held]
        return gatherResults(given).addCallback(lambda _: None)

    def _end(self, owner: str) -> None:
        request = self._requests.pop(owner)
        labels = self._owners[request.client]
        del labels[request.label]
        if not labels:
            del self._owners[request.client]
        self._take(self._lines.end(request.name, owner))
        if not self._lines and self._loop.running:
            self._loop.stop()

    # What the backend says.

    def _take(self, steps: Iterable[Step]) -> None:
        """
        Take steps, after those that are being taken: one that is answered at
        once may lead to the next one, for as many as stand in line.
        """
        self._steps.extend(steps)
        if self._taking:
            return
        self._taking = True
        try:
            while self._steps:
                step = self._steps.popleft()
                if isinstance(step, GiveBack):
                    self._giveBack(step.name, step.owner)
                else:
                    self._try(step.name, step.owner)
        finally:
            self._taking = False

    def _giveBack(self, name: str, owner: str) -> Deferred[bool | None]:
        done: Deferred[bool] = self._backend.release(name, owner)
        return done.addErrback(self._notReached, "give back", name)

    def _try(self, name: str, owner: str) -> None:
        lines, asked = self._lines, self._clock.seconds()
        done: Deferred[int | None] = self._backend.acquire(name, owner, SECONDS)
        done.addErrback(self._notReached, "get", name)
        done.addCallback(lambda token: self._answered(lines, name, owner, token, asked))

    def _answered(
        self, lines: Lines, name: str, owner: str, token: int | None, asked: float
    ) -> None:
        steps = lines.answered(name, owner, token is not None)
        if lines is not self._lines:
            # Stopped meanwhile.
            if token is not None:
                self._giveBack(name, owner)
            return
        request = self._requests.get(owner)
        if token is not None and request is not None:
            request.renewed = asked
            self.granted(request.client, request.label, token)
        self._take(steps)

    def _notReached(self, failure: Failure, what: str, name: str) -> None:
        """
        The backend tells itself that it can't be reached.  What could not be
        got is tried again, and what could not be given back expires.
        """
        failure.trap(ClusterError)
        self.log.debug(
            "can't {what} lease {name}: {error}", what=what, name=name, error=failure.value
        )

    # Keeping.

    def _look(self) -> None:
        for name in list(self._lines.blocked()):
            self._take(self._lines.retry(name))
        for _, owner in list(self._lines.holders()):
            self._renew(owner)

    def _renew(self, owner: str) -> None:
        """
        Renew a lease; if that has not come about for too long, it is lost.
        """
        request = self._requests.get(owner)
        if request is None:
            return
        now = self._clock.seconds()
        if not request.renewing:
            request.renewing = True
            done: Deferred[bool] = self._backend.renew(request.name, owner, SECONDS)
            done.addBoth(self._renewed, owner, now)
        if self._requests.get(owner) is request and now - request.renewed >= SAFE:
            self._lose(owner, f"it could not be renewed for {SAFE:g} seconds")

    def _renewed(self, result: bool | Failure, owner: str, asked: float) -> None:
        request = self._requests.get(owner)
        if isinstance(result, Failure):
            self._notReached(result, "renew", owner if request is None else request.name)
        if request is None:
            return
        request.renewing = False
        if result is True:
            request.renewed = asked
        elif result is False:
            self._lose(owner, "somebody else has it")

    def _lose(self, owner: str, reason: str) -> None:
        request = self._requests[owner]
        self._end(owner)
        self.lost(request.client, request.label, reason)
