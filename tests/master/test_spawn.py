"""
Tests for L{twisted_cluster.master.spawn}.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import twisted_cluster
from tests.support import isOpen
from twisted_cluster.events import ExitStatus
from twisted_cluster.interfaces import IWorkerObserver, IWorkerProcess, IWorkerSpawner
from twisted_cluster.master.spawn import MAX_LINE, ExecSpawner, LineRelay
from twisted_cluster.testing import FakeReactor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(twisted_cluster.__file__)))


@implementer(IWorkerObserver)
class Observer:
    """
    Remembers what it is told.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.pids: list[int] = []
        self.first: Deferred[str] = Deferred()
        self.ended: Deferred[ExitStatus] = Deferred()

    def started(self, pid: int) -> None:
        """Remember."""
        self.pids.append(pid)

    def output(self, line: str) -> None:
        """Remember."""
        self.lines.append(line)
        if not self.first.called:
            self.first.callback(line)

    def exited(self, status: ExitStatus) -> None:
        """Tell."""
        self.ended.callback(status)


class LineRelayTests(SynchronousTestCase):
    """
    From bytes to lines.
    """

    @given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=20)), st.data())
    def test_chopped(self, lines: list[str], data: st.DataObject) -> None:
        """
        However the stream is cut, the lines come out.
        """
        observer = Observer()
        relay = LineRelay(observer.output)
        stream = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        while stream:
            count = data.draw(st.integers(1, 30))
            relay.feed(stream[:count])
            stream = stream[count:]
        relay.finish()
        self.assertEqual(
            observer.lines, [line.encode("utf-8", "replace").decode() for line in lines]
        )

    def test_rest(self) -> None:
        """
        A last line without an end is told at the end, once.
        """
        observer = Observer()
        relay = LineRelay(observer.output)
        relay.feed(b"one\ntwo")
        self.assertEqual(observer.lines, ["one"])
        relay.finish()
        relay.finish()
        self.assertEqual(observer.lines, ["one", "two"])

    def test_long(self) -> None:
        """
        A line without an end takes bounded memory, and what is not UTF-8 is
        shown somehow.
        """
        observer = Observer()
        relay = LineRelay(observer.output)
        relay.feed(b"x" * (MAX_LINE * 2 + 5))
        self.assertEqual([len(line) for line in observer.lines], [MAX_LINE, MAX_LINE])
        relay.feed(b"\xff\n")
        self.assertEqual(observer.lines[-1], "xxxxx\ufffd")


def running() -> Deferred[None]:
    """
    Await that the reactor runs.
    """
    from twisted.internet import reactor

    done: Deferred[None] = deferLater(reactor, 0)
    return done


class ExecSpawnerTests(TestCase):
    """
    Fresh interpreters, for real.
    """

    def spawner(self) -> ExecSpawner:
        """
        A spawner on the genuine reactor, of processes that find the package
        wherever the tests are run.
        """
        from twisted.internet import reactor

        path = os.pathsep.join(os.path.abspath(entry) for entry in [ROOT, *sys.path])
        return ExecSpawner(reactor, True, {**os.environ, "PYTHONPATH": path})

    def test_interface(self) -> None:
        """
        It makes worker processes.
        """
        verifyObject(IWorkerSpawner, self.spawner())

    async def test_noMaster(self) -> None:
        """
        A worker whose master is gone by the time it begins says so and exits;
        the spawner has closed the end it was given.
        """
        observer = Observer()
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        process = self.spawner().spawn(0, 1, theirs, observer)
        verifyObject(IWorkerProcess, process)
        self.assertFalse(isOpen(number))
        ours.close()
        status = await observer.ended
        self.assertEqual(status, ExitStatus(code=2))
        self.assertEqual(observer.pids, [process.pid])
        process.signal(signal.SIGKILL)

    async def test_killed(self) -> None:
        """
        A signal reaches it, and is told as the cause of its end.
        """
        observer = Observer()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        process = self.spawner().spawn(0, 1, theirs, observer)
        # A process that has ended by the time the reactor starts would have
        # trial crash it while it starts, which it does not get over.
        await running()
        process.signal(signal.SIGKILL)
        self.assertEqual(await observer.ended, ExitStatus(signal=signal.SIGKILL))

    async def test_output(self) -> None:
        """
        What it writes to standard error comes line by line.
        """
        observer = Observer()
        ours, theirs = socket.socketpair()
        ours.sendall(b"\xff\xff\xff\xff")
        self.addCleanup(ours.close)
        self.spawner().spawn(0, 1, theirs, observer)
        self.assertEqual(
            await observer.first,
            "can't work: a preamble of 4294967295 bytes; workers are started by the master",
        )
        await observer.ended

    def test_notStarted(self) -> None:
        """
        If it can't be started, that is told after L{ExecSpawner.spawn} has
        returned, and the channel is closed.
        """

        class Failing(FakeReactor):
            """Starts nothing."""

            def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
                """Fail."""
                raise OSError(11, "Resource temporarily unavailable")

        reactor, observer = Failing(), Observer()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        process = ExecSpawner(reactor, True).spawn(0, 1, theirs, observer)
        self.assertEqual((process.pid, theirs.fileno()), (None, -1))
        self.assertNoResult(observer.ended)
        process.signal(signal.SIGKILL)
        reactor.settle()
        self.assertEqual(
            self.successResultOf(observer.ended),
            ExitStatus(failure="[Errno 11] Resource temporarily unavailable"),
        )
        self.assertEqual(observer.pids, [])

    def test_arguments(self) -> None:
        """
        It runs the same interpreter, on the worker's module, with nothing but
        the channel and its output inherited.
        """

        class Spawning(FakeReactor):
            """Keeps the options."""

            options: dict[str, Any]

            def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
                """Keep them."""
                super().spawnProcess(protocol, *arguments)
                self.options = options
                protocol.transport = self
                protocol.pid = 5

        reactor, observer = Spawning(), Observer()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        number = theirs.fileno()
        ExecSpawner(reactor, False, {"A": "B"}).spawn(3, 9, theirs, observer)
        ((_, executable, arguments),) = reactor.spawned
        self.assertEqual(executable, sys.executable)
        self.assertIn("twisted_cluster.worker", arguments)
        self.assertEqual(arguments[-4:], ["--slot", "3", "--generation", "9"])
        self.assertEqual(reactor.options["env"]["A"], "B")
        files = reactor.options["childFDs"]
        self.assertEqual(sorted(files), [0, 1, 2, 3])
        self.assertEqual((files[1], files[2], files[3]), (1, "r", number))
        self.assertNotEqual(os.environ.get("A"), "B")
