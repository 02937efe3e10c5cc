"""
Tests for L{twisted_cluster.master.journal}.
"""

from __future__ import annotations

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.support import Lines
from twisted_cluster.events import (
    ClusterStopping,
    ConnectionsShed,
    Event,
    ExitStatus,
    ListenerChanged,
    ListenerState,
    MessagesDropped,
    Phase,
    ReloadStepped,
    State,
    StateReached,
    WorkerChanged,
    WorkerHung,
    WorkerOutput,
)
from twisted_cluster.master.journal import Journal

READY, EXITED, FAILED = State.READY, State.EXITED, State.FAILED
CODE = ExitStatus(code=1)


class JournalTests(SynchronousTestCase):
    """
    One line for each event, at the level that it deserves.
    """

    def assertLine(self, event: Event, level: LogLevel, text: str) -> None:
        """
        What is written of C{event}.
        """
        lines = Lines(self)
        Journal().write(event)
        self.assertEqual(lines.all(), [text])
        self.assertEqual(lines.events[0]["log_level"], level)

    def test_shared(self) -> None:
        """
        Without the server of the state much fails, and so it does if a worker
        does not read.
        """
        self.assertLine(StateReached(0.0, False, "it burns"), LogLevel.error, "it burns")
        self.assertLine(StateReached(0.0, True, "it is back"), LogLevel.info, "it is back")
        self.assertLine(
            MessagesDropped(0.0, 2, 3, 44, 7),
            LogLevel.error,
            "[slot 2 generation 3 pid 44] does not read: 7 bytes wait, and messages for it are"
            " dropped",
        )

    def test_worker(self) -> None:
        """
        Passages of workers: crashes are errors, failed slots worse, and what
        was meant is no trouble.
        """
        name = "[slot 2 generation 3 pid 44]"
        self.assertLine(
            WorkerChanged(0.0, 2, 3, 44, State.STARTING, READY), LogLevel.info, f"{name} ready"
        )
        self.assertLine(
            WorkerChanged(0.0, 2, 3, 44, READY, EXITED, "exit code 1", CODE),
            LogLevel.error,
            f"{name} exited: exit code 1",
        )
        self.assertLine(
            WorkerChanged(0.0, 2, 3, 44, State.STOPPING, EXITED, "exit code 1", CODE, True),
            LogLevel.info,
            f"{name} exited: exit code 1",
        )
        self.assertLine(
            WorkerChanged(0.0, 2, 3, 44, EXITED, FAILED, "11 crashes in 60 s"),
            LogLevel.critical,
            f"{name} failed: 11 crashes in 60 s;"
            " its slot stays empty until a reload or a restart of the slot",
        )

    def test_noPid(self) -> None:
        """
        A worker that has no process yet.
        """
        self.assertLine(
            WorkerChanged(0.0, 0, 1, None, None, State.STARTING),
            LogLevel.info,
            "[slot 0 generation 1 pid -] starting",
        )

    def test_braces(self) -> None:
        """
        What a worker writes is not taken for a format.
        """
        self.assertLine(
            WorkerOutput(0.0, 0, 1, 5, "{oops} {}"),
            LogLevel.info,
            "[slot 0 generation 1 pid 5] {oops} {}",
        )
        self.assertLine(
            WorkerChanged(0.0, 0, 1, 5, READY, EXITED, "KeyError: {x}", CODE),
            LogLevel.error,
            "[slot 0 generation 1 pid 5] exited: KeyError: {x}",
        )

    def test_hung(self) -> None:
        """
        A worker that hangs.
        """
        self.assertLine(
            WorkerHung(0.0, 0, 1, 5, 12.34),
            LogLevel.error,
            "[slot 0 generation 1 pid 5] hung: no heartbeat for 12.3 s;"
            " its stacks follow, it is killed",
        )

    def test_reload(self) -> None:
        """
        The steps of the whole, and why one was aborted; those of single slots
        can be seen from the workers.
        """
        self.assertLine(
            ReloadStepped(0.0, 2, Phase.BEGUN, None, 0, 4),
            LogLevel.info,
            "replacement by generation 2 begun, 0 of 4 slots done",
        )
        self.assertLine(
            ReloadStepped(0.0, 2, Phase.ABORTED, None, 1, 4, "slot 1: exit code 1"),
            LogLevel.error,
            "replacement by generation 2 aborted, 1 of 4 slots done: slot 1: exit code 1",
        )
        lines = Lines(self)
        Journal().write(ReloadStepped(0.0, 2, Phase.READY, 1, 1, 4))
        self.assertEqual(lines.all(), [])

    def test_listener(self) -> None:
        """
        A listener in trouble warns.
        """
        before, after = ListenerState.ACCEPTING, ListenerState.EXHAUSTED
        self.assertLine(
            ListenerChanged(0.0, "tcp:80", before, after, "Too many open files"),
            LogLevel.warn,
            "listener tcp:80 is exhausted: Too many open files",
        )

    def test_shed(self) -> None:
        """
        Connections that are closed unserved are an error.
        """
        self.assertLine(
            ConnectionsShed(0.0, 3, "because"), LogLevel.error, "3 connections shed: because"
        )

    def test_stopping(self) -> None:
        """
        The beginning of a stop.
        """
        self.assertLine(ClusterStopping(0.0, "because"), LogLevel.info, "stopping: because")
