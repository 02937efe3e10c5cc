"""
Tests for L{twisted_cluster.master.supervisor}: a worker in every slot.
"""

from __future__ import annotations

import signal

from tests.master.case import ClusterTestCase
from tests.support import Lines
from twisted_cluster.errors import ReloadFailed, ReloadRefused
from twisted_cluster.events import State


class RestartTests(ClusterTestCase):
    """
    What follows a crash.
    """

    def test_immediate(self) -> None:
        """
        A worker that has worked is replaced in the same turn of the reactor,
        by one of its generation.
        """
        self.run_(workers=2)
        self.wait(5)
        self.spawner.latest(0).die(signal.SIGSEGV)
        self.assertEqual(self.states(), [(0, 1, "starting"), (1, 1, "ready")])
        self.ready(0)
        self.assertEqual(self.readyCount(), 2)
        self.assertEqual(self.master.workers()[0].restarts, 1)
        self.assertEqual(self.master.workers()[1].restarts, 0)

    def test_backsOff(self) -> None:
        """
        The first crash of a row is followed at once, each next one later; the
        state says when.
        """
        self.begin(workers=1, backoffBase=1, backoffCap=100, restartIntensity=100)
        self.spawner.latest().exit(1)
        self.assertEqual(self.states(), [(0, 1, "starting")])
        delays = []
        for _ in range(4):
            self.spawner.latest().exit(1)
            (worker,) = self.status().workers
            self.assertIs(worker.state, State.BACKOFF)
            self.assertRegex(worker.reason, r"^exit code 1; next attempt in \d+\.\d s$")
            before, count = self.reactor.seconds(), len(self.spawner.processes)
            while len(self.spawner.processes) == count:
                self.wait(0.25)
            delays.append(self.reactor.seconds() - before)
        for delay, longest in zip(delays, (1, 2, 4, 8)):
            self.assertTrue(longest / 2 <= delay <= longest + 0.25, delays)

    def test_givesUp(self) -> None:
        """
        A slot that crashes too often fails, loudly; the others are unharmed,
        and nothing more is spawned for it.
        """
        self.run_(workers=2, restartIntensity=3, restartPeriod=60)
        lines = Lines(self)
        for _ in range(4):
            self.spawner.latest(0).exit(3)
            self.wait(1)
        self.assertEqual(self.states(), [(0, 1, "failed"), (1, 1, "ready")])
        count = len(self.spawner.processes)
        self.wait(300)
        self.assertEqual(len(self.spawner.processes), count)
        (line,) = lines.containing("failed: ")
        self.assertIn("4 crashes in 60 s, the last one: exit code 3", line)
        self.assertIn("its slot stays empty until a reload or a restart of the slot", line)
        self.clients(1)
        self.reactor.settle()
        self.assertEqual(self.worker(1).received, 1)

    def fail_(self) -> None:
        """
        Have slot 0 fail.
        """
        while self.states()[0][2] != "failed":
            self.spawner.latest(0).exit(3)
            self.wait(1)

    def test_revivedByReload(self) -> None:
        """
        A reload gives a failed slot its worker back.
        """
        self.run_(workers=2, restartIntensity=3)
        self.fail_()
        done = self.master.reload()
        for _ in range(2):
            self.readyAll()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 2, "ready")])

    def test_revivedByRestart(self) -> None:
        """
        So does a restart of the slot, and its past is forgiven.
        """
        self.run_(workers=2, restartIntensity=3)
        self.fail_()
        done = self.master.restart(0)
        self.readyAll()
        self.successResultOf(done)
        self.spawner.latest(0).exit(3)
        self.assertEqual(self.states(), [(0, 1, "starting"), (1, 1, "ready")])

    def test_stopInBackoff(self) -> None:
        """
        A slot that waits for its next attempt does not hold up a stop, and
        gets no worker after.
        """
        self.begin(workers=1)
        for _ in range(4):
            self.spawner.latest().exit(1)
            self.reactor.settle()
            if self.states()[0][2] == "backoff":
                break
            self.wait(0.25)
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.spawner.alive(), [])
        self.wait(60)
        self.assertEqual(self.spawner.alive(), [])

    def test_keeps(self) -> None:
        """
        The spawner is told which generations can still be wanted.
        """
        self.run_(workers=2)
        done = self.master.reload()
        for _ in range(2):
            self.readyAll()
        self.successResultOf(done)
        self.assertEqual(self.spawner.kept[0], {1})
        self.assertEqual(self.spawner.kept[-1], {2})
        self.assertIn({1, 2}, self.spawner.kept)


class ScaleTests(ClusterTestCase):
    """
    More slots, fewer slots.
    """

    def test_up(self) -> None:
        """
        New slots come at the end; it is done when they are Ready.
        """
        self.run_(workers=1)
        done = self.master.scale(3)
        self.assertNoResult(done)
        self.readyAll()
        self.assertEqual(self.successResultOf(done), 3)
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready"), (2, 1, "ready")])
        self.assertEqual(self.status().wanted, 3)

    def test_upAndFailing(self) -> None:
        """
        If a new worker never works, it ends with the reason when its slot has
        failed; the other slots are as before.
        """
        self.run_(workers=1, restartIntensity=2)
        done = self.master.scale(2)
        for _ in range(3):
            self.spawner.latest(1).exit(1)
            self.wait(1)
        error = self.failureResultOf(done, ReloadFailed).value
        self.assertIn("slot 1: 3 crashes", str(error))
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "failed")])

    def test_down(self) -> None:
        """
        The highest slots go; it is done when their processes have.
        """
        self.run_(workers=3)
        for slot in (1, 2):
            self.worker(slot).obedient = False
        done = self.master.scale(1)
        self.reactor.settle()
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "draining"), (2, 1, "draining")])
        self.spawner.latest(1).exit()
        self.assertNoResult(done)
        self.spawner.latest(2).exit()
        self.assertEqual(self.successResultOf(done), 1)

    def test_downWhileStarting(self) -> None:
        """
        A worker that is not Ready yet is stopped, since it has nothing to
        drain; nothing replaces it.
        """
        self.run_(workers=1)
        up = self.master.scale(2)
        worker = self.worker(1)
        down = self.master.scale(1)
        self.reactor.settle()
        self.assertEqual(worker.told, ["Stop"])
        self.assertEqual(self.successResultOf(down), 1)
        self.assertEqual(self.successResultOf(up), 2)
        self.assertEqual(len(self.spawner.processes), 2)

    def test_downAndUp(self) -> None:
        """
        A slot can be wanted again while its last worker still drains.
        """
        self.run_(workers=2)
        leaver = self.worker(1)
        leaver.obedient = False
        self.master.scale(1)
        done = self.master.scale(2)
        self.readyAll()
        self.assertEqual(
            sorted(self.states()), [(0, 1, "ready"), (1, 1, "draining"), (1, 1, "ready")]
        )
        self.assertNoResult(done)
        leaver.process.exit()
        self.reactor.settle()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])
        self.assertEqual(len(self.spawner.processes), 3)

    def test_downInBackoff(self) -> None:
        """
        A slot that waits for its next attempt goes too.
        """
        self.run_(workers=2)
        for _ in range(3):
            self.spawner.latest(1).exit(1)
        done = self.master.scale(1)
        self.assertEqual(self.successResultOf(done), 1)
        count = len(self.spawner.processes)
        self.wait(60)
        self.assertEqual(len(self.spawner.processes), count)

    def test_afterReload(self) -> None:
        """
        New slots are of the newest generation.
        """
        self.run_(workers=1)
        self.master.reload()
        self.readyAll()
        self.master.scale(2)
        self.readyAll()
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 2, "ready")])

    def test_nonsense(self) -> None:
        """
        A number that is none of workers is refused, and nothing changes.
        """
        self.run_(workers=1)
        for wanted in (0, -1, 1025):
            error = self.failureOf(self.master.scale(wanted), ReloadRefused)
            self.assertEqual(
                str(error),
                f"can't scale to {wanted}: that is no number of workers;"
                " give a number from 1 to 1024",
            )
        self.assertEqual(self.states(), [(0, 1, "ready")])

    def test_duringReload(self) -> None:
        """
        While a reload is under way it is refused.
        """
        self.run_(workers=1)
        done = self.master.reload()
        error = self.failureOf(self.master.scale(2), ReloadRefused)
        self.assertIn("a replacement by generation 2 is under way, 0 of 1 slots done", str(error))
        self.readyAll()
        self.successResultOf(done)

    def test_stopMeanwhile(self) -> None:
        """
        A stop ends the wait for new workers.
        """
        self.run_(workers=1)
        done = self.master.scale(2)
        self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.successResultOf(done)


class LeavingTests(ClusterTestCase):
    """
    Workers that somebody else told to terminate.
    """

    def test_replacedFirst(self) -> None:
        """
        Invariant 2: its replacement is Ready before it drains.
        """
        self.run_(workers=2)
        leaver = self.worker(0)
        leaver.leaving()
        self.wait(0.5)
        self.assertEqual(leaver.told, [])
        self.assertEqual(self.readyCount(), 2)
        self.ready(0)
        self.assertIn("Drain", leaver.told)
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])

    def test_all(self) -> None:
        """
        When all of them are told so, all are replaced, one after the other.
        """
        self.run_(workers=3)
        first = list(self.spawner.processes)
        for slot in range(3):
            self.worker(slot).leaving()
        for _ in range(3):
            self.wait(0.5)
            self.assertEqual(self.readyCount(), 3)
            self.readyAll()
        self.wait(0.5)
        self.assertEqual([process.alive for process in first], [False] * 3)
        self.assertEqual(self.readyCount(), 3)

    def test_duringReload(self) -> None:
        """
        One that is told so during a reload is replaced by it or after it.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.readyAll()
        self.worker(0).leaving()
        leaver = self.spawner.latest(0)
        for _ in range(3):
            self.wait(0.5)
            self.readyAll()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertFalse(leaver.alive)
        self.assertEqual(self.readyCount(), 2)

    def test_masterToo(self) -> None:
        """
        If the master was told so as well, nobody is replaced.
        """
        self.run_(workers=1)
        self.worker(0).leaving()
        self.reactor.settle()
        self.master.shutDown(False, "a test")
        self.wait(1)
        self.assertEqual(len(self.spawner.processes), 1)
        self.assertEqual(self.spawner.alive(), [])
