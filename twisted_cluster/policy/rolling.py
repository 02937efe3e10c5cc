"""
The replacement of workers by new ones, slot by slot.

A reload replaces all slots, a restart some; both are a L{Rolling}.  After
anything has changed, the master describes its slots in L{SlotView}s, and
L{decide} answers with what to do next.

Nothing is drained before its replacement is Ready (invariant 2): L{Drain} is
only decided for a slot whose candidate is C{READY}, and when a candidate
fails, the answer is an L{Abort} that leaves all current workers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted_cluster.events import State


@dataclass(frozen=True)
class Rolling:
    """
    What is to be replaced.

    @ivar slots: The slots.
    @ivar parallel: How many slots may be under way at a time, at least 1.
    """

    slots: frozenset[int]
    parallel: int = 1

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ValueError(f"parallel={self.parallel} would never replace anything")


@dataclass(frozen=True)
class SlotView:
    """
    One slot, as far as a replacement is concerned.

    @ivar fresh: Whether the current worker already belongs to this
        replacement.
    @ivar current: The state of the current worker; L{None} if there is none.
    @ivar candidate: The state of the replacement that was spawned and has not
        been promoted yet; L{None} if there is none.
    @ivar draining: Whether a worker that was replaced in this rolling is still
        alive.
    @ivar failure: Why the candidate failed; empty as long as it has not.
    """

    slot: int
    fresh: bool
    current: State | None
    candidate: State | None
    draining: bool
    failure: str = ""


@dataclass(frozen=True)
class Spawn:
    """
    Spawn a candidate for the slot.
    """

    slot: int


@dataclass(frozen=True)
class Drain:
    """
    The candidate of the slot is Ready: make it the current worker, and drain
    the one it replaces.
    """

    slot: int


@dataclass(frozen=True)
class Abort:
    """
    Give up the replacement.  What has been replaced stays replaced.

    @ivar reason: Why, in words, naming the slots.
    @ivar discard: The slots whose candidates are to be stopped, by ascending
        slot; that of the failed one may be gone already.
    """

    reason: str
    discard: tuple[int, ...]


@dataclass(frozen=True)
class Done:
    """
    Everything has been replaced, and nothing of the old is left.
    """


Decision = Spawn | Drain | Abort | Done


def decide(rolling: Rolling, views: Sequence[SlotView]) -> tuple[Decision, ...]:
    """
    Decide what to do next, in this order; nothing means to wait for a change.
    After an L{Abort} or L{Done} there is nothing left to ask.

    @param views: The slots the cluster has now.  Slots that are not part of
        C{rolling} are ignored, and so are those of C{rolling} that no longer
        exist.
    """
    ours = sorted((view for view in views if view.slot in rolling.slots), key=_slot)
    failures = [f"slot {view.slot}: {failure}" for view in ours if (failure := _failure(view))]
    if failures:
        discard = tuple(view.slot for view in ours if view.candidate is not None)
        return (Abort("; ".join(failures), discard),)
    busy = [view for view in ours if _isBusy(view)]
    stale = [view for view in ours if not view.fresh and not _isBusy(view)]
    if not busy and not stale:
        return (Done(),)
    drains = [Drain(view.slot) for view in busy if view.candidate is State.READY]
    spawns = [Spawn(view.slot) for view in stale[: max(0, rolling.parallel - len(busy))]]
    return (*drains, *spawns)


def _slot(view: SlotView) -> int:
    return view.slot


def _isBusy(view: SlotView) -> bool:
    return view.draining or view.candidate is not None


def _failure(view: SlotView) -> str:
    """
    Why the candidate failed; empty if it has not.  One that is neither on its
    way nor Ready will never be, whether or not anyone has said why.
    """
    if view.failure or view.candidate in (None, State.STARTING, State.READY):
        return view.failure
    return f"its replacement is {view.candidate.value}"
