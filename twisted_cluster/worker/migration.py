"""
Lets connections go on in another worker, without closing them.  Runs in the
draining worker.

A connection can move when its protocol is between two requests: twisted.web's
HTTP/1.1 on plain TCP, and protocols that provide
L{twisted_cluster.interfaces.IMigratable}.  Reading stops first, so whatever
the client sends meanwhile waits in the kernel for the next owner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twisted_cluster.errors import ConnectionMigrated
from twisted_cluster.interfaces import IMigratable
from twisted_cluster.wire import state
from twisted_cluster.worker.drain import innermost, isHTTP


def canMove(transport: Any) -> bool:
    """
    Whether this connection may move once it is idle.
    """
    if transport.TLS or transport.disconnecting:
        return False
    outer = transport.protocol
    protocol = innermost(outer)
    if isHTTP(protocol):
        return protocol is outer or getattr(outer, "_channel", None) is protocol
    return protocol is outer and bool(IMigratable.providedBy(protocol))


def prepare(transport: Any, onIdle: Callable[[Any], object]) -> None:
    """
    Have C{onIdle} called with C{transport} whenever a request has been
    answered.  Protocols other than HTTP have to be looked at from time to
    time.
    """
    channel = innermost(transport.protocol)
    if not isHTTP(channel):
        return
    original = channel.requestDone

    def requestDone(request: Any) -> None:
        original(request)
        onIdle(transport)

    channel.requestDone = requestDone


def pauseIfIdle(transport: Any) -> bool:
    """
    If the connection is idle, stop reading from it and send what is left to
    be sent.

    @return: Whether it can be given away now.
    """
    if transport.disconnecting or not transport.connected or not _isIdle(transport):
        return False
    transport.stopReading()
    if _unsent(transport) and transport.doWrite() is not None:
        # The client is gone; the reactor finds out when it reads.
        transport.startReading()
        return False
    if _unsent(transport):
        return False
    # From here on an end of this transport, say by a timeout of the app, must
    # not shut the socket down for all who hold a copy.
    transport._shouldShutdown = False
    return True


def goOn(transport: Any) -> None:
    """
    Serve on what was about to be given away.
    """
    transport._shouldShutdown = True
    transport.startReading()


def stateOf(transport: Any) -> bytes:
    """
    What the protocol takes along; empty for HTTP, which starts afresh with
    each request.

    @raise AppError: if that can't be carried.
    """
    protocol = innermost(transport.protocol)
    if isHTTP(protocol):
        return b""
    return state.encode(protocol.migrationState())


def letGo(transport: Any) -> None:
    """
    End the connection here; for the client nothing happens.
    """
    transport.connectionLost(Failure(ConnectionMigrated()))


def _isIdle(transport: Any) -> bool:
    protocol = innermost(transport.protocol)
    if isHTTP(protocol):
        buffered = protocol.requests or protocol._buffer or protocol._dataBuffer
        return bool(protocol.persistent) and not buffered
    return bool(protocol.isIdle())


def _unsent(transport: Any) -> bool:
    return bool(transport.dataBuffer or transport._tempDataBuffer)
