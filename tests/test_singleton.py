"""
Tests for L{twisted_cluster.singleton}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail

from tests.shared.case import SharedTestCase, Worker
from tests.support import Lines
from twisted_cluster import context
from twisted_cluster.errors import StateUnavailable
from twisted_cluster.singleton import RETRY, SingletonService, runOnce
from twisted_cluster.testing import pretendWorker


class Place:
    """
    The place of one of several pretended workers.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.drains: list[Callable[[], Any]] = []
        self.failure: Exception | None = None

    def lease(self, name: str) -> Deferred[Any]:
        """See L{context.Context.lease}."""
        return self.worker.leases.lease(name) if self.failure is None else fail(self.failure)

    def onDrain(self, call: Callable[[], Any]) -> None:
        """See L{context.Context.onDrain}."""
        self.drains.append(call)


class Work(Service):
    """
    What is to run once.

    @ivar began: How often one was started.
    """

    began = 0
    failing: Exception | None = None

    def startService(self) -> None:
        """Start, or not."""
        if self.failing is not None:
            raise self.failing
        type(self).began += 1
        super().startService()

    def stopService(self) -> None:
        """Stop, or not."""
        super().stopService()
        if self.failing is not None:
            raise self.failing


class SingletonTests(SharedTestCase):
    """
    A service that runs in one of two workers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(Work, "began", 0)
        self.made: list[Work] = []
        self.places = [Place(self.one), Place(self.two)]
        self.services = [
            SingletonService("work", self.make, self.clock, place) for place in self.places
        ]
        for service in self.services:
            self.addCleanup(self.end, service)

    def make(self) -> Work:
        """
        Make what is to run.
        """
        self.made.append(Work())
        return self.made[-1]

    def start(self) -> None:
        """
        Start both.
        """
        for service in self.services:
            service.startService()
        self.settle()

    def end(self, service: SingletonService) -> None:
        """
        Stop one, whatever state it is in.
        """
        service.stopService()
        self.settle()

    def running(self) -> list[bool]:
        """
        Which of them does the work.
        """
        return [service.lease is not None for service in self.services]

    def test_one(self) -> None:
        """
        One does the work, the other waits.
        """
        self.start()
        self.assertEqual((self.running(), Work.began), ([True, False], 1))
        self.assertTrue(self.made[0].running)

    def test_killed(self) -> None:
        """
        When the worker dies the other one goes on.
        """
        self.start()
        self.kill(self.one)
        self.settle()
        self.assertEqual((self.running(), Work.began), ([False, True], 2))

    def test_lost(self) -> None:
        """
        Who loses the lease stops before anything else, and stands in line
        again.
        """
        lines = Lines(self)
        self.start()
        lease = self.services[0].lease
        assert lease is not None
        lease.lose("a test says so")
        self.assertFalse(self.made[0].running)
        self.assertTrue(lines.containing("work stops here: a test says so"))

    def test_drain(self) -> None:
        """
        A worker that drains lets go of the work at once.
        """
        self.start()
        (drain,) = self.places[0].drains
        drain()
        self.settle()
        self.assertEqual((self.running(), Work.began), ([False, True], 2))
        self.assertFalse(self.made[0].running)

    def test_stopWaiting(self) -> None:
        """
        Who is stopped while it waits never begins.
        """
        self.start()
        self.done(self.services[1].stopService())
        self.done(self.services[0].stopService())
        self.assertEqual((self.running(), Work.began), ([False, False], 1))

    def test_startFails(self) -> None:
        """
        A service that can't be started here is tried by the next one; the
        failure is told.
        """
        self.patch(Work, "failing", RuntimeError("no database"))
        self.start()
        self.assertEqual([type(e.value) for e in self.flushLoggedErrors()][:1], [RuntimeError])
        self.patch(Work, "failing", None)
        self.wait(RETRY)
        self.assertEqual((sum(self.running()), Work.began), (1, 1))

    def test_stopFails(self) -> None:
        """
        One that fails to stop does not keep the lease.
        """
        self.start()
        self.patch(Work, "failing", RuntimeError("stuck"))
        self.services[0].stopService()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.patch(Work, "failing", None)
        self.settle()
        self.assertEqual(self.running(), [False, True])

    def test_unavailable(self) -> None:
        """
        As long as there are no leases it tries again.
        """
        for place in self.places:
            place.failure = StateUnavailable("gone")
        self.start()
        self.assertEqual(self.running(), [False, False])
        for place in self.places:
            place.failure = None
        self.wait(RETRY)
        self.assertEqual(self.running(), [True, False])


class RunOnceTests(SharedTestCase):
    """
    Periodic jobs.
    """

    def setUp(self) -> None:
        super().setUp()
        self.here = pretendWorker(self.addCleanup)
        self.patch(type(self.here), "commons", self.one.commons)
        self.runs: list[float] = []

    def begin_(self, call: Callable[[], Any]) -> SingletonService:
        """
        Have a job run each second.
        """
        service = runOnce("job", 1.0, call, self.clock)
        self.addCleanup(self.settle)
        self.addCleanup(service.stopService)
        return service

    def start(self) -> None:
        """
        The worker begins.
        """
        for call in self.here.begin():
            call()
        self.settle()

    def run_(self) -> None:
        """The job."""
        self.runs.append(self.clock.seconds())

    def test_early(self) -> None:
        """
        One that is asked for while the app is imported begins with the worker.
        """
        self.begin_(self.run_)
        self.settle()
        self.assertEqual(self.runs, [])
        self.start()
        for _ in range(3):
            self.wait(1.0)
        self.assertEqual(self.runs, [0.0, 1.0, 2.0, 3.0])

    def test_late(self) -> None:
        """
        One that is asked for later begins at once.
        """
        self.start()
        self.begin_(self.run_)
        self.settle()
        self.assertEqual(self.runs, [0.0])

    def test_fails(self) -> None:
        """
        A run that fails is told, and the next one comes in time.
        """

        async def job() -> None:
            self.run_()
            raise RuntimeError("no database")

        self.begin_(job)
        self.start()
        self.wait(1.0)
        self.assertEqual(self.runs, [0.0, 1.0])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_outside(self) -> None:
        """
        Where no worker runs, nothing happens.
        """
        self.assertEqual(context.current().drainCalls, ())
        self.begin_(self.run_)
        self.wait(5.0)
        self.assertEqual(self.runs, [])
