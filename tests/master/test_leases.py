"""
Tests for L{twisted_cluster.master.leases}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.contract import Listener
from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.errors import StateUnavailable
from twisted_cluster.master.leases import INTERVAL, MAX_REQUESTS, SAFE, SECONDS, LeaseDesk


class Freeing(Listener):
    """
    Tells desks of leases that became free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desks: list[LeaseDesk] = []

    def leaseFreed(self, name: str) -> None:
        """
        Tell them.
        """
        for desk in self.desks:
            desk.freed(name)


class SlowBackend(MemoryBackend):
    """
    A backend whose answers a test gives, or that can't be reached.

    @ivar waiting: The Deferreds and what they will fire with.
    @ivar up: Whether it can be reached.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.slow = False
        self.up = True
        self.asked: list[str] = []
        self.waiting: list[tuple[Deferred[Any], Deferred[Any]]] = []

    def acquire(self, name: str, owner: str, seconds: float) -> Deferred[int | None]:
        """Acquire, at last."""
        return self._later("acquire", super().acquire, name, owner, seconds)

    def renew(self, name: str, owner: str, seconds: float) -> Deferred[bool]:
        """Renew, at last."""
        return self._later("renew", super().renew, name, owner, seconds)

    def release(self, name: str, owner: str) -> Deferred[bool]:
        """Release, at last."""
        return self._later("release", super().release, name, owner)

    def _later(self, what: str, call: Any, *arguments: Any) -> Deferred[Any]:
        self.asked.append(what)
        done: Deferred[Any] = Deferred()
        if not self.up:
            done.errback(StateUnavailable("can't be reached; wait"))
        elif self.slow:
            self.waiting.append((done, call(*arguments)))
        else:
            call(*arguments).chainDeferred(done)
        return done

    def answer(self) -> None:
        """
        Give all answers.
        """
        waiting, self.waiting = self.waiting, []
        for done, result in waiting:
            result.chainDeferred(done)


class LeaseDeskTests(SynchronousTestCase):
    """
    Two masters with one backend.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = SlowBackend(self.clock)
        self.listener = Freeing()
        self.successResultOf(self.backend.start(self.listener))
        self.granted: list[tuple[Any, str]] = []
        self.tokens: list[int] = []
        self.lost: list[tuple[Any, str, str]] = []
        self.desk = self.makeDesk()
        self.addCleanup(lambda: self.desk.stop())

    def makeDesk(self) -> LeaseDesk:
        """
        A desk of one more master.
        """
        desk = LeaseDesk(self.clock, self.backend)
        desk.granted = self.grant
        desk.lost = lambda client, label, reason: self.lost.append((client, label, reason))
        self.listener.desks.append(desk)
        return desk

    def grant(self, client: Any, label: str, token: int) -> None:
        """Remember."""
        self.granted.append((client, label))
        self.tokens.append(token)

    def test_inOrder(self) -> None:
        """
        Those who ask for a lease get it one after another, in their order,
        with growing tokens.
        """
        for client in "abc":
            self.desk.ask(client, "1", "n")
        self.assertEqual(self.granted, [("a", "1")])
        self.desk.end("a", "1")
        self.desk.end("b", "1")
        self.assertEqual(self.granted, [("a", "1"), ("b", "1"), ("c", "1")])
        self.assertEqual(self.tokens, sorted(set(self.tokens)))
        self.assertEqual(self.lost, [])

    def test_repeatedLabel(self) -> None:
        """
        A client that asks twice with one label asks once.
        """
        self.desk.ask("a", "1", "n")
        self.desk.ask("a", "1", "n")
        self.assertEqual((self.granted, len(self.desk)), ([("a", "1")], 1))

    def test_ownLeasesOnly(self) -> None:
        """
        Nobody can end what another client has.
        """
        self.desk.ask("a", "1", "n")
        self.desk.end("b", "1")
        self.desk.ask("b", "2", "n")
        self.assertEqual(self.granted, [("a", "1")])

    def test_death(self) -> None:
        """
        What a dead client held goes to the next one at once, and it stands in
        no line any more.
        """
        self.desk.ask("a", "1", "n")
        self.desk.ask("b", "1", "n")
        self.desk.ask("b", "2", "m")
        self.desk.ask("a", "2", "m")
        self.desk.ask("c", "1", "m")
        self.desk.forget("a")
        self.assertEqual(self.granted, [("a", "1"), ("b", "2"), ("b", "1")])
        self.desk.forget("b")
        self.assertEqual(self.granted[3:], [("c", "1")])
        self.assertEqual(len(self.desk), 1)
        self.desk.forget("b")

    def test_longLine(self) -> None:
        """
        A line may be long, though each who gets the lease releases it at once.
        """
        self.desk.ask("a", "0", "n")
        self.desk.granted = lambda client, label, token: self.desk.end(client, label)
        for number in range(5000):
            self.desk.ask("b", str(number), "n")
        self.desk.end("a", "0")
        self.assertEqual(len(self.desk), 0)

    def test_tooMany(self) -> None:
        """
        There is a limit to what one client may ask for.
        """
        for number in range(MAX_REQUESTS + 1):
            self.desk.ask("a", str(number), "n")
        (client, label, reason) = self.lost[0]
        self.assertEqual((client, label), ("a", str(MAX_REQUESTS)))
        self.assertIn("want less", reason)
        self.assertEqual(len(self.desk), MAX_REQUESTS)

    def test_otherHost(self) -> None:
        """
        A lease that another host has is got when that one gives it back.
        """
        other = self.makeDesk()
        other.ask("x", "1", "n")
        self.desk.ask("a", "1", "n")
        self.assertEqual(self.granted, [("x", "1")])
        other.end("x", "1")
        self.assertEqual(self.granted, [("x", "1"), ("a", "1")])

    def test_otherHostDies(self) -> None:
        """
        If the other host dies, its leases expire.
        """
        self.backend.acquire("n", "a dead host's", SECONDS)
        self.desk.ask("a", "1", "n")
        self.clock.pump([INTERVAL] * round(SECONDS / INTERVAL - 1))
        self.assertEqual(self.granted, [])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.granted, [("a", "1")])

    def test_renewed(self) -> None:
        """
        What is held is renewed for as long as it is held.
        """
        self.desk.ask("a", "1", "n")
        self.clock.pump([INTERVAL] * 100)
        self.assertIsNone(self.successResultOf(self.backend.acquire("n", "other", 1.0)))
        self.desk.end("a", "1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.lost, [])

    def test_notRenewed(self) -> None:
        """
        If it can't be renewed, its holder is told before others can have it,
        and the next in line tries.
        """
        self.desk.ask("a", "1", "n")
        self.desk.ask("b", "1", "n")
        self.clock.advance(INTERVAL)
        self.backend.up = False
        self.clock.pump([INTERVAL] * round(SAFE / INTERVAL - 1))
        self.assertEqual(self.lost, [])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lost, [("a", "1", "it could not be renewed for 2 seconds")])
        self.backend.up = True
        self.assertIsNone(self.successResultOf(self.backend.acquire("n", "other", 1.0)))
        self.clock.pump([INTERVAL] * round((SECONDS - SAFE) / INTERVAL))
        self.assertEqual(self.granted[1:], [("b", "1")])

    def test_renewalWithoutAnswer(self) -> None:
        """
        A backend that does not answer is asked once, and is as good as one
        that can't be reached.
        """
        self.desk.ask("a", "1", "n")
        self.backend.slow = True
        self.clock.pump([INTERVAL] * round(SAFE / INTERVAL))
        self.assertEqual(len(self.lost), 1)
        self.assertEqual(self.backend.asked, ["acquire", "renew", "release"])
        self.backend.answer()
        self.assertEqual(len(self.lost), 1)

    def test_suspended(self) -> None:
        """
        If this process did not run for a long time, the backend is asked
        before anything is given up.
        """
        self.desk.ask("a", "1", "n")
        self.clock.advance(60.0)
        self.assertEqual(self.lost, [])
        self.assertIsNone(self.successResultOf(self.backend.acquire("n", "other", 1.0)))

    def test_taken(self) -> None:
        """
        If somebody else got it meanwhile, it is lost.
        """
        self.desk.ask("a", "1", "n")
        self.clock.rightNow += 60.0
        self.successResultOf(self.backend.acquire("n", "other", 60.0))
        self.clock.advance(0)
        self.assertEqual(self.lost, [("a", "1", "somebody else has it")])

    def test_endedWhileAsked(self) -> None:
        """
        What is got for somebody who does not want it any more goes to the next
        in line.
        """
        self.backend.slow = True
        self.desk.ask("a", "1", "n")
        self.desk.ask("b", "1", "n")
        self.desk.end("a", "1")
        self.backend.answer()
        self.assertEqual(self.granted, [])
        self.backend.answer()
        self.assertEqual(self.granted, [("b", "1")])

    def test_notReached(self) -> None:
        """
        A lease that can't be asked for is asked for again.
        """
        self.backend.up = False
        self.desk.ask("a", "1", "n")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.granted, [])
        self.backend.up = True
        self.clock.advance(INTERVAL)
        self.assertEqual(self.granted, [("a", "1")])

    def test_stop(self) -> None:
        """
        When the master stops, all its leases are free.
        """
        self.desk.ask("a", "1", "n")
        self.desk.ask("b", "1", "n")
        self.desk.ask("b", "2", "m")
        self.successResultOf(self.desk.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for name in "nm":
            token = self.successResultOf(self.backend.acquire(name, "other", 1.0))
            self.assertIsNotNone(token)
        self.assertEqual(len(self.granted), 2)

    def test_stopWhileAsked(self) -> None:
        """
        So is one that comes when the master has stopped.
        """
        self.backend.slow = True
        self.desk.ask("a", "1", "n")
        self.successResultOf(self.desk.stop())
        self.backend.slow = False
        self.backend.answer()
        self.assertEqual(self.granted, [])
        self.assertIsNotNone(self.successResultOf(self.backend.acquire("n", "other", 1.0)))
