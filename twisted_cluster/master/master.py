"""
The master: everything put together.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import twisted_cluster
from twisted_cluster import kernel
from twisted_cluster.config import MAX_WORKERS, ClusterConfig
from twisted_cluster.errors import (
    ClusterError,
    NoSuchSlot,
    OperatorError,
    PeerError,
    ReloadFailed,
    ReloadRefused,
    StateUnavailable,
)
from twisted_cluster.events import (
    ClusterStopping,
    ConnectionsShed,
    Event,
    EventStream,
    HostStepped,
    State,
    StateReached,
)
from twisted_cluster.interfaces import (
    ClusterStatus,
    HelperStatus,
    ICluster,
    IScheduler,
    IStateBackend,
    IWorkerSpawner,
    Peer,
    WorkerStatus,
)
from twisted_cluster.master import hosts
from twisted_cluster.master.dispatcher import Dispatcher, Recipient
from twisted_cluster.master.hosts import Hosts
from twisted_cluster.master.journal import Journal
from twisted_cluster.master.listener import Listener
from twisted_cluster.master.listeners import Listeners
from twisted_cluster.master.messages import HOSTS_TOPIC, Messages
from twisted_cluster.master.reload import Reloader
from twisted_cluster.master.sentinel import Sentinel
from twisted_cluster.master.shared import Shared
from twisted_cluster.master.strangers import StrangerReaper
from twisted_cluster.master.supervisor import Supervisor
from twisted_cluster.master.touch import TouchWatch
from twisted_cluster.master.worker import Surroundings, Worker
from twisted_cluster.policies import SHARED
from twisted_cluster.policy.hosts import Host
from twisted_cluster.policy.scheduling import RoundRobin
from twisted_cluster.wire.commands import MAX_VALUE
from twisted_cluster.wire.preamble import ListenerPlan, Preamble

LEAVING_GRACE = 0.1
"""Seconds between a worker's word that it was told to terminate and its
replacement.  Who signals a whole process group or control group means the
master too, which then stops and replaces nobody."""


@implementer(ICluster)
class Master:
    """
    Binds, accepts, hands off, supervises, reloads.

    @ivar events: Everything that happens.
    @ivar messages: What processes say to each other.
    @ivar sentinel: Watches the processes from outside.
    @ivar onStop: Ends the whole process in an orderly way; called when a tool
        asks the cluster to stop.
    @ivar onFatal: Called with an L{OperatorError} when there is no use in
        going on: no worker has ever been Ready, and the name of the app is
        wrong.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: ClusterConfig,
        makeSpawner: Callable[[Master], IWorkerSpawner],
        scheduler: IScheduler,
        sentinel: Sentinel,
        backend: IStateBackend,
        logTimes: bool = True,
        usage: Callable[[int], tuple[float, bool] | None] = kernel.processUsage,
        randomness: random.Random | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._scheduler = scheduler
        self._fallback = RoundRobin()
        self.sentinel = sentinel
        self._logTimes = logTimes
        self._now = now
        self._since = now()
        self._path = modulePath()
        self._turns = 0
        self._wanted = config.workers
        self._everReady = False
        self._reloadAgain = False
        self._leaving: dict[int, Worker] = {}
        self._stopped: Deferred[None] | None = None
        self.onStop: Callable[[], object] = lambda: None
        self.onFatal: Callable[[OperatorError], object] = lambda error: None
        self.events = EventStream(self._subscriberFailed)
        self.events.subscribe(Journal().write)
        self._dispatcher = self._makeDispatcher()
        self._inherited = kernel.listeningDescriptors()
        self._listeners = Listeners(reactor, self._dispatcher, self.events, now, self._inherited)
        self.messages = Messages(reactor, self._readyWorkers, self.events, now)
        self.shared = self._makeShared(backend)
        self.hosts = self._makeHosts(backend)
        self._spawner = makeSpawner(self)
        self._supervisor = self._makeSupervisor(randomness or random.Random(), usage)
        self._reloader = Reloader(self._supervisor, self.events, config.reloadParallel, now)
        self._strangers = StrangerReaper(reactor) if os.getpid() == 1 else None
        self._touch = self._makeTouchWatch()

    def _makeShared(self, backend: IStateBackend) -> Shared:
        shared = Shared(self._reactor, backend, self.messages)
        shared.onAvailability = self._onAvailability
        self.messages.onReserved = shared.heard
        self.messages.onJoin(shared.join)
        self.messages.onGone(shared.leave)
        return shared

    def _makeHosts(self, backend: IStateBackend) -> Hosts:
        me = Host(socket.gethostname(), os.getpid(), uuid.uuid4().hex)
        leases = self.shared.commons.leases
        isShared = self._config.state != "memory"
        publish: Callable[[str, bytes], Deferred[None]] = backend.publish
        self.shared.onPublished = self._onPublished
        self.messages.publish = publish
        return Hosts(self._reactor, self, publish, leases, me, self._now, isShared)

    def _onPublished(self, topic: str, data: bytes) -> None:
        try:
            if topic == HOSTS_TOPIC:
                self.messages.heardFrom(data)
            elif topic == hosts.TOPIC:
                self.hosts.heard(data)
        except PeerError as error:
            self.log.error("another host published nonsense: {error}", error=error)

    def _onAvailability(self, up: bool, reason: str) -> None:
        self.events.publish(StateReached(self._now(), up, reason))

    def _makeSupervisor(
        self, randomness: random.Random, usage: Callable[[int], tuple[float, bool] | None]
    ) -> Supervisor:
        around = Surroundings(
            self._reactor,
            self._config,
            self._spawner,
            self._dispatcher,
            self._listeners,
            self.events,
            self.preamble,
            self._now,
            self._share,
            self.messages,
        )
        supervisor = Supervisor(around, self.sentinel, usage, randomness.random)
        supervisor.onChange = self._onChange
        supervisor.onLeaving = self._onLeaving
        supervisor.onBootFailed = self._onBootFailed
        return supervisor

    def _readyWorkers(self) -> list[Worker]:
        """
        The workers that serve their slots.
        """
        slots = self._supervisor.slots.values()
        current = [slot.current for slot in slots]
        return [one for one in current if one is not None and one.state is State.READY]

    def _makeDispatcher(self) -> Dispatcher:
        dispatcher = Dispatcher(self._choose, kernel.isUntouched, self._onShed)
        dispatcher.onCapacity = self._capacityChanged
        dispatcher.onPlaced = lambda: self._supervisor.settle()
        return dispatcher

    def _makeTouchWatch(self) -> TouchWatch | None:
        path = self._config.reloadOnTouch
        if not path:
            return None
        return TouchWatch(self._reactor, path, lambda: self.requestReload("touched"))

    # Its life.

    def bind(self) -> None:
        """
        Bind all listeners.  May run as root; accepts nothing yet.

        @raise ListenError: if one can't be bound; then none is.
        """
        self._listeners.bindNamed(self._config.listen)

    def share(self) -> None:
        """
        Begin to have a state; to be called before L{start}.
        """
        self.shared.start().addErrback(self._notShared)

    def start(self) -> None:
        """
        Spawn the workers.
        """
        self.sentinel.start()
        if self._strangers is not None:
            self._strangers.start()
        self.hosts.start()
        # Before the first worker has credit, lest the master begin to accept.
        self._share()
        self._supervisor.start(self._wanted)
        if self._touch is not None:
            self._touch.start()

    def _notShared(self, failure: Failure) -> None:
        """
        The master is stopped before the state has ever been reached.
        """
        failure.trap(StateUnavailable)

    def shutDown(self, now: bool, reason: str) -> Deferred[None]:
        """
        Accept what has already connected, hand it off, close the listeners,
        drain the workers.  A second call with C{now} cuts the drain short.

        @return: A Deferred that fires when no worker is left.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self.events.publish(ClusterStopping(self._now(), reason))
            self._stopOnce(now, reason).chainDeferred(self._stopped)
        elif now:
            self._supervisor.stop(True, reason)
        done: Deferred[None] = Deferred()

        def tell(result: Any) -> Any:
            done.callback(None)
            return result

        self._stopped.addBoth(tell)
        return done

    @inlineCallbacks
    def _stopOnce(self, now: bool, reason: str) -> Any:
        if self._touch is not None:
            self._touch.stop()
        self._supervisor.stopping = True
        self._reloader.cancel("the master is stopping")
        yield self._listeners.close()
        if not now:
            yield self._waitForOwners()
        self._dispatcher.shedWaiting("the master is stopping")
        yield self._supervisor.stop(now, reason)
        self._dispatcher.shedWaiting("the master is stopping")
        self._supervisor.finish()
        self.hosts.stop()
        yield self.shared.stop()
        if self._strangers is not None:
            self._strangers.stop()
        self._spawner.stop()
        self.sentinel.stop()

    def _waitForOwners(self) -> Deferred[None]:
        """
        @return: A Deferred that fires when nothing waits for a worker any
            more, or has waited for too long.
        """
        done = self._supervisor.when(self._nothingWaits)
        return done.addTimeout(
            self._config.drainTimeout, self._reactor, onTimeoutCancel=lambda result, timeout: None
        )

    def _nothingWaits(self) -> bool:
        ready = any(worker.state is State.READY for worker in self._supervisor.workers())
        return not ready or not self._dispatcher.waiting

    def requestReload(self, why: str) -> None:
        """
        Reload since a signal or a touched file says so.  Requests during a
        replacement are remembered as one.
        """
        if self._reloader.status is not None:
            self._reloadAgain = True
            return
        self.log.info("reloading: {why}", why=why)
        self.reload().addErrback(self._reloadFailed)

    # ICluster.

    def status(self) -> ClusterStatus:
        """
        See L{ICluster.status}.
        """
        return ClusterStatus(
            twisted_cluster.__version__,
            os.getpid(),
            str(self._config.source),
            self._config.policy,
            self._spawner.kind,
            self._supervisor.generation,
            self._wanted,
            self._since,
            self._dispatcher.account(),
            self._listeners.statuses(),
            self._supervisor.statuses(),
            self._reloader.status,
            self._helpers(),
            {**self.shared.describe(), "hosts": [str(host) for host in self.hosts.present()]},
            self.messages.dropped,
        )

    def _helpers(self) -> tuple[HelperStatus, ...]:
        pid = self.sentinel.pid
        sentinels = () if pid is None else (HelperStatus("sentinel", pid),)
        return (*sentinels, *self._spawner.helpers())

    def stop(self, now: bool = False) -> Deferred[None]:
        """
        See L{ICluster.stop}.
        """
        done = self.shutDown(now, "a tool asked for it")
        self.onStop()
        return done

    def workers(self) -> dict[int, WorkerStatus]:
        """
        The worker that serves each slot.
        """
        slots = self._supervisor.slots.items()
        return {
            number: slot.current.status(slot.restarts)
            for number, slot in slots
            if slot.current is not None
        }

    def reload(self) -> Deferred[int]:
        """
        See L{ICluster.reload}.
        """
        return self._noting(maybeDeferred(self._reloader.reload))

    def reloadAll(self, tell: Callable[[HostStepped], object]) -> Deferred[int]:
        """See L{ICluster.reloadAll}."""
        return self.hosts.reloadAll(tell)

    def restart(self, slot: int) -> Deferred[int]:
        """
        See L{ICluster.restart}.
        """
        return self._noting(maybeDeferred(self._restart, slot))

    def _restart(self, slot: int) -> Deferred[int]:
        if slot not in self._supervisor.slots:
            raise NoSuchSlot(
                f"restart slot {slot}",
                f"there are slots 0 to {self._wanted - 1}",
                "name one of them",
            )
        return self._reloader.restart(slot)

    def scale(self, wanted: int) -> Deferred[int]:
        """
        See L{ICluster.scale}.
        """
        return maybeDeferred(self._scale, wanted)

    def _scale(self, wanted: int) -> Deferred[int]:
        what = f"scale to {wanted}"
        if not 1 <= wanted <= MAX_WORKERS:
            raise ReloadRefused(
                what, "that is no number of workers", f"give a number from 1 to {MAX_WORKERS}"
            )
        self._reloader.refuseIfBusy(what)
        before, self._wanted = self._wanted, wanted
        self._supervisor.resize(wanted)
        added = range(before, wanted)
        return self._supervisor.when(self._scaled).addCallback(lambda _: self._came(added, wanted))

    def _came(self, added: range, wanted: int) -> int:
        """
        @raise ReloadFailed: if one of the slots that were to come has failed.
        """
        for number in added:
            slot = self._supervisor.slots.get(number)
            if slot is not None and slot.current is not None and not slot.current.alive:
                raise ReloadFailed(
                    f"slot {number}: {slot.current.reason}; the other slots serve",
                    slot.current.traceback,
                )
        return wanted

    def _scaled(self) -> bool:
        """
        Whether each slot has got where it goes, and no surplus worker lives.
        """
        settled = {State.READY, State.FAILED}
        slots = self._supervisor.slots
        return self._supervisor.stopping or all(
            worker.state in settled if worker.slot in slots else not worker.alive
            for worker in self._supervisor.workers()
        )

    def broadcast(self, text: str) -> int:
        """
        See L{ICluster.broadcast}.

        @raise OperatorError: if C{text} is too long, or can't be UTF-8.
        """
        try:
            length = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise OperatorError("broadcast", str(error), "send valid Unicode") from error
        if length > MAX_VALUE:
            raise OperatorError(
                "broadcast", f"the text has more than {MAX_VALUE} bytes", "send a shorter one"
            )
        workers = self._supervisor.workers()
        return sum(worker.send(text) for worker in workers if worker.state is State.READY)

    # What the parts of it tell.

    def _choose(self, loads: Sequence[Recipient], peer: Peer) -> Any:
        """
        Ask the policy.  One that fails must not cost a client its connection.

        @return: One of C{loads}.
        """
        try:
            chosen = self._scheduler.choose(loads, peer)
        except Exception:
            self.log.failure("the policy failed; the next slot in turn gets the connection")
            return self._fallback.choose(loads, peer)
        if chosen not in loads:
            self.log.error("the policy chose {chosen!r}, which it was not given", chosen=chosen)
            return self._fallback.choose(loads, peer)
        return chosen

    def preamble(self, slot: int | None, generation: int) -> Preamble:
        """
        What a worker, or with no C{slot} a template, is told first.
        """
        config = self._config
        return Preamble(
            slot,
            generation,
            config.source,
            self._path,
            tuple(
                ListenerPlan(listener.name, listener.family, _plain(listener.address))
                for listener in self._listeners.named
            ),
            config.heartbeat,
            config.credit,
            config.drainGrace,
            config.drainTimeout,
            config.reactor,
            self._logTimes,
            systemdNames(),
            tuple(sorted(self._inherited)),
        )

    def _share(self) -> dict[int, int]:
        """
        The listening sockets that workers accept from for themselves, by the
        number of the listener.
        """
        if self._config.policy != SHARED or self._stopped is not None:
            return {}
        streams = [one for one in self._listeners if isinstance(one, Listener)]
        return {listener.number: listener.share() for listener in streams}

    def _capacityChanged(self) -> None:
        """
        Let the listeners accept, another one first each time: on a busy
        cluster the first one uses up all the credit there is.
        """
        listeners = list(self._listeners)
        self._turns += 1
        first = self._turns % len(listeners) if listeners else 0
        for listener in (*listeners[first:], *listeners[:first]):
            listener.capacityChanged()

    def _onChange(self) -> None:
        self._everReady = self._everReady or any(
            worker.state is State.READY for worker in self._supervisor.workers()
        )
        self._capacityChanged()
        self._reloader.advance()
        self._tidyListeners()

    def _tidyListeners(self) -> None:
        """
        Close what the app wants no more: for sure only while every slot has a
        worker that has said what it wants, and none is being replaced.
        """
        slots = self._supervisor.slots.values()
        for slot in slots:
            if slot.current is not None and slot.current.state is State.FAILED:
                self._listeners.slotFailed(slot.number)
        settled = all(
            slot.current is not None and slot.current.state is State.READY and not slot.candidate
            for slot in slots
        )
        if slots and settled and self._reloader.status is None:
            self._listeners.sweep(len(slots))

    def _onLeaving(self, slot: int) -> None:
        self.log.info("slot {slot} was told to terminate by somebody else", slot=slot)
        worker = self._supervisor.slots[slot].current
        if worker is not None:
            self._leaving[slot] = worker
        self._reactor.callLater(LEAVING_GRACE, self._replaceLeaving)

    def _replaceLeaving(self) -> None:
        """
        Replace the next of the workers that were told to terminate, unless
        something else has replaced it meanwhile.
        """
        while self._leaving and self._reloader.status is None and self._stopped is None:
            number, worker = self._leaving.popitem()
            slot = self._supervisor.slots.get(number)
            if slot is not None and slot.current is worker and worker.state is State.READY:
                self.restart(number).addErrback(self._reloadFailed)

    def _onBootFailed(self, fault: str, reason: str) -> None:
        if fault == "operator" and not self._everReady and self._stopped is None:
            self.onFatal(self._startError(reason))

    def _startError(self, reason: str) -> OperatorError:
        """
        What to tell the operator, who named something that workers can't run.
        """
        app = self._config.app is not None
        usual = f"check {'--app' if app else 'the command line'} and the current directory"
        what, _, cause = reason.removeprefix("can't ").partition(": ")
        if not reason.startswith("can't ") or not cause:
            what, cause = "start", reason
        cause, _, remedy = cause.partition("; ")
        return OperatorError(what, cause, remedy or usual)

    def _onShed(self, count: int, reason: str) -> None:
        self.events.publish(ConnectionsShed(self._now(), count, reason))

    def _subscriberFailed(self, event: Event) -> None:
        self.log.failure("a subscriber failed at {event}", event=event)

    def _reloadFailed(self, failure: Any) -> None:
        failure.trap(ClusterError)
        self.log.error("{error}", error=failure.value)

    def _noting(self, done: Deferred[int]) -> Deferred[int]:
        """
        When a replacement ends, begin the one that was asked for meanwhile.
        """
        done.addBoth(self._ended)
        return done

    def _ended(self, result: Any) -> Any:
        if self._reloader.status is None and self._stopped is None:
            if self._reloadAgain:
                self._reloadAgain = False
                self._reactor.callLater(0, self.requestReload, "asked for during the last one")
            elif self._leaving:
                self._reactor.callLater(0, self._replaceLeaving)
        return result


def modulePath() -> tuple[str, ...]:
    """
    Where this process finds modules, the current directory first, so that
    workers find the same ones.
    """
    return (os.getcwd(), *(os.path.abspath(entry) for entry in sys.path))


def systemdNames() -> tuple[str, ...]:
    """
    The names of the descriptors that systemd has passed to this process, which
    Twisted's endpoints know.
    """
    from twisted.internet.endpoints import _SystemdParser

    passed = _SystemdParser._sddaemon
    names = {number: name for name, number in passed.inheritedNamedDescriptors().items()}
    return tuple(names.get(number, "") for number in passed.inheritedDescriptors())


def _plain(address: Any) -> tuple[Any, ...] | str:
    return address if isinstance(address, tuple) else os.fsdecode(address)
