"""
Tests of what is done so that large messages are not copied more than needed.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given, strategies
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError, PeerError, QueueFull
from twisted_cluster.events import EventStream
from twisted_cluster.master.messages import Messages
from twisted_cluster.wire import parts, values
from twisted_cluster.wire.courier import Handlers
from twisted_cluster.wire.messages import ALL, MASTER, Envelope, Kind, decode, whole
from twisted_cluster.wire.parts import APP_LANE, CHUNK, Outbox, Packet
from twisted_cluster.worker.messages import WorkerMessages

VALUES: list[Any] = [b"", b"bytes", bytearray(b"more"), 7, -(10**30), "text", None, {"a": [1, "ü"]}]


def split(data: bytes, places: list[int]) -> Iterator[bytes]:
    """
    C{data} cut at C{places}.
    """
    for start, end in pairwise(sorted({0, *places, len(data)})):
        yield data[start:end]


class PieceTests(SynchronousTestCase):
    """
    L{values.encodeApart}, L{values.decodeParts} and L{whole}.
    """

    def test_sameBytes(self) -> None:
        """
        The pieces are those of what L{values.encode} makes.
        """
        for value in VALUES:
            tag, rest = values.encodeApart(value)
            self.assertEqual(len(tag), 1)
            self.assertEqual(tag + rest, values.encode(value))

    def test_notCopied(self) -> None:
        """
        Bytes are passed on as they are.
        """
        data = bytes(100)
        self.assertIs(values.encodeApart(data)[1], data)

    @given(strategies.sampled_from(VALUES), strategies.lists(strategies.integers(0, 20)))
    def test_anyCut(self, value: Any, places: list[int]) -> None:
        """
        However a value was cut, it is the same again.
        """
        data = values.encode(value)
        cut = list(split(data, [min(place, len(data)) for place in places]))
        self.assertEqual(values.decodeParts(cut), values.decode(data))
        # Nothing of the value need be in the first part.
        self.assertEqual(values.decodeParts([b"", *cut]), values.decode(data))

    def test_garbage(self) -> None:
        """
        What is no value is refused in parts, too.
        """
        for cut in ([b"", b""], [b"j", b"{"], [b"i1", b"x"], [b"?", b"b"]):
            self.assertRaises(PeerError, values.decodeParts, cut)

    @given(strategies.lists(strategies.integers(1, 40), max_size=3))
    def test_whole(self, places: list[int]) -> None:
        """
        A message in parts is the same as in one; its head must be in the
        first.
        """
        envelope = Envelope(Kind.CALL, 3, 1, ALL, 2.5, "topic", b"bvalue of some length")
        data = envelope.encode()
        head = len(data) - len(envelope.value)
        cut = list(split(data, [head + place for place in places if head + place < len(data)]))
        self.assertEqual(whole(cut), envelope)
        self.assertRaises(PeerError, whole, [data[: head - 1], data[head - 1 :]])


class HeadTests(SynchronousTestCase):
    """
    L{Packet} with a head of its own.
    """

    def test_sameBoxes(self) -> None:
        """
        It is the packet of both together, whatever the size.
        """
        head = b"h" * 50
        for size in (0, 1, CHUNK - 51, CHUNK - 50, CHUNK - 49, CHUNK, 2 * CHUNK - 50, 3 * CHUNK):
            data = bytes(number % 251 for number in range(size))
            apart, joined = Packet(APP_LANE, data, head), Packet(APP_LANE, head + data)
            self.assertEqual((apart.size, apart.count), (joined.size, joined.count), size)
            for index in range(joined.count):
                self.assertEqual(apart.box(index), joined.box(index), (size, index))

    def test_bound(self) -> None:
        """
        The head counts.
        """
        self.patch(parts, "MAX_MESSAGE", CHUNK + 10)
        Packet(APP_LANE, bytes(CHUNK), bytes(10))
        self.assertRaises(QueueFull, Packet, APP_LANE, bytes(CHUNK), bytes(11))


class Transport:
    """
    Takes everything.
    """

    connected = True
    backlog = 0

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.onRoom: Any = None

    def write(self, data: bytes) -> None:
        self.written.append(data)


class Member:
    """
    A worker of slot 0.
    """

    slot, generation, pid = 0, 1, 4321


class UnaskedTests(SynchronousTestCase):
    """
    A question that can't be sent fails, and leaves nothing that would run out
    of time later.
    """

    def setUp(self) -> None:
        self.patch(parts, "MAX_MESSAGE", 2 * CHUNK)
        self.clock = Clock()
        self.transport = Transport()
        self.outbox = Outbox(self.transport, self.clock)

    def assertUnasked(self, call: Any) -> None:
        """
        C{call} with what can't be sent fails, and nothing waits.
        """
        for topic, value, error in (
            ("twisted_cluster.x", 1, AppError),
            ("x", {1}, AppError),
            ("x", bytes(2 * CHUNK), QueueFull),
        ):
            done: Deferred[Any] = call(topic, value)
            self.failureResultOf(done, error)
        self.assertEqual(self.transport.written, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_master(self) -> None:
        """
        In the master.
        """
        member = Member()
        messages = Messages(self.clock, lambda: [member], EventStream(self.fail))
        messages.join(member, self.outbox)
        self.assertUnasked(lambda topic, value: messages.call(0, topic, value))

    def test_worker(self) -> None:
        """
        In a worker.
        """
        messages = WorkerMessages(self.clock, Handlers(), self.outbox)
        self.assertUnasked(lambda topic, value: messages.call(MASTER, topic, value, 10.0))


class ReceivedTests(SynchronousTestCase):
    """
    L{WorkerMessages.received}.
    """

    def test_parts(self) -> None:
        """
        A handler gets the whole value of a message in parts.
        """
        heard: list[Any] = []
        handlers = Handlers()
        handlers.handle("x", lambda message: heard.append(message.value))
        clock = Clock()
        messages = WorkerMessages(clock, handlers, Outbox(Transport(), clock))
        for value in (b"bytes", "text", 7):
            envelope = Envelope(Kind.MESSAGE, 0, MASTER, ALL, 0.0, "x", values.encode(value))
            data = envelope.encode()
            self.assertEqual(decode(data), envelope)
            messages.received(APP_LANE, [data[:-1], data[-1:]])
        self.assertEqual(heard, [b"bytes", "text", 7])
