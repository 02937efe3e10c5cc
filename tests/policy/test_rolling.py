"""
Tests for L{twisted_cluster.policy.rolling}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import State
from twisted_cluster.policy.rolling import (
    Abort,
    Decision,
    Done,
    Drain,
    Rolling,
    SlotView,
    Spawn,
    decide,
)


def stale(slot: int, current: State | None = State.READY) -> SlotView:
    """
    A slot that has not been replaced yet.
    """
    return SlotView(slot, fresh=False, current=current, candidate=None, draining=False)


def starting(slot: int, candidate: State = State.STARTING, failure: str = "") -> SlotView:
    """
    A slot whose replacement is on its way.
    """
    return SlotView(slot, False, State.READY, candidate, False, failure)


def replaced(slot: int, draining: bool = False) -> SlotView:
    """
    A slot that has been replaced.
    """
    return SlotView(slot, fresh=True, current=State.READY, candidate=None, draining=draining)


def rolling(*slots: int, parallel: int = 1) -> Rolling:
    """
    The replacement of C{slots}.
    """
    return Rolling(frozenset(slots), parallel)


class DecideTests(SynchronousTestCase):
    """
    Tests for L{decide}, one situation at a time.
    """

    def test_firstSlotFirst(self) -> None:
        """
        The lowest stale slot is the first, in whatever order they are told.
        """
        views = [stale(2), stale(0), stale(1)]
        self.assertEqual(decide(rolling(0, 1, 2), views), (Spawn(0),))

    def test_parallel(self) -> None:
        """
        As many slots as may be are under way at a time.
        """
        views = [starting(0), replaced(1, draining=True), stale(2), stale(3), stale(4)]
        everything = range(5)
        self.assertEqual(decide(rolling(*everything, parallel=4), views), (Spawn(2), Spawn(3)))
        self.assertEqual(decide(rolling(*everything, parallel=2), views), ())
        self.assertEqual(decide(rolling(*everything, parallel=1), views), ())

    def test_waitsForReady(self) -> None:
        """
        As long as the replacement starts, the old worker is left alone.
        """
        self.assertEqual(decide(rolling(0, 1), [starting(0), stale(1)]), ())

    def test_drainsOnceReady(self) -> None:
        """
        When the replacement is Ready, the old worker is drained, and the slot
        stays busy.
        """
        views = [starting(0, State.READY), stale(1)]
        self.assertEqual(decide(rolling(0, 1), views), (Drain(0),))
        self.assertEqual(decide(rolling(0, 1, parallel=2), views), (Drain(0), Spawn(1)))

    def test_waitsForTheOldOne(self) -> None:
        """
        The next slot has its turn when the old worker of the last one is gone.
        """
        self.assertEqual(decide(rolling(0, 1), [replaced(0, draining=True), stale(1)]), ())
        self.assertEqual(decide(rolling(0, 1), [replaced(0), stale(1)]), (Spawn(1),))

    def test_done(self) -> None:
        """
        It is done when all is replaced and nothing of the old is left.
        """
        self.assertEqual(decide(rolling(0, 1), [replaced(0), replaced(1, draining=True)]), ())
        self.assertEqual(decide(rolling(0, 1), [replaced(0), replaced(1)]), (Done(),))

    def test_failure(self) -> None:
        """
        A failed replacement aborts everything: nothing is spawned or drained
        any more, and all replacements that are not in use yet are discarded.
        """
        views = [
            replaced(0, draining=True),
            starting(1, State.READY),
            starting(2, State.EXITED, "exit code 1"),
            starting(3),
            stale(4),
        ]
        self.assertEqual(
            decide(rolling(*range(5), parallel=5), views),
            (Abort("slot 2: exit code 1", (1, 2, 3)),),
        )

    def test_failures(self) -> None:
        """
        The reason names every slot that failed.
        """
        views = [
            starting(3, failure="not Ready within 60 s"),
            starting(1, State.EXITED, "exit code 1"),
        ]
        self.assertEqual(
            decide(rolling(1, 3, parallel=2), views),
            (Abort("slot 1: exit code 1; slot 3: not Ready within 60 s", (1, 3)),),
        )

    def test_failureOfACandidateThatIsGone(self) -> None:
        """
        A failure counts even if nothing is left of the replacement.
        """
        view = SlotView(0, False, State.READY, None, False, "not started: no such file")
        self.assertEqual(
            decide(rolling(0), [view]), (Abort("slot 0: not started: no such file", ()),)
        )

    def test_candidateThatWillNeverBeReady(self) -> None:
        """
        A replacement that is past being Ready is a failed one even if nobody
        says why, rather than waited for for ever.
        """
        for state in set(State) - {State.STARTING, State.READY}:
            self.assertEqual(
                decide(rolling(0), [starting(0, state)]),
                (Abort(f"slot 0: its replacement is {state.value}", (0,)),),
            )

    def test_otherSlotsAreIgnored(self) -> None:
        """
        Slots that are not to be replaced are neither touched nor waited for,
        and their failures are none of this.
        """
        views = [stale(0), stale(1), starting(2, State.EXITED, "exit code 1")]
        self.assertEqual(decide(rolling(1), views), (Spawn(1),))
        self.assertEqual(decide(rolling(1), [stale(0), replaced(1)]), (Done(),))

    def test_vanishedSlots(self) -> None:
        """
        Slots that have been scaled away are not waited for.
        """
        self.assertEqual(decide(rolling(0, 1, 2), [replaced(0)]), (Done(),))
        self.assertEqual(decide(rolling(0, 1, 2), []), (Done(),))

    def test_slotWithoutAWorker(self) -> None:
        """
        A slot that has failed, waits or has no worker gets a new one too.
        """
        for current in (State.FAILED, State.BACKOFF, State.EXITED, None):
            self.assertEqual(decide(rolling(0), [stale(0, current)]), (Spawn(0),))

    def test_parallelMustBePositive(self) -> None:
        """
        A replacement that could never begin can't be described.
        """
        self.assertRaises(ValueError, Rolling, frozenset({0}), 0)


@dataclass
class Slot:
    """
    A slot of a L{World}.
    """

    fresh: bool = False
    current: State = State.READY
    candidate: State | None = None
    draining: bool = False
    failure: str = ""


@dataclass
class World:
    """
    A cluster that does at once what is decided, and in which things happen in
    any order.  It checks each decision as it is carried out.

    @ivar ended: What the replacement ended with.
    """

    rolling: Rolling
    slots: dict[int, Slot]
    ended: Decision | None = None
    log: list[object] = field(default_factory=list)

    def views(self) -> list[SlotView]:
        """
        The slots as they are now.
        """
        return [
            SlotView(number, it.fresh, it.current, it.candidate, it.draining, it.failure)
            for number, it in self.slots.items()
        ]

    def serving(self) -> int:
        """
        How many workers get connections.
        """
        return sum(it.current is State.READY for it in self.slots.values())

    def busy(self) -> int:
        """
        How many slots are under way.
        """
        return sum(it.draining or it.candidate is not None for it in self.slots.values())

    def step(self) -> tuple[Decision, ...]:
        """
        Ask once, and carry the answer out.
        """
        if self.ended is not None:
            raise AssertionError(f"asked again after {self.ended}")
        serving = self.serving()
        decisions = decide(self.rolling, self.views())
        self.log.append(decisions)
        for decision in decisions:
            if self.ended is not None:
                raise AssertionError(f"{decision} after {self.ended}")
            self.carryOut(decision)
        if self.serving() < serving:
            raise AssertionError(f"fewer workers than before: {self.log}")
        if self.busy() > self.rolling.parallel:
            raise AssertionError(f"too many slots at a time: {self.log}")
        if not decisions and not self.busy():
            raise AssertionError(f"waits for nothing: {self.log}")
        return decisions

    def carryOut(self, decision: Decision) -> None:
        """
        Do what was decided.
        """
        if isinstance(decision, Spawn):
            it = self.mine(decision.slot)
            if it.fresh or it.candidate is not None or it.draining:
                raise AssertionError(f"{decision} into {it}")
            it.candidate = State.STARTING
        elif isinstance(decision, Drain):
            it = self.mine(decision.slot)
            if it.candidate is not State.READY:
                raise AssertionError(f"{decision} with {it}")
            it.draining = it.current in (State.STARTING, State.READY)
            it.current, it.candidate, it.fresh = State.READY, None, True
        elif isinstance(decision, Abort):
            for slot in decision.discard:
                self.mine(slot).candidate = None
            self.ended = decision
        else:
            self.ended = decision

    def mine(self, slot: int) -> Slot:
        """
        A slot that is to be replaced.
        """
        if slot not in self.rolling.slots:
            raise AssertionError(f"slot {slot} is not to be replaced")
        return self.slots[slot]

    def happen(self, what: str, random: Random) -> None:
        """
        Let C{what} happen to some slot to which it can happen.
        """
        able = [slot for slot in self.slots if self.isAble(what, self.slots[slot])]
        if not able:
            return
        slot = random.choice(able)
        self.log.append((what, slot))
        it = self.slots[slot]
        if what == "ready":
            it.candidate = State.READY
        elif what == "crash":
            it.candidate, it.failure = State.EXITED, "exit code 1"
        elif what == "timeout":
            it.failure = "not Ready within 60 s"
        elif what == "drained":
            it.draining = False
        elif what == "currentCrashes":
            it.current = random.choice([State.BACKOFF, State.STARTING, State.FAILED])
        elif what == "currentReturns":
            it.current = State.READY
        elif what == "scaledAway":
            del self.slots[slot]

    @staticmethod
    def isAble(what: str, it: Slot) -> bool:
        """
        Whether C{what} can happen to a slot.
        """
        if what in ("ready", "crash", "timeout"):
            return it.candidate is State.STARTING and not it.failure
        if what == "drained":
            return it.draining
        if what == "currentCrashes":
            return it.current is State.READY
        return what == "scaledAway" or it.current is not State.READY


GOOD = ("ready", "drained")
BAD = ("crash", "timeout", "currentCrashes", "currentReturns", "scaledAway")

worlds = st.builds(
    lambda total, chosen, parallel: World(
        Rolling(frozenset(chosen), parallel), {slot: Slot() for slot in range(total)}
    ),
    total=st.integers(1, 8),
    chosen=st.sets(st.integers(0, 7), min_size=1),
    parallel=st.integers(1, 4),
)
randoms = st.randoms(use_true_random=False)


class WorldTests(SynchronousTestCase):
    """
    Tests for L{decide} in worlds where anything happens.
    """

    def finish(self, world: World, random: Random) -> None:
        """
        Let only good things happen until the replacement has ended.  Each
        slot takes three steps at most.
        """
        for _ in range(3 * len(world.slots) + 3):
            if world.ended is not None:
                return
            world.step()
            for what in GOOD:
                world.happen(what, random)
        self.assertIsNotNone(world.ended, world.log)

    @given(worlds, randoms)
    def test_allGoesWell(self, world: World, random: Random) -> None:
        """
        If no replacement fails, everything that was to be replaced is, and
        nothing else.
        """
        self.finish(world, random)
        self.assertEqual(world.ended, Done())
        for number, it in world.slots.items():
            self.assertEqual(it, Slot(fresh=number in world.rolling.slots))

    @given(worlds, st.lists(st.sampled_from(GOOD + BAD), max_size=40), randoms)
    def test_anythingHappens(self, world: World, happenings: list[str], random: Random) -> None:
        """
        Whatever happens, nothing is drained before its replacement is Ready,
        no decision lowers the number of workers that serve, no more slots
        than allowed are under way, and it ends.
        """
        for what in happenings:
            if world.ended is None:
                world.step()
                world.happen(what, random)
        self.finish(world, random)

    @given(worlds, st.integers(0, 30), st.sampled_from(["crash", "timeout"]), randoms)
    def test_brokenReplacement(self, world: World, before: int, how: str, random: Random) -> None:
        """
        A replacement that fails ends it: no candidate is left, and every
        slot still serves.
        """
        for _ in range(before):
            if world.ended is None and world.step() != (Done(),):
                world.happen(random.choice(GOOD), random)
        total = len(world.slots)
        if world.ended is None:
            world.step()
            world.happen(how, random)
        failed = any(it.failure for it in world.slots.values())
        self.finish(world, random)
        self.assertEqual(isinstance(world.ended, Abort), failed)
        self.assertEqual(world.serving(), total)
        self.assertTrue(all(it.candidate is None for it in world.slots.values()))
