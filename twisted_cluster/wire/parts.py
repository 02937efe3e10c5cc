"""
Messages of any size over a channel that has other things to carry.

A message goes in parts, each a box of its own.  There are two lanes; within a
lane messages keep their order, and the lanes take turns.  The next parts are
written only when the kernel has taken most of the last ones, so that whatever
else is written to the channel never waits behind more than L{AHEAD} bytes.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_cluster.errors import ChannelLost, PeerError, QueueFull

STATE_LANE = 0
"""What state, cache and leases say."""

APP_LANE = 1
"""What apps say."""

LANES = 2

CHUNK = 60_000
"""The most bytes of a message that one part carries."""

AHEAD = 128 * 1024
"""Bytes of parts that may wait in the transport."""

PER_TURN = 512 * 1024
"""Bytes of parts that are written in one turn of the reactor."""

MAX_QUEUED = 64 << 20
"""Bytes of messages that may wait for one worker, or for the master.  A single
message may have more if nothing else waits."""

MAX_MESSAGE = 256 << 20
"""The most bytes that a message may have."""

_LENGTH = struct.Struct("!H")
_LANE_NAMES = {b"%d" % lane: lane for lane in range(LANES)}


def _heads(last: bytes) -> tuple[bytes, ...]:
    """
    How a part begins, by its lane: as L{commands.encode} makes it, which takes
    longer than the rest of sending it.
    """
    strings = (b"_command", b"Part", b"last", last, b"lane")
    start = b"".join(_LENGTH.pack(len(string)) + string for string in strings)
    return tuple(start + b"\0\x01%d\0\x04data" % lane for lane in range(LANES))


_LAST = _heads(b"True")
_MORE = _heads(b"False")


class ITransport(Protocol):
    """
    What an L{Outbox} writes to: the transport of a channel.
    """

    onRoom: Callable[[], object]
    connected: Any

    @property
    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""

    def write(self, data: bytes) -> None:
        """Write at once what the kernel takes, and the rest later."""


class Packet:
    """
    A message in parts, made once for however many receivers.

    @ivar lane: The lane that it goes in.
    @ivar size: The bytes of it all.
    @ivar count: How many parts it has.
    """

    __slots__ = ("_boxes", "_parts", "count", "lane", "size")

    def __init__(self, lane: int, data: bytes, head: bytes = b"") -> None:
        """
        @param data: The message; a large one is not copied here.
        @param head: What comes before it, less than L{CHUNK}.
        @raise QueueFull: if it is larger than any message may be.
        """
        self.lane = lane
        self.size = len(head) + len(data)
        self._boxes: list[bytes | None]
        self._parts: Sequence[bytes | memoryview]
        if self.size <= CHUNK:
            self.count = 1
            self._boxes = [_box(_LAST[lane], head + data)]
            return
        if self.size > MAX_MESSAGE:
            raise QueueFull(f"a message has {self.size} bytes, of {MAX_MESSAGE} that it may have")
        view = memoryview(data)
        first = CHUNK - len(head)
        rest = [view[start : start + CHUNK] for start in range(first, len(data), CHUNK)]
        self._setParts([head + data[:first], *rest])

    @classmethod
    def fromParts(cls, lane: int, parts: Sequence[bytes]) -> Packet:
        """
        A packet of what an L{Inbox} has delivered, which is never copied as a
        whole.
        """
        self = cls.__new__(cls)
        self.lane = lane
        self.size = sum(map(len, parts))
        self._setParts(parts)
        return self

    def box(self, index: int) -> bytes:
        """
        The box of one part: made when it is first needed, since to make all
        those of a large message would take long.
        """
        found = self._boxes[index]
        if found is None:
            head = (_LAST if index == self.count - 1 else _MORE)[self.lane]
            found = self._boxes[index] = _box(head, self._parts[index])
        return found

    def _setParts(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = parts
        self.count = len(parts)
        self._boxes = [None] * self.count


def _box(head: bytes, data: bytes | memoryview) -> bytes:
    return b"".join((head, _LENGTH.pack(len(data)), data, b"\0\0"))


class _Waiting:
    """
    A packet in a lane.

    @ivar sent: How many of its boxes have been written.
    @ivar done: Fires when all have been, if anybody cares.
    """

    __slots__ = ("done", "packet", "sent")

    def __init__(self, packet: Packet, done: Deferred[None] | None) -> None:
        self.packet = packet
        self.sent = 0
        self.done = done


class Outbox:
    """
    What waits to be sent over one channel.  The first message in a turn of the
    reactor goes out at once, those that follow it together.

    @ivar queued: The bytes that wait.
    """

    def __init__(self, transport: Any, clock: IReactorTime) -> None:
        self._transport: ITransport = transport
        self._clock = clock
        self._lanes: tuple[deque[_Waiting], ...] = tuple(deque() for _ in range(LANES))
        self._next = 0
        self._call: IDelayedCall | None = None
        self.queued = 0
        transport.onRoom = self._room

    @property
    def isOpen(self) -> bool:
        """Whether anything can still be sent."""
        return bool(self._transport.connected)

    def send(self, packet: Packet) -> Deferred[None]:
        """
        Send a message.

        @return: A Deferred that fires when it is on its way: whoever sends
            much waits for it.  It fails with L{QueueFull} if too much waits
            already, with L{ChannelLost} if the channel is gone.
        """
        done: Deferred[None] = Deferred()
        if not self.isOpen:
            return fail(ChannelLost("the channel is gone"))
        if not self._put(packet, done):
            return fail(QueueFull(f"{self.queued} bytes wait for it already"))
        return done

    def post(self, packet: Packet) -> bool:
        """
        Send a message, and hear no more of it.

        @return: Whether there was room for it.
        """
        return self.isOpen and self._put(packet, None)

    def lost(self) -> None:
        """
        The channel is gone, and what waits with it.
        """
        if self._call is not None and self._call.active():
            self._call.cancel()
        for lane in self._lanes:
            while lane:
                done = lane.popleft().done
                if done is not None:
                    done.errback(ChannelLost("the channel is gone"))
        self.queued = 0

    def _put(self, packet: Packet, done: Deferred[None] | None) -> bool:
        if self.queued and self.queued + packet.size > MAX_QUEUED:
            return False
        self.queued += packet.size
        self._lanes[packet.lane].append(_Waiting(packet, done))
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)
            self._pump()
        return True

    def _turn(self) -> None:
        self._call = None
        self._pump()

    def _room(self) -> None:
        """
        The kernel has taken something.
        """
        if self.queued and self._call is None:
            self._pump()

    def _pump(self) -> None:
        """
        Write as much as may wait in the transport.
        """
        room = PER_TURN
        while room > 0 and self.queued and self._transport.backlog < AHEAD:
            boxes, finished = self._take()
            data = boxes[0] if len(boxes) == 1 else b"".join(boxes)
            room -= len(data)
            self._transport.write(data)
            for done in finished:
                done.callback(None)
        if self.queued and self._transport.backlog < AHEAD and self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def _take(self) -> tuple[list[bytes], list[Deferred[None]]]:
        """
        The next boxes, of one lane, and who wants to know that they were
        written.
        """
        lane = self._lanes[self._next] or self._lanes[1 - self._next]
        self._next = 1 - self._next
        boxes: list[bytes] = []
        finished: list[Deferred[None]] = []
        size = 0
        while lane and size < CHUNK:
            waiting = lane[0]
            packet = waiting.packet
            box = packet.box(waiting.sent)
            boxes.append(box)
            size += len(box)
            waiting.sent += 1
            if waiting.sent == packet.count:
                lane.popleft()
                self.queued -= packet.size
                if waiting.done is not None:
                    finished.append(waiting.done)
        return boxes, finished


class Inbox:
    """
    Puts the messages of one channel together again.
    """

    def __init__(self, deliver: Callable[[int, Sequence[bytes]], object]) -> None:
        """
        @param deliver: Called with the lane and the parts of each message.
        """
        self._deliver = deliver
        self._parts: list[list[bytes]] = [[] for _ in range(LANES)]
        self._sizes = [0] * LANES

    def receive(self, box: Any) -> None:
        """
        Take a part.

        @raise PeerError: if it makes no sense, or a message gets too large.
        """
        try:
            lane, data, last = _LANE_NAMES[box[b"lane"]], box[b"data"], box[b"last"] == b"True"
        except KeyError as error:
            raise PeerError("a part of a message that makes no sense") from error
        parts = self._parts[lane]
        if last and not parts:
            self._deliver(lane, (data,))
            return
        if not last and len(data) != CHUNK:
            # Small ones would take more memory than MAX_MESSAGE says.
            raise PeerError(f"a part of {len(data)} bytes that is not the last of its message")
        self._sizes[lane] += len(data)
        if self._sizes[lane] > MAX_MESSAGE:
            raise PeerError(f"a message of more than {MAX_MESSAGE} bytes")
        parts.append(data)
        if last:
            self._parts[lane] = []
            self._sizes[lane] = 0
            self._deliver(lane, parts)
