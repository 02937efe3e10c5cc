"""
What a worker is told before it imports the app.

It is sent ahead of the AMP traffic and read with blocking calls, since no
reactor may be installed in a worker before the app had its chance to choose
one.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Any

from twisted_cluster.errors import PeerError
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.wire.commands import PROTOCOL_VERSION

_LENGTH = struct.Struct("!I")
CHANNEL_DESCRIPTOR = 3
"""The descriptor under which a worker, or a template, finds its channel."""

MAX_PREAMBLE = 1 << 20
"""The bytes that a preamble may have."""


@dataclass(frozen=True)
class ListenerPlan:
    """
    One listener, as a worker needs to know it.

    @ivar name: The endpoint string.
    @ivar family: The address family of its sockets, as a number.
    @ivar address: What getsockname(2) says of the listening socket.
    """

    name: str
    family: int
    address: tuple[Any, ...] | str


@dataclass(frozen=True)
class Preamble:
    """
    Everything a worker, or a template, needs to know to begin.  Times are in
    seconds.

    @ivar slot: The slot, or L{None} for a template.
    @ivar source: What to run.
    @ivar path: The master's C{sys.path}, so that both find the same modules.
    @ivar listeners: The listeners that the operator named; their index is
        their number on the wire.
    @ivar heartbeat: How often to send L{Beat}.
    @ivar credit: How many sockets the master sends unacknowledged.
    @ivar drainGrace: As in L{twisted_cluster.config.ClusterConfig}.
    @ivar drainTimeout: How long to go on serving after the master's death.
    @ivar reactor: The name of the reactor to install, or L{None}.
    @ivar logTimes: Whether log lines need a time of their own.
    @ivar systemd: The names of the descriptors that the master has from
        systemd, in order; empty names for those that have none.
    @ivar inherited: The numbers of all listening descriptors that the master
        was started with.
    """

    slot: int | None
    generation: int
    source: Source
    path: tuple[str, ...]
    listeners: tuple[ListenerPlan, ...]
    heartbeat: float
    credit: int
    drainGrace: float
    drainTimeout: float
    reactor: str | None = None
    logTimes: bool = True
    systemd: tuple[str, ...] = ()
    inherited: tuple[int, ...] = ()
    protocol: int = PROTOCOL_VERSION


def encode(preamble: Preamble) -> bytes:
    """
    The bytes that open a channel.
    """
    fields = asdict(preamble, dict_factory=_plainDict)
    # Paths and arguments may be no Unicode; ASCII carries them all the same.
    body = json.dumps(fields).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def _plainDict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, SourceKind) else value for name, value in pairs}


def send(channel: socket.socket, preamble: Preamble, binding: socket.socket) -> None:
    """
    Open a worker's channel, blocking.  Runs in the master.

    @param binding: The worker's end of what it asks for ports over; goes with
        the first byte.
    """
    data = encode(preamble)
    sent = socket.send_fds(channel, [data], [binding.fileno()])
    channel.sendall(data[sent:])


def receive(channel: socket.socket) -> tuple[Preamble, socket.socket]:
    """
    Read what L{send} has sent.  Runs in the worker.

    @raise PeerError: as L{read}, or if the other descriptor is missing.
    """
    head, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    head += _readExactly(channel, _LENGTH.size - len(head))
    preamble = _readBody(channel, head)
    if len(descriptors) != 1:
        raise PeerError("the preamble came without the descriptor to ask for ports over")
    binding = socket.socket(fileno=descriptors[0])
    binding.set_inheritable(False)
    return preamble, binding


def read(channel: socket.socket) -> Preamble:
    """
    Read the preamble, blocking, and not one byte more.  Runs in the template.

    @raise PeerError: if the master is gone, speaks another version, or sends
        anything else.
    """
    return _readBody(channel, _readExactly(channel, _LENGTH.size))


def _readBody(channel: socket.socket, head: bytes) -> Preamble:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_PREAMBLE:
        raise PeerError(f"a preamble of {length} bytes")
    body = _readExactly(channel, length)
    try:
        fields = json.loads(body)
        version = fields.get("protocol")
        if version == PROTOCOL_VERSION:
            return _fromFields(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PeerError(f"no preamble: {type(error).__name__}: {error}") from error
    raise PeerError(f"the master speaks protocol {version}, this worker {PROTOCOL_VERSION}")


def _fromFields(fields: dict[str, Any]) -> Preamble:
    source = fields["source"]
    fields["source"] = Source(
        SourceKind(source["kind"]), source["name"], tuple(source["arguments"])
    )
    fields["path"] = tuple(fields["path"])
    fields["systemd"] = tuple(fields["systemd"])
    fields["inherited"] = tuple(fields["inherited"])
    fields["listeners"] = tuple(_listener(plan) for plan in fields["listeners"])
    return Preamble(**fields)


def _listener(plan: dict[str, Any]) -> ListenerPlan:
    address = plan["address"]
    return ListenerPlan(
        plan["name"], plan["family"], tuple(address) if isinstance(address, list) else address
    )


def _readExactly(channel: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = channel.recv(count)
        if not part:
            raise PeerError("the master closed the channel before it said what to run")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
