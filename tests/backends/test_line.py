"""
Tests for L{twisted_cluster.backends.line}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.backends import line
from twisted_cluster.backends.line import Line, Question, ServerRefused, SessionLost
from twisted_cluster.backends.scripts import Script
from twisted_cluster.errors import StateUnavailable


class Asker:
    """
    A session whose answers are the test's.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: list[Deferred[Any]] = []

    def command(self, *arguments: Any) -> Deferred[Any]:
        """A command was given."""
        self.asked.append(arguments)
        self.answers.append(Deferred())
        return self.answers[-1]

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Deferred[Any]:
        """A script is to be run."""
        return self.command(script.digest, *keys, *arguments)

    def lose(self) -> None:
        """The session ends."""
        for answer in self.answers:
            if not answer.called:
                answer.errback(SessionLost("the connection was lost"))


class LineTests(SynchronousTestCase):
    """
    What waits.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.line = Line(self.clock, 5.0, "Redis")
        self.line.detach("it burns")

    def question(self, name: str, **more: Any) -> Question:
        """
        A plain one.
        """
        return Question(f"do {name}", None, (), (name,), **more)

    def test_waits(self) -> None:
        """
        Questions wait for a session, and are asked in their order.
        """
        done = [self.line.ask(self.question(name)) for name in "abc"]
        asker = Asker()
        self.line.attach(asker)
        self.assertEqual(asker.asked, [("a",), ("b",), ("c",)])
        asker.answers[1].callback(7)
        self.assertEqual(self.successResultOf(done[1]), 7)
        self.assertNoResult(done[0])
        self.assertEqual(len(self.line), 2)

    def test_tooLong(self) -> None:
        """
        They do not wait for ever; the reason says why they waited.
        """
        done = self.line.ask(self.question("a"))
        self.clock.advance(5.0)
        error = self.failureResultOf(done, StateUnavailable)
        self.assertEqual(
            str(error.value), "can't do a: Redis can't be used: it burns; try again later"
        )
        self.assertEqual(len(self.line), 0)
        asker = Asker()
        self.line.attach(asker)
        self.assertEqual(asker.asked, [])

    def test_askedAgain(self) -> None:
        """
        What has no answer when the session ends is asked again in the next,
        before what came later; what may not be repeated fails.
        """
        first, second = Asker(), Asker()
        self.line.attach(first)
        done = [self.line.ask(self.question(name)) for name in "ab"]
        once = self.line.ask(self.question("once", repeatable=False))
        first.answers[0].callback(1)
        first.lose()
        self.line.detach("it burns")
        error = self.failureResultOf(once, StateUnavailable)
        self.assertIn("it may have been done all the same", str(error.value))
        self.line.ask(self.question("c"))
        self.line.attach(second)
        self.assertEqual(second.asked, [("b",), ("c",)])
        second.answers[0].callback(2)
        self.assertEqual([self.successResultOf(one) for one in done], [1, 2])

    def test_impatient(self) -> None:
        """
        Some do not wait.
        """
        done = self.line.ask(self.question("a", patient=False))
        self.failureResultOf(done, StateUnavailable)
        self.assertEqual(len(self.line), 0)

    def test_refused(self) -> None:
        """
        What the server says is why it failed.
        """
        asker = Asker()
        self.line.attach(asker)
        done = self.line.ask(self.question("a"))
        asker.answers[0].errback(ServerRefused("OOM command not allowed"))
        error = self.failureResultOf(done, StateUnavailable)
        self.assertIn("it says: OOM command not allowed; ", str(error.value))

    def test_lateAnswer(self) -> None:
        """
        An answer that comes too late changes nothing.
        """
        asker = Asker()
        self.line.attach(asker)
        done = self.line.ask(self.question("a"))
        self.clock.advance(5.0)
        error = self.failureResultOf(done, StateUnavailable)
        self.assertIn("it has not answered for 5 s; it may have been done", str(error.value))
        asker.answers[0].callback(1)

    def test_bounds(self) -> None:
        """
        So many may wait, and so many bytes.
        """
        self.patch(line, "MAX_WAITING", 3)
        self.patch(line, "MAX_BYTES", 10)
        large = self.line.ask(self.question("x" * 20))
        self.assertNoResult(large)
        self.failureResultOf(self.line.ask(self.question("y")), StateUnavailable)
        self.clock.advance(5.0)
        self.failureResultOf(large, StateUnavailable)
        done = [self.line.ask(self.question(name)) for name in "abcd"]
        self.assertNoResult(done[2])
        error = self.failureResultOf(done[3], StateUnavailable)
        self.assertIn("too much waits for it already", str(error.value))
        self.assertEqual(len(self.line), 3)

    def test_close(self) -> None:
        """
        When it is closed nothing waits any more, and nothing begins to.
        """
        asker = Asker()
        done = [self.line.ask(self.question("a"))]
        self.line.attach(asker)
        done.append(self.line.ask(self.question("b")))
        self.line.close("the master is not running")
        done.append(self.line.ask(self.question("c")))
        for one in done:
            error = self.failureResultOf(one, StateUnavailable)
            self.assertIn("the master is not running; ", str(error.value))
        asker.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
