"""
Tests for L{twisted_cluster.backends.memory}.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.backends.contract import BackendContract, Listener
from twisted_cluster.backends.memory import REMEMBERED, MemoryBackend
from twisted_cluster.errors import AppError, StateUnavailable
from twisted_cluster.interfaces import Change, IStateBackend, Write


class ContractTests(BackendContract, TestCase):
    """
    It does what every backend does.
    """

    def makeBackend(self) -> IStateBackend:
        """
        One with a clock of its own.
        """
        self.clock = Clock()
        return MemoryBackend(self.clock)

    async def wait(self, seconds: float) -> None:
        """
        Move the clock.
        """
        self.clock.advance(seconds)


class MemoryTests(SynchronousTestCase):
    """
    What is special about it.
    """

    def setUp(self) -> None:
        self.backend = MemoryBackend(Clock(), cacheSize=1000, epoch="e", lastToken=41)
        self.listener = Listener()
        self.successResultOf(self.backend.start(self.listener))

    def test_epoch(self) -> None:
        """
        Each has versions of its own.
        """
        self.assertEqual(self.backend.snapshot().epoch, "e")
        others = {MemoryBackend(Clock()).snapshot().epoch for _ in range(2)}
        self.assertEqual(len(others), 2)

    def test_tokens(self) -> None:
        """
        Tokens begin where they are told to, by default with the time.
        """
        self.assertEqual(self.successResultOf(self.backend.acquire("n", "a", 1.0)), 42)
        before = time.time_ns() // 1000
        token = self.successResultOf(MemoryBackend(Clock()).acquire("n", "a", 1.0))
        self.assertGreater(token or 0, before)

    def test_cacheBound(self) -> None:
        """
        The cache has the size that it is given.
        """
        for number in range(50):
            self.successResultOf(self.backend.cacheSet(f"k{number}", b"bx", None))
        described = self.backend.describe()
        self.assertLessEqual(described["cacheBytes"], 1000)
        self.assertEqual(described["cacheKeys"] + described["cacheEvictions"], 50)
        self.failureResultOf(self.backend.cacheSet("k", bytes(1000), None), AppError)

    def test_writesFromListener(self) -> None:
        """
        A listener that writes when it hears of a change does not disturb the
        order of versions.
        """
        told: list[Change] = []

        def changed(change: Change) -> None:
            told.append(change)
            if change.version == 1:
                self.backend.write(Write("second", increments={"n": 1}))

        listener: Any = self.listener
        listener.changed = changed
        written = self.successResultOf(self.backend.write(Write("first", increments={"n": 1})))
        self.assertEqual([change.version for change in told], [1, 2])
        self.assertEqual((written.version, written.items), (1, {"n": b"i1"}))

    def test_remembered(self) -> None:
        """
        It remembers so many writes and no more.
        """
        for number in range(REMEMBERED + 1):
            self.backend.write(Write(str(number), increments={"n": 1}))
        self.backend.write(Write("1", increments={"n": 1}))
        self.assertEqual(self.backend.snapshot().items["n"], b"i%d" % (REMEMBERED + 1))
        self.assertEqual(len(self.backend._done), REMEMBERED)

    def test_notStarted(self) -> None:
        """
        Before it is started nothing can be written or published.
        """
        backend = MemoryBackend(Clock())
        self.failureResultOf(backend.write(Write("1", sets={"a": b"i1"})), StateUnavailable)
        self.failureResultOf(backend.publish("topic", b"data"), StateUnavailable)
        self.assertFalse(backend.describe()["up"])
