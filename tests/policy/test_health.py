"""
Tests for L{twisted_cluster.policy.health}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.health import Silence, Verdict, judge

LIMIT = 30.0

silences = st.builds(
    Silence,
    seconds=st.floats(0, 1000),
    cpu=st.none() | st.floats(0, 1000),
    runnable=st.sampled_from([None, False, True]),
    lateness=st.floats(0, 100),
)


def silent(
    seconds: float, cpu: float | None = 0.0, runnable: bool | None = False, lateness: float = 0.0
) -> Silence:
    """
    The silence of a worker that sleeps, unless something else is said.
    """
    return Silence(seconds, cpu, runnable, lateness)


class JudgeTests(SynchronousTestCase):
    """
    Tests for L{judge}.
    """

    def test_withinTheLimit(self) -> None:
        """
        A worker that was silent for as long as it may be is healthy.
        """
        self.assertIs(judge(silent(LIMIT), LIMIT), Verdict.HEALTHY)

    def test_blocked(self) -> None:
        """
        A worker that sleeps beyond the limit is hung: it waits for something
        other than a CPU.
        """
        self.assertIs(judge(silent(LIMIT + 0.1), LIMIT), Verdict.HUNG)

    def test_busy(self) -> None:
        """
        A worker that computes beyond the limit is hung.
        """
        self.assertIs(judge(silent(31.0, cpu=30.0, runnable=True), LIMIT), Verdict.HUNG)

    def test_starved(self) -> None:
        """
        A runnable worker that got less than a tenth of a core is starved, up
        to three times the limit; then it is hung.
        """
        for seconds, verdict in [
            (31.0, Verdict.STARVED),
            (90.0, Verdict.STARVED),
            (90.1, Verdict.HUNG),
        ]:
            self.assertIs(judge(silent(seconds, cpu=1.0, runnable=True), LIMIT), verdict)

    def test_aTenthOfACoreIsEnough(self) -> None:
        """
        A worker that got a tenth of a core and still was not heard of is hung.
        """
        self.assertIs(judge(silent(40.0, cpu=3.99, runnable=True), LIMIT), Verdict.STARVED)
        self.assertIs(judge(silent(40.0, cpu=4.0, runnable=True), LIMIT), Verdict.HUNG)

    def test_unknown(self) -> None:
        """
        Where nothing is known of the process, silence alone decides.
        """
        self.assertIs(judge(silent(31.0, cpu=None, runnable=None), LIMIT), Verdict.HUNG)
        self.assertIs(judge(silent(31.0, cpu=None, runnable=True), LIMIT), Verdict.HUNG)
        self.assertIs(judge(silent(31.0, cpu=0.0, runnable=None), LIMIT), Verdict.HUNG)

    def test_masterDidNotRun(self) -> None:
        """
        A check that comes later than half the limit proves nothing, as after
        a suspended machine wakes up.
        """
        self.assertIs(judge(silent(4000.0, lateness=15.1), LIMIT), Verdict.HEALTHY)
        self.assertIs(judge(silent(4000.0, lateness=15.0), LIMIT), Verdict.HUNG)

    @given(silences)
    def test_noLimit(self, silence: Silence) -> None:
        """
        With a limit of zero every worker is healthy.
        """
        self.assertIs(judge(silence, 0), Verdict.HEALTHY)

    @given(silences, st.floats(0.1, 100))
    def test_onlyTheSilentAreJudged(self, silence: Silence, limit: float) -> None:
        """
        No worker that was heard of within the limit is ever starved or hung.
        """
        if silence.seconds <= limit:
            self.assertIs(judge(silence, limit), Verdict.HEALTHY)

    @given(silences, st.floats(0.1, 100))
    def test_neverStarvedForEver(self, silence: Silence, limit: float) -> None:
        """
        A worker is hung after three times the limit, whatever its process
        does, if the master ran in time.
        """
        if silence.seconds > 3 * limit and silence.lateness <= limit / 2:
            self.assertIs(judge(silence, limit), Verdict.HUNG)
