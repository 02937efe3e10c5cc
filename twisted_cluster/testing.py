"""
Fakes for tests: a whole cluster with neither processes nor waiting.

For authors of apps that subclass L{twisted_cluster.service.ClusterService},
of policies, and of tools that feed on the event stream.  The master under test
is the real one; what it would share with the operating system is replaced::

    class HooksTests(SynchronousTestCase):
        def test_workerReady(self):
            reactor = FakeReactor()
            spawner = FakeSpawner(reactor)
            config = ClusterConfig(app="hello:resource", workers=2, admin=None)
            service = MyCluster(config, reactor=reactor, spawner=spawner)
            service.privilegedStartService()
            service.startService()
            for process in spawner.processes:
                FakeWorker(reactor, process).ready()
            reactor.settle()
            self.assertEqual(service.readySlots, {0, 1})

L{FakeReactor} has a clock that only L{FakeReactor.advance} moves, and polls
real descriptors when L{FakeReactor.settle} says so: the channels are genuine
socketpairs, and listeners bind genuine ports, yet nothing happens by itself.
L{FakeSpawner} records what it was asked to spawn; a L{FakeWorker} speaks the
worker's side of the protocol as the test tells it to.

For tests of an app's own code, L{pretendWorker} makes
L{twisted_cluster.current} answer as in a worker; a L{FakeMessenger} records
what the app sends.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable, Sequence
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster import context
from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.errors import AppError, ChannelLost, PeerError
from twisted_cluster.events import ExitStatus
from twisted_cluster.interfaces import (
    RESERVED,
    HelperStatus,
    IWorkerObserver,
    IWorkerProcess,
    IWorkerSpawner,
)
from twisted_cluster.master.shared import Shared
from twisted_cluster.wire import commands, preamble
from twisted_cluster.wire.channel import (
    Channel,
    ChannelTransport,
    DescriptorGroup,
    closeDescriptors,
    numberFrom,
)
from twisted_cluster.wire.messages import MASTER, Envelope, Kind, checkTopic, decode
from twisted_cluster.wire.parts import APP_LANE, Inbox, Packet
from twisted_cluster.wire.values import decode as decodeValue
from twisted_cluster.wire.values import encode

MAX_TURNS = 10_000
"""Turns after which L{FakeReactor.settle} takes what it runs for a spin."""


@implementer(IReactorFDSet)
class FakeReactor(Clock):
    """
    A reactor that runs only when told to.

    @ivar running: Whether L{stop} has not been called yet.
    @ivar whenRunning: What L{callWhenRunning} was given; never called, so that
        a service under test does not take over the signals of its test.
    @ivar triggers: What L{addSystemEventTrigger} was given; never called either.
    @ivar spawned: The arguments of each L{spawnProcess}.
    @ivar turns: How many turns there have been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self.whenRunning: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.triggers: list[tuple[Any, ...]] = []
        self.spawned: list[tuple[Any, ...]] = []
        self.turns = 0
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        """See L{IReactorFDSet.addReader}."""
        self._readers[reader] = None

    def addWriter(self, writer: Any) -> None:
        """See L{IReactorFDSet.addWriter}."""
        self._writers[writer] = None

    def removeReader(self, reader: Any) -> None:
        """See L{IReactorFDSet.removeReader}."""
        self._readers.pop(reader, None)

    def removeWriter(self, writer: Any) -> None:
        """See L{IReactorFDSet.removeWriter}."""
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Any]:
        """See L{IReactorFDSet.removeAll}."""
        every = list({**self._readers, **self._writers})
        self._readers.clear()
        self._writers.clear()
        return every

    def getReaders(self) -> list[Any]:
        """See L{IReactorFDSet.getReaders}."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """See L{IReactorFDSet.getWriters}."""
        return list(self._writers)

    def callWhenRunning(self, call: Callable[..., object], *arguments: Any) -> None:
        """
        Remember a call.
        """
        self.whenRunning.append((call, arguments))

    def addSystemEventTrigger(
        self, phase: str, event: str, call: Callable[..., object], *arguments: Any
    ) -> None:
        """
        Remember a call.
        """
        self.triggers.append((phase, event, call, *arguments))

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        """
        Make a call in the next turn.
        """
        self.callLater(0, call, *arguments)

    def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
        """
        Remember what would be run; nothing is.
        """
        self.spawned.append((protocol, *arguments))

    def stop(self) -> None:
        """
        Say that the process is to end.
        """
        self.running = False

    def turn(self) -> bool:
        """
        Do what is ready now: read, write, make the calls that are due.

        @return: Whether anything was ready.
        """
        self.turns += 1
        due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
        for call in due:
            self._call(call)
        ready = self._poll()
        for selectable, readable, writable in ready:
            self._serve(selectable, readable, writable)
        return bool(due or ready)

    def settle(self) -> None:
        """
        Take turns until nothing is ready any more.

        @raise AssertionError: if that never is the case.
        """
        for _ in range(MAX_TURNS):
            if not self.turn():
                return
        raise AssertionError(f"something has been ready for {MAX_TURNS} turns: it spins")

    def elapse(self, seconds: float, step: float = 0.05) -> None:
        """
        Let time pass in small steps, and do what is ready after each.
        """
        for _ in range(round(seconds / step)):
            self.advance(step)
            self.settle()

    def advance(self, amount: float) -> None:
        """
        Move the clock, and make the calls that are due then.  As in genuine
        reactors, what these schedule has to wait for the next turn.
        """
        self.rightNow += amount
        for call in sorted(self.getDelayedCalls(), key=lambda call: call.getTime()):
            if call.getTime() <= self.seconds():
                self._call(call)

    def _call(self, call: Any) -> None:
        if call.active():
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)

    def _poll(self) -> list[tuple[Any, bool, bool]]:
        poll = select.poll()
        byNumber: dict[int, Any] = {}
        for selectable in {**self._readers, **self._writers}:
            events = select.POLLIN if selectable in self._readers else 0
            events |= select.POLLOUT if selectable in self._writers else 0
            byNumber[selectable.fileno()] = selectable
            poll.register(selectable.fileno(), events)
        ended = select.POLLHUP | select.POLLERR
        return [
            (byNumber[number], bool(event & (select.POLLIN | ended)), bool(event & select.POLLOUT))
            for number, event in poll.poll(0)
        ]

    def _serve(self, selectable: Any, readable: bool, writable: bool) -> None:
        """
        As the reactors do: whoever reports a reason is disconnected.
        """
        reason = None
        if readable and selectable in self._readers:
            reason = selectable.doRead()
        if reason is None and writable and selectable in self._writers:
            reason = selectable.doWrite()
        if reason is not None:
            self.removeReader(selectable)
            self.removeWriter(selectable)
            selectable.connectionLost(Failure(reason))


@implementer(IWorkerProcess)
class FakeProcess:
    """
    A worker process that a test plays.

    @ivar slot: Its slot.
    @ivar generation: Its generation.
    @ivar channel: The worker's end of the channel.
    @ivar signals: The numbers of the signals it was sent while it lived.
    @ivar mortal: Whether SIGKILL ends it.
    @ivar worker: The L{FakeWorker} that speaks for it, if any.
    @ivar status: How it ended, or L{None} while it lives.
    """

    def __init__(
        self,
        pid: int | None,
        slot: int,
        generation: int,
        channel: socket.socket,
        observer: IWorkerObserver,
        reactor: Any,
    ) -> None:
        self.pid = pid
        self.slot = slot
        self.generation = generation
        self.channel = channel
        self.signals: list[int] = []
        self.mortal = True
        self.status: ExitStatus | None = None
        self.worker: FakeWorker | None = None
        self._observer = observer
        self._reactor = reactor

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.status is None

    def signal(self, number: int) -> None:
        """
        See L{IWorkerProcess.signal}.
        """
        if not self.alive:
            return
        self.signals.append(number)
        if number == SIGKILL and self.mortal:
            self._reactor.callLater(0, self.die, number)

    def say(self, line: str) -> None:
        """
        Write a line to standard output.
        """
        self._observer.output(line)

    def exit(self, code: int = 0) -> None:
        """
        End with an exit code.
        """
        self._end(ExitStatus(code=code))

    def die(self, number: int = SIGKILL) -> None:
        """
        End by a signal.
        """
        self._end(ExitStatus(signal=number))

    def _end(self, status: ExitStatus) -> None:
        if self.alive:
            self.status = status
            if self.worker is not None and self.worker.transport.connected:
                self.worker.transport.abort()
            self.channel.close()
            self._observer.exited(status)


@implementer(IWorkerSpawner)
class FakeSpawner:
    """
    Spawns L{FakeProcess}es.

    @ivar processes: All that it has spawned, in order.
    @ivar kept: The generations that it was told to keep, each time.
    @ivar stopped: Whether it was told that it is not needed any more.
    @ivar failure: Why processes can't be started; L{None} if they can.
    """

    kind = "fake"
    firstPid = 1 << 23
    """Above the largest pid of Linux, so that no real process is meant."""

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: What tells of ends that do not come at once.
        """
        self.processes: list[FakeProcess] = []
        self.kept: list[frozenset[int]] = []
        self.stopped = False
        self.failure: str | None = None
        self._reactor = reactor

    def spawn(
        self, slot: int, generation: int, channel: socket.socket, observer: IWorkerObserver
    ) -> FakeProcess:
        """
        See L{IWorkerSpawner.spawn}.
        """
        pid = None if self.failure else self.firstPid + len(self.processes)
        process = FakeProcess(pid, slot, generation, channel, observer, self._reactor)
        self.processes.append(process)
        if pid is None:
            failed = ExitStatus(failure=self.failure)
            self._reactor.callLater(0, process._end, failed)
        else:
            observer.started(pid)
        return process

    def helpers(self) -> tuple[HelperStatus, ...]:
        """
        See L{IWorkerSpawner.helpers}.
        """
        return ()

    def keep(self, generations: Iterable[int]) -> None:
        """
        See L{IWorkerSpawner.keep}.
        """
        self.kept.append(frozenset(generations))

    def stop(self) -> None:
        """
        See L{IWorkerSpawner.stop}.
        """
        self.stopped = True

    def latest(self, slot: int = 0) -> FakeProcess:
        """
        The process spawned last for a slot.

        @raise LookupError: if there is none.
        """
        for process in reversed(self.processes):
            if process.slot == slot:
                return process
        raise LookupError(f"nothing was spawned for slot {slot}")

    def alive(self) -> list[FakeProcess]:
        """
        The processes that have not ended.
        """
        return [process for process in self.processes if process.alive]


class FakeWorker(Channel):
    """
    Speaks the worker's side of a channel, as the test tells it to.

    @ivar preamble: What the master said first.
    @ivar sockets: The sockets that it was handed, by number, and has neither
        refused nor closed.
    @ivar listeners: The number of the listener of each socket it was handed.
    @ivar told: The names of the commands from the master, in order, other
        than handoffs.
    @ivar messages: The broadcasts it got.
    @ivar said: All other messages that it got.
    @ivar truncated: How many groups of descriptors came truncated.
    @ivar obedient: Whether it answers C{Drain} with C{Drained} when it holds
        no socket, and exits with code 0 at C{Stop}.
    """

    transport: ChannelTransport

    def __init__(self, reactor: Any, process: FakeProcess, obedient: bool = True) -> None:
        """
        @param reactor: What carries the channel, a L{FakeReactor} or a real one.
        @param process: Whose channel to speak on.
        """
        super().__init__()
        self.process = process
        self.obedient = obedient
        self.sockets: dict[int, socket.socket] = {}
        self.listeners: dict[int, int] = {}
        self.told: list[str] = []
        self.messages: list[str] = []
        self.said: list[Envelope] = []
        self.truncated = 0
        self.received = 0
        self.closed = 0
        self._touched: set[int] = set()
        self._groups: list[DescriptorGroup] = []
        self.boxes[b"Handoff"] = self._handoff
        self.boxes[b"Part"] = Inbox(self._said).receive
        process.channel.setblocking(True)
        self.preamble = preamble.read(process.channel)
        process.worker = self
        ChannelTransport(process.channel, self, reactor)

    @property
    def name(self) -> str:
        """What log lines call it."""
        return f"fake worker of slot {self.process.slot}"

    # What it reports.

    def ready(self) -> FakeWorker:
        """
        Report to be Ready.
        """
        self.callRemote(commands.Ready)
        return self

    def beat(self) -> None:
        """
        Report that its reactor runs.
        """
        self.callRemote(commands.Beat)

    def leaving(self) -> None:
        """
        Report that somebody else told it to terminate.
        """
        self.callRemote(commands.Leaving)

    def bootFailed(self, reason: str, fault: str = "app", traceback: str = "") -> None:
        """
        Report that the app can't be run, and exit with code 1.
        """
        self.callRemote(commands.BootFailed, fault=fault, reason=reason, traceback=traceback)
        self.process.exit(1)

    def drained(self) -> None:
        """
        Report that it has nothing left to serve.
        """
        self.callRemote(commands.Drained)

    def acknowledge(self, touched: Iterable[int] | None = None, closed: int | None = None) -> None:
        """
        Acknowledge all that has arrived.

        @param touched: The numbers it has begun to serve; by default all of
            C{sockets} that it has not told so of before.
        @param closed: How many connections are over; by default as many as
            were ended with L{close}.
        """
        numbers = set(self.sockets) - self._touched if touched is None else set(touched)
        self._touched |= numbers
        self.tell(self.received, self.closed if closed is None else closed, sorted(numbers))

    def tell(self, received: int, closed: int, touched: Iterable[int]) -> None:
        """
        Send an account, which may be a lie.
        """
        self.transport.write(commands.encodeAck(received, closed, list(touched)))

    def say(self, target: int, topic: str, value: Any, number: int = 0) -> None:
        """
        Send a message.

        @param target: As in an L{Envelope}; L{MASTER} or a slot, for example.
        """
        self._speak(Envelope(Kind.MESSAGE, number, MASTER, target, 0.0, topic, encode(value)))

    def ask(
        self, target: int, topic: str, value: Any = None, number: int = 1, timeout: float = 10.0
    ) -> None:
        """
        Call somebody; the answer will be in L{said}, with this C{number}.
        """
        self._speak(Envelope(Kind.CALL, number, MASTER, target, timeout, topic, encode(value)))

    def answer(self, question: Envelope, value: Any) -> None:
        """
        Answer a call that is in L{said}.
        """
        self._speak(question._replace(kind=Kind.RESULT, value=encode(value)))

    def fail(self, question: Envelope, reason: str) -> None:
        """
        Say why there is no answer to a call.
        """
        self._speak(question._replace(kind=Kind.FAILURE, value=encode(reason)))

    def heard(self, *kinds: Kind) -> list[tuple[str, Any]]:
        """
        Topics and values of all that was L{said}, or of these kinds, without
        what state, cache and leases say.
        """
        return [
            (envelope.topic, decodeValue(envelope.value))
            for envelope in self.said
            if not envelope.topic.startswith(RESERVED) and envelope.kind in (kinds or tuple(Kind))
        ]

    def _speak(self, envelope: Envelope) -> None:
        packet = Packet(APP_LANE, envelope.encode())
        for index in range(packet.count):
            self.transport.write(packet.box(index))

    def close(self, number: int) -> None:
        """
        End a connection; L{acknowledge} reports it.
        """
        self.sockets.pop(number).close()
        self.closed += 1

    def refuse(self, numbers: Iterable[int], reason: str = "a test says so") -> None:
        """
        Refuse sockets.
        """
        refused = list(numbers)
        for number in refused:
            if number in self.sockets:
                self.sockets.pop(number).close()
        self.tell(self.received, self.closed, ())
        self.callRemote(commands.Refuse, sockets=refused, reason=reason)

    def throttle(self, paused: bool) -> None:
        """
        Ask for no sockets, or for sockets again.
        """
        self.callRemote(commands.Throttle, paused=int(paused))

    # What it is told.

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """
        The sockets of the next handoff.
        """
        self.truncated += group.truncated
        self._groups.append(group)

    def _handoff(self, box: Any) -> None:
        first = numberFrom(box, b"first")
        numbers = commands.unpackNumbers(box[b"listeners"])
        group = self._groups.pop(0)
        if first != self.received:
            raise PeerError(f"a handoff that begins with {first} instead of {self.received}")
        self.received += len(numbers)
        for number, listener in enumerate(numbers, first):
            self.listeners[number] = listener
        for number, descriptor in enumerate(group.descriptors, first):
            self.sockets[number] = socket.socket(fileno=descriptor)

    def _said(self, lane: int, parts: Sequence[bytes]) -> None:
        self.said.append(decode(b"".join(parts)))

    @commands.Drain.responder
    def _drain(self, grace: float, migrate: bool) -> dict[str, Any]:
        self.told.append("Drain")
        if self.obedient and not self.sockets:
            self.drained()
        return {}

    @commands.Stop.responder
    def _stop(self) -> dict[str, Any]:
        self.told.append("Stop")
        if self.obedient:
            self.process.exit(0)
        return {}

    @commands.Message.responder
    def _message(self, text: str) -> dict[str, Any]:
        self.told.append("Message")
        self.messages.append(text)
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The channel is gone: close all that it holds.
        """
        super().connectionLost(reason)
        for group in self._groups:
            closeDescriptors(group.descriptors)
        for held in self.sockets.values():
            held.close()
        self._groups.clear()
        self.sockets.clear()


def pretendWorker(
    cleanUp: Callable[..., object],
    slot: int = 0,
    generation: int = 1,
    clock: Clock | None = None,
) -> context.Context:
    """
    Have L{twisted_cluster.current} answer as in a worker until the test ends.

    @param cleanUp: The C{addCleanup} of the test.
    @param clock: Tells when what is cached expires; by default one that stands
        still.
    @return: The context, whose C{messageHandlers} and C{handlers} are what the
        app registered, and whose C{messenger} is a L{FakeMessenger}.  Its
        state, cache and leases are genuine, and shared with nobody.
    """
    here = context.current()
    cleanUp(here.__dict__.update, dict(here.__dict__))
    here.__dict__.update(context.Context().__dict__)
    here.enter(context.Role.WORKER, slot, generation)
    here.messenger = FakeMessenger()
    _shareAlone(here, clock or Clock())
    return here


def _shareAlone(here: context.Context, clock: Clock) -> None:
    """
    Have what a master keeps for its workers kept for this process.
    """
    shared = Shared(clock, MemoryBackend(clock), NoWorkers())
    shared.start()
    here._commons = shared.commons


class NoWorkers:
    """
    Delivers messages to workers, of which there are none.
    """

    def post(self, worker: Any, topic: str, data: bytes) -> Deferred[None]:
        """
        Refuse a message.
        """
        return fail(ChannelLost(f"there is no {worker}"))


class FakeMessenger:
    """
    Records what an app sends, as the C{messenger} of the context that
    L{pretendWorker} makes.

    @ivar sent: Target, topic and value of each message and call, as they would
        arrive.
    @ivar answers: The answers to calls by topic; exceptions are failures.  A
        call whose topic is not here has no answer.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, Any]] = []
        self.answers: dict[str, Any] = {}

    def send(self, target: int, topic: str, value: Any) -> Deferred[int]:
        """
        Record a message.
        """
        return self._record(target, topic, value) or succeed(1)

    def call(self, target: int, topic: str, value: Any, timeout: float) -> Deferred[Any]:
        """
        Record a call.
        """
        refused = self._record(target, topic, value)
        if refused is not None or topic not in self.answers:
            return refused or Deferred()
        answer = self.answers[topic]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def _record(self, target: int, topic: str, value: Any) -> Deferred[Any] | None:
        """
        @return: A failure if it can't be sent.
        """
        try:
            checkTopic(topic, RESERVED)
            self.sent.append((target, topic, decodeValue(encode(value))))
        except AppError as error:
            return fail(error)
        return None
