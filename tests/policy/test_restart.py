"""
Tests for L{twisted_cluster.policy.restart}.
"""

from __future__ import annotations

import signal
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import ExitStatus
from twisted_cluster.policy.restart import (
    Crash,
    GiveUp,
    History,
    Restart,
    RestartPolicy,
    decide,
    longestDelay,
)

POLICY = RestartPolicy(intensity=10, period=60.0, base=0.1, cap=30.0)
PATIENT = RestartPolicy(intensity=1000, period=60.0, base=0.1, cap=30.0)
EXIT_1 = ExitStatus(code=1)

policies = st.builds(
    RestartPolicy,
    intensity=st.integers(1, 12),
    period=st.floats(0.001, 1000),
    base=st.floats(0.0001, 100),
    cap=st.floats(0.0001, 1000),
    stableAfter=st.floats(0, 10),
)
exits = st.one_of(
    st.builds(ExitStatus, code=st.integers(0, 255)),
    st.builds(ExitStatus, signal=st.integers(1, 64)),
    st.builds(ExitStatus, failure=st.just("no such file")),
)
jitters = st.floats(0, 1, exclude_max=True)


@st.composite
def lives(draw: st.DrawFn) -> list[Crash]:
    """
    The crashes of one slot, by ascending time.
    """
    at, crashes = 1000.0, []
    for pause in draw(st.lists(st.floats(0, 100), max_size=25)):
        at += pause
        wasReady = draw(st.booleans())
        uptime = draw(st.floats(0, 20)) if wasReady else 0.0
        crashes.append(Crash(at, wasReady, uptime, draw(exits)))
    return crashes


def longest() -> float:
    """
    The draw that gives the longest delay there can be.
    """
    return 1 - 2**-53


def startCrash(at: float, exit: ExitStatus = EXIT_1) -> Crash:
    """
    The crash of a worker that never was Ready.
    """
    return Crash(at, wasReady=False, uptime=0.0, exit=exit)


def live(policy: RestartPolicy, crashes: list[Crash]) -> list[Restart | GiveUp]:
    """
    What is decided on each of C{crashes} of one slot.
    """
    history, decisions = History(), []
    for crash in crashes:
        decision = decide(policy, history, crash, longest)
        history = decision.history
        decisions.append(decision)
    return decisions


def isForgiven(policy: RestartPolicy, crash: Crash) -> bool:
    """
    Whether C{crash} must not count.
    """
    outside = crash.exit.signal in (signal.SIGKILL, signal.SIGTERM)
    return crash.wasReady and (outside or crash.uptime >= policy.stableAfter)


class DelayTests(SynchronousTestCase):
    """
    How long a slot waits for its next worker.
    """

    def delays(self, crashes: list[Crash], policy: RestartPolicy = PATIENT) -> list[float]:
        """
        The delays after C{crashes}, none of which makes the slot fail.
        """
        delays = []
        for decision in live(policy, crashes):
            assert isinstance(decision, Restart)
            delays.append(round(decision.delay, 6))
        return delays

    def test_doubled(self) -> None:
        """
        The first restart comes at once, the second after the base delay, then
        the delay is doubled until it reaches the cap.
        """
        crashes = [startCrash(at) for at in range(12)]
        self.assertEqual(
            self.delays(crashes),
            [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0],
        )

    def test_jitter(self) -> None:
        """
        The delay is drawn between half of the envelope and all of it.
        """
        history = History((1.0, 2.0), 2)
        for drawn, expected in [(0.0, 0.1), (0.5, 0.15), (longest(), 0.2)]:
            decision = decide(POLICY, history, startCrash(3.0), iter([drawn]).__next__)
            assert isinstance(decision, Restart)
            self.assertAlmostEqual(decision.delay, expected)

    def test_stableWorkerRestartsAtOnce(self) -> None:
        """
        A worker that was Ready for as long as C{stableAfter} is replaced at
        once, and the crashes before it are in a row no more.
        """
        stable = Crash(3.0, wasReady=True, uptime=1.0, exit=EXIT_1)
        crashes = [startCrash(1.0), startCrash(2.0), stable, startCrash(4.0), startCrash(5.0)]
        self.assertEqual(self.delays(crashes), [0.0, 0.1, 0.0, 0.0, 0.1])

    def test_diedSoonAfterReady(self) -> None:
        """
        A worker that died by itself soon after it was Ready counts as one
        that never was.
        """
        crashes = [Crash(at, wasReady=True, uptime=0.9, exit=EXIT_1) for at in range(3)]
        self.assertEqual(self.delays(crashes), [0.0, 0.1, 0.2])

    def test_killedFromOutside(self) -> None:
        """
        SIGKILL or SIGTERM from outside is no evidence against a worker that
        was Ready, however short a time ago.
        """
        for number in (signal.SIGKILL, signal.SIGTERM):
            crash = Crash(3.0, wasReady=True, uptime=0.0, exit=ExitStatus(signal=number))
            decision = decide(POLICY, History((1.0, 2.0), 2), crash, longest)
            self.assertEqual(decision, Restart(0.0, History((1.0, 2.0), 0)))

    def test_killedBeforeReady(self) -> None:
        """
        A worker that is killed before it is Ready counts: it may be killed
        each time, for want of memory or of time.
        """
        killed = ExitStatus(signal=signal.SIGKILL)
        crashes = [startCrash(at, killed) for at in range(3)]
        self.assertEqual(self.delays(crashes), [0.0, 0.1, 0.2])

    def test_ownSignalCounts(self) -> None:
        """
        A worker that dies of a fault of its own soon after it was Ready
        counts, though a signal ended it.
        """
        crash = Crash(3.0, wasReady=True, uptime=0.1, exit=ExitStatus(signal=signal.SIGSEGV))
        decision = decide(POLICY, History(), crash, longest)
        self.assertEqual(decision.history, History((3.0,), 1))

    def test_neverReadyIsNotStable(self) -> None:
        """
        With C{stableAfter} at zero, a worker that never was Ready counts all
        the same.
        """
        policy = RestartPolicy(intensity=10, period=60.0, base=0.1, cap=30.0, stableAfter=0.0)
        self.assertEqual(
            decide(policy, History(), startCrash(1.0), longest).history, History((1.0,), 1)
        )

    @given(policies, st.integers(0, 10**9), jitters)
    def test_neverAboveCap(self, policy: RestartPolicy, consecutive: int, drawn: float) -> None:
        """
        The delay is between zero and the cap, after however many crashes.
        """
        decision = decide(policy, History((), consecutive), startCrash(5.0), lambda: drawn)
        assert isinstance(decision, Restart)
        self.assertLessEqual(decision.delay, policy.cap)
        self.assertGreaterEqual(decision.delay, 0)

    @given(policies, st.integers(0, 3000), jitters)
    def test_jitterStaysInEnvelope(
        self, policy: RestartPolicy, consecutive: int, drawn: float
    ) -> None:
        """
        Jitter takes at most half of the envelope away and adds nothing.
        """
        decision = decide(policy, History((), consecutive), startCrash(5.0), lambda: drawn)
        assert isinstance(decision, Restart)
        envelope = longestDelay(policy, consecutive + 1)
        self.assertLessEqual(decision.delay, envelope)
        self.assertGreaterEqual(decision.delay, envelope / 2)

    @given(policies, st.integers(0, 3000))
    def test_envelopeNeverFalls(self, policy: RestartPolicy, consecutive: int) -> None:
        """
        One crash more in a row never makes the delay shorter, before jitter.
        """
        self.assertGreaterEqual(
            longestDelay(policy, consecutive + 1), longestDelay(policy, consecutive)
        )


class GiveUpTests(SynchronousTestCase):
    """
    When a slot fails.
    """

    def test_moreThanIntensity(self) -> None:
        """
        One crash more than the intensity within the period is too many, and
        the reason says so.
        """
        decisions = live(POLICY, [startCrash(at) for at in range(11)])
        self.assertTrue(all(isinstance(decision, Restart) for decision in decisions[:10]))
        self.assertEqual(
            decisions[10],
            GiveUp(
                "11 crashes in 60 s, the last one: exit code 1",
                History(tuple(range(11)), 11),
            ),
        )

    def test_oldCrashesAreForgotten(self) -> None:
        """
        Crashes that are further apart than the period allows for never make
        a slot fail, and the history does not grow.
        """
        decisions = live(POLICY, [startCrash(at * 6.5) for at in range(2000)])
        self.assertTrue(all(isinstance(decision, Restart) for decision in decisions))
        self.assertEqual(decisions[-1].history.consecutive, 2000)
        self.assertLessEqual(len(decisions[-1].history.crashes), POLICY.intensity)

    def test_crashAtTheEdgeOfThePeriod(self) -> None:
        """
        A crash exactly one period ago still counts; an older one does not.
        """
        policy = RestartPolicy(intensity=1, period=10.0, base=1.0, cap=1.0)
        history = History((100.0,), 1)
        self.assertIsInstance(decide(policy, history, startCrash(110.0), longest), GiveUp)
        self.assertIsInstance(decide(policy, history, startCrash(110.5), longest), Restart)

    def test_stableWorkersNeverFail(self) -> None:
        """
        However often a Ready worker is killed from outside, its slot never
        fails.
        """
        killed = ExitStatus(signal=signal.SIGKILL)
        crashes = [Crash(at / 100, wasReady=True, uptime=0.01, exit=killed) for at in range(500)]
        self.assertEqual(live(POLICY, crashes), [Restart(0.0, History())] * 500)

    @given(policies, lives())
    def test_intensityBound(self, policy: RestartPolicy, crashes: list[Crash]) -> None:
        """
        A slot fails exactly when it has had more crashes that count within
        the last period than the intensity allows for.
        """
        counted: list[float] = []
        for crash, decision in zip(crashes, live(policy, crashes), strict=True):
            if isForgiven(policy, crash) or crash.exit.failure is not None:
                self.assertIsInstance(decision, Restart)
                continue
            counted.append(crash.at)
            recent = [at for at in counted if crash.at - at <= policy.period]
            self.assertEqual(isinstance(decision, GiveUp), len(recent) > policy.intensity)

    @given(policies, lives())
    def test_forgivenCrashes(self, policy: RestartPolicy, crashes: list[Crash]) -> None:
        """
        What is no evidence of a crash loop leads to a restart at once and to
        a fresh count.
        """
        for crash, decision in zip(crashes, live(policy, crashes), strict=True):
            if isForgiven(policy, crash):
                assert isinstance(decision, Restart)
                self.assertEqual((decision.delay, decision.history.consecutive), (0, 0))
            else:
                self.assertGreater(decision.history.consecutive, 0)

    @given(policies, lives(), lives())
    def test_slotsAreIndependent(
        self, policy: RestartPolicy, one: list[Crash], other: list[Crash]
    ) -> None:
        """
        What is decided about a slot is the same whatever happens to another
        in between.
        """
        histories = {0: History(), 1: History()}
        decisions: dict[int, list[Restart | GiveUp]] = {0: [], 1: []}
        tick = count()
        mixed = sorted(
            [(crash.at, next(tick), 0, crash) for crash in one]
            + [(crash.at, next(tick), 1, crash) for crash in other]
        )
        for _, _, slot, crash in mixed:
            decision = decide(policy, histories[slot], crash, longest)
            histories[slot] = decision.history
            decisions[slot].append(decision)
        self.assertEqual(decisions, {0: live(policy, one), 1: live(policy, other)})


class NotStartedTests(SynchronousTestCase):
    """
    A process that could not be started at all.
    """

    def test_neverGivesUp(self) -> None:
        """
        A lack of descriptors or memory does not cost a slot, however long it
        lasts; the attempts get rarer, and the crashes of the app are still
        counted.
        """
        missing = ExitStatus(failure="Too many open files")
        history = History(crashes=(0.0,), consecutive=1)
        delays = []
        for at in range(100):
            decision = decide(POLICY, history, Crash(at / 10, False, 0.0, missing), longest)
            assert isinstance(decision, Restart)
            delays.append(decision.delay)
            history = decision.history
        self.assertEqual(history.crashes, (0.0,))
        self.assertGreater(delays[0], 0)
        self.assertEqual(delays, sorted(delays))
        self.assertAlmostEqual(delays[-1], POLICY.cap, delta=POLICY.cap * 0.01)
