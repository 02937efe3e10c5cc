"""
The worker's end of its channel: adopts sockets, reports, drains, stops.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import IProcess, IService
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.util import switchUID

from twisted_cluster import context, kernel
from twisted_cluster.errors import AppLoadError, PeerError
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import Channel, DescriptorGroup, closeDescriptors, numberFrom
from twisted_cluster.wire.courier import Handlers
from twisted_cluster.wire.parts import Inbox, Outbox
from twisted_cluster.wire.preamble import Preamble
from twisted_cluster.worker import drain, loader, migration, programs
from twisted_cluster.worker.intercept import Interception
from twisted_cluster.worker.messages import WorkerMessages
from twisted_cluster.worker.ports import Adopter, HandoffPort, SharedAcceptor, wrapFactory
from twisted_cluster.worker.shared import SharedSession

SILENT_LIMIT = 5.0
"""Seconds after which a connection on which nothing happens is acknowledged
all the same, so that the master does not hold its copy for ever."""

SILENT_MOST = 256
"""How many such connections there may be before the oldest is acknowledged:
the master holds a descriptor for each."""

CLOSED_DELAY = 0.02
"""Seconds that the report of a closed connection may wait for another one to
go with."""

DRAIN_INTERVAL = 0.1
"""Seconds between two looks at the connections of a draining worker."""

DESCRIPTOR_RESERVE = 32
"""Descriptors kept free for the app beside those that may be on their way."""

THROTTLE_INTERVAL = 0.1
"""Seconds between two looks for free descriptors."""


class WorkerSession(Channel):
    """
    Serves one master.  Runs in the worker.

    @ivar onExit: Called with the exit code when there is nothing left to do.
    """

    log = Logger()

    def __init__(self, reactor: Any, preamble: Preamble, interception: Interception) -> None:
        """
        @param interception: The ports that the app opens.
        """
        super().__init__()
        self._reactor = reactor
        self._plan = preamble
        self._interception = interception
        interception.watch = self
        self._factoryPorts: dict[int, HandoffPort] = {}
        self._service: Any = None
        self._groups: list[DescriptorGroup] = []
        self._received = 0
        self._closed = 0
        self._touched: list[int] = []
        self._silent: dict[int, Any] = {}
        self._seen: dict[int, Any] = {}
        self._report: IDelayedCall | None = None
        self._later: IDelayedCall | None = None
        self._open: dict[Any, bool] = {}
        self._draining: LoopingCall | None = None
        self._acceptors: list[SharedAcceptor] = []
        self._migrate = False
        self._offers = migration.Offers(reactor, self._sendOffer)
        self._stopping = False
        self._patience = 0.0
        self.onExit: Callable[[int], object] = lambda code: None
        self.messages: WorkerMessages | None = None
        self.boxes[b"Handoff"] = self._handoff
        self.boxes[b"Part"] = Inbox(self._messageReceived).receive
        self._beat = self._loop(self._sendBeat)
        self._sweep = self._loop(self._acknowledgeSilent)
        self._throttle = self._loop(self._lookForDescriptors)

    @property
    def name(self) -> str:
        """What log lines call this channel."""
        return f"channel of slot {self._plan.slot}"

    def _loop(self, call: Any) -> LoopingCall:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def makeConnection(self, transport: Any) -> None:
        """
        Begin; messages can be sent from now on.
        """
        super().makeConnection(transport)
        here = context.current()
        handlers = Handlers(here.handlers)
        self.messages = WorkerMessages(self._reactor, handlers, Outbox(transport, self._reactor))
        here.messenger = self.messages
        self.shared = SharedSession(self._reactor, here.commons, self.messages)
        self.messages.onReserved = self.shared.heard

    def _messageReceived(self, lane: int, parts: Sequence[bytes]) -> None:
        assert self.messages is not None
        self.messages.received(lane, parts)

    # Beginning.

    def begin(self, found: Any) -> None:
        """
        Run the app C{found}, then report to be Ready.
        """
        starting = maybeDeferred(self._resolve, found)
        starting.addCallback(self._serve)
        starting.addCallback(lambda _: self._becomeReadyWithState())
        starting.addErrback(self._bootFailed)

    def beginProgram(self) -> None:
        """
        The app has begun by itself, and runs the reactor.
        """
        self._becomeReadyWithState()

    def _resolve(self, found: Any) -> Any:
        name = str(self._plan.source)
        made = loader.resolve(name, found)
        if isinstance(made, loader.App):
            return made
        pending = made if hasattr(made, "addCallback") else ensureDeferred(made)
        return pending.addCallback(lambda result: loader.resolveResult(name, result))

    def _serve(self, app: loader.App) -> Any:
        if app.service is not None:
            return self._startService(app.service)
        if not self._plan.listeners:
            raise loader.WrongName(
                f"app {self._plan.source} does not listen by itself; say where it is to be"
                " served, such as --listen tcp:8080"
            )
        for number, plan in enumerate(self._plan.listeners):
            factory = wrapFactory(self._reactor, plan.name, app.factory)
            port = HandoffPort(number, plan, factory, self._reactor, self)
            port.startListening()
            self._factoryPorts[number] = port
        return None

    def _startService(self, found: Any) -> Any:
        service = IService(found)
        service.privilegedStartService()
        # Before this has succeeded, twistd would not stop it either.
        self._service = service
        _shedPrivileges(found)
        return service.startService()

    def _becomeReadyWithState(self) -> Deferred[None]:
        """
        Invariant 4: a worker has the snapshot before it is Ready.
        """
        self.shared.begun.addCallback(lambda _: self._callAll(context.current().begin()))
        return self.shared.begun.addCallback(lambda _: self._becomeReady())

    def _callAll(self, calls: Iterable[Callable[[], object]]) -> None:
        """
        Call what the app wants called; one that fails must not keep the others
        from it.
        """
        for call in calls:
            maybeDeferred(call).addErrback(self._hookFailed)

    def _hookFailed(self, failure: Failure) -> None:
        self.log.failure("what the app wanted called failed", failure)

    def _becomeReady(self) -> None:
        self._beat.start(self._plan.heartbeat)
        self._sweep.start(SILENT_LIMIT, now=False)
        ports = {**self._interception.ports, **self._interception.datagrams}
        self.callRemote(commands.Ready, listeners=sorted({*self._factoryPorts, *ports}))
        self._interception.started()

    def _portOf(self, listener: int) -> Adopter | None:
        """
        What serves connections of a listener, if anything does.
        """
        return self._factoryPorts.get(listener) or self._interception.ports.get(listener)

    def _bootFailed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CannotListenError):
            error = programs.cannotListen(error)
        if not isinstance(error, AppLoadError):
            error = AppLoadError(
                f"app {self._plan.source} fails to start: {type(error).__name__}: {error}",
                failure.getTraceback(),
            )
        self.log.critical("{text}", text=f"{error}\n{error.traceback}".rstrip())
        self.reportBootFailed(error)
        self.transport.loseConnection()
        self._exit(1)

    def reportBootFailed(self, error: AppLoadError) -> None:
        """
        Tell the master why there is nothing to run.
        """
        self.transport.write(encodeBootFailed(error))

    # Sockets.

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """
        The sockets of the next handoff.
        """
        self._groups.append(group)

    def _handoff(self, box: Any) -> None:
        """
        Adopt sockets.  Those that the kernel dropped for want of descriptors
        are refused: the master still has its copies.
        """
        first = numberFrom(box, b"first")
        listeners = commands.unpackNumbers(box[b"listeners"])
        self._take(first, listeners, ())

    @commands.Share.responder
    def _share(self, listeners: list[int]) -> dict[str, Any]:
        group = self._groups.pop(0)
        for listener, descriptor in zip(listeners, group.descriptors):
            port = self._portOf(listener)
            if port is None or self._draining is not None:
                os.close(descriptor)
            else:
                self._acceptors.append(SharedAcceptor(self._reactor, descriptor, port))
        return {}

    @commands.Resume.responder
    def _resume(self, first: int, listeners: list[int], states: list[bytes]) -> dict[str, Any]:
        if len(states) != len(listeners):
            raise PeerError(f"{len(states)} states for {len(listeners)} sockets")
        self._take(first, listeners, states)
        return {}

    def _take(self, first: int, listeners: Sequence[int], states: Sequence[bytes]) -> None:
        if first != self._received or not self._groups:
            raise PeerError(f"a handoff that begins with {first} instead of {self._received}")
        group = self._groups.pop(0)
        self._received += len(listeners)
        missing: list[int] = []
        for number, listener in enumerate(listeners, first):
            index = number - first
            if index >= len(group.descriptors):
                missing.append(number)
            else:
                carried = states[index] if states else b""
                self._adopt(group.descriptors[index], number, listener, carried)
        if missing:
            self._refuse(missing, "out of descriptors")
        self._afterHandoff(group, listeners)

    def _adopt(self, descriptor: int, number: int, listener: int, carried: bytes) -> None:
        port = self._portOf(listener)
        if port is None or not port.listening:
            os.close(descriptor)
            name = f"listener {listener}" if port is None else port.name
            self._refuse([number], f"nothing listens on {name}")
        elif not port.adopt(descriptor, number, carried):
            self._closed += 1
            self.touched(number)

    def _refuse(self, numbers: list[int], reason: str) -> None:
        # First of all: the report says that they have arrived, and of what has
        # arrived the master may close its copies.
        self.callRemote(commands.Refuse, sockets=numbers, reason=reason)
        self._sendReport()

    def _afterHandoff(self, group: DescriptorGroup, listeners: Sequence[int]) -> None:
        """
        Report that they have arrived: at once where the kernel can't tell the
        master what has been touched; else a turn later, when most of them
        will have been read, so that one box says both.
        """
        if self._kernelTells(listeners):
            self._schedule(self._reportSoon)
        else:
            self._sendReport()
        highest = max(group.descriptors, default=0)
        if (group.truncated or self._short(highest)) and not self._throttle.running:
            self.callRemote(commands.Throttle, paused=1)
            self._throttle.start(THROTTLE_INTERVAL, now=False)

    def _kernelTells(self, listeners: Sequence[int]) -> bool:
        """
        Whether the kernel can tell the master what has been touched of the
        connections from C{listeners}.
        """
        ports = [self._portOf(listener) for listener in set(listeners)]
        return all(port is None or kernel.tellsTouch(port.family) for port in ports)

    def opened(self, transport: Any) -> None:
        """
        A connection has been adopted.
        """
        self._open[transport] = False
        if transport.handoff is None:
            return
        self._silent[transport.handoff] = transport
        if len(self._silent) > SILENT_MOST:
            self._silent[next(iter(self._silent))]._touch()

    def touched(self, number: int) -> None:
        """
        A connection is being served.
        """
        self._silent.pop(number, None)
        self._touched.append(number)
        self._schedule(self._sendReport)

    def closed(self, transport: Any) -> None:
        """
        A connection is over.
        """
        self._offers.forget(transport)
        if self._open.pop(transport, None) is not None and transport.handedOff:
            self._closed += 1
            if self._later is None and self._report is None:
                self._later = self._reactor.callLater(CLOSED_DELAY, self._sendReport)

    def _schedule(self, report: Callable[[], None]) -> None:
        """
        Report when this turn of the reactor is over.
        """
        if self._report is None:
            self._report = self._reactor.callLater(0, report)

    def _reportSoon(self) -> None:
        self._report = self._reactor.callLater(0, self._sendReport)

    def _sendReport(self) -> None:
        report, self._report = self._report, None
        if report is not None and report.active():
            report.cancel()
        later, self._later = self._later, None
        if later is not None and later.active():
            later.cancel()
        touched, self._touched = self._touched, []
        self.transport.write(commands.encodeAck(self._received, self._closed, touched))

    def _acknowledgeSilent(self) -> None:
        """
        Acknowledge what has been silent since the last look.
        """
        before, self._seen = self._seen, dict(self._silent)
        for number in before:
            if number in self._silent:
                self._silent[number]._touch()

    # Descriptors.

    def _short(self, highest: int) -> bool:
        """
        Whether descriptors run short: the kernel gives out the lowest free
        number, so the highest one just received tells how many are in use.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return highest + self._plan.credit + DESCRIPTOR_RESERVE >= limit

    def _lookForDescriptors(self) -> None:
        try:
            probe = os.dup(0)
        except OSError:
            return
        os.close(probe)
        if not self._short(probe):
            self._throttle.stop()
            self.callRemote(commands.Throttle, paused=0)

    # Ending.

    @commands.Drain.responder
    def _drainNow(self, grace: float, migrate: bool) -> dict[str, Any]:
        self._drain(grace, migrate)
        return {}

    def _drain(self, grace: float, migrate: bool) -> None:
        """
        Finish what is being served.  What is idle goes to other workers if
        C{migrate}, or is closed after C{grace} seconds.
        """
        if self._draining is not None:
            return
        acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.connectionLost(Failure(ConnectionDone()))
        self._callAll(context.current().drainCalls)
        self._migrate = migrate
        self._patience = self._reactor.seconds() + grace
        self._interception.pauseDatagrams()
        self._draining = self._loop(self._drainStep)
        self._draining.start(DRAIN_INTERVAL)

    def _drainStep(self) -> None:
        """
        Sockets that were on their way when the drain began may still come, so
        each look begins with those that have not been told yet.
        """
        for transport, told in list(self._open.items()):
            if not told:
                self._open[transport] = True
                self._try(self._beginDrain, transport)
        for transport in self._offers.moving():
            self._try(self._offers.offerIfIdle, transport)
        if self._reactor.seconds() >= self._patience:
            self._stopAll([port.stopListening for port in self._interception.datagrams.values()])
            for transport in [one for one in self._open if one not in self._offers]:
                self._try(drain.closeIfIdle, transport)
        # As long as there are ports for them, answers to datagrams may be under
        # way, which nobody can count.
        lingering = self._interception.datagrams
        if not self._open and not lingering and self._draining is not None:
            self._draining.stop()
            self._drained()

    def _try(self, step: Callable[[Any], object], transport: Any) -> None:
        """
        Take a step of a drain, which asks the app's protocol.  If that fails,
        the connection stays as it is, and the others must not.
        """
        try:
            step(transport)
        except Exception:
            self.log.failure("the app failed while a connection was drained")

    def _beginDrain(self, transport: Any) -> None:
        if self._migrate and migration.canMove(transport):
            self._offers.watch(transport)
        else:
            drain.begin(drain.innermost(transport.protocol))

    def _sendOffer(self, offers: list[migration.Offer]) -> None:
        """
        Offer connections, after a report: what has not been acknowledged is
        still held by the master as well.
        """
        self._sendReport()
        box = commands.encode(
            commands.Offer,
            numbers=[offer.number for offer in offers],
            listeners=[offer.transport.listener for offer in offers],
            states=[offer.state for offer in offers],
        )
        self.transport.writeWithDescriptors(box, [offer.transport.fileno() for offer in offers])

    @commands.Taken.responder
    def _taken(self, taken: list[int], declined: list[int]) -> dict[str, Any]:
        self._offers.answered(taken, declined)
        return {}

    def _drained(self) -> None:
        if self.transport.connected:
            self._sendReport()
            self.callRemote(commands.Drained)
        else:
            self._exit(0)

    @commands.Stop.responder
    def _stop(self) -> dict[str, Any]:
        self._exit(0)
        return {}

    @commands.Message.responder
    def _message(self, text: str) -> dict[str, Any]:
        for handler in context.current().messageHandlers:
            try:
                handler(text)
            except Exception:
                self.log.failure("a message handler of the app failed")
        return {}

    def leave(self) -> None:
        """
        Somebody other than the master wants this worker to terminate.
        """
        if self.transport.connected:
            self.callRemote(commands.Leaving)
        else:
            self._exit(0)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The master is gone: finish what is being served, then go.
        """
        super().connectionLost(reason)
        for group in self._groups:
            closeDescriptors(group.descriptors)
        self._groups.clear()
        if self.messages is not None:
            self.messages.lost()
            self.shared.lost()
        for loop in (self._beat, self._sweep, self._throttle):
            if loop.running:
                loop.stop()
        if not self._stopping:
            self.log.error("the master is gone; this worker finishes what it serves and exits")
            for transport in self._offers.moving():
                self._try(self._offers.keep, transport)
            # Nobody accepts any more, and the address is free for the next.
            self._stopAll([port.stopListening for port in self._interception.ports.values()])
            self._drain(self._plan.drainGrace, migrate=False)
            self._migrate = False
            if self._draining is None or not self._draining.running:
                self._exit(0)
            self._reactor.callLater(self._plan.drainTimeout, self._exit, 0)

    def reactorStops(self) -> Any:
        """
        The reactor is being stopped, perhaps by the app itself.

        @return: A Deferred that fires when the app's service has stopped.
        """
        if self._stopping:
            return None
        self._stopping = True
        return self._stopService()

    def _stopService(self) -> Any:
        service, self._service = self._service, None
        return self._stopAll([] if service is None else [service.stopService])

    def _exit(self, code: int) -> None:
        """
        Stop the app, then the process.
        """
        if self._stopping:
            return
        self._stopping = True
        done = self._stopService()
        # What the service has left open.
        done.addCallback(lambda _: self._stopAll(self._stops()))
        done.addCallback(lambda _: self.onExit(code))

    def _stops(self) -> list[Callable[[], Any]]:
        streams = [*self._factoryPorts.values(), *self._interception.ports.values()]
        datagrams = self._interception.datagrams.values()
        return [*(one.stopListening for one in streams), *(one.stopListening for one in datagrams)]

    def _stopAll(self, stops: list[Callable[[], Any]]) -> Any:
        return gatherResults([maybeDeferred(stop).addErrback(self._failedToStop) for stop in stops])

    def _failedToStop(self, failure: Failure) -> None:
        self.log.failure("the app failed to stop", failure)

    def _sendBeat(self) -> None:
        self.callRemote(commands.Beat, connections=len(self._open))


def _shedPrivileges(application: Any) -> None:
    """
    Become the user that an Application names, once its ports are bound, as
    twistd does.
    """
    process = IProcess(application, None)
    if process is not None and (process.uid is not None or process.gid is not None):
        switchUID(process.uid, process.gid)


def encodeBootFailed(error: AppLoadError) -> bytes:
    """
    The box that says why the app can't be run.
    """
    fault = "operator" if isinstance(error, loader.WrongName) else "app"
    trace = error.traceback.encode("utf-8", "replace")[-30_000:].decode("utf-8", "replace")
    reason = str(error)[:4000].encode("utf-8", "replace").decode("utf-8")
    return commands.encode(commands.BootFailed, fault=fault, reason=reason, traceback=trace)
