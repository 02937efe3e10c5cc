"""
Tests for L{twisted_cluster.shared.leases}, by way of master and workers.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.shared.case import SharedTestCase
from twisted_cluster.errors import AppError, LeaseTimedOut, StateUnavailable
from twisted_cluster.shared.commons import Commons
from twisted_cluster.shared.leases import Lease


class LeaseTests(SharedTestCase):
    """
    What apps do with leases.
    """

    def test_oneHolder(self) -> None:
        """
        One has it; the next one gets it when it is released, with a larger
        token.
        """
        first: Lease = self.done(self.one.leases.lease("job"))
        waiting = self.two.leases.lease("job")
        self.settle()
        own = self.master.commons.leases.lease("job")
        self.settle()
        self.assertNoResult(waiting)
        self.assertTrue(first.held)
        self.done(first.release())
        self.assertFalse(first.held)
        second: Lease = self.done(waiting)
        self.assertNoResult(own)
        self.assertGreater(second.token, first.token)
        second.release()
        self.assertGreater(self.done(own).token, second.token)
        self.assertNoResult(first.lost)

    def test_repr(self) -> None:
        """
        It says what it is.
        """
        lease: Lease = self.done(self.one.leases.lease("job"))
        self.assertEqual(repr(lease), f"<Lease 'job' token={lease.token} held=True>")

    def test_block(self) -> None:
        """
        It can be held for a block, and is released however that ends.
        """

        async def hold() -> None:
            async with await self.one.leases.lease("job") as lease:
                self.assertTrue(lease.held)
                raise KeyError

        self.failed(Deferred.fromCoroutine(hold()), KeyError)
        self.done(self.two.leases.lease("job"))

    def test_releasedTwice(self) -> None:
        """
        To release it again is harmless to the next holder.
        """
        first: Lease = self.done(self.one.leases.lease("job"))
        first.release()
        second: Lease = self.done(self.one.leases.lease("job"))
        first.release()
        waiting = self.two.leases.lease("job")
        self.settle()
        self.assertNoResult(waiting)
        self.assertTrue(second.held)

    def test_death(self) -> None:
        """
        The lease of a dead worker goes to the next one at once.
        """
        first: Lease = self.done(self.one.leases.lease("job"))
        waiting = self.two.leases.lease("job")
        self.settle()
        self.kill(self.one)
        self.assertTrue(self.done(waiting).held)
        self.assertIn("the master is gone", self.successResultOf(first.lost))
        self.assertFalse(first.held)

    def test_waitingWhenLost(self) -> None:
        """
        If the channel is lost, waiting is over.
        """
        waiting = self.one.leases.lease("job")
        self.kill(self.one)
        self.assertIn("can't get the lease 'job'", self.failed(waiting, StateUnavailable))

    def test_lost(self) -> None:
        """
        A lease that the backend has given to somebody else is lost.
        """
        lease: Lease = self.done(self.one.leases.lease("job"))
        self.clock.rightNow += 60.0
        self.backend.acquire("job", "other", 60.0)
        self.settle()
        self.assertEqual(self.successResultOf(lease.lost), "somebody else has it")
        lease.release()

    def test_timeout(self) -> None:
        """
        Who has waited for long enough is told so, and gets it no more.
        """
        first: Lease = self.done(self.one.leases.lease("job"))
        waiting = self.two.leases.lease("job", timeout=5.0)
        self.wait(4.9)
        self.assertNoResult(waiting)
        self.wait(0.1)
        text = self.failed(waiting, LeaseTimedOut)
        self.assertIn("can't get the lease 'job': others have had it for 5.0 s; wait", text)
        first.release()
        self.done(self.one.leases.lease("job"))

    def test_inTime(self) -> None:
        """
        A lease that is got in time is kept for longer than that.
        """
        lease: Lease = self.done(self.one.leases.lease("job", timeout=5.0))
        self.wait(60.0)
        self.assertTrue(lease.held)

    def test_cancelled(self) -> None:
        """
        Who cancels stands in line no more, even if the answer is on its way.
        """
        waiting = self.one.leases.lease("job")
        while self.fabric.deliver():
            pass
        waiting.cancel()
        self.failed(waiting, CancelledError)
        self.done(self.two.leases.lease("job"))

    def test_refused(self) -> None:
        """
        Not every name can be had.
        """
        text = self.failed(self.one.leases.lease("twisted_cluster.x"), AppError)
        self.assertIn("can't get the lease 'twisted_cluster.x': twisted_cluster.* is", text)
        self.failed(self.one.leases.lease(""), AppError)
        self.failed(self.one.leases.lease("x" * 1025), AppError)

    def test_fullTowardsMaster(self) -> None:
        """
        What can't be told to the master now is told later.
        """
        first: Lease = self.done(self.one.leases.lease("job"))
        waiting = self.two.leases.lease("job")
        self.settle()
        self.fabric.full = {"master"}
        first.release()
        self.wait(1.0)
        self.assertNoResult(waiting)
        self.fabric.full.clear()
        self.wait(0.25)
        self.successResultOf(waiting)

    def test_fullTowardsWorker(self) -> None:
        """
        So is what can't be told to a worker.
        """
        self.fabric.full = {"one"}
        waiting = self.one.leases.lease("job")
        self.wait(1.0)
        self.assertNoResult(waiting)
        self.fabric.full.clear()
        self.wait(0.25)
        self.successResultOf(waiting)

    def test_notAttached(self) -> None:
        """
        Without a master there are no leases.
        """
        self.failed(Commons().leases.lease("job"), StateUnavailable)

    def test_stopped(self) -> None:
        """
        When the master stops, those of its own code are lost.
        """
        lease: Lease = self.done(self.master.commons.leases.lease("job"))
        self.successResultOf(self.master.stop())
        self.assertEqual(self.successResultOf(lease.lost), "the master stops")
