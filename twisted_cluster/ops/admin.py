"""
The admin socket: where tools ask the master for its status and tell it what to
do.  Runs in the master.

Whoever can connect must not be able to hurt the master, by mistake or on
purpose: what a connection may make the master hold is bounded, each wait has a
deadline, and nonsense costs the connection and one line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.amp import ASK, AmpBox, Command
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import ClusterError, PeerError
from twisted_cluster.events import HostStepped, ReloadStepped
from twisted_cluster.interfaces import ICluster
from twisted_cluster.kinds import shown
from twisted_cluster.ops import port
from twisted_cluster.ops.credentials import Credentials, credentialsOf, ownUids
from twisted_cluster.ops.responder import Responder
from twisted_cluster.wire import admin as wire

MAX_CONNECTIONS = 32
"""At most this many tools are connected; for one more, the one that has been
idle for the longest time has to go."""

MAX_PENDING = 16
"""The commands that may be under way on one connection."""

MAX_UNREAD = 262_144
"""The bytes that are held for a tool beyond those that the transport buffers
before it calls itself full."""

STALL_TIMEOUT = 10.0
"""Seconds that a tool has for completing a box that it has begun, and for
reading what it was sent."""

CLOSE_TIMEOUT = 1.0
"""Seconds that tools have for reading their last answers when the service
stops."""

_QUIET = frozenset({wire.Hello, wire.Status})
"""Commands that change nothing: tools that poll must not fill the log."""


class _Flow(Enum):
    """
    BARRED: the peer may not use the socket, and is told so at its first
        command.
    OPEN: commands are taken.
    FULL: none are taken until the tool has read what it was sent.
    CLOSING: none are taken any more; those under way may still be answered.
    OVER: nothing goes either way.
    """

    BARRED = "barred"
    OPEN = "open"
    FULL = "full"
    CLOSING = "closing"
    OVER = "over"


@implementer(IPushProducer)
class AdminProtocol(Protocol):
    """
    The master's end of one connection.

    @ivar pending: How many commands are under way.
    @ivar since: When the last command began or ended, in the reactor's time.
    @ivar lost: Fires when the connection is gone.
    """

    log = Logger("twisted_cluster")
    transport: Any

    def __init__(self, service: AdminService) -> None:
        self._service = service
        self._clock = service.reactor
        self._responder = Responder(service.cluster, self._tell)
        self._reader = wire.BoxReader()
        self._flow = _Flow.OPEN
        self._held = 0
        self._deadline: IDelayedCall | None = None
        self._peer = "a process"
        self.pending = 0
        self.since: float = self._clock.seconds()
        self.lost: Deferred[None] = Deferred()

    @property
    def isOver(self) -> bool:
        """Whether nothing goes over this connection any more."""
        return self._flow is _Flow.OVER

    @property
    def isBarred(self) -> bool:
        """Whether the peer may not use the socket."""
        return self._flow is _Flow.BARRED

    # The connection.

    def connectionMade(self) -> None:
        """
        Admit the peer, if it is one that may.
        """
        peer = self._service.credentialsOf(self.transport)
        if peer is not None:
            self._peer = str(peer)
            if peer.uid not in self._service.allowedUids:
                self._bar()
                return
        self.transport.registerProducer(self, True)

    def _bar(self) -> None:
        """
        Let the peer ask for something, since AMP can tell it why not only
        then; but not wait for long.
        """
        self.log.warn("admin socket: {peer} is cut off: it may not use it", peer=self._peer)
        self._flow = _Flow.BARRED
        self._deadline = self._clock.callLater(STALL_TIMEOUT, self.abort)

    def dataReceived(self, data: bytes) -> None:
        """
        Carry out what is complete.
        """
        self._reader.feed(data)
        if self.isBarred:
            self._turnAway()
        else:
            self._consume()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The tool is gone.  What it asked for goes on.
        """
        self._flow = _Flow.OVER
        self._expect("")
        self._service.forget(self)
        self.lost.callback(None)

    def close(self) -> None:
        """
        Take no more commands, and end the connection when those under way
        have been answered.
        """
        if self._flow is not _Flow.OVER:
            self._flow = _Flow.CLOSING
            self._expect("")
            self._closeIfDone()

    def _closeIfDone(self) -> None:
        if self._flow is _Flow.CLOSING and not self.pending:
            self._flow = _Flow.OVER
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """
        End the connection; what has not been read is dropped.
        """
        self._flow = _Flow.OVER
        self._expect("")
        self.transport.abortConnection()

    def cut(self, cause: str) -> None:
        """
        End the connection by the fault of the peer.
        """
        self.log.warn("admin socket: {peer} is cut off: {cause}", peer=self._peer, cause=cause)
        self.abort()

    # IPushProducer.

    def pauseProducing(self) -> None:
        """
        The tool does not read.
        """
        if self._flow is _Flow.OPEN:
            self._flow = _Flow.FULL
            self._held = 0
            self.transport.pauseProducing()
            self._expect("it does not read its answers")

    def resumeProducing(self) -> None:
        """
        The tool has read everything.
        """
        if self._flow is _Flow.FULL:
            self._flow = _Flow.OPEN
            self._expect("")
            self.transport.resumeProducing()
            self._consume()

    def stopProducing(self) -> None:
        """
        The connection is lost; L{connectionLost} follows.
        """

    def _expect(self, otherwise: str) -> None:
        """
        Cut the peer off with C{otherwise} as the cause unless something else
        is expected in time; an empty text to expect nothing.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if otherwise:
            cause = f"{otherwise} for {STALL_TIMEOUT:.0f} s"
            self._deadline = self._clock.callLater(STALL_TIMEOUT, self.cut, cause)

    # Commands.

    def _consume(self) -> None:
        """
        Take complete boxes for as long as the tool reads the answers.
        """
        taken = False
        try:
            while self._flow is _Flow.OPEN:
                box = self._reader.next()
                if box is None:
                    break
                taken = True
                self._obey(box)
        except PeerError as error:
            self.cut(str(error))
        if self._flow is _Flow.OPEN and not self._reader.isPartial:
            self._expect("")
        elif self._flow is _Flow.OPEN and (taken or self._deadline is None):
            self._expect("it has left a box unfinished")

    def _turnAway(self) -> None:
        """
        Tell a peer that is barred so, whatever it asks for.
        """
        try:
            box = self._reader.next()
        except PeerError:
            self.abort()
            return
        if box is None:
            return
        error = wire.Forbidden(
            f"can't use the admin socket: {self._peer} is neither the master's user nor root;"
            " run this as one of them"
        )
        self._answer(box.get(ASK), wire.encodeError(box.get(ASK, b""), error))
        self._flow = _Flow.OVER
        self._expect("")
        self.transport.loseConnection()

    def _obey(self, box: AmpBox) -> None:
        ask = box.get(ASK)
        try:
            command, arguments = wire.parse(box)
            if self.pending >= MAX_PENDING:
                raise wire.Refused(
                    f"can't do {command.__name__}: {MAX_PENDING} commands are under way on this"
                    " connection; wait for their answers"
                )
        except wire.CommandFailed as error:
            self._answer(ask, self._errorFrom(Failure(error), ask))
            return
        self._begin(command, arguments, ask)

    def _begin(self, command: type[Command], arguments: dict[str, Any], ask: bytes | None) -> None:
        if command not in _QUIET:
            said = "".join(
                f" {name}={shown(value)}" for name, value in arguments.items() if value is not None
            )
            self.log.info(
                "admin socket: {peer} asks: {command}{said}",
                peer=self._peer,
                command=command.__name__,
                said=said,
            )
        self.pending += 1
        self.since = self._clock.seconds()
        done = self._responder.carryOut(command, arguments)
        encoded = done.addCallback(lambda values: wire.encodeAnswer(command, ask or b"", values))
        encoded.addErrback(self._errorFrom, ask).addCallback(self._ended, ask)

    def _ended(self, encoded: bytes, ask: bytes | None) -> None:
        self.pending -= 1
        self.since = self._clock.seconds()
        self._answer(ask, encoded)
        self._closeIfDone()

    def _errorFrom(self, failure: Failure, ask: bytes | None) -> bytes:
        """
        What to answer to a command that failed.
        """
        error = failure.value
        answer = wire.failureOf(error) if isinstance(error, ClusterError) else None
        if answer is None:
            self.log.failure("admin socket: a command failed", failure)
            answer = wire.Internal("the master failed at this command; see its log")
        elif ask is None:
            self.log.warn("admin socket: {peer}: {error}", peer=self._peer, error=answer.reason)
        return wire.encodeError(ask or b"", answer)

    def _answer(self, ask: bytes | None, encoded: bytes) -> None:
        if ask is not None:
            self._send(encoded)

    def _tell(self, step: ReloadStepped | HostStepped) -> None:
        if isinstance(step, HostStepped):
            self._send(wire.encodeHostProgress(step))
        else:
            self._send(wire.encodeProgress(step))

    def _send(self, data: bytes) -> None:
        if self._flow is _Flow.OVER:
            return
        self._held += len(data)
        if self._flow is _Flow.FULL and self._held > MAX_UNREAD:
            self.cut(f"it has left more than {MAX_UNREAD} bytes unread")
            return
        self.transport.write(data)


class _AdminFactory(Factory):
    """
    Makes the master's end of connections.
    """

    noisy = False

    def __init__(self, service: AdminService) -> None:
        self._service = service

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol | None:
        """A connection came in."""
        return self._service.accept()

    def logPrefix(self) -> str:
        """What Twisted calls it in the log."""
        return "admin socket"


class AdminService(Service):
    """
    Listens on the admin socket as long as it runs.

    @ivar path: Where, as an absolute path.
    @ivar connections: The connections that there are, in the order of their
        coming.
    """

    log = Logger("twisted_cluster")

    def __init__(
        self,
        reactor: Any,
        cluster: ICluster,
        path: str,
        owner: tuple[int, int] | None = None,
        allowedUids: Iterable[int] | None = None,
        credentialsOf: Callable[[Any], Credentials | None] = credentialsOf,
    ) -> None:
        """
        @param path: Where to listen.  A relative path is taken from the
            current directory of now.
        @param owner: The user and group to give the socket to.
        @param allowedUids: The users that may connect; by default root and
            the effective user of the master, whoever that is at the time.
        @raise AdminError: if C{path} can't be that of a socket.
        """
        self.reactor = reactor
        self.cluster = cluster
        self.path = port.resolve(path)
        self.credentialsOf = credentialsOf
        self._owner = owner
        self._allowedUids = None if allowedUids is None else frozenset(allowedUids)
        self._port: port.AdminPort | None = None
        self.connections: dict[AdminProtocol, None] = {}

    @property
    def allowedUids(self) -> frozenset[int]:
        """The users that may connect."""
        if self._allowedUids is None:
            return ownUids()
        return self._allowedUids

    # IService.

    def privilegedStartService(self) -> None:
        """
        Bind the socket.

        @raise AdminError: if that can't be done.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Bind the socket, if that has not been done yet: a service that is added
        to a running parent is started without the privileged step.

        @raise AdminError: if that can't be done.
        """
        self._listen()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """
        Close the socket and, when their commands are answered, all
        connections.

        @return: A Deferred that fires when they are gone.
        """
        super().stopService()
        ends: list[Deferred[Any]] = [connection.lost for connection in self.connections]
        if self._port is not None:
            ends.append(maybeDeferred(self._port.stopListening))
            self._port = None
        for connection in tuple(self.connections):
            connection.close()
        late = self.reactor.callLater(CLOSE_TIMEOUT, self._abortAll)

        def gone(_: Any) -> None:
            if late.active():
                late.cancel()

        return DeferredList(ends).addCallback(gone)

    def _listen(self) -> None:
        if self._port is None:
            self._port = port.listen(self.reactor, _AdminFactory(self), self.path, self._owner)

    def _abortAll(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()

    # Connections.

    def accept(self) -> AdminProtocol | None:
        """
        Make room for a connection.

        @return: The master's end of it; L{None} if all others are busy.
        """
        present = [connection for connection in self.connections if not connection.isOver]
        if len(present) >= MAX_CONNECTIONS:
            idle = [connection for connection in present if not connection.pending]
            if not idle:
                self.log.warn(
                    "admin socket: {count} tools are busy; refused one", count=len(present)
                )
                return None
            last = min(idle, key=lambda one: (not one.isBarred, one.since))
            last.cut("it is idle, and another tool wants its place")
        connection = AdminProtocol(self)
        self.connections[connection] = None
        return connection

    def forget(self, connection: AdminProtocol) -> None:
        """
        A connection is gone.
        """
        self.connections.pop(connection, None)
