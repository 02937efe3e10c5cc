"""
The embedding API: a cluster as a Twisted service.  Runs in the master.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from twisted_cluster.backends.choice import makeBackend
from twisted_cluster.config import ClusterConfig
from twisted_cluster.errors import OperatorError
from twisted_cluster.events import Event, ExitStatus, ReloadStepped, State, WorkerChanged
from twisted_cluster.interfaces import (
    ClusterStatus,
    ILoad,
    IScheduler,
    IWorkerSpawner,
    Message,
    Peer,
    WorkerStatus,
)
from twisted_cluster.master import template
from twisted_cluster.master.master import Master
from twisted_cluster.master.sentinel import Sentinel
from twisted_cluster.master.signals import Signals
from twisted_cluster.master.spawn import ExecSpawner
from twisted_cluster.ops.admin import AdminService
from twisted_cluster.policies import makeScheduler
from twisted_cluster.shared.cache import Cache
from twisted_cluster.shared.leases import Lease
from twisted_cluster.shared.state import State as SharedState


@implementer(IScheduler)
class _HookScheduler:
    """
    Asks the C{chooseSlot} hook.
    """

    def __init__(self, service: ClusterService) -> None:
        self._service = service

    def choose(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """See L{IScheduler.choose}."""
        return self._service.chooseSlot(loads, peer)


Handler = Callable[[Message], Any]


class ClusterService(MultiService):
    """
    A cluster.  Give it a parent and start it like any other service::

        application = service.Application("hello")
        config = ClusterConfig(app="hello:resource", listen=("tcp:8080",), workers=4)
        ClusterService(config).setServiceParent(application)

    Subclasses override the hooks C{workerReady}, C{workerExited},
    C{reloadStep} and C{chooseSlot}, which do nothing of their own.

    @ivar config: What it was made with.
    @ivar events: The stream of all events.
    """

    log = Logger()

    def __init__(
        self,
        config: ClusterConfig,
        reactor: Any = None,
        workerOutput: str = "inherit",
        adminOwner: tuple[int, int] | None = None,
        spawner: IWorkerSpawner | None = None,
    ) -> None:
        """
        @param reactor: The reactor; by default the installed one.
        @param workerOutput: C{"inherit"}: workers write their log to this
            process's standard output; C{"relay"}: it passes through this
            process's log.
        @param adminOwner: User and group id to give the admin socket to.
        @param spawner: What makes worker processes; by default they are forked
            from a template, or each is a fresh interpreter.
        @raise OperatorError: if the configuration can't be carried out.
        """
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.config = config
        self._reactor = reactor
        relay = workerOutput == "relay"
        self._policy = makeScheduler(config.policy, random.Random())
        self._master = Master(
            reactor,
            config,
            lambda master: spawner or _makeSpawner(reactor, config, relay, master),
            self._scheduler(),
            Sentinel(reactor, config.drainTimeout),
            makeBackend(reactor, config),
            logTimes=not relay,
        )
        self.events = self._master.events
        self.events.subscribe(self._callHooks)
        if type(self).messageReceived is not ClusterService.messageReceived:
            self._master.messages.onUnhandled = self.messageReceived
        self._master.onStop = self._stopProcess
        self._master.onFatal = self._fatal
        self._signals = Signals(reactor, self._stopNow, self._master.requestReload)
        self._bound = False
        if config.admin is not None:
            admin = AdminService(reactor, self._master, config.admin, adminOwner)
            admin.setServiceParent(self)

    # What it can do.

    @property
    def workers(self) -> Mapping[int, WorkerStatus]:
        """
        The worker that serves each slot.
        """
        return self._master.workers()

    def status(self) -> ClusterStatus:
        """
        The whole cluster now.
        """
        return self._master.status()

    def reload(self) -> Deferred[int]:
        """
        Replace all workers by new ones of the next generation.

        @return: A Deferred that fires with the generation, or fails with
            L{twisted_cluster.errors.ReloadFailed} or
            L{twisted_cluster.errors.ReloadRefused}.
        """
        return self._master.reload()

    def restart(self, slot: int) -> Deferred[int]:
        """
        Replace the worker of one slot.

        @return: As L{reload}; it may fail with
            L{twisted_cluster.errors.NoSuchSlot} too.
        """
        return self._master.restart(slot)

    def scale(self, wanted: int) -> Deferred[int]:
        """
        Have C{wanted} workers.

        @return: A Deferred that fires with C{wanted} when the new ones are
            Ready, or the surplus ones gone.
        """
        return self._master.scale(wanted)

    def broadcast(self, text: str) -> int:
        """
        Send C{text} to all Ready workers.

        @return: To how many.
        """
        return self._master.broadcast(text)

    def send(self, slot: int, topic: str, value: object) -> Deferred[None]:
        """
        Send a message to the worker of a slot.

        @param value: Bytes, or what JSON can express.
        @return: A Deferred that fires when it is on its way; it fails with
            L{twisted_cluster.errors.CallFailed}.
        """
        return self._master.messages.send(slot, topic, value)

    def tell(self, topic: str, value: object) -> int:
        """
        Send a message to all Ready workers.

        @return: To how many.
        @raise AppError: if the value can't be sent.
        """
        return self._master.messages.tell(topic, value)

    def tellEverywhere(self, topic: str, value: object) -> Deferred[int]:
        """
        Send a message to the Ready workers of all hosts that share the state.

        @return: A Deferred that fires when it is on its way, with the number of
            workers of this host.  It fails with
            L{twisted_cluster.errors.StateUnavailable}.
        """
        return self._master.messages.tellEverywhere(topic, value)

    def call(
        self, slot: int, topic: str, value: object = None, timeout: float = 10.0
    ) -> Deferred[Any]:
        """
        Ask the worker of a slot something.

        @param timeout: Seconds to wait for the answer.
        @return: A Deferred of the answer; it fails with
            L{twisted_cluster.errors.CallFailed}.
        """
        return self._master.messages.call(slot, topic, value, timeout)

    @property
    def state(self) -> SharedState:
        """
        The mapping that all workers share.
        """
        return self._master.shared.commons.state

    @property
    def cache(self) -> Cache:
        """
        The cache that all workers share.
        """
        return self._master.shared.commons.cache

    def lease(self, name: str, timeout: float | None = None) -> Deferred[Lease]:
        """
        Wait to be the only one in the cluster who holds C{name}.

        @param timeout: Seconds to wait at most; L{None}: as long as it takes.
        @return: A Deferred of a L{Lease}.
        """
        return self._master.shared.commons.leases.lease(name, timeout)

    def handle(self, topic: str) -> Callable[[Handler], Handler]:
        """
        A decorator: have a function called in the master with each
        L{twisted_cluster.interfaces.Message} of C{topic}.  What it returns,
        perhaps as a Deferred or a coroutine, answers a call.  A topic that
        nothing can have is refused with L{twisted_cluster.errors.AppError}.
        """
        return lambda handler: self._master.messages.handlers.handle(topic, handler)

    # What subclasses override.

    def messageReceived(self, message: Message) -> Any:
        """
        A worker sent the master a message that no L{handle}r is for.

        @return: The answer, if it is a call; perhaps a Deferred, or a
            coroutine.
        """
        raise LookupError(f"the master handles no {message.topic!r}")

    def workerReady(self, worker: WorkerStatus) -> None:
        """
        A worker became Ready.
        """

    def workerExited(self, worker: WorkerStatus, exit: ExitStatus, meant: bool) -> None:
        """
        A worker process ended.

        @param exit: Its exit code, or the signal that killed it.
        @param meant: Whether the master had asked for it.
        """

    def reloadStep(self, step: ReloadStepped) -> None:
        """
        A replacement advanced by one step.
        """

    def chooseSlot(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """
        Choose which worker gets a connection.  By default the configured
        policy does.  Called for each connection: keep it short.

        @param loads: The workers that can take it; never empty.
        @param peer: The client's address.
        @return: One of C{loads}.
        """
        return self._policy.choose(loads, peer)

    # IService.

    def privilegedStartService(self) -> None:
        """
        Bind the listeners and the admin socket, as root if need be.
        """
        self._bind()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Spawn the workers.
        """
        self._bind()
        # Services of a subclass may write to the state as soon as they start.
        self._master.share()
        super().startService()
        self._reactor.callWhenRunning(self._signals.install)
        self._master.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting, drain, stop.

        @return: A Deferred that fires when no worker is left.
        """
        done = self._master.shutDown(False, "the service is being stopped")
        return done.addCallback(lambda _: self._stopRest())

    def _stopRest(self) -> Deferred[Any]:
        self._signals.restore()
        self._bound = False
        return maybeDeferred(super().stopService)

    def _bind(self) -> None:
        """
        A service added to a parent that runs already is started without the
        privileged step.
        """
        if not self._bound:
            self._master.bind()
            self._bound = True

    def _scheduler(self) -> IScheduler:
        """
        The policy itself unless C{chooseSlot} is overridden, which saves a
        call for each connection.
        """
        if type(self).chooseSlot is ClusterService.chooseSlot:
            return self._policy
        return _HookScheduler(self)

    def _callHooks(self, event: Event) -> None:
        if isinstance(event, ReloadStepped):
            self.reloadStep(event)
        elif isinstance(event, WorkerChanged) and event.after is State.READY:
            self.workerReady(_statusOf(event))
        elif isinstance(event, WorkerChanged) and event.exit is not None:
            self.workerExited(_statusOf(event), event.exit, event.meant)

    def _stopProcess(self) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def _stopNow(self, reason: str) -> None:
        self._master.shutDown(True, reason)

    def _fatal(self, error: OperatorError) -> None:
        """
        Stop and have the process exit with 1, which neither twistd nor twist
        offers a way to do.
        """
        self.log.critical("{error}", error=error)
        atexit.register(_exitWithFailure)
        self._master.shutDown(True, "the app can't be loaded")
        self._stopProcess()


def _makeSpawner(
    reactor: Any, config: ClusterConfig, relay: bool, master: Master
) -> IWorkerSpawner:
    execute = ExecSpawner(reactor, relay)
    if not config.preload or not template.available():
        return execute
    return template.TemplateSpawner(
        reactor, execute, master.sentinel, lambda generation: master.preamble(None, generation)
    )


def _statusOf(event: WorkerChanged) -> WorkerStatus:
    return WorkerStatus(
        event.slot, event.generation, event.pid, event.after, 0, event.at, reason=event.reason
    )


def _exitWithFailure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
