"""
One worker, as the master holds it: its machine, process, channel and timers.
Runs in the master.

What to do is decided by L{twisted_cluster.policy.lifecycle}; here it is done.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from twisted_cluster import kernel
from twisted_cluster.config import ClusterConfig
from twisted_cluster.errors import PeerError
from twisted_cluster.events import (
    ALIVE,
    EventStream,
    ExitStatus,
    State,
    WorkerChanged,
    WorkerHung,
    WorkerOutput,
)
from twisted_cluster.interfaces import (
    IWorkerObserver,
    IWorkerProcess,
    IWorkerSpawner,
    WorkerStatus,
)
from twisted_cluster.master.binding import BindSession
from twisted_cluster.master.dispatcher import Connection, Dispatcher, Recipient
from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import Listeners
from twisted_cluster.master.messages import Messages
from twisted_cluster.master.session import MasterSession
from twisted_cluster.policy.lifecycle import Action, Step, newWorker
from twisted_cluster.wire import preamble
from twisted_cluster.wire.channel import ChannelTransport, closeDescriptors
from twisted_cluster.wire.parts import Outbox
from twisted_cluster.wire.preamble import Preamble

ABORT_GRACE = 1.0
"""Seconds between the signal that dumps a worker's stacks and SIGKILL."""

LOST_CHANNEL_GRACE = 1.0
"""Seconds that a worker without a channel has to exit by itself."""


class IWorkerOwner(Protocol):
    """
    Who is told of a worker's fate: the supervisor.
    """

    def workerReady(self, worker: Worker) -> None:
        """It can take sockets."""

    def workerStarted(self, worker: Worker) -> None:
        """Its process exists."""

    def workerExited(self, worker: Worker, status: ExitStatus, meant: bool) -> None:
        """Its process is gone."""

    def workerLeaving(self, worker: Worker) -> None:
        """Somebody else told it to terminate."""

    def workerBootFailed(self, worker: Worker, fault: str, reason: str) -> None:
        """It can't run the app."""


@dataclass(frozen=True)
class Surroundings:
    """
    What every worker of a cluster shares.

    @ivar preamble: Makes the preamble of a worker from slot and generation.
    @ivar share: The listening sockets that workers accept from for
        themselves, by listener number; none if the master accepts.
    """

    reactor: Any
    config: ClusterConfig
    spawner: IWorkerSpawner
    dispatcher: Dispatcher
    listeners: Listeners
    events: EventStream
    preamble: Callable[[int, int], Preamble]
    now: Callable[[], float] = time.time
    share: Callable[[], Mapping[int, int]] = dict
    messages: Messages | None = None


@implementer(IWorkerObserver)
class Worker:
    """
    One worker process from spawn to exit.

    @ivar slot: Its slot.
    @ivar generation: Its generation.
    @ivar state: Where it is in its life-cycle.
    @ivar since: Seconds since the epoch at which it entered C{state}.
    @ivar reason: Why it is in this state; may be empty.
    @ivar traceback: What the app failed with at import, or an empty string.
    @ivar lastBeat: The reactor's time of its last sign of life.
    @ivar readyAt: The reactor's time at which it became Ready, or L{None}.
    """

    log = Logger()

    def __init__(
        self, slot: int, generation: int, surroundings: Surroundings, owner: IWorkerOwner
    ) -> None:
        self.slot = slot
        self.generation = generation
        self._around = surroundings
        self._owner = owner
        self._machine = newWorker()
        self._timer: IDelayedCall | None = None
        self._session: MasterSession | None = None
        self._transport: ChannelTransport | None = None
        self._binding: ChannelTransport | None = None
        self._process: IWorkerProcess | None = None
        self._told = ""
        self._migrate = False
        self._connections = 0
        self.state = State.STARTING
        self.since = surroundings.now()
        self.reason = ""
        self.traceback = ""
        self.pid: int | None = None
        self.lastBeat = 0.0
        self.readyAt: float | None = None
        self._readyEarly = False

    @property
    def alive(self) -> bool:
        """Whether it has, or is about to have, a process."""
        return self.state in ALIVE

    @property
    def name(self) -> str:
        """What log lines call it."""
        return f"worker slot {self.slot} generation {self.generation} pid {self.pid or '-'}"

    def status(self, restarts: int) -> WorkerStatus:
        """
        This worker now.
        """
        # Only the worker knows of those that it accepted for itself.
        share = self._around.share()
        connections = self._connections if share else self._recipient.connections
        connections = connections if self.alive else 0
        return WorkerStatus(
            self.slot,
            self.generation,
            self.pid,
            self.state,
            connections,
            self.since,
            restarts,
            self.reason,
        )

    def start(self) -> None:
        """
        Spawn the process and tell it what to run.
        """
        around = self._around
        session = MasterSession(self)
        self._recipient = Recipient(
            self.slot,
            session,
            around.config.credit,
            self.generation,
            range(len(around.listeners.named)),
        )
        self._publish(None, State.STARTING)
        self._setTimer(around.config.generationTimeout, self._notReady)
        try:
            theirs = self._open(session)
        except OSError as error:
            around.reactor.callLater(0, self.exited, ExitStatus(failure=str(error)))
            return
        self._process = around.spawner.spawn(self.slot, self.generation, theirs, self)

    def _open(self, session: MasterSession) -> socket.socket:
        """
        Open the two channels: for everything, and for asking for ports.

        @return: The worker's end of the first; that of the second is on its
            way through it.
        """
        around = self._around
        ours, theirs = socket.socketpair()
        try:
            asked, asking = socket.socketpair()
        except OSError:
            ours.close()
            theirs.close()
            raise
        with asking:
            preamble.send(ours, around.preamble(self.slot, self.generation), asking)
        self._session = session
        self._transport = ChannelTransport(ours, session, around.reactor)
        self._binding = ChannelTransport(asked, BindSession(self), around.reactor)
        if around.messages is not None:
            around.messages.join(self, Outbox(self._transport, around.reactor))
        return theirs

    # What others ask of it.

    def drain(self, reason: str, migrate: bool = False) -> None:
        """
        Unschedule it, let it finish what it serves, stop it at the deadline.

        @param migrate: Whether other workers can take over its idle
            connections.
        """
        self._migrate = migrate
        self._apply(self._machine.drain(), reason)

    def stop(self, reason: str) -> None:
        """
        Stop it without a drain.
        """
        self._apply(self._machine.stop(), reason)

    def kill(self, reason: str) -> None:
        """
        Kill it, on purpose.
        """
        self._apply(self._machine.kill(), reason)

    def backOff(self, reason: str) -> None:
        """
        Its slot waits before it tries again.
        """
        self._apply(self._machine.backOff(), reason)

    def giveUp(self, reason: str) -> None:
        """
        Its slot tries no more.
        """
        self._apply(self._machine.giveUp(), reason)

    def abort(self, reason: str) -> None:
        """
        Have it dump its stacks, then kill it.  This counts as a crash of its
        own, not as something the master wanted.
        """
        self._told = reason
        self._signal(signal.SIGABRT)
        self._setTimer(ABORT_GRACE, self._signal, signal.SIGKILL)

    def hung(self, silence: float) -> None:
        """
        Its reactor has been silent for too long.

        @param silence: For how many seconds.
        """
        if self._told:
            return
        around = self._around
        around.events.publish(
            WorkerHung(around.now(), self.slot, self.generation, self.pid, silence)
        )
        self.abort(f"hung: no heartbeat for {silence:.1f} s")

    def send(self, text: str) -> bool:
        """
        Send it a broadcast.

        @return: Whether it was sent.
        """
        if self._session is None or self._transport is None or not self._transport.connected:
            return False
        return self._session.sendMessage(text)

    # What its process does: IWorkerObserver.

    def started(self, pid: int) -> None:
        """The process exists."""
        self.pid = pid
        self._owner.workerStarted(self)
        if self._readyEarly:
            self.ready()

    def output(self, line: str) -> None:
        """The process wrote a line."""
        around = self._around
        around.events.publish(
            WorkerOutput(around.now(), self.slot, self.generation, self.pid, line)
        )

    def exited(self, status: ExitStatus) -> None:
        """The process is gone."""
        if self._transport is not None:
            self._transport.drainAndLose()
        if self._binding is not None:
            self._binding.abort()
        self._around.listeners.gone(self)
        self._cancelTimer()
        reason = f"{self._told}; {status}" if self._told else str(status)
        step = self._machine.exited()
        self._apply(step, reason, status)
        self._owner.workerExited(self, status, step.meant)

    # What it reports over the channel: IWorkerReports.

    def ready(self, listeners: list[int] | None = None) -> None:
        """It can take sockets of these listeners, or of those named."""
        self.beat()
        if listeners is not None:
            known = self._known(listeners)
            self._around.dispatcher.listen(self._recipient, known)
            self._warnOfIdle(known)
        # A worker can be faster than its template's word of it, which comes
        # another way.
        self._readyEarly = self.pid is None
        if self._readyEarly:
            return
        step = self._machine.ready()
        if step.after is not State.READY or self.state is State.READY:
            return
        self.readyAt = self._around.reactor.seconds()
        self._cancelTimer()
        self._apply(step, "")
        self._owner.workerReady(self)

    def bootFailed(self, fault: str, reason: str, traceback: str) -> None:
        """It can't run the app; it exits by itself."""
        self._told = reason
        self.traceback = traceback
        self._owner.workerBootFailed(self, fault, reason)

    def beat(self, connections: int | None = None) -> None:
        """Its reactor runs, and so many connections are open."""
        if connections is not None:
            self._connections = connections
        self.lastBeat = self._around.reactor.seconds()

    def leaving(self) -> None:
        """Somebody else told it to terminate."""
        self._owner.workerLeaving(self)

    def drained(self) -> None:
        """It has no connection left."""
        self._apply(self._machine.drained(), "drained")

    def acknowledged(self, received: int, closed: int, touched: list[int]) -> None:
        """What became of its sockets."""
        self._around.dispatcher.acknowledge(self._recipient, received, closed, touched)

    def refused(self, sockets: list[int], reason: str) -> None:
        """It can't serve these."""
        self.log.warn(
            "{name} refused {n} sockets: {reason}", name=self.name, n=len(sockets), reason=reason
        )
        self._around.dispatcher.refuse(self._recipient, sockets)

    def throttled(self, paused: bool) -> None:
        """It wants no sockets, or wants them again."""
        self._around.dispatcher.throttle(self._recipient, paused)

    def offered(
        self,
        numbers: list[int],
        listeners: list[int],
        states: list[bytes],
        descriptors: list[int],
    ) -> None:
        """
        It gives connections back.  Those whose descriptors got lost on the
        way, since the master ran short, stay with it.
        """
        if self._session is None or self.state is not State.DRAINING or not self._migrate:
            closeDescriptors(descriptors)
            raise PeerError("an offer of connections that nobody asked for")
        connections, taken = [], []
        for number, descriptor, listener, state in zip(numbers, descriptors, listeners, states):
            if self._around.dispatcher.serves(listener):
                taken.append(number)
                progress = _progressOf(descriptor)
                connections.append(Connection(descriptor, listener, (), state or None, progress))
            else:
                # The new code does not listen there: let the old one finish.
                closeDescriptors([descriptor])
        declined = [number for number in numbers if number not in taken]
        self._session.sendTaken(taken, declined)
        if self._around.share():
            self._around.dispatcher.takeOver(connections)
        else:
            self._around.dispatcher.giveBack(self._recipient, connections)

    def _known(self, listeners: Sequence[int]) -> frozenset[int]:
        """
        What it listens on: of what its app has asked for, what this process
        has been asked for, which came over another channel and may be newer.
        """
        named = len(self._around.listeners.named)
        return self._around.listeners.claimedBy(self) | {one for one in listeners if one < named}

    def _warnOfIdle(self, listeners: Collection[int]) -> None:
        """
        Say so if the operator named a listener that the app does not know.
        """
        for listener in self._around.listeners.named:
            if listener.number not in listeners:
                self.log.warn(
                    "{name} does not listen on {listener}, which --listen names",
                    name=self.name,
                    listener=listener.name,
                )

    # What its app asks for: IBindRequests.

    def bindRequested(self, request: BindRequest) -> tuple[int, int]:
        """Its app wants a port."""
        late = self.readyAt is not None
        found = self._around.listeners.claim(self, self.slot, request, late)
        if late:
            self._listen(self._recipient.listeners | {found[0]})
        return found

    def unbound(self, listener: int) -> None:
        """Its app wants it no more."""
        leaving = self.state in (State.DRAINING, State.STOPPING)
        self._around.listeners.unclaim(self, listener, leaving)
        self._listen(self._recipient.listeners - {listener})

    def _listen(self, listeners: frozenset[int]) -> None:
        fresh = listeners - self._recipient.listeners
        self._around.dispatcher.listen(self._recipient, listeners)
        if self.state is State.READY:
            self._sendShare(fresh)

    def messageReceived(self, lane: int, parts: Sequence[bytes]) -> None:
        """It sent a message."""
        if self._around.messages is not None:
            self._around.messages.received(self, lane, parts)

    def channelLost(self) -> None:
        """Nothing more will come: its untouched connections go to others."""
        if self._around.messages is not None:
            self._around.messages.gone(self)
        self._around.dispatcher.lost(self._recipient)
        if self.state in (State.STARTING, State.READY):
            self._setTimer(LOST_CHANNEL_GRACE, self._signal, signal.SIGKILL)

    # How steps are carried out.

    def _apply(self, step: Step, reason: str, status: ExitStatus | None = None) -> None:
        before, self.state = self.state, step.after
        for action in step.actions:
            self._ACTIONS[action](self)
        if before is not step.after:
            self.reason = reason
            self._publish(before, step.after, status, step.meant)

    def _schedule(self) -> None:
        self._around.dispatcher.schedule(self._recipient)
        self._sendShare(self._recipient.listeners)

    def _sendShare(self, listeners: frozenset[int]) -> None:
        """
        Have it accept for itself, if that is the policy.
        """
        share = self._around.share()
        shared = sorted(listeners & share.keys())
        if shared and self._session is not None:
            self._session.sendShare(shared, [share[number] for number in shared])

    def _unschedule(self) -> None:
        self._around.dispatcher.unschedule(self._recipient)

    def _tellDrain(self) -> None:
        config = self._around.config
        self._setTimer(config.drainTimeout, self.stop, f"not drained in {config.drainTimeout:g} s")
        if self._session is not None:
            self._session.sendDrain(config.drainGrace, self._migrate)

    def _tellStop(self) -> None:
        timeout = self._around.config.stopTimeout
        self._setTimer(timeout, self.kill, f"not stopped in {timeout:g} s")
        if self._session is not None:
            self._session.sendStop()

    def _kill(self) -> None:
        self._cancelTimer()
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.signal(number)

    _ACTIONS: dict[Action, Callable[[Worker], None]] = {
        Action.SCHEDULE: _schedule,
        Action.UNSCHEDULE: _unschedule,
        Action.TELL_DRAIN: _tellDrain,
        Action.TELL_STOP: _tellStop,
        Action.KILL: _kill,
    }

    def _notReady(self) -> None:
        self.abort(f"not Ready within {self._around.config.generationTimeout:g} s")

    def _setTimer(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self._cancelTimer()
        self._timer = self._around.reactor.callLater(seconds, call, *arguments)

    def _cancelTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _publish(
        self,
        before: State | None,
        after: State,
        status: ExitStatus | None = None,
        meant: bool = False,
    ) -> None:
        self.since = self._around.now()
        self._around.events.publish(
            WorkerChanged(
                self.since,
                self.slot,
                self.generation,
                self.pid,
                before,
                after,
                self.reason,
                status,
                meant,
            )
        )


def _progressOf(descriptor: int) -> kernel.Progress | None:
    """
    How far a connection that was given back has got.  One that has ended
    meanwhile gets an owner all the same, to find that out.
    """
    try:
        return kernel.progress(descriptor)
    except OSError:
        return None
