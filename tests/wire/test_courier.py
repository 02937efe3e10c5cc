"""
Tests for L{twisted_cluster.wire.courier}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import Lines
from twisted_cluster.errors import AppError, CallFailed, CallTimedOut, PeerError
from twisted_cluster.interfaces import Message
from twisted_cluster.wire.courier import Handlers, Questions, reasonOf, run
from twisted_cluster.wire.values import encode


class QuestionsTests(SynchronousTestCase):
    """
    Questions that wait for their answers.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.questions = Questions(self.clock)

    def ask(self, about: object = "peer", timeout: float | None = 10.0) -> tuple[int, Any]:
        """
        Ask something.

        @return: The number of the question, and the Deferred of its answer.
        """
        number = self.questions.number()
        return number, self.questions.ask(number, "ask", about, timeout)

    def nothingIsLeft(self) -> None:
        """
        Neither a question nor a timer is kept.
        """
        self.assertEqual((len(self.questions), self.clock.getDelayedCalls()), (0, []))

    def test_answered(self) -> None:
        """
        An answer goes to whoever asked, and its timer with it.
        """
        first, one = self.ask()
        second, other = self.ask()
        self.questions.answered(second, "peer", encode([2]))
        self.assertNoResult(one)
        self.assertEqual(self.successResultOf(other), [2])
        self.questions.answered(first, "peer", encode(1))
        self.assertEqual(self.successResultOf(one), 1)
        self.nothingIsLeft()

    def test_failed(self) -> None:
        """
        So does the reason why there is none.
        """
        number, answer = self.ask()
        self.questions.failed(number, "peer", "no")
        self.assertEqual(str(self.failureResultOf(answer, CallFailed).value), "can't ask: no")
        self.nothingIsLeft()

    def test_expires(self) -> None:
        """
        Nobody waits for longer than was said, and what comes later is
        dropped; without a timeout it takes as long as it takes.
        """
        number, answer = self.ask(timeout=2.0)
        _, patient = self.ask(timeout=None)
        self.clock.advance(1.9)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        self.failureResultOf(answer, CallTimedOut)
        self.questions.answered(number, "peer", encode(1))
        self.questions.failed(number, "peer", "no")
        self.clock.advance(1e9)
        self.assertNoResult(patient)
        self.assertEqual(len(self.questions), 1)

    def test_twice(self) -> None:
        """
        A second answer is dropped.
        """
        number, answer = self.ask()
        for value in (1, 2):
            self.questions.answered(number, "peer", encode(value))
        self.assertEqual(self.successResultOf(answer), 1)

    def test_somebodyElse(self) -> None:
        """
        Only who was asked can answer.
        """
        number, answer = self.ask("peer")
        self.questions.answered(number, "other", encode(1))
        self.questions.failed(number, "other", "no")
        self.assertNoResult(answer)

    def test_garbage(self) -> None:
        """
        An answer that makes no sense is the fault of who sent it, and does
        not leave who asked waiting for ever: the loss of the channel that
        follows answers.
        """
        number, answer = self.ask()
        self.assertRaises(PeerError, self.questions.answered, number, "peer", b"garbage")
        self.assertNoResult(answer)
        self.questions.lost("peer", "it has ended")
        self.failureResultOf(answer, CallFailed)
        self.nothingIsLeft()

    def test_lost(self) -> None:
        """
        When somebody is gone, whatever they were asked fails, and nothing else;
        not even if what is asked next is asked meanwhile.
        """
        again: list[Any] = []
        _, first = self.ask("gone")
        first.addErrback(lambda _: again.append(self.ask("peer")[1]))
        _, second = self.ask("gone")
        _, other = self.ask("peer")
        self.questions.lost("gone", "it has ended")
        self.failureResultOf(second, CallFailed)
        self.assertNoResult(other)
        self.assertNoResult(again[0])
        self.assertEqual(len(self.questions), 2)

    def test_cancelled(self) -> None:
        """
        Who no longer wants an answer may say so; it is dropped when it comes.
        """
        number, answer = self.ask()
        failures: list[Failure] = []
        answer.addErrback(failures.append)
        answer.cancel()
        self.assertEqual(len(failures), 1)
        self.questions.answered(number, "peer", encode(1))
        self.nothingIsLeft()


class HandlersTests(SynchronousTestCase):
    """
    Who handles what.
    """

    def test_latest(self) -> None:
        """
        The handler registered last is the one.
        """
        handlers = Handlers()
        self.assertIsNone(handlers.find("topic"))
        calls: list[Callable[[Message], Any]] = [lambda message: 1, lambda message: 2]
        for call in calls:
            self.assertIs(handlers.handle("topic", call), call)
        self.assertIs(handlers.find("topic"), calls[1])

    def test_refused(self) -> None:
        """
        For a topic that nothing can have, nothing can be registered.
        """
        handlers = Handlers()
        for topic in ("", "twisted_cluster.state"):
            self.assertRaises(AppError, handlers.handle, topic, print)

    def test_unheard(self) -> None:
        """
        A topic without a handler is one line in the log, and that is true for
        so many topics only: whoever sends invents them without end.
        """
        lines = Lines(self)
        handlers = Handlers()
        for number in range(3000):
            handlers.unheard(f"topic {number}", "slot 1")
            handlers.unheard(f"topic {number}", "slot 2")
        self.assertEqual(len(lines.containing("nothing here handles")), 1000)
        self.assertEqual(len(handlers._unheard), 1000)


class RunTests(SynchronousTestCase):
    """
    Calling handlers.
    """

    message = Message("topic", 1, 2)

    def test_styles(self) -> None:
        """
        They may answer now, later, or as coroutines.
        """
        later: Deferred[int] = Deferred()

        async def coroutine(message: Message) -> int:
            return int(message.value) + await later

        waiting = run(coroutine, self.message)
        self.assertEqual(self.successResultOf(run(lambda message: message.value, self.message)), 1)
        self.assertNoResult(waiting)
        later.callback(4)
        self.assertEqual(self.successResultOf(waiting), 5)

    def test_raises(self) -> None:
        """
        What they raise is a failure, whose text is short.
        """

        def handler(message: Message) -> None:
            raise ValueError("x" * 5000)

        reason = reasonOf(self.failureResultOf(run(handler, self.message), ValueError))
        self.assertTrue(reason.startswith("ValueError: xxx"))
        self.assertEqual(len(reason), 2000)
