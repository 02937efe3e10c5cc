"""
Tests for L{twisted_cluster.policy.lifecycle}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import ALIVE, State
from twisted_cluster.policy.lifecycle import Action, Step, WorkerInputs, newWorker

INPUTS = ("ready", "drain", "drained", "stop", "kill", "exited", "backOff", "giveUp")
ASKING = frozenset({"drain", "stop", "kill"})

PATHS: dict[State, tuple[str, ...]] = {
    State.STARTING: (),
    State.READY: ("ready",),
    State.DRAINING: ("ready", "drain"),
    State.STOPPING: ("ready", "stop"),
    State.EXITED: ("exited",),
    State.BACKOFF: ("exited", "backOff"),
    State.FAILED: ("exited", "giveUp"),
}
"""Inputs that lead to each state."""

TABLE: dict[tuple[State, str], Step] = {
    (State.STARTING, "ready"): Step(State.READY, (Action.SCHEDULE,)),
    (State.STARTING, "drain"): Step(State.STOPPING, (Action.TELL_STOP,)),
    (State.STARTING, "stop"): Step(State.STOPPING, (Action.TELL_STOP,)),
    (State.STARTING, "kill"): Step(State.STOPPING, (Action.KILL,)),
    (State.STARTING, "exited"): Step(State.EXITED),
    (State.READY, "drain"): Step(State.DRAINING, (Action.UNSCHEDULE, Action.TELL_DRAIN)),
    (State.READY, "stop"): Step(State.STOPPING, (Action.UNSCHEDULE, Action.TELL_STOP)),
    (State.READY, "kill"): Step(State.STOPPING, (Action.UNSCHEDULE, Action.KILL)),
    (State.READY, "exited"): Step(State.EXITED, (Action.UNSCHEDULE,)),
    (State.DRAINING, "drained"): Step(State.STOPPING, (Action.TELL_STOP,)),
    (State.DRAINING, "stop"): Step(State.STOPPING, (Action.TELL_STOP,)),
    (State.DRAINING, "kill"): Step(State.STOPPING, (Action.KILL,)),
    (State.DRAINING, "exited"): Step(State.EXITED, meant=True),
    (State.STOPPING, "kill"): Step(State.STOPPING, (Action.KILL,)),
    (State.STOPPING, "exited"): Step(State.EXITED, meant=True),
    (State.EXITED, "backOff"): Step(State.BACKOFF),
    (State.EXITED, "giveUp"): Step(State.FAILED),
    (State.BACKOFF, "giveUp"): Step(State.FAILED),
    (State.BACKOFF, "drain"): Step(State.EXITED, meant=True),
    (State.BACKOFF, "stop"): Step(State.EXITED, meant=True),
    (State.BACKOFF, "kill"): Step(State.EXITED, meant=True),
    (State.FAILED, "drain"): Step(State.EXITED, meant=True),
    (State.FAILED, "stop"): Step(State.EXITED, meant=True),
    (State.FAILED, "kill"): Step(State.EXITED, meant=True),
}
"""Every input that means something; all others stay and do nothing."""

sequences = st.lists(st.sampled_from(INPUTS), max_size=20)


def give(worker: WorkerInputs, name: str) -> Step:
    """
    Give C{worker} the input called C{name}.
    """
    step: Step = getattr(worker, name)()
    return step


def run(inputs: list[str]) -> list[tuple[State, str, Step]]:
    """
    What a new worker makes of C{inputs}: the state before, the input and the
    step of each.
    """
    worker, state, passages = newWorker(), State.STARTING, []
    for name in inputs:
        step = give(worker, name)
        passages.append((state, name, step))
        state = step.after
    return passages


class TableTests(SynchronousTestCase):
    """
    The transitions one by one.
    """

    def test_everyStateWithEveryInput(self) -> None:
        """
        Each input in each state leads where the table says, or means nothing.
        """
        for state, path in PATHS.items():
            for name in INPUTS:
                worker = newWorker()
                for before in path:
                    give(worker, before)
                expected = TABLE.get((state, name), Step(state))
                self.assertEqual(give(worker, name), expected, f"{name} in {state}")

    def test_pathsLeadThere(self) -> None:
        """
        The paths of these tests reach every state there is.
        """
        reached = {state: run(list(path)) for state, path in PATHS.items() if path}
        self.assertEqual(
            {state: steps[-1][2].after for state, steps in reached.items()},
            {state: state for state in State if state is not State.STARTING},
        )

    def test_workersAreIndependent(self) -> None:
        """
        What happens to one worker does not happen to another.
        """
        one, other = newWorker(), newWorker()
        one.stop()
        self.assertEqual(other.ready(), Step(State.READY, (Action.SCHEDULE,)))

    def test_wholeLife(self) -> None:
        """
        A worker that is Ready, drained and stopped leaves as it was meant to.
        """
        states = [step.after for _, _, step in run(["ready", "drain", "drained", "exited"])]
        self.assertEqual(states, [State.READY, State.DRAINING, State.STOPPING, State.EXITED])


class PropertyTests(SynchronousTestCase):
    """
    What holds for any inputs in any order.
    """

    @given(sequences)
    def test_scheduledExactlyWhileReady(self, inputs: list[str]) -> None:
        """
        A worker is scheduled on its passage to Ready and unscheduled on its
        way out, neither of them twice in a row.
        """
        scheduled = False
        for _, _, step in run(inputs):
            for action in step.actions:
                if action is Action.SCHEDULE:
                    self.assertFalse(scheduled)
                    scheduled = True
                if action is Action.UNSCHEDULE:
                    self.assertTrue(scheduled)
                    scheduled = False
            self.assertEqual(scheduled, step.after is State.READY)

    @given(sequences)
    def test_unscheduleFirstSignalAfter(self, inputs: list[str]) -> None:
        """
        Nothing is told to a worker, and it is not killed, as long as it is
        scheduled (invariant 3).
        """
        scheduled = False
        for _, _, step in run(inputs):
            for action in step.actions:
                if action in (Action.SCHEDULE, Action.UNSCHEDULE):
                    scheduled = action is Action.SCHEDULE
                else:
                    self.assertFalse(scheduled, f"{action} to a scheduled worker")

    @given(sequences)
    def test_neverScheduledOnceAskedToGo(self, inputs: list[str]) -> None:
        """
        No worker is scheduled after the master asked it to drain, to stop or
        to die.
        """
        asked = False
        for _, name, step in run(inputs):
            asked = asked or name in ASKING
            self.assertFalse(asked and Action.SCHEDULE in step.actions)

    @given(sequences)
    def test_processExitsOnce(self, inputs: list[str]) -> None:
        """
        A process exits at most once, and is alive no more from then on.
        """
        passages = run(inputs)
        exits = [
            index
            for index, (before, _, step) in enumerate(passages)
            if before in ALIVE and step.after not in ALIVE
        ]
        self.assertLessEqual(len(exits), 1)
        for index in exits:
            self.assertEqual(passages[index][2].after, State.EXITED)
            self.assertTrue(all(step.after not in ALIVE for _, _, step in passages[index:]))

    @given(sequences)
    def test_nothingIsDoneToTheDead(self, inputs: list[str]) -> None:
        """
        After the exit nothing is told, killed or scheduled.
        """
        for before, _, step in run(inputs):
            if before not in ALIVE:
                self.assertEqual(step.actions, ())

    @given(sequences)
    def test_meantIffAsked(self, inputs: list[str]) -> None:
        """
        An exit is meant if and only if the master asked for it, and only a
        passage to Exited is ever called meant.
        """
        asked = False
        for before, name, step in run(inputs):
            asked = asked or name in ASKING
            if step.after is State.EXITED and before is not State.EXITED:
                self.assertEqual(step.meant, asked)
            else:
                self.assertFalse(step.meant)

    @given(sequences)
    def test_drainIsToldOnce(self, inputs: list[str]) -> None:
        """
        However often a worker is asked to drain, it is told once.
        """
        actions = [action for _, _, step in run(inputs) for action in step.actions]
        self.assertLessEqual(actions.count(Action.TELL_DRAIN), 1)
        self.assertLessEqual(actions.count(Action.TELL_STOP), 1)
