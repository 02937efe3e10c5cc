"""
What is to run in one worker of the cluster only: periodic jobs, and services.
Runs in the workers.

All workers wait for the same lease; the one that has it does the work.  When
it dies, drains or loses the lease, the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster import context
from twisted_cluster.errors import ClusterError
from twisted_cluster.shared.leases import Lease

RETRY = 0.25
"""Seconds between two tries while leases can't be had."""


class SingletonService(Service):
    """
    Runs another service in one worker of the cluster.  Start it in all of
    them, as any other service of the app.

    @ivar lease: What this worker has while the other service runs here; else
        L{None}.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        makeService: Callable[[], IService],
        reactor: IReactorTime | None = None,
        here: Any = None,
    ) -> None:
        """
        @param name: What the lease is called: one for each thing that is to
            run once.
        @param makeService: Makes a service that has not been started; called
            each time that it is this worker's turn.
        @param reactor: By default the installed one, from C{startService} on.
        @param here: The place of this process, by default
            L{twisted_cluster.current}.
        """
        self.setName(name)
        self._makeService = makeService
        self._reactor: Any = reactor
        self._here = here or context.current()
        self._life: Deferred[None] | None = None
        self._inner: IService | None = None
        self.lease: Lease | None = None

    def startService(self) -> None:
        """
        Wait for this worker's turn.
        """
        super().startService()
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._here.onDrain(self.stopService)
        self._life = ensureDeferred(self._live())
        self._life.addErrback(self._ended)

    def stopService(self) -> Deferred[None]:
        """
        Stop the other service if it runs here, and let the next worker go on.

        @return: A Deferred that fires when that is done.
        """
        if self.running:
            super().stopService()
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
        return ensureDeferred(self._stopInner())

    async def _live(self) -> None:
        while self.running:
            try:
                lease = await self._here.lease(str(self.name))
            except ClusterError as error:
                self.log.debug("{name} waits: {error}", name=self.name, error=error)
                await deferLater(self._reactor, RETRY)
                continue
            await self._hold(lease)

    async def _hold(self, lease: Lease) -> None:
        """
        Run the other service as long as the lease is held.
        """
        self.lease = lease
        try:
            self._inner = self._makeService()
            self._inner.privilegedStartService()
            await maybeDeferred(self._inner.startService)
            reason = await lease.lost
        except CancelledError:
            raise
        except Exception:
            self.log.failure("{name} failed to start; another worker may try", name=self.name)
            await self._stopInner()
            await deferLater(self._reactor, RETRY)
        else:
            self.log.warn("{name} stops here: {reason}", name=self.name, reason=reason)
            await self._stopInner()

    async def _stopInner(self) -> None:
        inner, self._inner = self._inner, None
        lease, self.lease = self.lease, None
        try:
            if inner is not None:
                await maybeDeferred(inner.stopService)
        except Exception:
            self.log.failure("{name} failed to stop", name=self.name)
        finally:
            if lease is not None:
                await lease.release()

    def _ended(self, failure: Failure) -> None:
        failure.trap(CancelledError)


class _Job:
    """
    A periodic job that outlives its failures.
    """

    log = Logger()

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        self._name = name
        self._call = call

    def run(self) -> Deferred[Any]:
        """
        Do it once.
        """
        done = maybeDeferred(self._start)
        return done.addErrback(self._failed)

    def _start(self) -> Any:
        result = self._call()
        return ensureDeferred(result) if hasattr(result, "__await__") else result

    def _failed(self, failure: Failure) -> None:
        self.log.failure("{name} failed; it is tried again in time", failure, name=self._name)


def runOnce(
    name: str, seconds: float, call: Callable[[], Any], reactor: IReactorTime | None = None
) -> SingletonService:
    """
    Do something periodically, in one worker of the cluster only.  May be
    called where the app is imported: it begins when the worker does.

    @param seconds: The time from one start to the next; a run that takes
        longer delays the next one.
    @param call: May return a Deferred, or be a coroutine function.
    @param reactor: By default the installed one, when the worker begins.
    @return: The service that sees to it; to stop that is to do it no more in
        this worker.
    """

    def makeService() -> IService:
        service = TimerService(seconds, _Job(name, call).run)
        if reactor is not None:
            service.clock = reactor
        return service

    service = SingletonService(name, makeService, reactor)
    context.current().onStart(service.startService)
    return service
