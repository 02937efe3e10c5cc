"""
Tests for L{twisted_cluster.wire.parts}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import ChannelLost, PeerError, QueueFull
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands, parts
from twisted_cluster.wire.channel import parseBox
from twisted_cluster.wire.parts import (
    AHEAD,
    APP_LANE,
    CHUNK,
    PER_TURN,
    STATE_LANE,
    Inbox,
    Outbox,
    Packet,
)

MANY = 5 * PER_TURN


class Kernel:
    """
    A transport whose kernel takes what the test says.

    @ivar writes: What was written, in order.
    """

    def __init__(self, room: int = 0) -> None:
        """
        @param room: The bytes that it takes before it is full.
        """
        self.onRoom: Callable[[], object] = lambda: None
        self.connected = True
        self.backlog = 0
        self.room = room
        self.most = 0
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Queue, as far as there is no room."""
        self.writes.append(data)
        taken = min(self.room, len(data))
        self.room -= taken
        self.backlog += len(data) - taken
        self.most = max(self.most, self.backlog)

    def take(self, count: int) -> None:
        """
        The other end reads.
        """
        self.backlog = max(0, self.backlog - count)
        self.onRoom()


class OutboxTestCase(SynchronousTestCase):
    """
    Has an outbox, and what an L{Inbox} makes of what it has written.

    @ivar arrived: Lanes and messages, in order.
    """

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """
        Begin anew.
        """
        self.kernel = Kernel()
        self.clock = FakeReactor()
        self.outbox = Outbox(self.kernel, self.clock)
        self.arrived: list[tuple[int, bytes]] = []
        self._inbox = Inbox(self._deliver)
        self._read = 0

    def _deliver(self, lane: int, pieces: Sequence[bytes]) -> None:
        self.arrived.append((lane, b"".join(pieces)))

    def read(self) -> list[dict[bytes, bytes]]:
        """
        Have the other end read what has been written since the last time.

        @return: The boxes.
        """
        data = b"".join(self.kernel.writes[self._read :])
        self._read = len(self.kernel.writes)
        boxes = []
        start = 0
        while start < len(data):
            box, start = parseBox(data, start)
            assert box is not None
            boxes.append(box)
            self._inbox.receive(box)
        return boxes

    def readAll(self) -> None:
        """
        Read until nothing comes any more.
        """
        while self.outbox.queued or self.kernel.backlog:
            self.kernel.take(CHUNK)
            self.clock.advance(0)
        self.read()


class SendTests(OutboxTestCase):
    """
    How messages go out.
    """

    def test_atOnce(self) -> None:
        """
        A message goes out in the call that sends it, and its box is what AMP
        makes of it.
        """
        done = self.outbox.send(Packet(APP_LANE, b"hello"))
        self.successResultOf(done)
        made = commands.encode(commands.Part, lane=APP_LANE, last=True, data=b"hello")
        self.assertEqual(parseBox(self.kernel.writes[0], 0)[0], parseBox(made, 0)[0])
        self.read()
        self.assertEqual(self.arrived, [(APP_LANE, b"hello")])

    def test_together(self) -> None:
        """
        Those that follow in the same turn of the reactor go out in one write.
        """
        for number in range(10):
            self.outbox.post(Packet(APP_LANE, b"%d" % number))
        self.assertEqual(len(self.kernel.writes), 1)
        self.clock.advance(0)
        self.assertEqual(len(self.kernel.writes), 2)
        self.read()
        self.assertEqual(self.arrived, [(APP_LANE, b"%d" % number) for number in range(10)])

    def test_neverMuchAhead(self) -> None:
        """
        While the kernel takes nothing, no more waits in the transport than is
        allowed: what else is written there has no more before it.
        """
        self.outbox.post(Packet(APP_LANE, bytes(MANY)))
        for _ in range(20):
            self.clock.advance(0)
        self.assertLess(self.kernel.most, AHEAD + 2 * CHUNK)
        self.readAll()
        self.assertLess(self.kernel.most, AHEAD + 2 * CHUNK)
        self.assertEqual(self.arrived, [(APP_LANE, bytes(MANY))])

    def test_turns(self) -> None:
        """
        A kernel that takes all does not keep the reactor from its other work.
        """
        self.kernel.room = 10 * MANY
        self.outbox.post(Packet(APP_LANE, bytes(MANY)))
        written = sum(map(len, self.kernel.writes))
        self.assertLess(written, PER_TURN + 2 * CHUNK)
        self.clock.advance(0)
        self.assertLess(sum(map(len, self.kernel.writes)), 2 * (PER_TURN + 2 * CHUNK))
        self.readAll()
        self.assertEqual(len(self.arrived), 1)

    def test_lanes(self) -> None:
        """
        What the other lane has to say does not wait for a large message.
        """
        self.outbox.post(Packet(APP_LANE, bytes(MANY)))
        self.outbox.post(Packet(STATE_LANE, b"a change"))
        self.kernel.take(3 * AHEAD)
        self.clock.advance(0)
        self.read()
        self.assertEqual(self.arrived, [(STATE_LANE, b"a change")])
        self.readAll()
        self.assertEqual(self.arrived[1:], [(APP_LANE, bytes(MANY))])

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(
            st.tuples(st.sampled_from([STATE_LANE, APP_LANE]), st.integers(1, 4 * CHUNK)),
            max_size=12,
        ),
        st.integers(1, 2 * AHEAD),
    )
    def test_order(self, messages: list[tuple[int, int]], pace: int) -> None:
        """
        Whatever is sent, and however it is read, every message arrives whole,
        and those of one lane in order.
        """
        self.begin()
        sent = [(lane, bytes([number]) * size) for number, (lane, size) in enumerate(messages)]
        for lane, data in sent:
            self.outbox.post(Packet(lane, data))
        while self.outbox.queued or self.kernel.backlog:
            self.kernel.take(pace)
            self.clock.advance(0)
        self.read()
        for lane in (STATE_LANE, APP_LANE):
            self.assertEqual(
                [one for one in self.arrived if one[0] == lane],
                [one for one in sent if one[0] == lane],
            )

    def test_once(self) -> None:
        """
        A packet for many is made once: all of them are written the same
        object.
        """
        packet = Packet(APP_LANE, b"news")
        kernels = [Kernel() for _ in range(3)]
        for kernel in kernels:
            Outbox(kernel, self.clock).post(packet)
        self.assertEqual(len({id(kernel.writes[0]) for kernel in kernels}), 1)


class BoundTests(OutboxTestCase):
    """
    What may wait has a bound.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(parts, "MAX_QUEUED", 10 * CHUNK)
        # Nothing of what follows leaves the queue.
        self.kernel.backlog = AHEAD

    def test_full(self) -> None:
        """
        A message that there is no room for is refused, and nothing of it is
        ever sent; when the other end has read, there is room again.
        """
        first = self.outbox.send(Packet(APP_LANE, bytes(8 * CHUNK)))
        self.failureResultOf(self.outbox.send(Packet(APP_LANE, bytes(3 * CHUNK))), QueueFull)
        self.assertFalse(self.outbox.post(Packet(STATE_LANE, bytes(3 * CHUNK))))
        self.assertTrue(self.outbox.post(Packet(APP_LANE, b"small")))
        self.assertNoResult(first)
        self.readAll()
        self.successResultOf(first)
        self.assertEqual([len(data) for _, data in self.arrived], [8 * CHUNK, 5])
        self.assertTrue(self.outbox.post(Packet(APP_LANE, bytes(3 * CHUNK))))

    def test_single(self) -> None:
        """
        A message that is larger than the bound goes if nothing else waits.
        """
        self.assertTrue(self.outbox.post(Packet(APP_LANE, bytes(20 * CHUNK))))
        self.assertFalse(self.outbox.post(Packet(APP_LANE, b"x")))
        self.readAll()
        self.assertEqual(len(self.arrived[0][1]), 20 * CHUNK)

    def test_lost(self) -> None:
        """
        When the channel goes, whoever waits is told, and nothing more can be
        sent.
        """
        waiting = [self.outbox.send(Packet(lane, b"x")) for lane in (APP_LANE, STATE_LANE)]
        self.kernel.connected = False
        self.outbox.lost()
        for done in waiting:
            self.failureResultOf(done, ChannelLost)
        self.failureResultOf(self.outbox.send(Packet(APP_LANE, b"x")), ChannelLost)
        self.assertFalse(self.outbox.post(Packet(APP_LANE, b"x")))
        self.assertEqual((self.outbox.queued, self.kernel.writes), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sendWhenSent(self) -> None:
        """
        Whoever sends the next message when the last one is gone keeps order,
        and gets to the end.
        """
        sent: list[Deferred[None]] = []

        def more(_: object) -> None:
            if len(sent) < 20:
                sent.append(self.outbox.send(Packet(APP_LANE, b"%d" % len(sent))))
                sent[-1].addCallback(more)

        more(None)
        self.readAll()
        self.clock.settle()
        self.readAll()
        self.assertEqual([data for _, data in self.arrived], [b"%d" % n for n in range(20)])


class InboxTests(SynchronousTestCase):
    """
    An L{Inbox} believes nothing.
    """

    def setUp(self) -> None:
        self.inbox = Inbox(lambda lane, pieces: None)

    def box(self, **changes: Any) -> dict[bytes, bytes]:
        """
        A part, with something else in it.
        """
        box = {"lane": b"0", "last": b"True", "data": b"x", **changes}
        return {key.encode(): value for key, value in box.items() if value is not None}

    def test_garbage(self) -> None:
        """
        A lane that does not exist, or a part that lacks something, is the
        fault of whoever sent it.
        """
        for changes in ({"lane": b"2"}, {"lane": b""}, {"lane": None}, {"data": None}):
            self.assertRaises(PeerError, self.inbox.receive, self.box(**changes))
        self.assertRaises(PeerError, self.inbox.receive, self.box(last=None))

    def test_tooLarge(self) -> None:
        """
        So is a message that gets larger than any may be.
        """
        self.patch(parts, "MAX_MESSAGE", 3 * CHUNK)
        chunk = self.box(last=b"False", data=bytes(CHUNK))
        for _ in range(3):
            self.inbox.receive(chunk)
        self.assertRaises(PeerError, self.inbox.receive, chunk)

    def test_small(self) -> None:
        """
        So is a message in many small parts, which would take up more memory
        than it has bytes.
        """
        for data in (b"", b"x", bytes(CHUNK - 1)):
            self.assertRaises(PeerError, self.inbox.receive, self.box(last=b"False", data=data))
