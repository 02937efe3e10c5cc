"""
Tests for L{twisted_cluster.master.listeners}: how long what apps asked for is
held.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import EventStream
from twisted_cluster.master.dispatcher import Dispatcher
from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import LATE_PATIENCE, Listeners
from twisted_cluster.testing import FakeReactor

REQUEST = BindRequest("tcp", "127.0.0.1", 0)


class ClaimTests(SynchronousTestCase):
    """
    Listeners that workers, here mere names, ask for.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        dispatcher = Dispatcher(
            lambda loads, peer: loads[0], lambda descriptor, since: True, lambda count, reason: None
        )
        self.listeners = Listeners(self.reactor, dispatcher, EventStream(self.fail), lambda: 5.0)
        self.addCleanup(self.close)

    def close(self) -> None:
        """
        Close all that is open.
        """
        done = self.listeners.close()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def count(self) -> int:
        """
        How many are held.
        """
        self.reactor.settle()
        return len(self.listeners.statuses())

    def test_shared(self) -> None:
        """
        Who asks for the same gets the same.
        """
        found = {self.listeners.claim(name, 0, REQUEST) for name in ("old", "new")}
        self.assertEqual((len(found), self.count()), (1, 1))

    def test_stopped(self) -> None:
        """
        One that the last worker has stopped is closed at once.
        """
        number, _ = self.listeners.claim("one", 0, REQUEST)
        self.listeners.claim("other", 1, REQUEST)
        self.listeners.unclaim("one", number)
        self.assertEqual(self.count(), 1)
        self.listeners.unclaim("other", number)
        self.assertEqual(self.count(), 0)

    def test_leaving(self) -> None:
        """
        One whose last worker ends is held for the next, until all slots are
        served by workers that have not asked for it.
        """
        number, _ = self.listeners.claim("old", 0, REQUEST)
        self.listeners.unclaim("old", number, leaving=True)
        self.listeners.gone("old")
        self.assertEqual(self.count(), 1)
        self.listeners.sweep(1)
        self.assertEqual(self.count(), 0)

    def test_late(self) -> None:
        """
        One that was asked for after start-up is held longer: the next workers
        may ask as late.
        """
        self.listeners.claim("old", 0, REQUEST, late=True)
        self.listeners.gone("old")
        self.listeners.sweep(1)
        self.reactor.advance(LATE_PATIENCE - 1)
        self.listeners.sweep(1)
        self.listeners.claim("new", 0, REQUEST, late=True)
        self.reactor.advance(2)
        self.assertEqual(self.count(), 1)
        self.listeners.gone("new")
        self.listeners.sweep(1)
        self.reactor.advance(LATE_PATIENCE)
        self.assertEqual(self.count(), 0)

    def test_closedWhileLate(self) -> None:
        """
        Nothing is left to do when all are closed.
        """
        self.listeners.claim("old", 0, REQUEST, late=True)
        self.listeners.gone("old")
        self.listeners.sweep(1)
        self.close()
