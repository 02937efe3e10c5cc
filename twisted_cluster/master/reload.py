"""
Carries out rolling replacements: a reload of all slots, or a restart of some.
Runs in the master.

Invariant 2: nothing is drained before its replacement is Ready.  What comes
next is decided by L{twisted_cluster.policy.rolling}; here it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_cluster.errors import ReloadFailed, ReloadRefused
from twisted_cluster.events import EventStream, Phase, ReloadStepped, State
from twisted_cluster.interfaces import RollingStatus
from twisted_cluster.master.supervisor import Slot, Supervisor
from twisted_cluster.policy import rolling


class _Replacement:
    """
    One replacement under way.

    @ivar fresh: The slots that have been replaced.
    """

    def __init__(self, slots: frozenset[int], parallel: int, generation: int) -> None:
        self.plan = rolling.Rolling(slots, parallel)
        self.generation = generation
        self.fresh: set[int] = set()
        self.done: Deferred[None] = Deferred()


class Reloader:
    """
    At most one replacement at a time.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        events: EventStream,
        parallel: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._supervisor = supervisor
        self._events = events
        self._parallel = parallel
        self._now = now
        self._running: _Replacement | None = None
        self._advancing = False
        self._latest = 1

    @property
    def status(self) -> RollingStatus | None:
        """
        The replacement under way, or L{None}.
        """
        running = self._running
        if running is None:
            return None
        return RollingStatus(running.generation, len(running.fresh), len(running.plan.slots))

    def reload(self) -> Deferred[int]:
        """
        Replace all slots by the next generation.

        @return: A Deferred that fires with the generation, or fails with
            L{ReloadFailed}.
        @raise ReloadRefused: if a replacement is under way, or the cluster is
            stopping.
        """
        self.refuseIfBusy("reload")
        supervisor = self._supervisor
        self._latest = generation = max(self._latest, supervisor.generation) + 1
        supervisor.generation = generation
        done = self._begin(frozenset(supervisor.slots), self._parallel, generation)
        return done.addCallback(lambda _: generation)

    def restart(self, number: int) -> Deferred[int]:
        """
        Replace one slot by the generation that it has.

        @return: As L{reload}.
        @raise ReloadRefused: as L{reload}.
        """
        self.refuseIfBusy(f"restart slot {number}")
        current = self._supervisor.slots[number].current
        generation = self._supervisor.generation if current is None else current.generation
        done = self._begin(frozenset({number}), 1, generation)
        return done.addCallback(lambda _: generation)

    def refuseIfBusy(self, what: str) -> None:
        """
        @raise ReloadRefused: if C{what} can't be done now.
        """
        if self._supervisor.stopping:
            raise ReloadRefused(what, "the cluster is stopping", "start it again")
        status = self.status
        if status is not None:
            raise ReloadRefused(
                what,
                f"a replacement by generation {status.generation} is under way,"
                f" {status.done} of {status.total} slots done",
                "try again when it has ended",
            )

    def cancel(self, reason: str) -> None:
        """
        Abort the replacement under way, if any.
        """
        if self._running is not None:
            self._abort(self._running, rolling.Abort(reason, self._candidates()))

    def advance(self) -> None:
        """
        Take the next steps, if there are any to take now.  Called after each
        change of any worker; taking a step is such a change itself.
        """
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._running is not None and self._step(self._running):
                continue
        finally:
            self._advancing = False

    def _begin(self, slots: frozenset[int], parallel: int, generation: int) -> Deferred[None]:
        running = self._running = _Replacement(slots, parallel, generation)
        for slot in self._slots(running):
            slot.failure = slot.traceback = ""
        self._publish(running, Phase.BEGUN)
        self.advance()
        return running.done

    def _step(self, running: _Replacement) -> bool:
        views = [self._view(running, slot) for slot in self._slots(running)]
        decisions = rolling.decide(running.plan, views)
        for decision in decisions:
            self._carryOut(running, decision)
        return bool(decisions)

    def _carryOut(self, running: _Replacement, decision: rolling.Decision) -> None:
        if isinstance(decision, rolling.Spawn):
            self._spawn(running, decision.slot)
        elif isinstance(decision, rolling.Drain):
            self._publish(running, Phase.READY, decision.slot)
            running.fresh.add(decision.slot)
            self._supervisor.promote(decision.slot, "replaced")
            self._publish(running, Phase.REPLACED, decision.slot)
        elif isinstance(decision, rolling.Abort):
            self._abort(running, decision)
        else:
            self._running = None
            self._publish(running, Phase.DONE)
            running.done.callback(None)

    def _spawn(self, running: _Replacement, number: int) -> None:
        supervisor = self._supervisor
        supervisor.replace(number, running.generation)
        self._publish(running, Phase.SPAWNED, number)

    def _abort(self, running: _Replacement, decision: rolling.Abort) -> None:
        self._running = None
        traceback = "".join(slot.traceback for slot in self._slots(running))
        for number in decision.discard:
            self._supervisor.discard(number, "the replacement was aborted")
        # What is spawned from now on, say by scaling up, belongs to what serves.
        current = [slot.current for slot in self._supervisor.slots.values()]
        self._supervisor.generation = max(one.generation for one in current if one is not None)
        self._publish(running, Phase.ABORTED, reason=decision.reason)
        running.done.errback(
            ReloadFailed(f"{decision.reason}; the old workers go on serving", traceback)
        )

    def _candidates(self) -> tuple[int, ...]:
        slots = self._supervisor.slots.values()
        return tuple(slot.number for slot in slots if slot.candidate is not None)

    def _slots(self, running: _Replacement) -> list[Slot]:
        slots = self._supervisor.slots
        return [slots[number] for number in sorted(running.plan.slots) if number in slots]

    def _view(self, running: _Replacement, slot: Slot) -> rolling.SlotView:
        current, candidate = slot.current, slot.candidate
        fresh = slot.number in running.fresh
        failure = slot.failure
        if fresh and current is not None and current.state is State.FAILED:
            failure = current.reason
        return rolling.SlotView(
            slot.number,
            fresh,
            None if current is None else current.state,
            None if candidate is None else candidate.state,
            any(worker.alive for worker in slot.retired),
            failure,
        )

    def _publish(
        self,
        running: _Replacement,
        phase: Phase,
        slot: int | None = None,
        reason: str = "",
    ) -> None:
        self._events.publish(
            ReloadStepped(
                self._now(),
                running.generation,
                phase,
                slot,
                len(running.fresh),
                len(running.plan.slots),
                reason,
            )
        )
