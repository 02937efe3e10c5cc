"""
Asks the master for ports, and waits for the answer: C{listenTCP} has to
return a port that is bound.  Runs in the worker, before and while its reactor
runs.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, NamedTuple

from twisted.internet.error import CannotListenError

from twisted_cluster.errors import PeerError
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import closeDescriptors, numberFrom, parseBox

PATIENCE = 30.0
"""Seconds to wait for the master's answer."""

_READ_SIZE = 4096


class Bound(NamedTuple):
    """
    A port that the master holds for this worker.

    @ivar listener: Its number on the wire.
    @ivar socket: This worker's copy of the listening socket.
    """

    listener: int
    socket: socket.socket


class Binder:
    """
    The worker's end of the channel over which it asks for ports.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(True)
        channel.settimeout(PATIENCE)

    def bind(
        self,
        kind: str,
        address: str | bytes,
        port: int,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
        order: int = 0,
    ) -> Bound:
        """
        Have a port bound, or get a copy of one that is bound already.  The
        arguments are those of L{commands.Bind}.

        @raise CannotListenError: if that can't be, with the system's error.
        """
        request = commands.encode(
            commands.Bind,
            kind=kind,
            address=os.fsencode(address),
            port=port,
            backlog=backlog,
            mode=mode,
            wantPID=wantPID,
            order=order,
        )
        try:
            self._channel.sendall(request)
            box, descriptors = self._answer()
        except (OSError, PeerError) as error:
            raise CannotListenError(address, port, _reason(error)) from error
        if box[b"_command"] == commands.Bound.commandName and len(descriptors) == 1:
            return Bound(numberFrom(box, b"listener"), socket.socket(fileno=descriptors[0]))
        closeDescriptors(descriptors)
        raise CannotListenError(address, port, _refusal(box))

    def unbind(self, listener: int) -> None:
        """
        Listen on it no more.
        """
        try:
            self._channel.sendall(commands.encode(commands.Unbind, listener=listener))
        except OSError:
            # Without a master there is nobody who would hand anything over.
            return

    def close(self) -> None:
        """
        Ask no more.
        """
        self._channel.close()

    def _answer(self) -> tuple[dict[bytes, bytes], list[int]]:
        data = b""
        descriptors: list[int] = []
        while True:
            part, more, _, _ = socket.recv_fds(self._channel, _READ_SIZE, 1)
            for descriptor in more:
                os.set_inheritable(descriptor, False)
            descriptors += more
            data += part
            if not part:
                raise OSError(errno.EPIPE, "the master is gone")
            box, _ = parseBox(data, 0)
            if box is not None:
                return box, descriptors


def _reason(error: Exception) -> OSError:
    if isinstance(error, TimeoutError):
        return OSError(errno.ETIMEDOUT, f"the master has not answered for {PATIENCE:g} s")
    return error if isinstance(error, OSError) else OSError(errno.EPROTO, str(error))


def _refusal(box: dict[bytes, Any]) -> OSError:
    reason = box.get(b"reason", b"the master's answer makes no sense").decode("utf-8", "replace")
    return OSError(int(box.get(b"errno", b"0")) or errno.EINVAL, reason)
