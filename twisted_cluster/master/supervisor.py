"""
Keeps a worker in every slot.  Runs in the master.

Whether and when a crashed worker is restarted is decided by
L{twisted_cluster.policy.restart}, whether a silent one hangs by
L{twisted_cluster.policy.health}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_cluster.events import ExitStatus, State
from twisted_cluster.interfaces import WorkerStatus
from twisted_cluster.master.worker import Surroundings, Worker
from twisted_cluster.policy import health, restart


class IProcessWatch(Protocol):
    """
    Who keeps an eye on worker processes from outside of the master.
    """

    def watch(self, pid: int) -> None:
        """A worker has been started."""

    def forget(self, pid: int) -> None:
        """A worker has been reaped."""


Usage = Callable[[int], "tuple[float, bool] | None"]
"""The CPU seconds of a process so far and whether it is runnable now."""


class Slot:
    """
    A stable number, and the workers that serve or served it.

    @ivar number: The number.
    @ivar current: The worker that serves it; dead ones stay until replaced.
    @ivar candidate: The worker that is to replace C{current}, until Ready.
    @ivar retired: Workers that drain or stop.
    @ivar restarts: How often it was restarted after a crash.
    @ivar failure: Why the last candidate failed, or an empty string.
    @ivar traceback: The app's traceback that goes with C{failure}.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Worker | None = None
        self.candidate: Worker | None = None
        self.retired: list[Worker] = []
        self.restarts = 0
        self.history = restart.History()
        self.respawn: IDelayedCall | None = None
        self.failure = ""
        self.traceback = ""

    def workers(self) -> Iterator[Worker]:
        """
        All workers of this slot, oldest first.
        """
        yield from self.retired
        if self.current is not None:
            yield self.current
        if self.candidate is not None:
            yield self.candidate

    def cancelRespawn(self) -> None:
        """
        Forget a restart that waits for its time.
        """
        if self.respawn is not None and self.respawn.active():
            self.respawn.cancel()
        self.respawn = None


class Supervisor:
    """
    Owns the slots.

    @ivar slots: By number, those that are wanted.
    @ivar generation: What new slots begin with.
    @ivar stopping: Whether it has been told to stop; nothing is spawned then.
    @ivar onChange: Called after each change of any worker.
    @ivar onLeaving: Called with the number of a slot whose worker was told by
        somebody else to terminate.
    @ivar onBootFailed: Called with fault and reason when a worker can't run
        the app.
    """

    log = Logger()

    def __init__(
        self,
        surroundings: Surroundings,
        watch: IProcessWatch,
        usage: Usage,
        random: Callable[[], float],
    ) -> None:
        self._around = surroundings
        self._watch = watch
        self._usage = usage
        self._random = random
        config = surroundings.config
        self._restartPolicy = restart.RestartPolicy(
            config.restartIntensity, config.restartPeriod, config.backoffBase, config.backoffCap
        )
        self.slots: dict[int, Slot] = {}
        self._leftovers: list[Worker] = []
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._samples: dict[Worker, tuple[float, float]] = {}
        self._needed: frozenset[int] = frozenset()
        self._checked = 0.0
        self._check = LoopingCall(self._checkBeats)
        self._check.clock = surroundings.reactor
        self.generation = 1
        self.stopping = False
        self.onChange: Callable[[], object] = lambda: None
        self.onLeaving: Callable[[int], object] = lambda slot: None
        self.onBootFailed: Callable[[str, str], object] = lambda fault, reason: None

    def workers(self) -> list[Worker]:
        """
        Every worker, by slot and generation.
        """
        all_ = [worker for slot in self.slots.values() for worker in slot.workers()]
        return sorted(all_ + self._leftovers, key=lambda one: (one.slot, one.generation))

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """
        Every worker now.
        """
        return tuple(worker.status(self._restarts(worker.slot)) for worker in self.workers())

    def start(self, wanted: int) -> None:
        """
        Begin with C{wanted} slots.
        """
        self._checked = self._around.reactor.seconds()
        if self._around.config.hungTimeout:
            self._check.start(self._around.config.heartbeat, now=False)
        self.resize(wanted)

    def resize(self, wanted: int) -> None:
        """
        Add slots at the end, or drain those that are too many.
        """
        for number in range(len(self.slots), wanted):
            self.slots[number] = Slot(number)
            self._spawn(self.slots[number])
        for number in range(len(self.slots) - 1, wanted - 1, -1):
            self._remove(self.slots.pop(number))
        self._changed()

    def replace(self, number: int, generation: int) -> None:
        """
        Start a candidate for a slot.
        """
        slot = self.slots[number]
        slot.cancelRespawn()
        slot.failure = slot.traceback = ""
        slot.candidate = Worker(number, generation, self._around, self)
        slot.candidate.start()

    def promote(self, number: int, reason: str) -> None:
        """
        Have the Ready candidate serve the slot from now on, and drain its
        predecessor: unscheduled first, told after.
        """
        slot = self.slots[number]
        before, slot.current, slot.candidate = slot.current, slot.candidate, None
        slot.history = restart.History()
        if before is not None and before.alive:
            slot.retired.append(before)
            before.drain(reason, migrate=True)
        self._changed()

    def discard(self, number: int, reason: str) -> None:
        """
        Stop a candidate; its slot keeps the worker it has, or gets one back.
        """
        slot = self.slots[number]
        candidate, slot.candidate = slot.candidate, None
        if candidate is not None and candidate.alive:
            slot.retired.append(candidate)
            candidate.drain(reason)
        self._refill(slot)

    def stop(self, now: bool, reason: str) -> Deferred[None]:
        """
        Drain all workers, or kill them.

        @return: A Deferred that fires when none is left.
        """
        self.stopping = True
        for slot in self.slots.values():
            slot.cancelRespawn()
        for worker in self.workers():
            if now:
                worker.kill(reason)
            elif worker.state is not State.STOPPING:
                worker.drain(reason)
        return self.when(lambda: not any(worker.alive for worker in self.workers()))

    def when(self, condition: Callable[[], bool]) -> Deferred[None]:
        """
        A Deferred that fires as soon as C{condition} holds.
        """
        done: Deferred[None] = Deferred()
        self._waiters.append((condition, done))
        self.settle()
        return done

    def finish(self) -> None:
        """
        Stop checking.  Nothing is alive any more.
        """
        if self._check.running:
            self._check.stop()

    # What workers tell: IWorkerOwner.

    def workerStarted(self, worker: Worker) -> None:
        """Its process exists."""
        assert worker.pid is not None
        self._watch.watch(worker.pid)

    def workerReady(self, worker: Worker) -> None:
        """It can take sockets."""
        self._changed()

    def workerLeaving(self, worker: Worker) -> None:
        """Somebody else told it to terminate: have it replaced first."""
        if worker.state is State.READY:
            self.onLeaving(worker.slot)

    def workerBootFailed(self, worker: Worker, fault: str, reason: str) -> None:
        """It can't run the app."""
        self.onBootFailed(fault, reason)

    def workerExited(self, worker: Worker, status: ExitStatus, meant: bool) -> None:
        """Its process is gone: see to its slot."""
        self._samples.pop(worker, None)
        if worker.pid is not None:
            self._watch.forget(worker.pid)
        slot = self.slots.get(worker.slot)
        if slot is None or worker in self._leftovers:
            self._leftovers = [one for one in self._leftovers if one is not worker]
        elif worker is slot.candidate:
            slot.candidate = None
            slot.failure = worker.reason
            slot.traceback = worker.traceback
            self._refill(slot)
        elif worker is slot.current:
            self._currentExited(slot, worker, status)
        else:
            slot.retired.remove(worker)
        self._changed()

    def _currentExited(self, slot: Slot, worker: Worker, status: ExitStatus) -> None:
        if self.stopping or slot.candidate is not None:
            return
        now = self._around.reactor.seconds()
        uptime = 0.0 if worker.readyAt is None else now - worker.readyAt
        crash = restart.Crash(now, worker.readyAt is not None, uptime, status)
        decision = restart.decide(self._restartPolicy, slot.history, crash, self._random)
        slot.history = decision.history
        if isinstance(decision, restart.GiveUp):
            worker.giveUp(decision.reason)
        elif decision.delay == 0:
            self._respawn(slot)
        else:
            worker.backOff(f"{worker.reason}; next attempt in {decision.delay:.1f} s")
            slot.respawn = self._around.reactor.callLater(decision.delay, self._respawn, slot)

    def _refill(self, slot: Slot) -> None:
        """
        If the worker died while a candidate was to take its place, and did
        not, start another of the same generation.
        """
        lost = (State.EXITED, State.BACKOFF)
        if not self.stopping and slot.current is not None and slot.current.state in lost:
            self._respawn(slot)

    def _respawn(self, slot: Slot) -> None:
        slot.respawn = None
        slot.restarts += 1
        self._spawn(slot)

    def _spawn(self, slot: Slot) -> None:
        generation = self.generation if slot.current is None else slot.current.generation
        slot.current = Worker(slot.number, generation, self._around, self)
        slot.current.start()

    def _remove(self, slot: Slot) -> None:
        slot.cancelRespawn()
        for worker in slot.workers():
            if worker.alive:
                self._leftovers.append(worker)
                worker.drain("scaled down", migrate=True)
        slot.current = slot.candidate = None

    def _restarts(self, number: int) -> int:
        slot = self.slots.get(number)
        return 0 if slot is None else slot.restarts

    def _changed(self) -> None:
        self.onChange()
        self._keepGenerations()
        self.settle()

    def _keepGenerations(self) -> None:
        """
        Let the spawner give up what no slot needs any more.
        """
        workers = [worker for slot in self.slots.values() for worker in slot.workers()]
        needed = frozenset(worker.generation for worker in workers if not self._isRetired(worker))
        if needed != self._needed:
            self._needed = needed
            self._around.spawner.keep(needed)

    def _isRetired(self, worker: Worker) -> bool:
        return worker in self.slots[worker.slot].retired

    def settle(self) -> None:
        """
        Fire the Deferreds of L{when} whose conditions have come to hold.
        """
        for waiter in tuple(self._waiters):
            condition, done = waiter
            if waiter in self._waiters and condition():
                self._waiters.remove(waiter)
                done.callback(None)

    def _checkBeats(self) -> None:
        """
        Look for workers whose reactor has been silent.
        """
        now = self._around.reactor.seconds()
        config = self._around.config
        lateness = now - self._checked - config.heartbeat
        self._checked = now
        for worker in self.workers():
            if worker.state in (State.READY, State.DRAINING):
                self._checkBeat(worker, now, lateness)

    def _checkBeat(self, worker: Worker, now: float, lateness: float) -> None:
        config = self._around.config
        seconds = now - worker.lastBeat
        usage = None if worker.pid is None else self._usage(worker.pid)
        used: float | None = None
        runnable: bool | None = None
        if usage is not None:
            cpu, runnable = usage
            if seconds <= 2 * config.heartbeat or worker not in self._samples:
                self._samples[worker] = (worker.lastBeat, cpu)
            used = cpu - self._samples[worker][1]
        silence = health.Silence(seconds, used, runnable, lateness)
        verdict = health.judge(silence, config.hungTimeout)
        if lateness > config.hungTimeout / 2:
            worker.beat()
        elif verdict is health.Verdict.HUNG:
            worker.hung(seconds)
        elif verdict is health.Verdict.STARVED:
            self.log.warn(
                "{name} has been silent for {seconds:.1f} s, since it gets no CPU time",
                name=worker.name,
                seconds=seconds,
            )
