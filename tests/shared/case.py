"""
A master and its workers with nothing between them but what a test delivers.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.errors import QueueFull
from twisted_cluster.interfaces import IStateBackend
from twisted_cluster.master.shared import Shared
from twisted_cluster.shared.commons import Commons
from twisted_cluster.worker.shared import SharedSession

MAX_DELIVERIES = 100_000
"""Deliveries after which it is taken for granted that there is no end."""


class Fabric:
    """
    Carries messages between a master and its workers when told to.

    @ivar workers: Those whose channels exist, by name.
    @ivar full: The names of those that too much waits for.
    @ivar sent: Recipient, topic and size of each message, in order.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.full: set[str] = set()
        self.sent: list[tuple[str, str, int]] = []
        self.master: Any = None
        self._queue: deque[tuple[Any, ...]] = deque()

    def post(self, worker: str, topic: str, data: bytes) -> Deferred[None]:
        """
        Send to a worker.
        """
        if worker in self.full:
            return fail(QueueFull(f"can't send to {worker}: it is full; wait"))
        self.sent.append((worker, topic, len(data)))
        self._queue.append((self._toWorker, worker, topic, data))
        return succeed(None)

    def postToMaster(self, worker: str, topic: str, data: bytes) -> Deferred[None]:
        """
        Send to the master.
        """
        if "master" in self.full:
            return fail(QueueFull("can't send to the master: it is full; wait"))
        self._queue.append((self._toMaster, worker, topic, data))
        return succeed(None)

    def deliver(self) -> bool:
        """
        Deliver the first message that has not been.

        @return: Whether there was one.
        """
        if not self._queue:
            return False
        deliver, worker, topic, data = self._queue.popleft()
        deliver(worker, topic, data)
        return True

    def _toWorker(self, worker: str, topic: str, data: bytes) -> None:
        if worker in self.workers:
            self.workers[worker].session.topics[topic](data)

    def _toMaster(self, worker: str, topic: str, data: bytes) -> None:
        if worker in self.workers:
            self.master.heard(worker, topic, data)


class Worker:
    """
    The worker's side.

    @ivar commons: What it shares.
    """

    def __init__(self, clock: Clock, fabric: Fabric, name: str) -> None:
        self.name = name
        self.fabric = fabric
        self.commons = Commons()
        self.state = self.commons.state
        self.cache = self.commons.cache
        self.leases = self.commons.leases
        self.session = SharedSession(clock, self.commons, self)

    def post(self, topic: str, data: bytes) -> Deferred[None]:
        """
        Send to the master.
        """
        return self.fabric.postToMaster(self.name, topic, data)


class SharedTestCase(SynchronousTestCase):
    """
    Has a master with two workers, C{one} and C{two}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.fabric = Fabric()
        self.backend = self.makeBackend()
        self.master = Shared(self.clock, self.backend, self.fabric)
        self.fabric.master = self.master
        self.begin()

    def makeBackend(self) -> IStateBackend:
        """
        What the master has it from.
        """
        return MemoryBackend(self.clock, cacheSize=1 << 20)

    def begin(self) -> None:
        """
        Start the master, and the workers.
        """
        self.successResultOf(self.master.start())
        self.one = self.join("one")
        self.two = self.join("two")
        self.settle()

    def join(self, name: str) -> Worker:
        """
        A worker comes.
        """
        worker = Worker(self.clock, self.fabric, name)
        self.fabric.workers[name] = worker
        self.master.join(name)
        return worker

    def kill(self, worker: Worker) -> None:
        """
        A worker dies.
        """
        del self.fabric.workers[worker.name]
        self.master.leave(worker.name)
        worker.session.lost()

    def settle(self) -> None:
        """
        Deliver all, and do what is due.
        """
        for _ in range(MAX_DELIVERIES):
            before = self.clock.seconds()
            due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= before]
            if due:
                self.clock.advance(0)
            if not self.fabric.deliver() and not due:
                return
        self.fail("there is no end to it")

    def wait(self, seconds: float) -> None:
        """
        Let time pass, and do all that is due then.
        """
        self.clock.advance(seconds)
        self.settle()

    def done(self, deferred: Deferred[Any]) -> Any:
        """
        What a Deferred fires with when all is delivered.
        """
        self.settle()
        return self.successResultOf(deferred)

    def failed(self, deferred: Deferred[Any], kind: type[Exception]) -> str:
        """
        What a Deferred fails with when all is delivered.
        """
        self.settle()
        return str(self.failureResultOf(deferred, kind).value)
