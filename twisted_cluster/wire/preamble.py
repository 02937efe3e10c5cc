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
    @ivar app: What to run, C{module:attr}.
    @ivar path: The master's C{sys.path}, so that both find the same modules.
    @ivar listeners: The listeners; their index is their number on the wire.
    @ivar heartbeat: How often to send L{Beat}.
    @ivar credit: How many sockets the master sends unacknowledged.
    @ivar drainGrace: As in L{twisted_cluster.config.ClusterConfig}.
    @ivar drainTimeout: How long to go on serving after the master's death.
    @ivar reactor: The name of the reactor to install, or L{None}.
    @ivar logTimes: Whether log lines need a time of their own.
    """

    slot: int | None
    generation: int
    app: str
    path: tuple[str, ...]
    listeners: tuple[ListenerPlan, ...]
    heartbeat: float
    credit: int
    drainGrace: float
    drainTimeout: float
    reactor: str | None = None
    logTimes: bool = True
    protocol: int = PROTOCOL_VERSION


def encode(preamble: Preamble) -> bytes:
    """
    The bytes that open a channel.
    """
    body = json.dumps(asdict(preamble)).encode("utf-8")
    return _LENGTH.pack(len(body)) + body


def read(channel: socket.socket) -> Preamble:
    """
    Read the preamble, blocking, and not one byte more.  Runs in the worker.

    @raise PeerError: if the master is gone, speaks another version, or sends
        anything else.
    """
    (length,) = _LENGTH.unpack(_readExactly(channel, _LENGTH.size))
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
    fields["path"] = tuple(fields["path"])
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
