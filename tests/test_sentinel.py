"""
Tests for L{twisted_cluster.sentinel}, the process.

Invariant 5: no worker outlives its master unnoticed, even one that is stuck.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster import sentinel

if not hasattr(os, "pidfd_open"):
    skip = "there is no pidfd_open(2) here"

SCRIPT = sentinel.__file__


class SentinelTests(SynchronousTestCase):
    """
    The sentinel with workers that are mere C{sleep}s.
    """

    def begin(self, seconds: float) -> subprocess.Popen[bytes]:
        """
        Start a sentinel.
        """
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", SCRIPT, str(seconds)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdin is not None and process.stderr is not None
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stderr.close)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """
        Start a process that is stuck.
        """
        process = subprocess.Popen(["sleep", "600"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def end(self, process: subprocess.Popen[bytes], *lines: bytes) -> bytes:
        """
        Say C{lines} to a sentinel, then what the master's end says.

        @return: What it wrote to standard error.
        """
        _, errors = process.communicate(b"".join(lines), timeout=30)
        return errors

    def test_kills(self) -> None:
        """
        At the end of the master and of the time, those left are killed, and
        those that were reaped before are not meant.
        """
        stuck, forgotten = self.worker(), self.worker()
        errors = self.end(
            self.begin(0.05),
            b"+%d\n" % stuck.pid,
            b"+%d\n" % forgotten.pid,
            b"-%d\n" % forgotten.pid,
        )
        self.assertEqual(errors, b"")
        self.assertEqual(stuck.wait(30), -signal.SIGKILL)
        self.assertIs(forgotten.poll(), None)

    def test_leavesTime(self) -> None:
        """
        Workers that go within the time are not killed, and the sentinel does
        not outlive them.
        """
        worker = self.worker()
        process = self.begin(600)
        assert process.stdin is not None
        process.stdin.write(b"+%d\n" % worker.pid)
        process.stdin.flush()
        process.stdin.close()
        worker.terminate()
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(worker.wait(30), -signal.SIGTERM)

    def test_nobody(self) -> None:
        """
        Without workers it goes with its master, whatever the time.
        """
        process = self.begin(600)
        self.assertEqual(self.end(process), b"")
        self.assertEqual(process.returncode, 0)

    def test_unknown(self) -> None:
        """
        A worker that is gone before it was watched, or was never watched, is
        nothing to complain about.
        """
        gone = self.worker()
        gone.kill()
        gone.wait()
        process = self.begin(600)
        errors = self.end(process, b"+%d\n" % gone.pid, b"-%d\n" % gone.pid, b"-1\n")
        self.assertEqual((errors, process.returncode), (b"", 0))

    def test_ignoresSignals(self) -> None:
        """
        What a terminal or an operator sends to all processes of the cluster
        does not end it: it still has to see the workers out.
        """
        worker = self.worker()
        process = self.begin(0.05)
        deadline = time.monotonic() + 30
        while not self.ignores(process.pid, signal.SIGTERM):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            process.send_signal(number)
        self.end(process, b"+%d\n" % worker.pid)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(worker.wait(30), -signal.SIGKILL)

    def ignores(self, pid: int, number: int) -> bool:
        """
        Whether a process has got as far as ignoring a signal.
        """
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return bool(int(fields["SigIgn"], 16) >> (number - 1) & 1)
