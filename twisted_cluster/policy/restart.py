"""
What to do about a slot whose worker ended although nobody asked for it.

Like a supervisor of Erlang/OTP: a slot that crashes more than C{intensity}
times within C{period} has failed.  Until then each crash in a row makes it
wait longer for its next worker.  The decision is taken in the master, for each
slot on its own: the L{History} of one slot is all it knows of the past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted_cluster.events import ExitStatus, signalName

_SENT_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM"})
"""The signals by which operators and the kernel's OOM killer end a process; no
code dies of them by itself."""

_LARGEST_EXPONENT = 1023
"""2.0 to a higher power than this overflows."""


@dataclass(frozen=True)
class RestartPolicy:
    """
    When a slot gets its next worker.  Times are in seconds.

    @ivar intensity: A slot fails after more than this many crashes within
        C{period}.
    @ivar period: See C{intensity}.
    @ivar base: The delay after the second crash in a row, before jitter.
    @ivar cap: The longest delay.
    @ivar stableAfter: A worker that has been Ready for this long has shown
        that it works: whatever ends it is not part of a crash loop.
    """

    intensity: int
    period: float
    base: float
    cap: float
    stableAfter: float = 1.0


@dataclass(frozen=True)
class History:
    """
    What a slot has been through.

    @ivar crashes: When the crashes of late happened, by ascending time on the
        clock of L{Crash.at}.
    @ivar consecutive: How many crashes there have been in a row.
    """

    crashes: tuple[float, ...] = ()
    consecutive: int = 0


@dataclass(frozen=True)
class Crash:
    """
    The exit of a worker that the master had not asked for.

    @ivar at: When, in seconds on a clock that never goes back.
    @ivar wasReady: Whether the worker had been Ready.
    @ivar uptime: Seconds since it was Ready; 0 if it never was.
    @ivar exit: How the process ended.
    """

    at: float
    wasReady: bool
    uptime: float
    exit: ExitStatus


@dataclass(frozen=True)
class Restart:
    """
    Give the slot another worker.

    @ivar delay: After this many seconds; 0 is at once.
    @ivar history: The history of the slot from now on.
    """

    delay: float
    history: History


@dataclass(frozen=True)
class GiveUp:
    """
    Leave the slot without a worker until an operator asks for one.

    @ivar reason: Why, in words.
    @ivar history: The history of the slot from now on.
    """

    reason: str
    history: History


def decide(
    policy: RestartPolicy, history: History, crash: Crash, random: Callable[[], float]
) -> Restart | GiveUp:
    """
    Decide what becomes of a slot after C{crash}.

    @param random: Returns a number from 0 up to but not including 1, for the
        jitter.
    """
    # Slots that crash for a common cause would otherwise all come back at the
    # same moment, and meet the cause together again.
    jitter = 0.5 + random() / 2
    recent = tuple(at for at in history.crashes if crash.at - at <= policy.period)
    if _isNoEvidence(policy, crash):
        return Restart(0.0, History(recent))
    if crash.exit.failure is not None:
        # The system could not start a process at all, for want of descriptors
        # or memory.  That passes, and must not cost the slot.
        waited = History(recent, history.consecutive + 1)
        return Restart(longestDelay(policy, waited.consecutive + 1) * jitter, waited)
    counted = History((*recent, crash.at), history.consecutive + 1)
    if len(counted.crashes) > policy.intensity:
        return GiveUp(
            f"{len(counted.crashes)} crashes in {policy.period:g} s, the last one: {crash.exit}",
            counted,
        )
    return Restart(longestDelay(policy, counted.consecutive) * jitter, counted)


def longestDelay(policy: RestartPolicy, consecutive: int) -> float:
    """
    The delay in seconds, before jitter, after so many crashes in a row: none
    after the first one, then doubled each time up to the cap.
    """
    if consecutive <= 1:
        return 0.0
    return min(policy.cap, policy.base * 2.0 ** min(consecutive - 2, _LARGEST_EXPONENT))


def _isNoEvidence(policy: RestartPolicy, crash: Crash) -> bool:
    """
    Whether C{crash} is no evidence of a crash loop.

    A SIGKILL or SIGTERM that an operator or the OOM killer sent says nothing
    about the code, nor does what ends a worker that has worked for a while;
    and the service wants its worker back at once.  Before the worker is Ready
    even these count: a worker that is killed each time it starts, for want of
    memory or of time, would else be started for ever.
    """
    if not crash.wasReady:
        return False
    if crash.uptime >= policy.stableAfter:
        return True
    return crash.exit.signal is not None and signalName(crash.exit.signal) in _SENT_FROM_OUTSIDE
