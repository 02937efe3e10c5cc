"""
A tool's end of the admin socket.  Runs in ctl.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP, AmpError, Command, UnhandledCommand, UnknownRemoteError
from twisted.python.failure import Failure

from twisted_cluster.errors import AdminError
from twisted_cluster.kinds import SOCKET_PATH_BYTES
from twisted_cluster.ops.credentials import credentialsOf
from twisted_cluster.wire import admin as wire

GREETING_TIMEOUT = 10.0
"""Seconds within which the master has to answer the first command."""

_REMEDIES = {
    errno.ENOENT: ("there is no such socket", "start the master, or name its socket with --admin"),
    errno.ECONNREFUSED: ("the master is dead", "start it, or name another socket with --admin"),
    errno.EACCES: ("permission denied", "run this as the user of the master, or as root"),
    errno.EAGAIN: ("the master accepts no connections", "see whether it is stopped or stuck"),
}


class Unreachable(AdminError):
    """
    The master can't be reached, or is gone before it has answered.
    """


class OtherProtocol(AdminError):
    """
    The master speaks another version of the admin protocol.
    """


class Client(AMP):
    """
    One connection to a master.

    @ivar onProgress: Called with the fields of each L{wire.Progress} and
        L{wire.HostProgress}.
    @ivar closed: Fires when the connection is over.
    """

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.onProgress: Callable[[dict[str, Any]], object] = lambda fields: None
        self.closed: Deferred[None] = Deferred()

    def progress(self, **fields: Any) -> dict[str, Any]:
        """See L{wire.Progress}."""
        self.onProgress(fields)
        return {}

    wire.Progress.responder(progress)
    wire.HostProgress.responder(progress)

    def dataReceived(self, data: bytes) -> None:
        """
        Whoever does not speak AMP is no master.
        """
        try:
            super().dataReceived(data)
        except Exception:
            self.transport.abortConnection()

    def unhandledError(self, failure: Failure) -> None:
        """
        Likewise.
        """
        if self.transport is not None:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The master closed the connection, or is gone.
        """
        super().connectionLost(reason)
        self.closed.callback(None)

    async def ask(self, what: str, command: type[Command], **arguments: Any) -> dict[str, Any]:
        """
        Have the master do C{command}.

        @param what: The same for people, the words after "can't".
        @return: The values of the answer.
        @raise wire.CommandFailed: if it answers with an error.
        @raise Unreachable: if the connection ends before it answers.
        """
        try:
            answer: dict[str, Any] = await self.callRemote(command, **arguments)
        except ConnectionClosed:
            raise Unreachable(
                what, "the master has closed the connection", "see its log for the reason"
            ) from None
        except UnhandledCommand as error:
            raise wire.Unhandled(str(error.args[-1])) from None
        except UnknownRemoteError as error:
            # An error code that a later master may have added.
            raise wire.CommandFailed(str(error)) from None
        except (AmpError, ValueError, KeyError, TypeError):
            raise _strange(what) from None
        return answer

    async def status(self, what: str) -> dict[str, Any]:
        """
        The status of the cluster, as L{ClusterStatus.asDict} made it.
        """
        parts: list[bytes] = []
        wanted = 1
        while len(parts) < wanted:
            answer = await self.ask(what, wire.Status, part=len(parts))
            wanted = answer["parts"]
            parts.append(answer["json"])
        try:
            found: dict[str, Any] = json.loads(b"".join(parts))
        except ValueError:
            raise _strange(what) from None
        return found


def _strange(what: str) -> Unreachable:
    return Unreachable(
        what, "what listens there is no master", "name the socket of one with --admin"
    )


async def connect(reactor: Any, path: str, what: str) -> Client:
    """
    Connect to the master that listens on C{path}.

    @param what: What for, the words after "can't".
    @raise Unreachable: if there is none.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise Unreachable(
            what,
            f"the path {path} is too long for a UNIX socket",
            f"give one of at most {SOCKET_PATH_BYTES} bytes with --admin",
        )
    try:
        client: Client = await connectProtocol(UNIXClientEndpoint(reactor, path), Client())
    except ConnectError as error:
        raise _unreachable(what, path, error) from None
    return client


async def greet(reactor: Any, client: Client, what: str) -> None:
    """
    Make sure that there is a master at the other end, and that it can be
    talked to.

    @raise Unreachable: if it does not answer in time, or makes no sense.
    @raise wire.Forbidden: if this user may not use it.
    @raise OtherProtocol: if it is one of another version.
    """
    hello = await _hello(reactor, client, what)
    if hello["protocol"] != wire.ADMIN_PROTOCOL_VERSION:
        raise OtherProtocol(
            what,
            f"the master speaks admin protocol {hello['protocol']}, this command"
            f" {wire.ADMIN_PROTOCOL_VERSION}",
            f"use the twisted-cluster command of its version, {hello['version']}",
        )


async def _hello(reactor: Any, client: Client, what: str) -> dict[str, Any]:
    late = reactor.callLater(GREETING_TIMEOUT, client.transport.abortConnection)
    try:
        return await client.ask(what, wire.Hello)
    except wire.Forbidden:
        raise
    except wire.CommandFailed:
        raise _strange(what) from None
    except Unreachable:
        if late.active():
            raise
        raise Unreachable(
            what,
            f"the master has not answered within {GREETING_TIMEOUT:.0f} s",
            "see whether it is stopped or stuck",
        ) from None
    finally:
        if late.active():
            late.cancel()


def _unreachable(what: str, path: str, error: ConnectError) -> Unreachable:
    number = error.osError if isinstance(error.osError, int) else 0
    cause, remedy = _REMEDIES.get(
        number, (os.strerror(number) if number else str(error), "name another one with --admin")
    )
    return Unreachable(what, f"no master answers at {path}: {cause}", remedy)


class _ProcessEnd(FileDescriptor):
    """
    Waits for the end of a process that is not ours.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
        self.connected = True
        self.ended: Deferred[None] = Deferred(lambda _: self.stop())
        self.startReading()

    def fileno(self) -> int:
        """The pidfd."""
        return self._descriptor

    def doRead(self) -> None:
        """It is readable once the process is gone."""
        self.stop()
        self.ended.callback(None)

    def stop(self) -> None:
        """
        Wait no longer.
        """
        self.stopReading()
        os.close(self._descriptor)


def endOf(reactor: Any, client: Client) -> Deferred[None]:
    """
    Await the end of the process at the other end.  Where the platform can't
    tell, the end of the connection, which comes just before, has to do.
    """
    peer = credentialsOf(client.transport)
    opener = getattr(os, "pidfd_open", None)
    if peer is None or opener is None:
        return client.closed
    try:
        descriptor = opener(peer.pid)
    except ProcessLookupError:
        return succeed(None)
    except OSError:
        return client.closed
    return _ProcessEnd(reactor, descriptor).ended
