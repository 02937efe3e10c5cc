"""
Tests for L{twisted_cluster.wire.channel}.

The invariant that they try to break: a group of descriptors stays with the
box that it was sent with, whatever the kernel does to the bytes around it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AmpBox, parseString
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support import (
    Lines,
    closeIfOpen,
    identity,
    limitDescriptors,
    noDescriptors,
    openDescriptors,
    socketPair,
)
from twisted_cluster.errors import PeerError
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import (
    MAX_DESCRIPTORS,
    MAX_KEY,
    Channel,
    ChannelTransport,
    DescriptorGroup,
    closeDescriptors,
    numberFrom,
    parseBox,
)


class Recorder(Channel):
    """
    Keeps what comes: boxes with the group that came with them.

    @ivar got: For each C{Handoff}: its C{first} and its group.
    @ivar others: The raw boxes of C{Ready}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[DescriptorGroup] = []
        self.got: list[tuple[int, DescriptorGroup]] = []
        self.others: list[Any] = []
        self.reasons: list[Failure] = []
        self.boxes[b"Handoff"] = self.handoff
        self.boxes[b"Ready"] = self.others.append

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """
        Keep a group until its box comes.
        """
        self.groups.append(group)

    def handoff(self, box: Any) -> None:
        """
        Take the oldest group.
        """
        self.got.append((numberFrom(box, b"first"), self.groups.pop(0)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep the reason.
        """
        super().connectionLost(reason)
        self.reasons.append(reason)


class ChannelTestCase(SynchronousTestCase):
    """
    A channel: a sender and a receiver, each on a reactor of its own.
    """

    def setUp(self) -> None:
        self.sending, self.receiving = FakeReactor(), FakeReactor()
        self.ours, self.theirs = socketPair(self)
        self.sender, self.receiver = Recorder(), Recorder()
        self.out = ChannelTransport(self.ours, self.sender, self.sending)
        self.into = ChannelTransport(self.theirs, self.receiver, self.receiving)
        self.addCleanup(self.closeReceived)

    def closeReceived(self) -> None:
        """
        Close what came.
        """
        for _, group in self.receiver.got:
            closeDescriptors(group.descriptors)

    def files(self, count: int) -> list[int]:
        """
        Descriptors that can be told apart by what is behind them.
        """
        pairs = [os.pipe() for _ in range((count + 1) // 2)]
        numbers = [number for pair in pairs for number in pair]
        for number in numbers:
            self.addCleanup(closeIfOpen, number)
        return numbers[:count]

    def hand(self, first: int, descriptors: Sequence[int]) -> None:
        """
        Send a handoff.
        """
        box = commands.encodeHandoff(first, [0] * len(descriptors))
        self.out.writeWithDescriptors(box, descriptors)

    def settle(self) -> None:
        """
        Let both ends run until nothing moves.
        """
        before = None
        while before != (self.out.sent, self.receiver.bytesReceived):
            before = (self.out.sent, self.receiver.bytesReceived)
            self.sending.settle()
            self.receiving.settle()

    def assertArrived(self, sent: dict[int, list[int]]) -> None:
        """
        Each group came with the box it was sent with, complete.
        """
        self.assertEqual([first for first, _ in self.receiver.got], list(sent))
        for first, group in self.receiver.got:
            self.assertFalse(group.truncated)
            self.assertEqual(
                [identity(one) for one in group.descriptors],
                [identity(one) for one in sent[first]],
            )


class TransportTests(ChannelTestCase):
    """
    Bytes and descriptors on their way.
    """

    def test_interface(self) -> None:
        """
        The transport is what a protocol may expect.
        """
        verifyObject(ITransport, self.out)
        self.assertEqual(self.out.getHost(), self.out.getPeer())
        self.assertEqual(self.out.logPrefix(), "channel")

    def test_atOnce(self) -> None:
        """
        While nothing is queued, a box leaves with the write itself.
        """
        self.sender.callRemote(commands.Ready)
        self.assertEqual(self.out.backlog, 0)
        self.receiving.settle()
        self.assertEqual(len(self.receiver.others), 1)
        self.assertEqual(self.sending.getWriters(), [])

    def test_pairing(self) -> None:
        """
        Groups stay with their boxes, with other boxes in between and read at
        one go.
        """
        files = self.files(6)
        sent = {0: files[:1], 1: files[1:4], 4: files[4:]}
        self.sender.callRemote(commands.Ready)
        for first, descriptors in sent.items():
            self.hand(first, descriptors)
            self.sender.callRemote(commands.Ready)
        self.settle()
        self.assertArrived(sent)
        self.assertEqual(len(self.receiver.others), 4)

    def test_closeOnExec(self) -> None:
        """
        What arrives is not inherited by programs that the receiver runs.
        """
        self.hand(0, self.files(2))
        self.settle()
        ((_, group),) = self.receiver.got
        flags = [fcntl.fcntl(one, fcntl.F_GETFD) for one in group.descriptors]
        self.assertEqual(flags, [fcntl.FD_CLOEXEC] * 2)

    def test_full(self) -> None:
        """
        With a tiny socket buffer, a receiver that is slow, and bulk between
        them, groups stay with their boxes.
        """
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        files = self.files(40)
        sent = {}
        for first in range(0, 40, 2):
            sent[first] = files[first : first + 2]
            self.hand(first, sent[first])
            self.sender.callRemote(commands.Message, text="x" * 60_000)
        self.assertGreater(self.out.backlog, 0)
        self.patch(self.receiver, "unhandledError", lambda failure: None)
        self.receiver.boxes[b"Message"] = self.receiver.others.append
        self.settle()
        self.assertEqual(self.out.backlog, 0)
        self.assertArrived(sent)
        self.assertEqual(len(self.receiver.others), 20)

    def test_many(self) -> None:
        """
        More descriptors than one sendmsg(2) takes travel in several boxes.
        """
        files = self.files(MAX_DESCRIPTORS * 2 + 10)
        sent = {
            first: files[first : first + MAX_DESCRIPTORS]
            for first in range(0, len(files), MAX_DESCRIPTORS)
        }
        for first, descriptors in sent.items():
            self.hand(first, descriptors)
        self.settle()
        self.assertArrived(sent)

    @settings(max_examples=60)
    @given(data=st.data())
    def test_partialWrites(self, data: st.DataObject) -> None:
        """
        However few bytes the kernel takes at a time, no group leaves before
        the first byte of its box, nor together with another one.
        """
        taking = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=8))
        shapes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
        fake = Chopping(taking)
        transport = ChannelTransport(fake, Recorder(), FakeReactor())  # type: ignore[arg-type]
        transport.stopReading()
        expected, first, written = [], 0, b""
        for shape in shapes:
            box = commands.encodeHandoff(first, [0] * shape)
            if shape:
                expected.append((len(written), list(range(first, first + shape))))
                transport.writeWithDescriptors(box, range(first, first + shape))
            else:
                transport.write(box)
            written += box
            first += shape
        while transport.backlog:
            self.assertIs(transport.doWrite(), None)
        self.assertEqual(fake.taken, written)
        self.assertEqual(fake.groups, expected)

    def test_closed(self) -> None:
        """
        After the end, writes are ignored and nothing is kept.
        """
        self.out.abort()
        self.hand(0, self.files(1))
        self.sender.callRemote(commands.Ready)
        self.out.writeSequence([b"a", b"b"])
        self.assertEqual(self.out.backlog, 0)
        self.out.abort()
        self.assertEqual(len(self.sender.reasons), 1)
        self.sender.reasons[0].trap(ConnectionAborted)

    def test_end(self) -> None:
        """
        The end of the stream ends the channel at the other side too, after
        everything that was sent before.
        """
        self.sender.callRemote(commands.Ready)
        self.out.loseConnection()
        self.settle()
        self.assertEqual(len(self.receiver.others), 1)
        self.assertFalse(self.into.connected)
        (reason,) = self.receiver.reasons
        reason.trap(ConnectionDone)

    def test_peerGone(self) -> None:
        """
        A write to a peer that is gone ends the channel in a turn of the
        reactor, not in the call of the writer.
        """
        self.into.abort()
        self.out.stopReading()
        self.sender.callRemote(commands.Ready)
        self.assertEqual(self.sender.reasons, [])
        self.sending.settle()
        self.assertEqual(len(self.sender.reasons), 1)

    def test_drainAndLose(self) -> None:
        """
        What the peer had said before it died is heard, although its process is
        reaped before the channel is read.
        """
        for _ in range(5000):
            self.sender.callRemote(commands.Ready)
        self.sending.settle()
        pending = self.out.backlog
        self.out.abort()
        self.into.drainAndLose()
        sent = self.out.sent
        self.assertEqual(self.receiver.bytesReceived, sent)
        self.assertGreater(len(self.receiver.others), 100)
        self.assertEqual(len(self.receiver.others) == 5000, pending == 0)
        self.assertFalse(self.into.connected)
        self.assertEqual(len(self.receiver.reasons), 1)

    def test_drainAndLoseHeldOpen(self) -> None:
        """
        A child of the dead process may hold the other end: the channel ends
        all the same.
        """
        self.sender.callRemote(commands.Ready)
        self.into.drainAndLose()
        self.assertEqual(len(self.receiver.others), 1)
        self.assertFalse(self.into.connected)


class Chopping:
    """
    A socket that takes only so many bytes at a time, and C{EAGAIN} between.

    @ivar taken: What it took.
    @ivar groups: The descriptors it took, with the offset of their byte.
    """

    def __init__(self, taking: Sequence[int]) -> None:
        self.taking = list(taking)
        self.calls = 0
        self.taken = b""
        self.groups: list[tuple[int, list[int]]] = []

    def setblocking(self, blocking: bool) -> None:
        """Nothing to do."""

    def fileno(self) -> int:
        """It has none."""
        return -1

    def close(self) -> None:
        """Nothing to do."""

    def send(self, data: Any) -> int:
        """
        Take some bytes.
        """
        self.calls += 1
        if self.calls % 3 == 0:
            raise BlockingIOError(errno.EAGAIN, "later")
        count = min(len(data), self.taking[self.calls % len(self.taking)])
        self.taken += bytes(data[:count])
        return count

    def sendmsg(self, buffers: Any, ancillary: Any, *rest: Any) -> int:
        """
        Take descriptors with the first of some bytes.
        """
        offset = len(self.taken)
        count = self.send(b"".join(buffers))
        ((_, _, descriptors),) = ancillary
        self.groups.append((offset, list(descriptors)))
        return count


class TooManyReferences(Chopping):
    """
    A socket of a user who has too many descriptors in flight.

    @ivar refusing: Whether that is so.
    """

    refusing = True

    def sendmsg(self, buffers: Any, ancillary: Any, *rest: Any) -> int:
        """
        Refuse.
        """
        self.calls += 1
        if self.refusing:
            raise OSError(errno.ETOOMANYREFS, "too many references")
        self.calls = 0
        return super().sendmsg(buffers, ancillary, *rest)


class FailureTests(SynchronousTestCase):
    """
    What the kernel refuses.
    """

    def channelOver(self, fake: Chopping) -> tuple[ChannelTransport, Recorder, FakeReactor]:
        """
        A channel over a socket that is none.
        """
        reactor, protocol = FakeReactor(), Recorder()
        transport = ChannelTransport(fake, protocol, reactor)  # type: ignore[arg-type]
        transport.stopReading()
        return transport, protocol, reactor

    def test_tooManyReferences(self) -> None:
        """
        C{ETOOMANYREFS} comes although the socket is writable: the channel does
        not end and does not spin, and sends when the kernel allows it.
        """
        fake = TooManyReferences([1000])
        transport, protocol, reactor = self.channelOver(fake)
        transport.writeWithDescriptors(b"box", [5, 6])
        for _ in range(10):
            reactor.advance(0)
        self.assertEqual(reactor.getWriters(), [])
        self.assertLessEqual(fake.calls, 2)
        before = fake.calls
        reactor.advance(0.021)
        self.assertEqual(reactor.getWriters(), [transport])
        transport.doWrite()
        self.assertEqual(fake.calls, before + 1)
        reactor.advance(0)
        self.assertEqual(reactor.getWriters(), [])
        fake.refusing = False
        reactor.advance(0.021)
        transport.doWrite()
        self.assertEqual((fake.taken, fake.groups), (b"box", [(0, [5, 6])]))
        self.assertEqual(protocol.reasons, [])

    def test_closedWhileRefused(self) -> None:
        """
        A channel that ends meanwhile stays ended.
        """
        transport, protocol, reactor = self.channelOver(TooManyReferences([1000]))
        transport.writeWithDescriptors(b"box", [5, 6])
        transport.abort()
        reactor.elapse(0.1)
        self.assertEqual(reactor.getWriters(), [])
        self.assertEqual(len(protocol.reasons), 1)

    def test_broken(self) -> None:
        """
        Any other error of the kernel ends the channel.
        """
        fake = Chopping([1])
        transport, protocol, reactor = self.channelOver(fake)

        def broken(data: Any) -> int:
            raise OSError(errno.EPIPE, "broken pipe")

        self.patch(fake, "send", broken)
        transport.write(b"box")
        reactor.advance(0)
        self.assertEqual(len(protocol.reasons), 1)


class TruncationTests(ChannelTestCase):
    """
    At the limit of open files recvmsg(2) delivers the bytes and drops the
    descriptors.
    """

    def test_truncated(self) -> None:
        """
        The group that lost some says so, it has the first ones, and the next
        group is right.
        """
        files = self.files(6)
        limitDescriptors(self.addCleanup, 2)
        self.hand(0, files[:4])
        self.settle()
        ((first, group),) = self.receiver.got
        self.assertEqual(first, 0)
        self.assertTrue(group.truncated)
        self.assertEqual(
            [identity(one) for one in group.descriptors], [identity(one) for one in files[:2]]
        )
        closeDescriptors(group.descriptors)
        self.receiver.got.clear()
        self.hand(4, files[4:])
        self.settle()
        self.assertArrived({4: files[4:]})

    def test_noneLeft(self) -> None:
        """
        A group that lost all of its descriptors is told of all the same, so
        that it can't take the place of the next one.
        """
        files = self.files(3)
        with noDescriptors():
            self.hand(0, files[:2])
            self.settle()
        self.hand(2, files[2:])
        self.settle()
        (_, lost), (second, group) = self.receiver.got
        self.assertEqual(lost, DescriptorGroup([], True))
        self.assertEqual(second, 2)
        self.assertFalse(group.truncated)
        self.assertEqual(identity(group.descriptors[0]), identity(files[2]))


class ViolationTests(ChannelTestCase):
    """
    Whatever the peer sends, the channel ends with one line in the log.
    """

    def assertViolated(self, data: bytes, text: str) -> None:
        """
        C{data} ends the channel with one line that has C{text}.
        """
        lines = Lines(self)
        self.out.write(data)
        self.settle()
        self.assertFalse(self.into.connected)
        (line,) = lines.grave()
        self.assertTrue(line.startswith("channel: protocol violation: "), line)
        self.assertIn(text, line)
        (reason,) = self.receiver.reasons
        reason.trap(ConnectionAborted)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_key(self) -> None:
        """
        A key that is too long.
        """
        self.assertViolated(b"GET / HTTP/1.1\r\n\r\n" * 20, "a key of 18245 bytes")

    def test_endless(self) -> None:
        """
        A box that goes on and on.
        """
        value = b"\0\1k\xff\xff" + bytes(65_535)
        self.assertViolated(value * 17, "a box of more than 1048576 bytes")

    def test_empty(self) -> None:
        """
        A box with nothing in it.
        """
        self.assertViolated(b"\0\0", "NoEmptyBoxes")

    def test_unknownCommand(self) -> None:
        """
        A command that nobody answers.
        """
        self.assertViolated(AmpBox(_command=b"Dance").serialize(), "Dance")

    def test_unknownCommandAsked(self) -> None:
        """
        If the peer wishes for an answer, it gets AMP's own: an error, which
        says what went wrong, and the channel goes on.
        """
        answers: list[bytes] = []
        self.patch(self.sender, "dataReceived", answers.append)
        self.out.write(AmpBox(_command=b"Dance", _ask=b"1").serialize())
        self.settle()
        (answer,) = parseString(b"".join(answers))
        self.assertEqual((answer[b"_error"], answer[b"_error_code"]), (b"1", b"UNHANDLED"))
        self.assertTrue(self.into.connected)

    def test_answer(self) -> None:
        """
        An answer to what was never asked.
        """
        self.assertViolated(AmpBox(_answer=b"1").serialize(), "KeyError")

    def test_missingArgument(self) -> None:
        """
        A frequent command without its argument.
        """
        self.assertViolated(
            AmpBox(_command=b"Handoff").serialize(), "first is missing or no number"
        )

    def test_first(self) -> None:
        """
        After a violation nothing more is heard, even if it came in the same
        bytes: one line, and no state changed by somebody who makes no sense.
        """
        bad = AmpBox(_command=b"Dance").serialize()
        beat = commands.encode(commands.Ready)
        self.assertViolated(beat + bad + beat + bad, "Dance")
        self.assertEqual(len(self.receiver.others), 1)

    def test_responderRaises(self) -> None:
        """
        An exception of whoever takes a box.
        """

        def broken(box: Any) -> None:
            raise RuntimeError("it broke")

        self.receiver.boxes[b"Ready"] = broken
        self.assertViolated(commands.encode(commands.Ready), "RuntimeError: it broke")

    def test_ownWords(self) -> None:
        """
        A L{PeerError} speaks for itself.
        """

        def refuse(box: Any) -> None:
            raise PeerError("an account that can't be")

        self.receiver.boxes[b"Ready"] = refuse
        self.assertViolated(
            commands.encode(commands.Ready), "protocol violation: an account that can't be"
        )

    def test_unexpectedDescriptors(self) -> None:
        """
        A channel that expects no descriptors closes them.
        """
        ours, theirs = socketPair(self)
        reactor = FakeReactor()
        ChannelTransport(theirs, Channel(), reactor)
        files = self.files(2)
        before = openDescriptors()
        socket.send_fds(ours, [b"\0"], files)
        reactor.settle()
        self.assertEqual(openDescriptors(), before)

    @given(st.binary(max_size=400))
    def test_garbage(self, data: bytes) -> None:
        """
        Whatever bytes come, the channel waits for more or ends with one line;
        nothing is raised.
        """
        lines: list[BaseException] = []

        class Quiet(Recorder):
            """Counts violations."""

            def violated(self, error: BaseException) -> None:
                """Count."""
                lines.append(error)
                self.transport.abort()

        reactor = FakeReactor()
        transport = ChannelTransport(Chopping([1]), Quiet(), reactor)  # type: ignore[arg-type]
        transport.protocol.dataReceived(data)
        self.assertEqual(len(lines), 0 if transport.connected else 1)


boxes = st.dictionaries(
    st.binary(min_size=1, max_size=MAX_KEY), st.binary(max_size=300), min_size=1, max_size=4
)


class FramingTests(SynchronousTestCase):
    """
    The framing is AMP's own.
    """

    @given(st.lists(boxes, max_size=5))
    def test_same(self, many: list[dict[bytes, bytes]]) -> None:
        """
        L{parseBox} reads what AMP writes as AMP reads it.
        """
        data = b"".join(AmpBox(box).serialize() for box in many)
        found, start = [], 0
        while start < len(data):
            box, start = parseBox(data, start)
            self.assertIsNot(box, None)
            found.append(box)
        self.assertEqual(found, parseString(data))

    @given(boxes, st.data())
    def test_incomplete(self, box: dict[bytes, bytes], data: st.DataObject) -> None:
        """
        Of a box that is not all there, nothing is taken.
        """
        whole = b"before" + AmpBox(box).serialize()
        cut = data.draw(st.integers(6, len(whole) - 1))
        self.assertEqual(parseBox(whole[:cut], 6), (None, 6))

    @given(st.lists(st.integers(0, 2**64), min_size=1, max_size=6), st.data())
    def test_chopped(self, firsts: list[int], data: st.DataObject) -> None:
        """
        Boxes come out the same however the stream is cut, down to single
        bytes.
        """
        stream = b"".join(commands.encodeHandoff(first, [1, 2]) for first in firsts)
        got: list[int] = []
        channel = Channel()
        channel.boxes[b"Handoff"] = lambda box: got.append(numberFrom(box, b"first"))
        reactor = FakeReactor()
        ChannelTransport(Chopping([1]), channel, reactor)  # type: ignore[arg-type]
        position = 0
        while position < len(stream):
            count = data.draw(st.sampled_from([1, 1, 2, 3, 7, 50, 1000]))
            channel.dataReceived(stream[position : position + count])
            position += count
        self.assertEqual(got, firsts)
        self.assertEqual(channel.bytesReceived, len(stream))

    def test_limits(self) -> None:
        """
        The longest key and value that AMP allows are read, a longer key is
        the peer's fault.
        """
        box = {b"k" * MAX_KEY: b"v" * commands.MAX_VALUE}
        data = bytes(AmpBox(box).serialize())
        self.assertEqual(parseBox(data, 0), (box, len(data)))
        self.assertRaises(PeerError, parseBox, b"\x01\x00" + b"k" * 256, 0)

    def test_numberFrom(self) -> None:
        """
        A number that is missing or none is the peer's fault, and is named.
        """
        self.assertEqual(numberFrom({b"a": b"12"}, b"a"), 12)
        for box in ({}, {b"a": b""}, {b"a": b"x"}, {b"a": b"1.5"}):
            error = self.assertRaises(PeerError, numberFrom, box, b"a")
            self.assertEqual(str(error), "a is missing or no number")
