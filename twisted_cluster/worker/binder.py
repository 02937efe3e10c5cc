"""
Asks the master for ports, and waits for the answer: C{listenTCP} has to
return a port that is bound.  Runs in the worker, before and while its reactor
runs.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from twisted.internet.error import CannotListenError
from twisted.protocols.amp import TooLong

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
        self._rest = b""
        self._descriptors: list[int] = []
        self._owed = 0
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
        try:
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
            self._channel.sendall(request)
            self._owed += 1
            return self._answer()
        except TooLong as error:
            cause = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            raise CannotListenError(address, port, cause) from error
        except PeerError as error:
            self.close()
            cause = OSError(errno.EPROTO, str(error))
            raise CannotListenError(address, port, cause) from error
        except OSError as error:
            raise CannotListenError(address, port, _reason(error)) from error

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
        closeDescriptors(self._descriptors)
        self._descriptors.clear()

    def _answer(self) -> Bound:
        """
        What the master answers to the last request; the answers to earlier
        ones that were given up come first.
        """
        while self._owed > 1:
            self._undo(self._next())
        return self._take(self._next())

    def _next(self) -> dict[bytes, bytes]:
        box, end = parseBox(self._rest, 0)
        while box is None:
            self._receive()
            box, end = parseBox(self._rest, 0)
        self._rest = self._rest[end:]
        self._owed -= 1
        return box

    def _take(self, box: dict[bytes, bytes]) -> Bound:
        """
        @raise OSError: if it is not bound, or this process has no descriptor
            left for it.
        """
        command = box.get(b"_command")
        if command == commands.NotBound.commandName:
            raise OSError(numberFrom(box, b"errno") or errno.EINVAL, _reasonIn(box))
        if command != commands.Bound.commandName:
            raise PeerError("the master's answer makes no sense")
        listener = numberFrom(box, b"listener")
        if not self._descriptors:
            self.unbind(listener)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Bound(listener, socket.socket(fileno=self._descriptors.pop(0)))

    def _undo(self, box: dict[bytes, bytes]) -> None:
        try:
            late = self._take(box)
        except OSError:
            return
        late.socket.close()
        self.unbind(late.listener)

    def _receive(self) -> None:
        part, descriptors, _, _ = socket.recv_fds(self._channel, _READ_SIZE, 1)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        self._rest += part
        if not part:
            raise OSError(errno.EPIPE, "the master is gone")


def _reason(error: OSError) -> OSError:
    if isinstance(error, TimeoutError):
        return OSError(errno.ETIMEDOUT, f"the master has not answered for {PATIENCE:g} s")
    return error


def _reasonIn(box: dict[bytes, bytes]) -> str:
    return box.get(b"reason", b"").decode("utf-8", "replace")
