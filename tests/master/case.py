"""
A whole master with fake workers.
"""

from __future__ import annotations

import random
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support import connections
from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.config import ClusterConfig
from twisted_cluster.events import (
    Event,
    Phase,
    ReloadStepped,
    State,
    WorkerChanged,
)
from twisted_cluster.interfaces import ClusterStatus, IScheduler
from twisted_cluster.master.master import Master
from twisted_cluster.master.sentinel import Sentinel
from twisted_cluster.policy.scheduling import RoundRobin
from twisted_cluster.testing import FakeProcess, FakeReactor, FakeSpawner, FakeWorker

LOCAL = "tcp:0:interface=127.0.0.1"


class ClusterTestCase(SynchronousTestCase):
    """
    Has a master with everything around it.

    @ivar usages: The CPU seconds and runnability of processes, by pid.
    """

    scheduler: IScheduler = RoundRobin()

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.spawner = FakeSpawner(self.reactor)
        self.sentinel = Sentinel(self.reactor, 30.0)
        self.events: list[Event] = []
        self.usages: dict[int, tuple[float, bool]] = {}
        self.addCleanup(self.sweep)

    def sweep(self) -> None:
        """
        End all that is left of the cluster.
        """
        for process in self.spawner.alive():
            process.die()
        self.reactor.settle()

    def make(self, **options: Any) -> Master:
        """
        A master of two slots that listens.
        """
        values: dict[str, Any] = {
            "app": "hello:resource",
            "listen": (LOCAL,),
            "workers": 2,
            "admin": None,
            **options,
        }
        master = Master(
            self.reactor,
            ClusterConfig(**values),
            lambda master: self.spawner,
            self.scheduler,
            self.sentinel,
            MemoryBackend(self.reactor),
            usage=self.usage,
            randomness=random.Random(1),
            now=lambda: 1000.0 + self.reactor.seconds(),
        )
        master.events.subscribe(self.events.append)
        self.master = master
        self.addCleanup(self.stop)
        return master

    def usage(self, pid: int) -> tuple[float, bool] | None:
        """
        What the kernel would say of a process.
        """
        return self.usages.get(pid, (0.0, False))

    def stop(self) -> None:
        """
        Stop the master at once.
        """
        self.master.shutDown(True, "the test is over")
        self.reactor.settle()

    def begin(self, **options: Any) -> Master:
        """
        A master that has spawned its workers.
        """
        master = self.make(**options)
        master.bind()
        master.share()
        master.start()
        return master

    def run_(self, **options: Any) -> Master:
        """
        A master whose workers are all Ready.
        """
        master = self.begin(**options)
        self.readyAll()
        return master

    def worker(self, slot: int = 0) -> FakeWorker:
        """
        Who speaks for the process spawned last for a slot.
        """
        return self.speaker(self.spawner.latest(slot))

    def speaker(self, process: FakeProcess) -> FakeWorker:
        """
        Who speaks for a process.
        """
        return process.worker or FakeWorker(self.reactor, process)

    def ready(self, slot: int = 0) -> FakeWorker:
        """
        Have the process spawned last for a slot become Ready.
        """
        worker = self.worker(slot).ready()
        self.reactor.settle()
        return worker

    def readyAll(self) -> None:
        """
        Have all processes that live and have not said so become Ready.
        """
        for process in self.spawner.alive():
            if process.worker is None:
                FakeWorker(self.reactor, process).ready()
        self.reactor.settle()

    def wait(self, seconds: float) -> None:
        """
        Let time pass, in which workers that are Ready show it.
        """
        step = 0.25
        for _ in range(round(seconds / step)):
            self.reactor.advance(step)
            for process in self.spawner.alive():
                if process.worker is not None and process.worker.transport.connected:
                    process.worker.beat()
            self.reactor.settle()

    def clients(self, count: int) -> list[socket.socket]:
        """
        Connect clients.
        """
        return connections(self, self.master._listeners.named[0].address, count)

    def status(self) -> ClusterStatus:
        """
        The status, whose account always balances.
        """
        status = self.master.status()
        account = status.account
        self.assertEqual(account.accepted, account.acked + account.shed + account.inFlight)
        return status

    def states(self) -> list[tuple[int, int, str]]:
        """
        Slot, generation and state of every worker.
        """
        return [(one.slot, one.generation, one.state.value) for one in self.status().workers]

    def readyCount(self) -> int:
        """
        How many workers are Ready.
        """
        return sum(one.state is State.READY for one in self.status().workers)

    def passages(self, slot: int = 0) -> list[WorkerChanged]:
        """
        What was published of a slot's workers.
        """
        return [
            event
            for event in self.events
            if isinstance(event, WorkerChanged) and event.slot == slot
        ]

    def exits(self, slot: int = 0) -> list[WorkerChanged]:
        """
        The exits of a slot's processes.
        """
        return [event for event in self.passages(slot) if event.exit is not None]

    def phases(self) -> list[tuple[Phase, int | None]]:
        """
        The steps of all replacements.
        """
        return [
            (event.phase, event.slot) for event in self.events if isinstance(event, ReloadStepped)
        ]

    def failureOf(self, done: Deferred[Any], kind: type[Exception]) -> Any:
        """
        What a Deferred has failed with.
        """
        return self.failureResultOf(done, kind).value
