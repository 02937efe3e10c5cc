"""
Ends connections without losing a request.  Runs in the worker.

What it takes depends on the protocol: twisted.web's HTTP/1.1 is known here,
any other protocol may provide L{twisted_cluster.interfaces.IDrainable}, and
whatever does not is left alone until it ends by itself or time is up.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.interfaces import IProtocol

from twisted_cluster import kernel
from twisted_cluster.interfaces import IDrainable, IMigratable


def innermost(protocol: Any) -> Any:
    """
    The app's own protocol under what Twisted wraps around it: TLS, policies,
    and the choice between HTTP versions.
    """
    seen = set()
    while id(protocol) not in seen and not IDrainable.providedBy(protocol):
        seen.add(id(protocol))
        inner = getattr(protocol, "wrappedProtocol", None) or getattr(protocol, "_channel", None)
        if not IProtocol.providedBy(inner):
            break
        protocol = inner
    return protocol


def isHTTP(protocol: Any) -> bool:
    """
    Whether C{protocol} is twisted.web's HTTP/1.1.
    """
    http = sys.modules.get("twisted.web.http")
    return http is not None and isinstance(protocol, http.HTTPChannel)


def isHTTP2(protocol: Any) -> bool:
    """
    Whether C{protocol} is twisted.web's HTTP/2.
    """
    http2 = sys.modules.get("twisted.web._http2")
    return http2 is not None and isinstance(protocol, http2.H2Connection)


def begin(protocol: Any) -> None:
    """
    Have C{protocol}, an innermost one, take no more work than it has.
    """
    if IDrainable.providedBy(protocol):
        protocol.drain()
    elif isHTTP(protocol):
        _beginHTTP(protocol)


def isIdle(protocol: Any) -> bool:
    """
    Whether C{protocol}, an innermost one, can be closed without loss.
    """
    if IDrainable.providedBy(protocol) or IMigratable.providedBy(protocol):
        return bool(protocol.isIdle())
    if isHTTP(protocol):
        return not protocol.requests and not protocol._buffer
    if isHTTP2(protocol):
        return not protocol.streams
    return False


def closeIfIdle(transport: Any) -> None:
    """
    Close the connection of C{transport} if nothing is under way on it, and
    nothing that the client has sent waits to be read.
    """
    protocol = innermost(transport.protocol)
    if not isIdle(protocol) or kernel.unreadBytes(transport.fileno()):
        return
    if isHTTP(protocol):
        protocol.loseConnection()
    else:
        protocol.transport.loseConnection()


def _beginHTTP(channel: Any) -> None:
    """
    Answer the next request with C{Connection: close}.  It may be in progress:
    as long as the head of its response has not been written, it is still
    time.
    """

    def checkPersistence(request: Any, version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    channel.checkPersistence = checkPersistence
    if len(channel.requests) == 1 and not channel._dataBuffer:
        (request,) = channel.requests
        if channel.persistent and not request.startedWriting:
            channel.persistent = checkPersistence(request, b"HTTP/1.1")
