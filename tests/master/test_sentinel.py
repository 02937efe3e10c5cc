"""
Tests for L{twisted_cluster.master.sentinel}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import Lines
from twisted_cluster.master.sentinel import RESTART_DELAY, SCRIPT, Sentinel
from twisted_cluster.testing import FakeReactor


class Pipe:
    """
    The transport of a sentinel process.
    """

    pid = 77

    def __init__(self) -> None:
        self.said = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.said += data

    def closeStdin(self) -> None:
        """Remember."""
        self.closed = True


class SpawningReactor(FakeReactor):
    """
    Starts processes that are pipes.
    """

    failure: OSError | None = None

    def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
        """Start one."""
        super().spawnProcess(protocol, *arguments, **options)
        if self.failure is not None:
            raise self.failure
        protocol.makeConnection(Pipe())


class SentinelTests(SynchronousTestCase):
    """
    Invariant 5: no worker outlives its master unnoticed.
    """

    if not hasattr(os, "pidfd_open"):
        skip = "there is no pidfd_open(2) here"

    def setUp(self) -> None:
        self.reactor = SpawningReactor()
        self.sentinel = Sentinel(self.reactor, 7.5)

    def pipe(self) -> Pipe:
        """
        The pipe of the last process.
        """
        pipe: Pipe = self.reactor.spawned[-1][0].transport
        return pipe

    def die(self) -> None:
        """
        Have the process die.
        """
        self.reactor.spawned[-1][0].processExited(Failure(ProcessTerminated(signal=9)))

    def test_start(self) -> None:
        """
        It is run in isolation, with the time that workers may take.
        """
        self.sentinel.start()
        ((_, _, arguments),) = self.reactor.spawned
        self.assertEqual(arguments[1:], ["-I", "-S", SCRIPT, "7.5"])
        self.assertTrue(os.path.exists(SCRIPT))
        self.assertEqual(self.sentinel.pid, 77)

    def test_told(self) -> None:
        """
        It is told of workers as they come and go.
        """
        self.sentinel.watch(5)
        self.sentinel.start()
        self.sentinel.watch(6)
        self.sentinel.forget(5)
        self.assertEqual(self.pipe().said, b"+5\n+6\n-5\n")

    def test_dies(self) -> None:
        """
        If it dies, another one takes over a little later, and knows all
        workers.
        """
        lines = Lines(self)
        self.sentinel.start()
        self.sentinel.watch(5)
        self.die()
        self.assertIs(self.sentinel.pid, None)
        self.sentinel.watch(6)
        self.assertEqual(len(self.reactor.spawned), 1)
        self.reactor.advance(RESTART_DELAY)
        self.assertEqual(len(self.reactor.spawned), 2)
        self.assertEqual(sorted(self.pipe().said.split()), [b"+5", b"+6"])
        self.assertEqual(len(lines.grave()), 1)

    def test_notStarted(self) -> None:
        """
        If it can't be started, the cluster lives on, and it is tried again.
        """
        self.reactor.failure = OSError(24, "Too many open files")
        self.sentinel.start()
        self.sentinel.watch(5)
        self.reactor.failure = None
        self.reactor.advance(RESTART_DELAY)
        self.assertEqual(self.pipe().said, b"+5\n")

    def test_stop(self) -> None:
        """
        In the end it is let go, and not replaced.
        """
        self.sentinel.start()
        pipe = self.pipe()
        self.sentinel.stop()
        self.assertTrue(pipe.closed)
        self.die()
        self.reactor.advance(10)
        self.assertEqual(len(self.reactor.spawned), 1)

    def test_stopWhileDown(self) -> None:
        """
        A stop before it is replaced ends that too.
        """
        self.sentinel.start()
        self.die()
        self.sentinel.stop()
        self.reactor.advance(10)
        self.assertEqual(len(self.reactor.spawned), 1)
