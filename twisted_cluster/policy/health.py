"""
Whether a worker that has not been heard of is hung.

The heartbeat of a worker comes from its reactor, so that silence means that
the reactor does not run.  That alone is no reason to kill it: on an overloaded
machine the reactor may not run because the worker, or the master that listens
for it, gets no CPU.  The judgement is passed in the master.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

STARVED_BELOW = 0.1
"""A runnable worker that got less than this share of a core is starved."""

STARVED_LIMITS = 3
"""After this many times the limit even a starved worker is taken for hung."""


@dataclass(frozen=True)
class Silence:
    """
    What is known of a worker that has not been heard of.

    @ivar seconds: How long, since its last heartbeat.
    @ivar cpu: CPU seconds that the worker used in that time; L{None} if that
        is not known.
    @ivar runnable: Whether it runs or waits for a CPU (process state R);
        L{None} if that is not known.
    @ivar lateness: How many seconds late the master's own check came.
    """

    seconds: float
    cpu: float | None
    runnable: bool | None
    lateness: float


class Verdict(Enum):
    """
    What a silence means.

    HEALTHY: nothing.
    STARVED: the machine is overloaded; it is no fault of the worker's.
    HUNG: the worker will not be heard of again.
    """

    HEALTHY = "healthy"
    STARVED = "starved"
    HUNG = "hung"


def judge(silence: Silence, limit: float) -> Verdict:
    """
    Pass judgement on a worker.

    If the master's check came later than half the limit, the master itself did
    not run, and heartbeats may lie unread: the worker is taken for healthy,
    and the caller begins to count anew.

    @param limit: How many seconds a worker may be silent; 0 for no limit.
    """
    if limit <= 0 or silence.lateness > limit / 2 or silence.seconds <= limit:
        return Verdict.HEALTHY
    if silence.seconds <= STARVED_LIMITS * limit and _isStarved(silence):
        return Verdict.STARVED
    return Verdict.HUNG


def _isStarved(silence: Silence) -> bool:
    if not silence.runnable or silence.cpu is None:
        return False
    return silence.cpu < STARVED_BELOW * silence.seconds
