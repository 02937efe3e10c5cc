"""
Orphans that are given to a master which is process 1.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.master.strangers import INTERVAL, StrangerReaper


class StrangerReaperTests(SynchronousTestCase):
    """
    L{StrangerReaper}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.zombies: list[int] = []
        self.known: set[int | None] = set()
        reaper = StrangerReaper(
            self.clock,
            lambda: self.zombies[0] if self.zombies else None,
            self.zombies.remove,
            self.known,
        )
        reaper.start()
        self.addCleanup(reaper.stop)

    def test_reaped(self) -> None:
        """
        A stranger that is still there at the second look is reaped, and all
        that wait behind it.
        """
        self.zombies += [100, 101, 102]
        self.clock.advance(INTERVAL)
        self.assertEqual(self.zombies, [100, 101, 102])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.zombies, [])

    def test_ours(self) -> None:
        """
        One that the reactor waits for is left to it.
        """
        self.zombies.append(100)
        self.known.add(100)
        for _ in range(3):
            self.clock.advance(INTERVAL)
        self.assertEqual(self.zombies, [100])

    def test_someoneElses(self) -> None:
        """
        One that somebody in this process waits for himself is gone at the
        second look; the next one gets its own two looks.
        """
        self.zombies.append(100)
        self.clock.advance(INTERVAL)
        self.zombies[:] = [101]
        self.clock.advance(INTERVAL)
        self.assertEqual(self.zombies, [101])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.zombies, [])

    def test_stopped(self) -> None:
        """
        Nothing is left scheduled after C{stop}.
        """
        other = Clock()
        reaper = StrangerReaper(other, lambda: None, self.zombies.remove, ())
        reaper.start()
        reaper.stop()
        self.assertEqual(other.getDelayedCalls(), [])
