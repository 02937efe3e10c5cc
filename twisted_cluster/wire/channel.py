"""
AMP over a UNIX socketpair, with descriptors.

Twisted's own UNIX transport sends one descriptor and one byte with each
sendmsg(2) and ignores truncation on the receiving side.  Here the descriptors
of one box travel together, and the receiver gets them as one group, which
says whether any of them were lost: a lost descriptor can never shift a later
one to the wrong box.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.amp import AMP, AmpBox, BinaryBoxProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import PeerError

MAX_DESCRIPTORS = 253
"""The descriptors that the kernel takes with one sendmsg(2): SCM_MAX_FD."""

MAX_KEY = 255
"""The bytes that a key of an AMP box may have."""

MAX_BOX = 1 << 20
"""The bytes that a box may have; the largest of ours has three values."""

_READ_SIZE = 16_384
# As a plain number: an enum member's "&" costs more than the rest of the line.
_TRUNCATED = int(socket.MSG_CTRUNC)
_RETRY_DELAY = 0.02
_ANCILLARY_SIZE = socket.CMSG_SPACE(MAX_DESCRIPTORS * array("i").itemsize)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_RETRY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS, errno.ENOMEM})


class DescriptorGroup(NamedTuple):
    """
    The descriptors that came with one box.

    @ivar descriptors: Those that arrived, in order.
    @ivar truncated: Whether the kernel dropped the last of them, since this
        process had no room.
    """

    descriptors: list[int]
    truncated: bool


def closeDescriptors(descriptors: Sequence[int]) -> None:
    """
    Close all of C{descriptors}.
    """
    for descriptor in descriptors:
        os.close(descriptor)


@implementer(ITransport)
class ChannelTransport(FileDescriptor):
    """
    One end of a channel.  Master and worker.

    Writes go out at once when nothing is queued, which saves the reactor a
    turn and two epoll_ctl(2) calls for each box.

    @ivar queued: Bytes accepted by L{write} since the beginning.
    @ivar sent: Bytes taken by the kernel since the beginning.
    @ivar onRoom: Called when the kernel has taken some of what was queued.
    """

    reactor: Any

    def __init__(self, sock: socket.socket, protocol: Channel, reactor: Any) -> None:
        super().__init__(reactor)
        sock.setblocking(False)
        self._socket = sock
        self.protocol = protocol
        self.queued = 0
        self.sent = 0
        self._groups: deque[tuple[int, Sequence[int]]] = deque()
        self.onRoom: Callable[[], object] = lambda: None
        self.connected = True
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self.protocol.makeConnection(self)
        self.startReading()

    @property
    def backlog(self) -> int:
        """
        Bytes accepted and not yet taken by the kernel.
        """
        return self.queued - self.sent

    def getHost(self) -> UNIXAddress:
        """A socketpair has no name."""
        return UNIXAddress(None)

    def getPeer(self) -> UNIXAddress:
        """A socketpair has no name."""
        return UNIXAddress(None)

    def write(self, data: bytes) -> None:
        """
        Queue C{data}, and send at once what the kernel takes.
        """
        if not self.connected or self.disconnecting:
            return
        idle = self.backlog == 0
        self.queued += len(data)
        if not idle:
            super().write(data)
            return
        sent = self.writeSomeData(data)
        if isinstance(sent, Exception):
            self.reactor.callLater(0, self._fail, sent)
        elif sent < len(data):
            super().write(data[sent:])

    def writeSequence(self, iovec: Any) -> None:
        """
        Queue all of C{iovec}.
        """
        self.write(b"".join(iovec))

    def writeWithDescriptors(self, data: bytes, descriptors: Sequence[int]) -> None:
        """
        Queue C{data}, whose first byte carries C{descriptors}.  They must stay
        open until the other end says that it has them.
        """
        if self.connected and not self.disconnecting:
            self._groups.append((self.queued, descriptors))
            self.write(data)

    def doWrite(self) -> Any:
        """
        Write what is queued; then there may be room for more.
        """
        reason = super().doWrite()
        if reason is None:
            self.onRoom()
        return reason

    def writeSomeData(self, data: Any) -> int | Exception:
        """
        Give C{data} to the kernel, up to where the next group of descriptors
        begins.

        @return: How many bytes it took, or what went wrong.
        """
        try:
            count = self._sendGroup(data)
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                self._pauseWriting()
                return 0
            if error.errno in _RETRY:
                return 0
            return main.CONNECTION_LOST
        self.sent += count
        return count

    def _sendGroup(self, data: Any) -> int:
        groups = self._groups
        if not groups:
            return self._socket.send(data)
        offset, descriptors = groups[0]
        if offset > self.sent:
            return self._socket.send(data[: offset - self.sent])
        end = len(data) if len(groups) == 1 else groups[1][0] - self.sent
        count = socket.send_fds(self._socket, [data[:end]], descriptors)
        groups.popleft()
        return count

    def _pauseWriting(self) -> None:
        """
        The kernel limits the descriptors in flight of one user, yet calls the
        socket writable all the while: wait a little instead of spinning.
        """
        self.reactor.callLater(0, self.stopWriting)
        self.reactor.callLater(_RETRY_DELAY, self._resumeWriting)

    def _resumeWriting(self) -> None:
        if self.connected and self.backlog:
            self.startWriting()

    def doRead(self) -> Any:
        """
        Read once; hand descriptors, then bytes, to the protocol.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _READ_SIZE, _ANCILLARY_SIZE, _CLOSE_ON_EXEC
            )
        except OSError as error:
            return None if error.errno in _RETRY else main.CONNECTION_LOST
        truncated = bool(flags & _TRUNCATED)
        if ancillary or truncated:
            descriptors = _descriptorsIn(ancillary)
            self.protocol.descriptorsReceived(DescriptorGroup(descriptors, truncated))
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def drainAndLose(self) -> None:
        """
        Read all that the dead process at the other end had still said, then
        close.  For use when its exit is known before the end of the stream.
        """
        while self.connected:
            before = self.protocol.bytesReceived
            reason = self.doRead()
            if reason is not None or self.protocol.bytesReceived == before:
                self._fail(reason or main.CONNECTION_DONE)

    def abort(self) -> None:
        """
        Close now; what is queued is dropped.
        """
        self._fail(ConnectionAborted())

    def _fail(self, reason: Exception) -> None:
        if self.connected:
            self.connectionLost(Failure(reason))

    def connectionLost(self, reason: Failure) -> None:
        """
        Close the socket and tell the protocol.
        """
        if not self.connected:
            return
        super().connectionLost(reason)
        del self.fileno
        self._socket.close()
        self._groups.clear()
        self.protocol.connectionLost(reason)

    def logPrefix(self) -> str:
        """What Twisted puts before log lines of this transport."""
        return "channel"


def _descriptorsIn(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """
    What recvmsg(2) brought besides bytes.  socket.recv_fds() does not pass on
    the flag that makes descriptors close-on-exec.
    """
    descriptors = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not _CLOSE_ON_EXEC:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    return descriptors.tolist()


class Channel(AMP):
    """
    The protocol on either end.  Subclasses answer commands, and may take
    frequent ones raw in L{boxes} by their name, which skips AMP's argument
    machinery.

    Whatever the peer does wrong ends the channel with one line in the log,
    never with an exception in the reactor.

    @ivar bytesReceived: Bytes read since the beginning.
    @ivar boxes: Maps command names to callables that take the raw box.
    """

    log = Logger()
    transport: ChannelTransport

    def __init__(self) -> None:
        super().__init__()
        self.bytesReceived = 0
        self._rest = b""
        self.boxes: dict[bytes, Any] = {}

    def makeConnection(self, transport: Any) -> None:
        """
        Begin, without AMP's two log lines for each connection.
        """
        BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        End, likewise.
        """
        BinaryBoxProtocol.connectionLost(self, reason)

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """
        A group of descriptors arrived, just ahead of the box that it belongs
        to.  Here nobody expects any, so they are closed.
        """
        closeDescriptors(group.descriptors)

    def dataReceived(self, data: bytes) -> None:
        """
        Parse boxes; a peer that breaks the protocol loses the channel.

        This is AMP's own framing, read in one pass over the bytes instead of
        string by string, since every batch of connections comes with a box.
        """
        self.bytesReceived += len(data)
        data = self._rest + data if self._rest else data
        start = 0
        try:
            while self.transport.connected:
                box, end = parseBox(data, start)
                if box is None:
                    self._checkRest(len(data) - start)
                    break
                start = end
                self.ampBoxReceived(box)
        except Exception as error:
            self.violated(error)
        self._rest = data[start:]

    def _checkRest(self, size: int) -> None:
        """
        @raise PeerError: if a box is still not complete after C{size} bytes
            that no command of ours can have.
        """
        if size > MAX_BOX:
            raise PeerError(f"a box of more than {MAX_BOX} bytes")

    def ampBoxReceived(self, box: dict[bytes, bytes]) -> None:
        """
        Take a frequent command the short way, any other one AMP's way.
        """
        take = self.boxes.get(box.get(b"_command", b""))
        if take is None:
            super().ampBoxReceived(AmpBox(box))
        else:
            take(box)

    def unhandledError(self, failure: Failure) -> None:
        """
        A responder failed, or the peer sent a command that there is none for.
        """
        assert failure.value is not None
        self.violated(failure.value)

    def violated(self, error: BaseException) -> None:
        """
        End the channel, since what came over it makes no sense.
        """
        cause = error if isinstance(error, PeerError) else f"{type(error).__name__}: {error}"
        self.log.error("{channel}: protocol violation: {cause}", channel=self.name, cause=cause)
        if self.transport.connected:
            self.transport.abort()

    @property
    def name(self) -> str:
        """What log lines call this channel."""
        return "channel"


def parseBox(data: bytes, start: int) -> tuple[dict[bytes, bytes] | None, int]:
    """
    Parse one AMP box.

    @param start: Where in C{data} it begins.
    @return: The box and where it ends, or L{None} and C{start} if it is not
        complete yet.
    @raise PeerError: if a key is longer than AMP allows.
    """
    box: dict[bytes, bytes] = {}
    total = len(data)
    position = start
    while position + 2 <= total:
        length = data[position] << 8 | data[position + 1]
        position += 2
        if not length:
            return box, position
        if length > MAX_KEY:
            raise PeerError(f"a key of {length} bytes")
        valueAt = position + length + 2
        if valueAt > total:
            break
        end = valueAt + (data[valueAt - 2] << 8 | data[valueAt - 1])
        if end > total:
            break
        box[data[position : valueAt - 2]] = data[valueAt:end]
        position = end
    return None, start


def numberFrom(box: Any, name: bytes) -> int:
    """
    The whole number under C{name} in a raw box.

    @raise PeerError: if it is missing or no number.
    """
    try:
        return int(box[name])
    except (KeyError, ValueError) as error:
        raise PeerError(f"{name.decode('ascii')} is missing or no number") from error
