"""
The worker's end of the messages between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import AppError, ChannelLost, PeerError, QueueFull
from twisted_cluster.interfaces import RESERVED, Message
from twisted_cluster.wire import courier, values
from twisted_cluster.wire.messages import (
    MASTER,
    Envelope,
    Kind,
    checkTimeout,
    checkTopic,
    decode,
    whole,
)
from twisted_cluster.wire.parts import APP_LANE, STATE_LANE, Outbox, Packet

SEND_TIMEOUT = 60.0
"""Seconds to wait for the master to say that it has passed a message on.  It
may be unable to: what waits for a worker that does not read has a bound."""

_NOTHING = object()
"""Who is asked, where there is only one."""


class WorkerMessages:
    """
    Sends to the master, which passes on, and hands what comes to handlers.

    @ivar onReserved: Called with topic and data of what the master says about
        state, cache and leases.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, handlers: courier.Handlers, outbox: Outbox) -> None:
        """
        @param handlers: What the app registers, before or after this is made.
        """
        self._handlers = handlers
        self._outbox = outbox
        self._questions = courier.Questions(clock)
        self.onReserved: Callable[[str, bytes], object] = lambda topic, data: None

    def send(self, target: int, topic: str, value: Any) -> Deferred[int]:
        """
        Send something.

        @param target: As in an L{Envelope}.
        @return: A Deferred of the number of processes that it goes to.
        """
        return self._ask(Kind.MESSAGE, f"send {topic!r}", target, topic, value, SEND_TIMEOUT)

    def call(self, target: int, topic: str, value: Any, timeout: float) -> Deferred[Any]:
        """
        Ask something.

        @return: A Deferred of the answer.
        """
        whom = "the master" if target == MASTER else f"slot {target}"
        return self._ask(Kind.CALL, f"call {topic!r} of {whom}", target, topic, value, timeout)

    def post(self, topic: str, data: bytes) -> Deferred[None]:
        """
        Send something about state, cache or leases, in the order of the calls.
        """
        head = Envelope(Kind.MESSAGE, 0, MASTER, MASTER, 0.0, topic, b"").encode()
        return self._outbox.send(Packet(STATE_LANE, data, head))

    def lost(self) -> None:
        """
        The master is gone, and all answers with it.
        """
        self._outbox.lost()
        self._questions.lost(_NOTHING, "the master is gone")

    def received(self, lane: int, parts: Sequence[bytes]) -> None:
        """
        A message has come.

        @raise PeerError: if it makes no sense.
        """
        head = decode(parts[0])
        if head.kind in (Kind.MESSAGE, Kind.CALL) and lane == APP_LANE:
            self._handle(head, parts)
            return
        envelope = whole(parts)
        if lane == STATE_LANE:
            self.onReserved(envelope.topic, envelope.value)
        elif envelope.kind is Kind.RESULT:
            self._questions.answered(envelope.number, _NOTHING, envelope.value)
        else:
            reason = values.decode(envelope.value)
            if not isinstance(reason, str):
                raise PeerError("a failure without a text")
            self._questions.failed(envelope.number, _NOTHING, reason)

    def _ask(
        self, kind: Kind, what: str, target: int, topic: str, value: Any, timeout: float
    ) -> Deferred[Any]:
        try:
            checkTopic(topic, RESERVED)
            checkTimeout(timeout)
            tag, rest = values.encodeApart(value)
            number = self._questions.number()
            head = Envelope(kind, number, MASTER, target, timeout, topic, tag)
            packet = Packet(APP_LANE, rest, head.encode())
        except (AppError, QueueFull) as error:
            return fail(error)
        answer = self._questions.ask(number, what, _NOTHING, timeout)
        self._outbox.send(packet).addErrback(self._notSent, number)
        return answer

    def _notSent(self, failure: Failure, number: int) -> None:
        failure.trap(QueueFull, ChannelLost)
        self._questions.failed(number, _NOTHING, failure.getErrorMessage())

    def _handle(self, envelope: Envelope, parts: Sequence[bytes]) -> None:
        """
        @param envelope: The head, with as much of the value as is in the first
            of C{parts}.
        """
        sender = None if envelope.sender == MASTER else envelope.sender
        handler = self._handlers.find(envelope.topic)
        if handler is None:
            whom = "the master" if sender is None else f"slot {sender}"
            self._handlers.unheard(envelope.topic, whom)
            if envelope.kind is Kind.CALL:
                self._refuse(envelope, f"its app handles no {envelope.topic!r}")
            return
        value = values.decodeParts((envelope.value, *parts[1:]))
        message = Message(envelope.topic, value, sender)
        done = courier.run(handler, message)
        if envelope.kind is Kind.CALL:
            done.addCallback(values.encode)
            done.addCallback(lambda data: self._answer(envelope, Kind.RESULT, data))
        done.addErrback(self._handlerFailed, envelope)

    def _handlerFailed(self, failure: Failure, envelope: Envelope) -> None:
        self.log.failure("the handler of {topic!r} failed", failure, topic=envelope.topic)
        if envelope.kind is Kind.CALL:
            self._refuse(envelope, courier.reasonOf(failure))

    def _refuse(self, envelope: Envelope, reason: str) -> None:
        self._answer(envelope, Kind.FAILURE, values.encode(reason))

    def _answer(self, envelope: Envelope, kind: Kind, value: bytes) -> None:
        answer = Envelope(kind, envelope.number, MASTER, envelope.sender, 0.0, "", value)
        if not self._outbox.post(Packet(APP_LANE, answer.encode())) and self._outbox.queued:
            self.log.error(
                "the answer to {topic!r} is dropped: too much waits for the master to read",
                topic=envelope.topic,
            )
