"""
Tests for L{twisted_cluster.master.reload}.

Invariant 2, which they try to break: nothing is drained before its
replacement is Ready; a replacement that fails aborts the reload, and the old
workers go on serving.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.master.case import ClusterTestCase
from twisted_cluster.errors import NoSuchSlot, ReloadFailed, ReloadRefused
from twisted_cluster.events import Event, Phase, ReloadStepped
from twisted_cluster.interfaces import RollingStatus


class ReloadTests(ClusterTestCase):
    """
    A reload of all slots.
    """

    def test_oneAtATime(self) -> None:
        """
        One slot after the other gets a worker of the next generation, and at
        no moment are fewer Ready than there are slots.
        """
        self.run_(workers=3)
        self.master.events.subscribe(self.assertEnough)
        done = self.master.reload()
        for slot in range(3):
            self.assertEqual(len(self.spawner.alive()), 4)
            self.assertEqual(self.spawner.processes[-1].slot, slot)
            self.assertNoResult(done)
            self.ready(slot)
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 2, "ready"), (2, 2, "ready")])
        self.assertEqual(self.status().generation, 2)
        self.assertEqual(
            self.phases(),
            [(Phase.BEGUN, None)]
            + [
                (phase, slot)
                for slot in range(3)
                for phase in (Phase.SPAWNED, Phase.READY, Phase.REPLACED)
            ]
            + [(Phase.DONE, None)],
        )

    def assertEnough(self, event: Event) -> None:
        """
        Never below the number of workers.
        """
        if not self.master._supervisor.stopping and self.readyCount() < 3:
            self.fail(f"only {self.readyCount()} are Ready at {event}")

    def test_waitsForDrain(self) -> None:
        """
        The next slot begins when the old worker of the last one is gone.
        """
        self.run_(workers=2)
        old = self.worker(0)
        old.obedient = False
        done = self.master.reload()
        self.ready(0)
        self.assertEqual(old.told, ["Drain"])
        self.assertEqual(len(self.spawner.processes), 3)
        self.assertEqual(self.status().rolling, RollingStatus(2, 1, 2))
        old.process.exit()
        self.reactor.settle()
        self.assertEqual(len(self.spawner.processes), 4)
        self.ready(1)
        self.successResultOf(done)
        self.assertIs(self.status().rolling, None)

    def test_parallel(self) -> None:
        """
        Several slots at a time if so configured.
        """
        self.run_(workers=3, reloadParallel=2)
        done = self.master.reload()
        self.assertEqual(len(self.spawner.alive()), 5)
        self.readyAll()
        self.readyAll()
        self.successResultOf(done)
        self.assertEqual(self.readyCount(), 3)

    def assertAborted(self, done: Any, reason: str, traceback: str = "") -> None:
        """
        The reload has failed, everything old still serves, and another one
        can begin.
        """
        error = self.failureOf(done, ReloadFailed)
        self.assertEqual(str(error), f"{reason}; the old workers go on serving")
        self.assertEqual(error.traceback, traceback)
        self.assertEqual(self.phases()[-1], (Phase.ABORTED, None))
        self.reactor.settle()
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])
        received = [self.worker_(slot).received for slot in range(2)]
        self.clients(4)
        self.reactor.settle()
        after = [self.worker_(slot).received for slot in range(2)]
        self.assertEqual([two - one for one, two in zip(received, after)], [2, 2])
        for slot in range(2):
            worker = self.worker_(slot)
            worker.acknowledge()
            for number in list(worker.sockets):
                worker.close(number)
        again = self.master.reload()
        self.readyAll()
        self.readyAll()
        self.assertEqual(self.successResultOf(again), 3)

    def worker_(self, slot: int) -> Any:
        """
        Who speaks for the first process of a slot.
        """
        return self.speaker(self.spawner.processes[slot])

    def test_crashes(self) -> None:
        """
        A replacement that crashes.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.spawner.latest(0).die(11)
        self.assertAborted(done, "slot 0: killed by SIGSEGV")

    def test_bootFails(self) -> None:
        """
        A replacement that can't run the app: the caller gets the reason and
        the traceback.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.worker(0).bootFailed("app x fails to load: ValueError: y", traceback="Traceback...")
        self.reactor.settle()
        self.assertAborted(
            done, "slot 0: app x fails to load: ValueError: y; exit code 1", "Traceback..."
        )

    def test_neverReady(self) -> None:
        """
        A replacement that is not Ready in time.
        """
        self.run_(workers=2, generationTimeout=5)
        done = self.master.reload()
        self.worker(0)
        self.wait(7)
        self.assertAborted(done, "slot 0: not Ready within 5 s; killed by SIGKILL")

    def test_notStarted(self) -> None:
        """
        A replacement whose process can't be started.
        """
        self.run_(workers=2)
        self.spawner.failure = "out of memory"
        done = self.master.reload()
        self.reactor.settle()
        self.spawner.failure = None
        self.assertAborted(done, "slot 0: not started: out of memory")

    def test_second(self) -> None:
        """
        If the second slot's replacement fails, the first slot keeps its new
        worker, and the second its old one.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.ready(0)
        self.spawner.latest(1).exit(1)
        self.failureOf(done, ReloadFailed)
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 1, "ready")])

    def test_abortWhileDraining(self) -> None:
        """
        A candidate fails while the old worker of another slot still drains:
        that drain goes on, and the candidates are stopped.
        """
        self.run_(workers=3, reloadParallel=2)
        old = self.worker(0)
        old.obedient = False
        done = self.master.reload()
        self.ready(0)
        self.assertEqual(old.told, ["Drain"])
        self.spawner.latest(1).exit(1)
        error = self.failureOf(done, ReloadFailed)
        self.assertIn("slot 1: exit code 1", str(error))
        old.process.exit()
        self.reactor.settle()
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 1, "ready"), (2, 1, "ready")])
        self.assertEqual(len(self.spawner.alive()), 3)

    def test_otherCandidates(self) -> None:
        """
        When one of several candidates fails, the others are stopped without
        ever having been scheduled.
        """
        self.run_(workers=2, reloadParallel=2)
        done = self.master.reload()
        other = self.worker(1)
        self.spawner.latest(0).exit(1)
        self.failureOf(done, ReloadFailed)
        self.reactor.settle()
        self.assertEqual((other.told, other.process.alive), (["Stop"], False))
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])

    def test_currentCrashes(self) -> None:
        """
        The current worker crashes while its candidate starts: the candidate
        takes its place when it is Ready.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.spawner.processes[0].die()
        self.assertEqual(len(self.spawner.processes), 3)
        self.ready(0)
        self.ready(1)
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.states(), [(0, 2, "ready"), (1, 2, "ready")])

    def test_bothCrash(self) -> None:
        """
        If the candidate crashes too, the reload is aborted and the slot gets
        a worker of the old generation back.
        """
        self.run_(workers=2)
        done = self.master.reload()
        candidate = self.spawner.latest(0)
        self.spawner.processes[0].die()
        candidate.exit(1)
        self.failureOf(done, ReloadFailed)
        self.assertEqual(self.states(), [(0, 1, "starting"), (1, 1, "ready")])
        self.ready(0)
        self.assertEqual(self.readyCount(), 2)

    def test_freshCrashes(self) -> None:
        """
        A worker that was Ready and then crashes, while a later slot is under
        way, is restarted as any other; the reload goes on.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.ready(0)
        self.wait(2)
        self.spawner.latest(0).die()
        self.assertEqual(self.spawner.latest(0).generation, 2)
        self.ready(0)
        self.ready(1)
        self.assertEqual(self.successResultOf(done), 2)

    def test_refused(self) -> None:
        """
        While one is under way, another one is refused, and says how far it
        is.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.ready(0)
        error = self.failureOf(self.master.reload(), ReloadRefused)
        self.assertEqual(
            str(error),
            "can't reload: a replacement by generation 2 is under way, 1 of 2 slots done;"
            " try again when it has ended",
        )
        self.failureOf(self.master.restart(0), ReloadRefused)
        self.ready(1)
        self.assertEqual(self.successResultOf(done), 2)

    def test_refusedWhenStopping(self) -> None:
        """
        Once the master stops, nothing is replaced.
        """
        self.run_(workers=1)
        self.worker().obedient = False
        self.master.shutDown(False, "a test")
        error = self.failureOf(self.master.reload(), ReloadRefused)
        self.assertEqual(str(error), "can't reload: the cluster is stopping; start it again")

    def test_stopDuring(self) -> None:
        """
        A stop aborts a reload: the candidate goes, the caller is told, and
        everything drains.
        """
        self.run_(workers=2)
        done = self.master.reload()
        self.worker(0)
        stopped = self.master.shutDown(False, "a test")
        self.reactor.settle()
        error = self.failureOf(done, ReloadFailed)
        self.assertIn("the master is stopping", str(error))
        self.successResultOf(stopped)
        self.assertEqual(self.spawner.alive(), [])

    def test_coalesces(self) -> None:
        """
        However often a reload is requested during one, one more follows.
        """
        self.run_(workers=1)
        self.master.requestReload("SIGHUP")
        for _ in range(5):
            self.master.requestReload("SIGHUP")
        self.readyAll()
        self.assertEqual(self.states()[-1], (0, 3, "starting"))
        self.readyAll()
        self.assertEqual(self.states(), [(0, 3, "ready")])
        self.wait(5)
        self.assertEqual(len(self.spawner.processes), 3)

    def test_coalescesAfterAbort(self) -> None:
        """
        The one that was asked for meanwhile follows a reload that has failed
        too: the code may have been mended.
        """
        self.run_(workers=1)
        self.master.requestReload("SIGHUP")
        self.master.requestReload("SIGHUP")
        self.spawner.latest(0).exit(1)
        self.reactor.settle()
        self.readyAll()
        self.assertEqual(self.states(), [(0, 3, "ready")])

    def test_notAfterStop(self) -> None:
        """
        None follows one that was aborted by a stop.
        """
        self.run_(workers=1)
        self.master.requestReload("SIGHUP")
        self.master.requestReload("SIGHUP")
        self.worker(0)
        self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        begun = [event for event in self.phases() if event[0] is Phase.BEGUN]
        self.assertEqual(len(begun), 1)

    def test_fromSubscriber(self) -> None:
        """
        A subscriber may ask for the next reload at the end of one.
        """
        self.run_(workers=1)
        results: list[Any] = []

        def again(event: Event) -> None:
            if (
                isinstance(event, ReloadStepped)
                and event.phase is Phase.DONE
                and event.generation == 2
            ):
                self.master.reload().addCallback(results.append)

        self.master.events.subscribe(again)
        self.master.reload().addCallback(results.append)
        self.readyAll()
        self.readyAll()
        self.assertEqual(sorted(results), [2, 3])

    @settings(max_examples=40)
    @given(data=st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """
        Whatever becomes of workers and candidates during a reload, it ends,
        and nothing was drained before its replacement was Ready.
        """
        self.setUp()
        slots = data.draw(st.integers(1, 3))
        self.run_(workers=slots, reloadParallel=data.draw(st.integers(1, 3)))
        crashed: set[int] = set()
        done = self.master.reload()
        results: list[Any] = []
        done.addBoth(results.append)
        for _ in range(40):
            alive = self.spawner.alive()
            if not alive:
                self.wait(1)
                continue
            process = data.draw(st.sampled_from(alive))
            what = data.draw(st.sampled_from(["ready", "ready", "ready", "crash", "time"]))
            if what == "ready" and process.worker is None:
                self.speaker(process).ready()
            elif what == "crash" and data.draw(st.integers(0, 3)) == 0:
                crashed.add(process.slot)
                process.die(11)
            elif what == "time":
                self.wait(0.5)
            self.reactor.settle()
            for slot in set(range(slots)) - crashed:
                self.assertIn((slot, "ready"), [(one, state) for one, _, state in self.states()])
        for _ in range(20):
            self.readyAll()
            self.wait(1)
        self.assertEqual(len(results), 1)
        self.assertEqual(self.readyCount(), slots)
        self.assertEqual(len(self.spawner.alive()), slots)
        self.stop()


class RestartSlotTests(ClusterTestCase):
    """
    The replacement of one slot.
    """

    def test_restart(self) -> None:
        """
        One slot gets a new worker of its generation; it is Ready before the
        old one drains.
        """
        self.run_(workers=2)
        done = self.master.restart(1)
        self.assertEqual(self.readyCount(), 2)
        self.ready(1)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])
        self.assertEqual(len(self.spawner.processes), 3)

    def test_noSuchSlot(self) -> None:
        """
        A slot that does not exist is named in the error.
        """
        self.run_(workers=2)
        for slot in (2, -1):
            error = self.failureOf(self.master.restart(slot), NoSuchSlot)
            self.assertEqual(
                str(error),
                f"can't restart slot {slot}: there are slots 0 to 1; name one of them",
            )

    def test_fails(self) -> None:
        """
        If the new worker fails, the old one stays.
        """
        self.run_(workers=2)
        done = self.master.restart(1)
        self.spawner.latest(1).exit(1)
        self.failureOf(done, ReloadFailed)
        self.assertEqual(self.states(), [(0, 1, "ready"), (1, 1, "ready")])

    def test_backoff(self) -> None:
        """
        A slot that waits for its next attempt gets it at once, and only one.
        """
        self.run_(workers=2)
        for _ in range(3):
            self.spawner.latest(1).exit(1)
        self.assertEqual(self.states()[1], (1, 1, "backoff"))
        count = len(self.spawner.processes)
        done = self.master.restart(1)
        self.readyAll()
        self.successResultOf(done)
        self.wait(60)
        self.assertEqual(len(self.spawner.processes), count + 1)
        self.assertEqual(self.readyCount(), 2)
