"""
One end of the messages between processes: handlers, questions that wait for
their answers, and what becomes of both.  In the master and in the workers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import CallFailed, CallTimedOut
from twisted_cluster.interfaces import RESERVED, Message
from twisted_cluster.wire import values
from twisted_cluster.wire.messages import checkTopic

Handler = Callable[[Message], Any]


class Question:
    """
    A question that waits for its answer.

    @ivar what: What can't be done without one, the words after "can't".
    @ivar about: Who is to answer it, as the asker sees it.
    """

    def __init__(self, what: str, about: Any) -> None:
        self.what = what
        self.about = about
        self.answer: Deferred[Any] = Deferred()
        self.timer: IDelayedCall | None = None


class Questions:
    """
    Those that wait, by number.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._count = 0
        self._waiting: dict[int, Question] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def number(self) -> int:
        """
        A number that no other question has.
        """
        self._count += 1
        return self._count

    def ask(self, number: int, what: str, about: Any, timeout: float | None) -> Deferred[Any]:
        """
        Wait for an answer.

        @param number: Of the question, as L{number} gave it.
        @param timeout: For how many seconds; L{None}: as long as it takes.
        @return: A Deferred of the value; it fails with L{CallFailed} or
            L{CallTimedOut}.
        """
        question = self._waiting[number] = Question(what, about)
        if timeout is not None:
            question.timer = self._clock.callLater(timeout, self._expire, number, timeout)
        return question.answer

    def answered(self, number: int, about: Any, value: bytes) -> None:
        """
        An answer has come.  One that nobody waits for any more is dropped.

        @param about: From whom.
        @raise PeerError: if its value makes no sense.
        """
        question = self._find(number, about)
        if question is not None:
            # As long as this may fail the question waits: the channel goes
            # then, and whoever asked is told by lost().
            answer = values.decode(value)
            self._take(number, about)
            question.answer.callback(answer)

    def failed(self, number: int, about: Any, reason: str) -> None:
        """
        There will be none.
        """
        question = self._take(number, about)
        if question is not None:
            question.answer.errback(CallFailed(question.what, reason))

    def lost(self, about: Any, reason: str) -> None:
        """
        Nobody is left to answer what C{about} was asked.
        """
        for number in [one for one in self._waiting if self._waiting[one].about == about]:
            self.failed(number, about, reason)

    def _find(self, number: int, about: Any) -> Question | None:
        question = self._waiting.get(number)
        return question if question is not None and question.about == about else None

    def _take(self, number: int, about: Any) -> Question | None:
        question = self._find(number, about)
        if question is None:
            return None
        del self._waiting[number]
        if question.timer is not None and question.timer.active():
            question.timer.cancel()
        return question

    def _expire(self, number: int, timeout: float) -> None:
        question = self._waiting.pop(number)
        question.answer.errback(CallTimedOut(question.what, timeout))


class Handlers:
    """
    Who handles which topic.
    """

    log = Logger()

    def __init__(self, table: dict[str, Handler] | None = None) -> None:
        """
        @param table: The handlers by topic, if somebody else keeps them.
        """
        self._handlers = {} if table is None else table
        self._unheard: set[str] = set()

    def handle(self, topic: str, handler: Handler) -> Handler:
        """
        Have C{handler} called with each message of C{topic}, instead of
        whatever was before.

        @raise AppError: if nothing can have that topic.
        """
        checkTopic(topic, RESERVED)
        self._handlers[topic] = handler
        return handler

    def find(self, topic: str) -> Handler | None:
        """
        The handler of a topic.
        """
        return self._handlers.get(topic)

    def unheard(self, topic: str, sender: str) -> None:
        """
        There is none, which is worth a line, once.
        """
        if topic not in self._unheard and len(self._unheard) < 1000:
            self._unheard.add(topic)
            self.log.warn(
                "a message of {sender} is dropped: nothing here handles the topic {topic!r}",
                sender=sender,
                topic=topic,
            )


def run(handler: Handler, message: Message) -> Deferred[Any]:
    """
    Call a handler, whether it answers now, with a Deferred or as a coroutine.
    """
    return maybeDeferred(_start, handler, message)


def _start(handler: Handler, message: Message) -> Any:
    result = handler(message)
    return ensureDeferred(result) if inspect.iscoroutine(result) else result


def reasonOf(failure: Failure) -> str:
    """
    A failure in a few words, for whoever asked.
    """
    text = f"{failure.type.__name__}: {failure.getErrorMessage()}" if failure.type else ""
    return text[:2000]
