"""
Frozen records of everything that happens in the master.

Each change is published once on an L{EventStream}; logs, admin clients and the
hooks of L{twisted_cluster.service.ClusterService} all feed on it.  All of it
lives in the master.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """
    The states of one worker, from spawn to what follows its exit.
    """

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    EXITED = "exited"
    BACKOFF = "backoff"
    FAILED = "failed"


ALIVE = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})
"""The states in which a worker has a process."""


@dataclass(frozen=True)
class ExitStatus:
    """
    How a process ended: at most one of the three is set, none if that is not
    known.

    @ivar code: The exit code.
    @ivar signal: The number of the signal that killed it.
    @ivar failure: Why it could not be started at all.
    """

    code: int | None = None
    signal: int | None = None
    failure: str | None = None

    def __str__(self) -> str:
        if self.failure is not None:
            return f"not started: {self.failure}"
        if self.signal is not None:
            return f"killed by {signalName(self.signal)}"
        return "exit status unknown" if self.code is None else f"exit code {self.code}"


def signalName(number: int) -> str:
    """
    C{SIGKILL} for 9; C{signal 77} for a number without a name.
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class Event:
    """
    Base of all events.

    @ivar at: Seconds since the epoch.
    """

    at: float


@dataclass(frozen=True)
class WorkerChanged(Event):
    """
    A worker passed from one state to another.  C{before} is L{None} for the
    birth of a worker.

    @ivar pid: L{None} as long as the process has not been started.
    @ivar reason: Why, in words; may be empty.
    @ivar exit: How the process ended, on the passage to C{EXITED}.
    @ivar meant: On the passage to C{EXITED}: whether the master had asked
        for it.
    """

    slot: int
    generation: int
    pid: int | None
    before: State | None
    after: State
    reason: str = ""
    exit: ExitStatus | None = None
    meant: bool = False


@dataclass(frozen=True)
class WorkerHung(Event):
    """
    The reactor of a worker has been silent for longer than the limit; its
    stacks are dumped and it is killed.

    @ivar silence: Seconds since its last heartbeat.
    """

    slot: int
    generation: int
    pid: int | None
    silence: float


@dataclass(frozen=True)
class MessagesDropped(Event):
    """
    A worker reads so slowly that messages for it are dropped; told once, until
    it has read all that waits.

    @ivar waiting: The bytes that wait for it.
    """

    slot: int
    generation: int
    pid: int | None
    waiting: int


@dataclass(frozen=True)
class WorkerOutput(Event):
    """
    A line that a worker wrote to its standard output or error.
    """

    slot: int
    generation: int
    pid: int | None
    line: str


class Phase(Enum):
    """
    The steps that a rolling replacement takes.
    """

    BEGUN = "begun"
    SPAWNED = "spawned"
    READY = "ready"
    REPLACED = "replaced"
    ABORTED = "aborted"
    DONE = "done"


@dataclass(frozen=True)
class ReloadStepped(Event):
    """
    A reload or a restart of slots advanced by one step.

    @ivar slot: The slot concerned, or L{None} for a step of the whole.
    @ivar done: How many slots have been replaced so far.
    @ivar total: How many slots are to be replaced.
    @ivar reason: Why it was aborted; empty otherwise.
    """

    generation: int
    phase: Phase
    slot: int | None = None
    done: int = 0
    total: int = 0
    reason: str = ""


@dataclass(frozen=True)
class HostStepped(Event):
    """
    A reload of all hosts advanced by one step.  It goes to who asked for it,
    not to the stream.

    @ivar host: The host concerned.
    @ivar phase: C{BEGUN}, C{REPLACED} for a slot, C{DONE} or C{ABORTED}.
    @ivar done: How many hosts have been reloaded so far.
    @ivar total: How many hosts are to be reloaded.
    @ivar generation: The new one of the host, 0 as long as it is not known.
    @ivar slot: The slot that was replaced.
    @ivar slotsDone: How many slots of the host have been replaced so far.
    @ivar slotsTotal: How many are to be.
    @ivar reason: Why it was aborted; empty otherwise.
    """

    host: str
    phase: Phase
    done: int
    total: int
    generation: int = 0
    slot: int | None = None
    slotsDone: int = 0
    slotsTotal: int = 0
    reason: str = ""


class ListenerState(Enum):
    """
    The states of a listener.

    BOUND: bound, and not accepting since nobody has asked it to.
    ACCEPTING: reading the accept queue.
    PAUSED: no worker has credit; the kernel's backlog queues.
    SHARED: the workers accept from it for themselves.
    EXHAUSTED: the process is out of descriptors; it tries again shortly.
    CLOSED: the port is closed.
    """

    BOUND = "bound"
    ACCEPTING = "accepting"
    PAUSED = "paused"
    SHARED = "shared"
    EXHAUSTED = "exhausted"
    CLOSED = "closed"


@dataclass(frozen=True)
class ListenerChanged(Event):
    """
    A listener passed from one state to another.  Pauses for want of credit
    are part of ordinary work and are not published.
    """

    name: str
    before: ListenerState
    after: ListenerState
    reason: str = ""


@dataclass(frozen=True)
class ConnectionsShed(Event):
    """
    Accepted connections were closed unserved.
    """

    count: int
    reason: str


@dataclass(frozen=True)
class StateReached(Event):
    """
    The server that holds state, cache and leases can be used again, or can't
    be.

    @ivar up: Whether it can be.
    @ivar reason: Which server, and why not.
    """

    up: bool
    reason: str


@dataclass(frozen=True)
class ClusterStopping(Event):
    """
    The master began to stop.
    """

    reason: str


Subscriber = Callable[[Event], object]


class EventStream:
    """
    Hands each published event to every subscriber, in the order of their
    subscription.  A subscriber that raises is reported through C{onError} and
    stays subscribed; the others get the event all the same.
    """

    def __init__(self, onError: Callable[[Event], object]) -> None:
        self._subscribers: dict[object, Subscriber] = {}
        self._onError = onError

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """
        Have C{subscriber} called with each event from now on.

        @return: A callable that ends the subscription; calling it again is
            harmless.
        """
        subscription = object()
        self._subscribers[subscription] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(subscription, None)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """
        Hand C{event} to all subscribers.
        """
        for subscriber in tuple(self._subscribers.values()):
            try:
                subscriber(event)
            except Exception:
                self._onError(event)
