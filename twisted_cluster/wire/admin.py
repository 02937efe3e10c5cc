"""
The admin protocol: what tools and the master say to each other.

It is plain AMP on a UNIX stream socket, so that any tool can speak it with
L{twisted.protocols.amp.AMP}; C{docs/admin-protocol.rst} specifies it.  A tool
asks, the master answers, and the only thing the master says of its own accord
is L{Progress} and L{HostProgress}, to tools that asked for it.

The commands serve both ends.  L{BoxReader}, L{parse} and the functions that
encode are the master's end: AMP's own would let a tool grow the master's
memory, or fill its log with tracebacks.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.amp import (
    ANSWER,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    UNHANDLED_ERROR_CODE,
    AmpBox,
    Argument,
    Boolean,
    Command,
    Integer,
    String,
    Unicode,
)

from twisted_cluster.errors import AppError, ClusterError, NoSuchSlot, OperatorError, PeerError
from twisted_cluster.events import HostStepped, ReloadStepped
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import MAX_KEY

ADMIN_PROTOCOL_VERSION = 1
"""Raised by each change that a tool written for the version before could
misunderstand; additions leave it as it is."""

MAX_VALUE = commands.MAX_VALUE
"""The bytes that one AMP value may have."""

MAX_BOX = 131_072
"""The bytes that a box sent to the master may have."""

MAX_KEYS = 32
"""The keys that a box sent to the master may have."""


class CommandFailed(ClusterError):
    """
    The master answered a command with an error.  Raised in tools.

    @cvar code: The error code on the wire.
    @ivar reason: Why, in one line.
    @ivar traceback: The traceback of the app, or an empty string.
    """

    code = b""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.reason, _, self.traceback = description.partition("\n")


class Refused(CommandFailed):
    """
    The command can't be carried out now, or not with this value.
    """

    code = b"REFUSED"


class UnknownSlot(CommandFailed):
    """
    The cluster has no slot of this number.
    """

    code = b"NO_SUCH_SLOT"


class ReplacementFailed(CommandFailed):
    """
    A replacement was aborted; the old workers go on serving.
    """

    code = b"RELOAD_FAILED"


class BadRequest(CommandFailed):
    """
    An argument is missing, not of its type, or makes no sense at this point.
    """

    code = b"BAD_REQUEST"


class Forbidden(CommandFailed):
    """
    The user that the tool runs as may not use the admin socket.
    """

    code = b"FORBIDDEN"


class Internal(CommandFailed):
    """
    The master failed at it; its log has the traceback.
    """

    code = b"INTERNAL"


class Unhandled(CommandFailed):
    """
    The master has no such command.  AMP itself knows the code, and raises an
    exception of its own for it.
    """

    code = bytes(UNHANDLED_ERROR_CODE)


_ERRORS: dict[type[Exception], bytes] = {
    kind: kind.code
    for kind in (Refused, UnknownSlot, ReplacementFailed, BadRequest, Forbidden, Internal)
}


class _Request(Command):
    """
    Tool to master.
    """

    errors = _ERRORS


class Hello(_Request):
    """
    Which protocol does the master speak?

    The answer has C{protocol}, the version of the protocol; C{version}, that
    of the package; C{pid}, the process id of the master as it sees it itself.
    """

    commandName = b"Hello"
    response = [(b"protocol", Integer()), (b"version", Unicode()), (b"pid", Integer())]


class Status(_Request):
    """
    The cluster now, as JSON, in C{parts} parts.

    Part 0, the default, takes the snapshot; the others come from the same one,
    which the master keeps for this connection until the last part or the next
    part 0 is asked for.
    """

    commandName = b"Status"
    arguments = [(b"part", Integer(optional=True))]
    response = [(b"part", Integer()), (b"parts", Integer()), (b"json", String())]


class Reload(_Request):
    """
    Replace all workers by the next generation; answered when that has ended.

    C{progress}: whether to send L{Progress} meanwhile; no by default.
    """

    commandName = b"Reload"
    arguments = [(b"progress", Boolean(optional=True))]
    response = [(b"generation", Integer())]


class ReloadAll(_Request):
    """
    Have the masters of all hosts reload, one after another; answered when that
    has ended.

    C{progress}: whether to send L{HostProgress} meanwhile; no by default.
    """

    commandName = b"ReloadAll"
    arguments = [(b"progress", Boolean(optional=True))]
    response = [(b"hosts", Integer())]


class Restart(_Request):
    """
    Replace the worker of one slot, or revive a failed slot; else as L{Reload}.
    """

    commandName = b"Restart"
    arguments = [(b"slot", Integer()), (b"progress", Boolean(optional=True))]
    response = [(b"generation", Integer())]


class Scale(_Request):
    """
    Have C{wanted} slots; answered when the new workers are Ready or the
    surplus ones have exited.
    """

    commandName = b"Scale"
    arguments = [(b"wanted", Integer())]
    response = [(b"wanted", Integer())]


class Broadcast(_Request):
    """
    Send C{text} to all Ready workers; the answer says how many.
    """

    commandName = b"Broadcast"
    arguments = [(b"text", Unicode())]
    response = [(b"workers", Integer())]


class Stop(_Request):
    """
    Stop the master: accept no more, drain, exit.  Answered when no worker is
    left; the end of the connection follows.

    C{now}: do not drain; no by default.
    """

    commandName = b"Stop"
    arguments = [(b"now", Boolean(optional=True))]


class Progress(Command):
    """
    Master to tool, without an answer: a replacement advanced by one step.  The
    fields are those of L{ReloadStepped}.
    """

    commandName = b"Progress"
    requiresAnswer = False
    arguments = [
        (b"generation", Integer()),
        (b"phase", Unicode()),
        (b"slot", Integer(optional=True)),
        (b"done", Integer()),
        (b"total", Integer()),
        (b"reason", Unicode()),
    ]


class HostProgress(Command):
    """
    Master to tool, without an answer: a reload of all hosts advanced by one
    step.  The fields are those of L{HostStepped}.
    """

    commandName = b"HostProgress"
    requiresAnswer = False
    arguments = [
        (b"host", Unicode()),
        (b"phase", Unicode()),
        (b"done", Integer()),
        (b"total", Integer()),
        (b"generation", Integer()),
        (b"slot", Integer(optional=True)),
        (b"slotsDone", Integer()),
        (b"slotsTotal", Integer()),
        (b"reason", Unicode()),
    ]


REQUESTS: dict[bytes, type[Command]] = {
    command.commandName: command
    for command in (Hello, Status, Reload, ReloadAll, Restart, Scale, Broadcast, Stop)
}
"""What a tool may ask, by name."""


class BoxReader:
    """
    Cuts a stream of bytes into AMP boxes, which are bounded in size and in
    number of keys.  Bytes are looked at once however they arrive.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0
        self._reset()

    def _reset(self) -> None:
        self._box = AmpBox()
        self._keys = 0
        self._at = self._start

    @property
    def isPartial(self) -> bool:
        """Whether there are bytes of a box that L{next} has not returned."""
        return self._start < len(self._data)

    def feed(self, data: bytes) -> None:
        """
        Add C{data} to what is to be cut.
        """
        del self._data[: self._start]
        self._data += data
        self._at -= self._start
        self._start = 0

    def next(self) -> AmpBox | None:
        """
        The next complete box, or L{None}.

        @raise PeerError: if this is not AMP, or a box is too large.
        """
        while True:
            if self._at > self._start + MAX_BOX:
                raise PeerError(f"a box of more than {MAX_BOX} bytes")
            key, end = self._string(self._at, MAX_KEY)
            if key is None:
                return None
            if not key:
                return self._complete(end)
            value, end = self._string(end, MAX_VALUE)
            if value is None:
                return None
            self._keys += 1
            if self._keys > MAX_KEYS:
                raise PeerError(f"a box with more than {MAX_KEYS} keys")
            self._box[key] = value
            self._at = end

    def _complete(self, end: int) -> AmpBox:
        box = self._box
        self._start = end
        self._reset()
        return box

    def _string(self, at: int, limit: int) -> tuple[bytes | None, int]:
        """
        The string whose length stands at C{at}, and where it ends.
        """
        data = self._data
        if at + 2 > len(data):
            return None, at
        length = data[at] << 8 | data[at + 1]
        if length > limit:
            raise PeerError(f"a key of {length} bytes, so this is not AMP")
        end = at + 2 + length
        return (bytes(data[at + 2 : end]), end) if end <= len(data) else (None, at)


def parse(box: AmpBox) -> tuple[type[Command], dict[str, Any]]:
    """
    The command that a box asks for, with its arguments by name; those that
    were left out are L{None}.

    @raise PeerError: if the box asks for nothing.
    @raise Unhandled: if there is no such command.
    @raise BadRequest: if an argument is missing or not of its type.
    """
    name = box.get(COMMAND)
    if name is None:
        raise PeerError("a box that is no command")
    command = REQUESTS.get(name)
    if command is None:
        known = ", ".join(sorted(known.decode("ascii") for known in REQUESTS))
        raise Unhandled(
            f"can't do {_shown(name)}: there is no such command; those that exist are {known}"
        )
    values: dict[str, Any] = {}
    for argument, kind in command.arguments:
        values[argument.decode("ascii")] = _value(command, argument, kind, box)
    return command, values


def _value(command: type[Command], name: bytes, kind: Argument, box: AmpBox) -> Any:
    what = f"can't do {command.commandName.decode('ascii')}: its argument {name.decode('ascii')}"
    wanted = f"send {type(kind).__name__} as AMP encodes it"
    written = box.get(name)
    if written is None:
        if kind.optional:
            return None
        raise BadRequest(f"{what} is missing; {wanted}")
    try:
        return kind.fromString(written)
    except (ValueError, TypeError):
        raise BadRequest(f"{what} is {_shown(written)}; {wanted}") from None


def _shown(value: bytes) -> str:
    text = repr(value.decode("utf-8", "backslashreplace"))
    return text if len(text) <= 80 else text[:77] + "..."


def encodeAnswer(command: type[Command], ask: bytes, values: dict[str, Any]) -> bytes:
    """
    The bytes of the answer C{values} to the request with the tag C{ask}.
    """
    box = AmpBox()
    for name, kind in command.response:
        box[name] = kind.toString(values[name.decode("ascii")])
    box[ANSWER] = ask
    return bytes(box.serialize())


def encodeError(ask: bytes, error: CommandFailed) -> bytes:
    """
    The bytes of the error that answers the request with the tag C{ask}.
    """
    box = AmpBox()
    box[ERROR] = ask
    box[ERROR_CODE] = error.code
    box[ERROR_DESCRIPTION] = _start(str(error), MAX_VALUE).encode("utf-8")
    return bytes(box.serialize())


def encodeProgress(step: ReloadStepped) -> bytes:
    """
    The bytes of the L{Progress} that tells of C{step}.
    """
    reason = _start(step.reason, MAX_VALUE)
    box = AmpBox(
        {
            COMMAND: Progress.commandName,
            b"generation": b"%d" % step.generation,
            b"phase": step.phase.value.encode("utf-8"),
            b"done": b"%d" % step.done,
            b"total": b"%d" % step.total,
            b"reason": reason.encode("utf-8"),
        }
    )
    if step.slot is not None:
        box[b"slot"] = b"%d" % step.slot
    return bytes(box.serialize())


def encodeHostProgress(step: HostStepped) -> bytes:
    """
    The bytes of the L{HostProgress} that tells of C{step}.
    """
    box = AmpBox(
        {
            COMMAND: HostProgress.commandName,
            b"host": _start(step.host, MAX_VALUE).encode("utf-8"),
            b"phase": step.phase.value.encode("utf-8"),
            b"done": b"%d" % step.done,
            b"total": b"%d" % step.total,
            b"generation": b"%d" % step.generation,
            b"slotsDone": b"%d" % step.slotsDone,
            b"slotsTotal": b"%d" % step.slotsTotal,
            b"reason": _start(step.reason, MAX_VALUE).encode("utf-8"),
        }
    )
    if step.slot is not None:
        box[b"slot"] = b"%d" % step.slot
    return bytes(box.serialize())


def failureOf(error: ClusterError) -> CommandFailed | None:
    """
    What to answer when the cluster refused or failed with C{error}; L{None} if
    that is no error to expect.
    """
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, NoSuchSlot):
        return UnknownSlot(_oneLine(str(error)))
    if isinstance(error, OperatorError):
        return Refused(_oneLine(str(error)))
    if isinstance(error, AppError):
        return ReplacementFailed(_withTraceback(_oneLine(str(error)), error.traceback))
    return None


def _withTraceback(reason: str, traceback: str) -> str:
    """
    The reason in the first line, and below it as much of the end of the
    traceback as fits: its last lines say what went wrong.
    """
    if not traceback:
        return reason
    reason = _start(reason, MAX_VALUE // 2)
    room = MAX_VALUE - len(reason.encode("utf-8")) - 1
    return f"{reason}\n{_end(traceback, room)}"


def _oneLine(text: str) -> str:
    return " ".join(text.splitlines())


def _start(text: str, room: int) -> str:
    return text.encode("utf-8", "backslashreplace")[:room].decode("utf-8", "ignore")


def _end(text: str, room: int) -> str:
    return text.encode("utf-8", "backslashreplace")[-room:].decode("utf-8", "ignore")
