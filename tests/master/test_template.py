"""
Tests for L{twisted_cluster.master.template}.
"""

from __future__ import annotations

import signal
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import ExitStatus
from twisted_cluster.master.template import ForkedProcess
from twisted_cluster.testing import FakeReactor, FakeSpawner


class Template:
    """
    A template.

    @ivar importing: Whether it imports the app.
    @ivar signals: Those that the import got.
    """

    importing = False

    def __init__(self) -> None:
        self.signals: list[int] = []

    def signalImport(self, number: int) -> bool:
        """See L{twisted_cluster.master.template.Template.signalImport}."""
        if self.importing:
            self.signals.append(number)
        return self.importing


class Observer:
    """
    Hears what becomes of a process.
    """

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.ends: list[ExitStatus] = []

    def started(self, pid: int) -> None:
        """It exists."""
        self.pids.append(pid)

    def output(self, line: str) -> None:
        """It wrote a line."""

    def exited(self, status: ExitStatus) -> None:
        """It is gone."""
        self.ends.append(status)


class SignalTests(SynchronousTestCase):
    """
    Signals for a worker that a template is to fork.
    """

    def setUp(self) -> None:
        self.template = Template()
        self.observer = Observer()
        self.process = ForkedProcess(
            FakeReactor(),
            self.template,  # type: ignore[arg-type]
            self.observer,  # type: ignore[arg-type]
        )

    def child(self) -> subprocess.Popen[bytes]:
        """
        A process that ends only when it is told to.
        """
        child = subprocess.Popen(["sleep", "600"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_forking(self) -> None:
        """
        One that is sent while the process is being forked reaches it as soon
        as its pid is known.
        """
        self.process.signal(signal.SIGKILL)
        child = self.child()
        self.process.forked(child.pid)
        self.assertEqual(child.wait(10), -signal.SIGKILL)
        self.assertEqual(self.observer.pids, [child.pid])
        self.process.exited(ExitStatus(signal=signal.SIGKILL))

    def test_importing(self) -> None:
        """
        One that is sent while the app is being imported is for the import, and
        not for the process that is forked later.
        """
        self.template.importing = True
        self.process.signal(signal.SIGABRT)
        self.assertEqual(self.template.signals, [signal.SIGABRT])
        child = self.child()
        self.process.forked(child.pid)
        self.assertIs(child.poll(), None)
        self.process.exited(ExitStatus(code=0))

    def test_substitute(self) -> None:
        """
        If the process has to be made another way, it is for that one.
        """
        self.process.signal(signal.SIGKILL)
        spawner = FakeSpawner(FakeReactor())
        self.process.replaceBy(spawner, 0, 1, None)  # type: ignore[arg-type]
        self.assertEqual(spawner.latest(0).signals, [signal.SIGKILL])
