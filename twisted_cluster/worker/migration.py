"""
Lets connections go on in another worker, without closing them.  Runs in the
draining worker.

A connection can move when its protocol is between two requests: twisted.web's
HTTP/1.1 on plain TCP, and protocols that provide
L{twisted_cluster.interfaces.IMigratable}.  Reading stops first, so whatever
the client sends meanwhile waits in the kernel for the next owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ConnectionMigrated
from twisted_cluster.interfaces import IMigratable
from twisted_cluster.wire import state
from twisted_cluster.worker.drain import begin, innermost, isHTTP

OFFER_BATCH = 16
"""How many connections one offer may have: AMP limits what their states take."""


class Offer(NamedTuple):
    """
    A connection that is offered to other workers.

    @ivar number: What worker and master call it.
    @ivar state: What its protocol takes along.
    """

    number: int
    transport: Any
    state: bytes


class Offers:
    """
    The connections of a draining worker that are to move.
    """

    log = Logger()

    def __init__(self, reactor: Any, send: Callable[[list[Offer]], object]) -> None:
        """
        @param send: Offers connections to the master, which answers in
            L{answered}.
        """
        self._reactor = reactor
        self._send = send
        self._count = 0
        self._idle: list[Any] = []
        self._call: IDelayedCall | None = None
        # The number that a connection was offered under, or None as long as
        # it is busy.
        self._moving: dict[Any, int | None] = {}

    def __contains__(self, transport: object) -> bool:
        return transport in self._moving

    def moving(self) -> tuple[Any, ...]:
        """
        All that have not moved yet.
        """
        return tuple(self._moving)

    def watch(self, transport: Any) -> None:
        """
        Have a connection move as soon as it is idle.
        """
        self._moving[transport] = None
        prepare(transport, self.offerIfIdle)

    def offerIfIdle(self, transport: Any) -> None:
        """
        Offer a connection, together with all others that become idle in this
        turn of the reactor, unless it is busy or has been offered.
        """
        if self._moving.get(transport, 0) is not None or not pauseIfIdle(transport):
            return
        # One that nobody has said a word on yet is still held by the master.
        transport._touch()
        self._moving[transport] = self._count
        self._count += 1
        self._idle.append(transport)
        if self._call is None:
            self._call = self._reactor.callLater(0, self._sendIdle)

    def answered(self, taken: Iterable[int], declined: Iterable[int]) -> None:
        """
        Let go of what the master has taken, and serve on what it has not.
        """
        byNumber = {number: transport for transport, number in self._moving.items()}
        for number in taken:
            if number in byNumber:
                letGo(byNumber[number])
        for number in declined:
            if number in byNumber:
                self.keep(byNumber[number])

    def keep(self, transport: Any) -> None:
        """
        Drain a connection that no other worker gets.
        """
        self._moving.pop(transport, None)
        if transport.connected:
            goOn(transport)
            begin(innermost(transport.protocol))

    def forget(self, transport: Any) -> None:
        """
        A connection is over.
        """
        self._moving.pop(transport, None)

    def _sendIdle(self) -> None:
        self._call = None
        idle, self._idle = self._idle, []
        offers = [offer for offer in map(self._offer, idle) if offer is not None]
        for start in range(0, len(offers), OFFER_BATCH):
            self._send(offers[start : start + OFFER_BATCH])

    def _offer(self, transport: Any) -> Offer | None:
        number = self._moving.get(transport)
        if number is None:
            return None
        try:
            return Offer(number, transport, stateOf(transport))
        except Exception:
            self.log.failure("the app can't let a connection go to another worker")
            self.keep(transport)
            return None


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
