"""
What waits for a Redis server, or for its answer.

While there is no session, questions wait in line for a while; so do those that
were asked when the last session ended and may be asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_cluster.backends.scripts import Script
from twisted_cluster.errors import ClusterError, StateUnavailable

MAX_WAITING = 10_000
"""Questions that may be in line."""

MAX_BYTES = 64 << 20
"""The bytes that they may have together; a larger one is taken if it is
alone."""

Argument = bytes | str | int


class ServerRefused(ClusterError):
    """
    The server answered with an error.
    """


class SessionLost(ClusterError):
    """
    The session ended before the server had answered.
    """


class IAsker(Protocol):
    """
    A session, as far as asking goes.  The Deferreds fail with
    L{ServerRefused} and L{SessionLost}.
    """

    def command(self, *arguments: Argument) -> Deferred[Any]:
        """Have the server carry out a command."""

    def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Deferred[Any]:
        """Have the server run a script."""


@dataclass(frozen=True)
class Question:
    """
    What the server is asked.

    @ivar what: What can't be done if it fails, the words after "can't".
    @ivar script: What to run; L{None} for a plain command.
    @ivar keys: The keys of the script.
    @ivar arguments: Those of the script, or the whole command.
    @ivar repeatable: Whether it may be asked again if the answer is lost.
    @ivar patient: Whether it waits for a session if there is none.
    """

    what: str
    script: Script | None
    keys: Sequence[str] = ()
    arguments: Sequence[Argument] = ()
    repeatable: bool = True
    patient: bool = True

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return sum(len(one) for one in self.arguments if isinstance(one, (bytes, str)))


@dataclass(eq=False)
class _Open:
    """
    A question without an answer.

    @ivar asked: Whether the server of this session has been asked.
    """

    question: Question
    size: int
    asked: bool = False
    done: Deferred[Any] = field(default_factory=Deferred)


class Line:
    """
    The questions of one master, in their order.
    """

    def __init__(self, clock: IReactorTime, timeout: float, server: str) -> None:
        """
        @param timeout: Seconds after which a question without an answer fails.
        @param server: What to call the server.
        """
        self._clock = clock
        self._timeout = timeout
        self._server = server
        self._reason = "the master is not running"
        self._mayWait = False
        self._session: IAsker | None = None
        self._open: dict[_Open, None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    # Sessions.

    def attach(self, session: IAsker) -> None:
        """
        Ask what waits, and what comes, by way of C{session}.
        """
        self._session = session
        for one in list(self._open):
            self._send(one)

    def detach(self, reason: str) -> None:
        """
        There is no session now, because of C{reason}.
        """
        self._mayWait = True
        self._session = None
        self._reason = reason
        for one in list(self._open):
            one.asked = False

    def close(self, reason: str) -> None:
        """
        There will be no session: all that waits fails because of C{reason},
        and so does what comes.
        """
        self.detach(reason)
        self._mayWait = False
        for one in list(self._open):
            self._fail(one, reason)

    # Questions.

    def ask(self, question: Question) -> Deferred[Any]:
        """
        Ask now or when there is a session.

        @return: A Deferred of the answer, or of L{StateUnavailable}.
        """
        size = question.size
        if self._session is None and not (self._mayWait and question.patient):
            return fail(self._error(question, self._reason))
        if len(self._open) >= MAX_WAITING or (self._open and self._bytes + size > MAX_BYTES):
            return fail(self._error(question, "too much waits for it already"))
        one = _Open(question, size, done=Deferred(lambda _: self._drop(one)))
        self._open[one] = None
        self._bytes += size
        one.done.addTimeout(
            self._timeout, self._clock, onTimeoutCancel=lambda _, __: self._late(one)
        )
        if self._session is not None:
            self._send(one)
        return one.done

    def _send(self, one: _Open) -> None:
        session, question = self._session, one.question
        assert session is not None
        one.asked = True
        if question.script is None:
            done = session.command(*question.arguments)
        else:
            done = session.run(question.script, question.keys, question.arguments)
        done.addCallbacks(self._answered, self._failed, callbackArgs=(one,), errbackArgs=(one,))

    def _answered(self, answer: Any, one: _Open) -> None:
        if self._forget(one):
            one.done.callback(answer)

    def _failed(self, failure: Failure, one: _Open) -> None:
        if failure.trap(ServerRefused, SessionLost) is ServerRefused:
            self._fail(one, f"it says: {failure.value}")
        elif not one.question.repeatable:
            self._fail(one, f"{failure.value}; it may have been done all the same")

    def _fail(self, one: _Open, reason: str) -> None:
        if self._forget(one):
            one.done.errback(self._error(one.question, reason))

    def _late(self, one: _Open) -> Any:
        reason = self._reason
        if one.asked:
            reason = (
                f"it has not answered for {self._timeout:g} s; it may have been done all the same"
            )
        raise self._error(one.question, reason)

    def _forget(self, one: _Open) -> bool:
        """
        @return: Whether its answer was still awaited.
        """
        if one not in self._open:
            return False
        del self._open[one]
        self._bytes -= one.size
        return True

    def _drop(self, one: _Open) -> None:
        self._forget(one)

    def _error(self, question: Question, reason: str) -> StateUnavailable:
        return StateUnavailable(
            f"can't {question.what}: {self._server} can't be used: {reason}; try again later"
        )
