"""
The life of one worker, as one state machine.

A machine belongs to one process: it begins when the process is spawned, and
the worker that follows in the slot gets a machine of its own.  Each input
returns a L{Step} that says which state the worker is in now and what is to be
done about it.  The machine lives in the master.

The table is total.  The inputs come from a process, a channel and an operator
that do not wait for each other, so that any of them may come late: an input
that means nothing in a state returns a step that stays there and does nothing.

Unschedule first, signal after (invariant 3): the actions of a step are to be
carried out in their order, and where a scheduled worker is told anything,
L{Action.UNSCHEDULE} comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from automat import TypeMachineBuilder

from twisted_cluster.events import State


class Action(Enum):
    """
    What the master does to a worker.

    SCHEDULE: let it have connections.
    UNSCHEDULE: let it have no more connections.
    TELL_DRAIN: tell it to serve what it has and take no more.
    TELL_STOP: tell it to exit.
    KILL: kill its process.
    """

    SCHEDULE = "schedule"
    UNSCHEDULE = "unschedule"
    TELL_DRAIN = "tell drain"
    TELL_STOP = "tell stop"
    KILL = "kill"


@dataclass(frozen=True)
class Step:
    """
    What one input led to.

    @ivar after: The state the worker is in now; the same as before if the
        input meant nothing.
    @ivar actions: What to do, in this order.
    @ivar meant: On the passage to C{EXITED}: whether the master had asked for
        it.  False on every other step.
    """

    after: State
    actions: tuple[Action, ...] = ()
    meant: bool = False


class WorkerInputs(Protocol):
    """
    What can happen to a worker.  None of these ever raises.
    """

    def ready(self) -> Step:
        """
        The worker said that it is Ready.
        """

    def drain(self) -> Step:
        """
        The master wants it to finish what it serves, then go.
        """

    def drained(self) -> Step:
        """
        The worker said that it has nothing left to serve.
        """

    def stop(self) -> Step:
        """
        The master wants it to go now.
        """

    def kill(self) -> Step:
        """
        The master has waited for long enough.  This makes the exit a meant
        one.  It is not for a hung worker: its process is to be signalled
        directly, so that its exit counts as the crash that it is.
        """

    def exited(self) -> Step:
        """
        The process is gone and reaped, or could not be started.
        """

    def backOff(self) -> Step:
        """
        The slot waits before it gets another worker.
        """

    def giveUp(self) -> Step:
        """
        The slot gets no other worker until an operator asks for it.
        """


_builder = TypeMachineBuilder(WorkerInputs, object)

_starting = _builder.state(State.STARTING.value)
_ready = _builder.state(State.READY.value)
_draining = _builder.state(State.DRAINING.value)
_stopping = _builder.state(State.STOPPING.value)
_exited = _builder.state(State.EXITED.value)
_backoff = _builder.state(State.BACKOFF.value)
_failed = _builder.state(State.FAILED.value)

_schedule = Step(State.READY, (Action.SCHEDULE,))
_tellDrain = Step(State.DRAINING, (Action.UNSCHEDULE, Action.TELL_DRAIN))
_tellStop = Step(State.STOPPING, (Action.TELL_STOP,))
_unscheduleAndTellStop = Step(State.STOPPING, (Action.UNSCHEDULE, Action.TELL_STOP))
_kill = Step(State.STOPPING, (Action.KILL,))
_unscheduleAndKill = Step(State.STOPPING, (Action.UNSCHEDULE, Action.KILL))
_crash = Step(State.EXITED)
_unscheduleAndCrash = Step(State.EXITED, (Action.UNSCHEDULE,))
_leave = Step(State.EXITED, meant=True)

_starting.upon(WorkerInputs.ready).to(_ready).returns(_schedule)
_starting.upon(WorkerInputs.drain).to(_stopping).returns(_tellStop)
_starting.upon(WorkerInputs.stop).to(_stopping).returns(_tellStop)
_starting.upon(WorkerInputs.kill).to(_stopping).returns(_kill)
_starting.upon(WorkerInputs.exited).to(_exited).returns(_crash)
for _input in (WorkerInputs.drained, WorkerInputs.backOff, WorkerInputs.giveUp):
    _starting.upon(_input).loop().returns(Step(State.STARTING))

_ready.upon(WorkerInputs.drain).to(_draining).returns(_tellDrain)
_ready.upon(WorkerInputs.stop).to(_stopping).returns(_unscheduleAndTellStop)
_ready.upon(WorkerInputs.kill).to(_stopping).returns(_unscheduleAndKill)
_ready.upon(WorkerInputs.exited).to(_exited).returns(_unscheduleAndCrash)
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drained,
    WorkerInputs.backOff,
    WorkerInputs.giveUp,
):
    _ready.upon(_input).loop().returns(Step(State.READY))

_draining.upon(WorkerInputs.drained).to(_stopping).returns(_tellStop)
_draining.upon(WorkerInputs.stop).to(_stopping).returns(_tellStop)
_draining.upon(WorkerInputs.kill).to(_stopping).returns(_kill)
_draining.upon(WorkerInputs.exited).to(_exited).returns(_leave)
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drain,
    WorkerInputs.backOff,
    WorkerInputs.giveUp,
):
    _draining.upon(_input).loop().returns(Step(State.DRAINING))

_stopping.upon(WorkerInputs.kill).loop().returns(_kill)
_stopping.upon(WorkerInputs.exited).to(_exited).returns(_leave)
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drain,
    WorkerInputs.drained,
    WorkerInputs.stop,
    WorkerInputs.backOff,
    WorkerInputs.giveUp,
):
    _stopping.upon(_input).loop().returns(Step(State.STOPPING))

_exited.upon(WorkerInputs.backOff).to(_backoff).returns(Step(State.BACKOFF))
_exited.upon(WorkerInputs.giveUp).to(_failed).returns(Step(State.FAILED))
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drain,
    WorkerInputs.drained,
    WorkerInputs.stop,
    WorkerInputs.kill,
    WorkerInputs.exited,
):
    _exited.upon(_input).loop().returns(Step(State.EXITED))

_backoff.upon(WorkerInputs.giveUp).to(_failed).returns(Step(State.FAILED))
for _input in (WorkerInputs.drain, WorkerInputs.stop, WorkerInputs.kill):
    _backoff.upon(_input).to(_exited).returns(_leave)
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drained,
    WorkerInputs.exited,
    WorkerInputs.backOff,
):
    _backoff.upon(_input).loop().returns(Step(State.BACKOFF))

for _input in (WorkerInputs.drain, WorkerInputs.stop, WorkerInputs.kill):
    _failed.upon(_input).to(_exited).returns(_leave)
for _input in (
    WorkerInputs.ready,
    WorkerInputs.drained,
    WorkerInputs.exited,
    WorkerInputs.backOff,
    WorkerInputs.giveUp,
):
    _failed.upon(_input).loop().returns(Step(State.FAILED))

_machine = _builder.build()


def newWorker() -> WorkerInputs:
    """
    The machine of a worker that has just been spawned, in C{STARTING}.
    """
    return _machine(object())
