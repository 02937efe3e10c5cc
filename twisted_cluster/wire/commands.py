"""
Every AMP command between the master and a worker.

A channel begins with one preamble (L{twisted_cluster.wire.preamble}) from the
master; all that follows is AMP.  None of these commands asks for an answer:
each report is a command of its own, so that neither side ever waits for the
other.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from twisted.protocols.amp import (
    COMMAND,
    AmpBox,
    Argument,
    Boolean,
    Command,
    Float,
    Integer,
    ListOf,
    String,
    Unicode,
)

from twisted_cluster.errors import PeerError

PROTOCOL_VERSION = 1
"""Both ends of a channel must have the same."""

MAX_VALUE = 65_535
"""The bytes that one AMP value may have."""


class Numbers(Argument):
    """
    A list of unsigned 64-bit numbers, packed in the byte order of the host:
    both ends of a channel run on the same one.
    """

    def toString(self, inObject: Iterable[int]) -> bytes:
        """Pack the numbers."""
        return array("Q", inObject).tobytes()

    def fromString(self, inString: bytes) -> list[int]:
        """
        Unpack the numbers.

        @raise PeerError: if the bytes are no whole number of numbers.
        """
        return unpackNumbers(inString)


def unpackNumbers(packed: bytes) -> list[int]:
    """
    The numbers that L{Numbers} packed.

    @raise PeerError: if the bytes are no whole number of numbers.
    """
    numbers = array("Q")
    try:
        numbers.frombytes(packed)
    except ValueError as error:
        raise PeerError(f"{len(packed)} bytes are no list of numbers") from error
    return numbers.tolist()


class _Report(Command):
    requiresAnswer = False


class Handoff(_Report):
    """
    Master to worker: sockets, one descriptor each, sent with the first byte
    of this box and in the order of C{listeners}.

    C{first} is the sequence number of the first socket; the others follow it
    one by one.  Sequence numbers start at 0 on each channel.
    """

    commandName = b"Handoff"
    arguments = [(b"first", Integer()), (b"listeners", Numbers())]


class Share(_Report):
    """
    Master to worker: accept for yourself, from now on and until told to
    drain, on these listeners; their listening sockets come with this box.
    """

    commandName = b"Share"
    arguments = [(b"listeners", Numbers())]


class Resume(_Report):
    """
    Master to worker: the same as L{Handoff}, for connections that another
    worker has served before and whose protocols carry state.

    C{states} has what L{twisted_cluster.wire.state} made of it, one for each
    socket.
    """

    commandName = b"Resume"
    arguments = [
        (b"first", Integer()),
        (b"listeners", Numbers()),
        (b"states", ListOf(String())),
    ]


class Offer(_Report):
    """
    Draining worker to master: idle connections for other workers to go on
    with, one descriptor each.

    C{numbers} are the worker's own, to speak of them; an empty state stands
    for none.
    """

    commandName = b"Offer"
    arguments = [
        (b"numbers", Numbers()),
        (b"listeners", Numbers()),
        (b"states", ListOf(String())),
    ]


class Taken(_Report):
    """
    Master to worker: the connections C{taken} belong to the master now; those
    C{declined} stay with the worker.
    """

    commandName = b"Taken"
    arguments = [(b"taken", Numbers()), (b"declined", Numbers())]


class Ack(_Report):
    """
    Worker to master: what became of the sockets so far.

    C{received} counts all sockets that have arrived on this channel and gives
    back their credit; C{closed} counts all connections that are over;
    C{touched} lists sockets that the worker has begun to serve, of which the
    master may close its copies.
    """

    commandName = b"Ack"
    arguments = [(b"received", Integer()), (b"closed", Integer()), (b"touched", Numbers())]


class Refuse(_Report):
    """
    Worker to master: these sockets can't be served here; give them to another
    worker.
    """

    commandName = b"Refuse"
    arguments = [(b"sockets", Numbers()), (b"reason", Unicode())]


class Throttle(_Report):
    """
    Worker to master: send no sockets (C{paused} 1) or go on sending (0),
    since the worker is, or is no longer, short of descriptors.
    """

    commandName = b"Throttle"
    arguments = [(b"paused", Integer())]


class Ready(_Report):
    """
    Worker to master: the app is loaded and runs; sockets of C{listeners} may
    come, or of all that the operator named if there is no such list.
    """

    commandName = b"Ready"
    arguments = [(b"listeners", Numbers(optional=True))]


class Bind(_Report):
    """
    Worker to master, over a channel of its own and blocking: the app wants a
    port.  The answer is one L{Bound} or L{NotBound}.

    C{kind} is C{tcp}, C{unix}, C{udp}, or C{descriptor} for one that the
    master has inherited; C{address} an interface or a path, C{port} a port
    or a descriptor.  C{order} tells ports with the number 0 apart.
    """

    commandName = b"Bind"
    arguments = [
        (b"kind", Unicode()),
        (b"address", String()),
        (b"port", Integer()),
        (b"backlog", Integer()),
        (b"mode", Integer()),
        (b"wantPID", Boolean()),
        (b"order", Integer()),
    ]


class Bound(_Report):
    """
    Master to worker: the port is bound; its socket comes with this box.
    """

    commandName = b"Bound"
    arguments = [(b"listener", Integer())]


class NotBound(_Report):
    """
    Master to worker: the port can't be bound; C{errno} is 0 if the system
    gave none.
    """

    commandName = b"NotBound"
    arguments = [(b"errno", Integer()), (b"reason", Unicode())]


class Unbind(_Report):
    """
    Worker to master: the app listens on this no more.
    """

    commandName = b"Unbind"
    arguments = [(b"listener", Integer())]


class BootFailed(_Report):
    """
    Worker to master: the app can't be run; the worker exits now.

    C{fault} is C{operator} where the name given is wrong, C{app} where the
    app's own code failed.
    """

    commandName = b"BootFailed"
    arguments = [(b"fault", Unicode()), (b"reason", Unicode()), (b"traceback", Unicode())]


class Beat(_Report):
    """
    Worker to master: the reactor runs, and so many connections are open.
    """

    commandName = b"Beat"
    arguments = [(b"connections", Integer(optional=True))]


class Leaving(_Report):
    """
    Worker to master: somebody else told this worker to terminate; replace it.
    """

    commandName = b"Leaving"
    arguments: ClassVar[list[tuple[bytes, Argument]]] = []


class Drain(_Report):
    """
    Master to worker: no more sockets come; finish what is being served.

    C{grace} is how many seconds an idle connection may stay open;
    C{migrate}, whether connections can be offered to other workers instead.
    """

    commandName = b"Drain"
    arguments = [(b"grace", Float()), (b"migrate", Boolean())]


class Drained(_Report):
    """
    Worker to master: no connection is left.
    """

    commandName = b"Drained"
    arguments: ClassVar[list[tuple[bytes, Argument]]] = []


class Stop(_Report):
    """
    Master to worker: close what is left, stop the app, exit.
    """

    commandName = b"Stop"
    arguments: ClassVar[list[tuple[bytes, Argument]]] = []


class Message(_Report):
    """
    Master to worker: a broadcast text for the app.
    """

    commandName = b"Message"
    arguments = [(b"text", Unicode())]


class Part(_Report):
    """
    Either way: a part of a message, see L{twisted_cluster.wire.parts}.
    """

    commandName = b"Part"
    arguments = [(b"lane", Integer()), (b"last", Boolean()), (b"data", String())]


class Loaded(_Report):
    """
    Template to master: the app has been imported, or has failed to
    (C{failed}); workers can be forked, of which in the second case each
    reports the failure.
    """

    commandName = b"Loaded"
    arguments = [(b"failed", Boolean())]


class Unfit(_Report):
    """
    Template to master: the app has been imported, but can't be forked.
    """

    commandName = b"Unfit"
    arguments = [(b"reason", Unicode())]


class Fork(_Report):
    """
    Master to template: fork a worker.  The box carries two or three
    descriptors: the channel, standard output unless it is the template's own,
    and standard error.
    """

    commandName = b"Fork"
    arguments = [(b"request", Integer())]


class Forked(_Report):
    """
    Template to master: the worker of C{request} exists.
    """

    commandName = b"Forked"
    arguments = [(b"request", Integer()), (b"pid", Integer())]


class NotForked(_Report):
    """
    Template to master: the worker of C{request} can't be forked.
    """

    commandName = b"NotForked"
    arguments = [(b"request", Integer()), (b"reason", Unicode())]


class ChildExited(_Report):
    """
    Template to master: a worker is gone and reaped; C{status} is as waitpid(2)
    gave it.
    """

    commandName = b"ChildExited"
    arguments = [(b"pid", Integer()), (b"status", Integer())]


class Finish(_Report):
    """
    Master to template: fork no more, and exit when the last worker has.
    """

    commandName = b"Finish"
    arguments: ClassVar[list[tuple[bytes, Argument]]] = []


_HANDOFF_HEAD = b"\0\x08_command\0\x07Handoff\0\x05first"
_HANDOFF_LISTENERS = b"\0\x09listeners"
_LENGTH = struct.Struct("!H")


def encodeHandoff(first: int, listeners: Sequence[int]) -> bytes:
    """
    The bytes of one L{Handoff}: what L{encode} makes, in a fifth of the time,
    since there is one for each batch of connections.
    """
    number = b"%d" % first
    packed = array("Q", listeners).tobytes()
    length = _LENGTH.pack
    return b"".join(
        (
            _HANDOFF_HEAD,
            length(len(number)),
            number,
            _HANDOFF_LISTENERS,
            length(len(packed)),
            packed,
            b"\0\0",
        )
    )


def encodeAck(received: int, closed: int, touched: Sequence[int]) -> bytes:
    """
    The bytes of one L{Ack}, as L{encodeHandoff} does it.
    """
    length = _LENGTH.pack
    arrived, over = b"%d" % received, b"%d" % closed
    packed = array("Q", touched).tobytes()
    return b"".join(
        (
            b"\0\x08_command\0\x03Ack\0\x08received",
            length(len(arrived)),
            arrived,
            b"\0\x06closed",
            length(len(over)),
            over,
            b"\0\x07touched",
            length(len(packed)),
            packed,
            b"\0\0",
        )
    )


def encode(command: type[Command], **values: Any) -> bytes:
    """
    The bytes of one box of C{command}.

    @raise TypeError: if a value is missing that is not optional.
    """
    box = AmpBox()
    for name, argument in command.arguments:
        argument.toBox(name, box, {name.decode("ascii"): values.get(name.decode("ascii"))}, None)
    box[COMMAND] = command.commandName
    return bytes(box.serialize())
