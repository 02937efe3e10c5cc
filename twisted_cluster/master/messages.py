"""
Passes messages on between workers, and between them and the master's own code.
Runs in the master.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import AppError, CallFailed, PeerError, QueueFull
from twisted_cluster.events import EventStream, MessagesDropped
from twisted_cluster.interfaces import RESERVED, Message
from twisted_cluster.wire import courier, values
from twisted_cluster.wire.messages import (
    ALL,
    EVERYWHERE,
    MASTER,
    OTHERS,
    Envelope,
    Kind,
    checkTimeout,
    checkTopic,
    decode,
    whole,
)
from twisted_cluster.wire.parts import APP_LANE, STATE_LANE, Outbox, Packet

MAX_RELAYS = 100_000
"""Questions of workers to workers that may wait for their answers."""

HOSTS_TOPIC = RESERVED + "everywhere"
"""What goes to the workers of all hosts is published under this."""


class IMember(Hashable, Protocol):
    """
    A worker process, as messages go to it.
    """

    @property
    def slot(self) -> int:
        """Its slot."""

    @property
    def generation(self) -> int:
        """Its generation."""

    @property
    def pid(self) -> int | None:
        """Its process."""


class _Relay(NamedTuple):
    """
    A question that was passed on.

    @ivar caller: Who asked it.
    @ivar number: By which number.
    @ivar timer: Forgets it.
    """

    caller: IMember
    number: int
    timer: IDelayedCall


class Messages:
    """
    The hub that all messages pass.

    @ivar onReserved: Called with worker, topic and data of each message that
        state, cache or leases send.
    @ivar onUnhandled: Called with a message to the master that no handler is
        registered for; what it returns is the answer.
    @ivar publish: Has the masters of all hosts hear something under a topic,
        this one too: L{heardFrom} is to be called in each.
    @ivar dropped: How many messages were dropped, since a worker did not read.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        ready: Callable[[], Iterable[IMember]],
        events: EventStream,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @param ready: Gives the workers that messages to slots go to.
        """
        self._clock = clock
        self._ready = ready
        self._events = events
        self._now = now
        self._outboxes: dict[IMember, Outbox] = {}
        self._stuck: set[IMember] = set()
        self._questions = courier.Questions(clock)
        self._relays: dict[tuple[IMember, int], _Relay] = {}
        self._last: tuple[str, bytes, Packet] | None = None
        self._joined: list[Callable[[Any], object]] = []
        self._left: list[Callable[[Any], object]] = []
        self.handlers = courier.Handlers()
        self.dropped = 0
        self.onReserved: Callable[[Any, str, bytes], object] = lambda worker, topic, data: None
        self.onUnhandled: Callable[[Message], Any] | None = None
        self.publish: Callable[[str, bytes], Deferred[None]] = lambda topic, data: fail(
            AppError("can't reach other hosts: this master has no backend; give it one")
        )

    # Who there is.

    def onJoin(self, call: Callable[[Any], object]) -> None:
        """
        Have C{call} called with each worker whose channel opens, before the
        worker is Ready.
        """
        self._joined.append(call)

    def onGone(self, call: Callable[[Any], object]) -> None:
        """
        Have C{call} called with each worker whose channel is lost.
        """
        self._left.append(call)

    def join(self, worker: IMember, outbox: Outbox) -> None:
        """
        The channel of a worker is open.
        """
        self._outboxes[worker] = outbox
        for call in self._joined:
            call(worker)

    def gone(self, worker: IMember) -> None:
        """
        It is not any more: nobody answers what that worker was asked.
        """
        outbox = self._outboxes.pop(worker, None)
        self._stuck.discard(worker)
        if outbox is not None:
            outbox.lost()
        self._questions.lost(worker, _ended(worker))
        self._endRelays(worker)
        if outbox is not None:
            for call in self._left:
                call(worker)

    # What the master's own code says.

    def send(self, slot: int, topic: str, value: Any) -> Deferred[None]:
        """
        Send something to the worker of a slot.

        @return: A Deferred that fires when it is on its way; it fails with
            L{CallFailed} if it can't be.
        """
        what = f"send to slot {slot}"
        try:
            worker = self._find(slot, what)
            packet = self._packet(Kind.MESSAGE, 0, slot, topic, value)
        except (AppError, CallFailed, QueueFull) as error:
            return fail(error)
        return self._outboxes[worker].send(packet).addErrback(_explain, what)

    def tell(self, topic: str, value: Any) -> int:
        """
        Send something to all Ready workers.

        @return: To how many; those that have long stopped reading get nothing.
        @raise AppError: if the topic or the value is not allowed.
        """
        packet = self._packet(Kind.MESSAGE, 0, ALL, topic, value)
        return sum(self._deliver(worker, packet) for worker in tuple(self._ready()))

    def tellEverywhere(self, topic: str, value: Any) -> Deferred[int]:
        """
        Send something to the Ready workers of all hosts.

        @return: A Deferred of how many of them are here.  It fails with
            L{AppError} if the topic or the value is not allowed, and with
            L{twisted_cluster.errors.StateUnavailable}.
        """
        try:
            checkTopic(topic, RESERVED)
            encoded = values.encode(value)
        except AppError as error:
            return fail(error)
        return self._publish(topic, encoded)

    def call(self, slot: int, topic: str, value: Any, timeout: float = 10.0) -> Deferred[Any]:
        """
        Ask the worker of a slot something.

        @param timeout: Seconds.
        @return: A Deferred of the answer; it fails with L{CallFailed} or
            L{CallTimedOut}.
        """
        what = f"call {topic!r} of slot {slot}"
        try:
            checkTimeout(timeout)
            worker = self._find(slot, what)
            number = self._questions.number()
            packet = self._packet(Kind.CALL, number, slot, topic, value)
        except (AppError, CallFailed, QueueFull) as error:
            return fail(error)
        answer = self._questions.ask(number, what, worker, timeout)
        if not self._deliver(worker, packet):
            self._questions.failed(number, worker, "it does not read; look at its CPU use and log")
        return answer

    def post(self, worker: Any, topic: str, data: bytes) -> Deferred[None]:
        """
        Send something about state, cache or leases, in the order of the calls.

        @return: A Deferred that fires when it is on its way; it fails with
            L{QueueFull} at once, and with L{ChannelLost}.
        """
        outbox = self._outboxes.get(worker)
        if outbox is None:
            return fail(CallFailed(f"tell slot {worker.slot}", "its channel is gone"))
        # The same goes to each worker: make it once.
        if self._last is None or self._last[0] != topic or self._last[1] is not data:
            head = Envelope(Kind.MESSAGE, 0, MASTER, worker.slot, 0.0, topic, b"").encode()
            self._last = (topic, data, Packet(STATE_LANE, data, head))
        return outbox.send(self._last[2])

    def _publish(self, topic: str, encoded: bytes) -> Deferred[int]:
        # A slot means nothing on other hosts, so nobody is named as the sender.
        envelope = Envelope(Kind.MESSAGE, 0, MASTER, ALL, 0.0, topic, encoded)
        here = len(tuple(self._ready()))
        return self.publish(HOSTS_TOPIC, envelope.encode()).addCallback(lambda _: here)

    def heardFrom(self, data: bytes) -> None:
        """
        A master, perhaps this one, has published a message to all workers.

        @raise PeerError: if it makes no sense.
        """
        envelope = decode(data)
        if envelope.kind is not Kind.MESSAGE or envelope.target != ALL:
            raise PeerError("a message from a host that is not for all workers")
        packet = Packet(APP_LANE, data)
        for worker in tuple(self._ready()):
            self._deliver(worker, packet)

    # What workers say.

    def received(self, worker: IMember, lane: int, parts: Sequence[bytes]) -> None:
        """
        A message has come.  What is only passed on is neither put together nor
        understood here.

        @raise PeerError: if it makes no sense.
        """
        head = decode(parts[0])
        if lane == STATE_LANE:
            self.onReserved(worker, head.topic, whole(parts).value)
        elif head.kind in (Kind.RESULT, Kind.FAILURE):
            self._answered(worker, head, parts)
        elif head.target == MASTER:
            self._handle(worker, whole(parts))
        elif head.kind is Kind.CALL:
            self._relayCall(worker, head, parts)
        elif head.target == EVERYWHERE:
            self._relayEverywhere(worker, whole(parts))
        else:
            self._relay(worker, head, parts)

    def _answered(self, worker: IMember, head: Envelope, parts: Sequence[bytes]) -> None:
        relay = self._relays.pop((worker, head.number), None)
        if relay is not None:
            relay.timer.cancel()
            answer = head._replace(number=relay.number, sender=worker.slot)
            self._deliver(relay.caller, _redirected(answer, parts))
        elif head.kind is Kind.RESULT:
            self._questions.answered(head.number, worker, whole(parts).value)
        else:
            self._questions.failed(head.number, worker, _textOf(whole(parts)))

    def _handle(self, worker: IMember, envelope: Envelope) -> None:
        message = Message(envelope.topic, values.decode(envelope.value), worker.slot, worker)
        handler = self.handlers.find(envelope.topic) or self.onUnhandled
        if envelope.kind is Kind.MESSAGE:
            self._answer(worker, envelope, Kind.RESULT, values.encode(1))
        if handler is None:
            self.handlers.unheard(envelope.topic, f"slot {worker.slot}")
            if envelope.kind is Kind.CALL:
                self._refuse(worker, envelope, f"the master handles no {envelope.topic!r}")
            return
        done = courier.run(handler, message)
        if envelope.kind is Kind.CALL:
            done.addCallback(values.encode)
            done.addCallback(lambda data: self._answer(worker, envelope, Kind.RESULT, data))
        done.addErrback(self._handlerFailed, worker, envelope)

    def _handlerFailed(self, failure: Failure, worker: IMember, envelope: Envelope) -> None:
        self.log.failure("the handler of {topic!r} failed", failure, topic=envelope.topic)
        if envelope.kind is Kind.CALL:
            self._refuse(worker, envelope, courier.reasonOf(failure))

    def _relay(self, worker: IMember, head: Envelope, parts: Sequence[bytes]) -> None:
        """
        Pass on what wants no answer, and tell how many get it.
        """
        ready = tuple(self._ready())
        if head.target == OTHERS:
            receivers = [one for one in ready if one is not worker]
        elif head.target == ALL:
            receivers = list(ready)
        else:
            receivers = [one for one in ready if one.slot == head.target]
            if not receivers:
                self._refuse(worker, head, _NOBODY)
                return
        packet = _redirected(head._replace(sender=worker.slot, number=0), parts)
        count = sum(self._deliver(one, packet) for one in receivers)
        if head.target >= 0 and not count:
            self._refuse(worker, head, _FULL)
        else:
            self._answer(worker, head, Kind.RESULT, values.encode(count))

    def _relayEverywhere(self, worker: IMember, envelope: Envelope) -> None:
        """
        Have all masters pass on what wants no answer.
        """
        done = self._publish(envelope.topic, envelope.value)
        done.addCallbacks(
            lambda count: self._answer(worker, envelope, Kind.RESULT, values.encode(count)),
            lambda failure: self._refuse(worker, envelope, failure.getErrorMessage()),
        )

    def _relayCall(self, worker: IMember, head: Envelope, parts: Sequence[bytes]) -> None:
        """
        Pass on a question; the answer takes the same way back.
        """
        receivers = [one for one in self._ready() if one.slot == head.target]
        if not receivers:
            self._refuse(worker, head, _NOBODY)
            return
        if len(self._relays) >= MAX_RELAYS:
            self._refuse(worker, head, _UNANSWERED)
            return
        (receiver,) = receivers
        number = self._questions.number()
        passed = head._replace(sender=worker.slot, number=number)
        if not self._deliver(receiver, _redirected(passed, parts)):
            self._refuse(worker, head, _FULL)
            return
        key = (receiver, number)
        # Who asked waits no longer than this.
        timer = self._clock.callLater(head.timeout, self._relays.pop, key, None)
        self._relays[key] = _Relay(worker, head.number, timer)

    def _endRelays(self, worker: IMember) -> None:
        """
        Nobody answers what a worker was asked, or hears what it has asked.
        """
        ended = [key for key in self._relays if worker in (key[0], self._relays[key].caller)]
        for key in ended:
            relay = self._relays.pop(key)
            relay.timer.cancel()
            if relay.caller is not worker:
                question = Envelope(Kind.CALL, relay.number, MASTER, MASTER, 0.0, "", b"")
                self._refuse(relay.caller, question, _ended(worker))

    def _refuse(self, worker: IMember, envelope: Envelope, reason: str) -> None:
        self._answer(worker, envelope, Kind.FAILURE, values.encode(reason))

    def _answer(self, worker: IMember, envelope: Envelope, kind: Kind, value: bytes) -> None:
        answer = Envelope(kind, envelope.number, MASTER, worker.slot, 0.0, "", value)
        self._deliver(worker, Packet(APP_LANE, answer.encode()))

    # How it gets there.

    def _packet(self, kind: Kind, number: int, target: int, topic: str, value: Any) -> Packet:
        checkTopic(topic, RESERVED)
        tag, rest = values.encodeApart(value)
        head = Envelope(kind, number, MASTER, target, 0.0, topic, tag).encode()
        return Packet(APP_LANE, rest, head)

    def _find(self, slot: int, what: str) -> IMember:
        for worker in self._ready():
            if worker.slot == slot and worker in self._outboxes:
                return worker
        raise CallFailed(what, _NOBODY)

    def _deliver(self, worker: IMember, packet: Packet) -> bool:
        """
        @return: Whether there was room for it.
        """
        outbox = self._outboxes.get(worker)
        if outbox is None or not outbox.isOpen:
            return False
        if outbox.post(packet):
            if worker in self._stuck and not outbox.queued:
                self._stuck.discard(worker)
            return True
        self.dropped += 1
        if worker not in self._stuck:
            self._stuck.add(worker)
            self._events.publish(
                MessagesDropped(
                    self._now(), worker.slot, worker.generation, worker.pid, outbox.queued
                )
            )
        return False


_NOBODY = "it has no worker now; try again when it has"
_UNANSWERED = "too many calls wait for their answers; call less, or with a shorter timeout"
_FULL = "too much waits for its worker to read; send less, or wait for each message"


def _ended(worker: IMember) -> str:
    return f"the worker of slot {worker.slot} has ended"


def _redirected(head: Envelope, parts: Sequence[bytes]) -> Packet:
    """
    A message with another head, which has the same length.
    """
    return Packet.fromParts(APP_LANE, [head.encode(), *parts[1:]])


def _textOf(envelope: Envelope) -> str:
    reason = values.decode(envelope.value)
    if not isinstance(reason, str):
        raise PeerError("a failure without a text")
    return reason


def _explain(failure: Failure, what: str) -> None:
    raise CallFailed(what, str(failure.value)) from failure.value
