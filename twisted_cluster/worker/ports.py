"""
Ports without a listening socket of their own: the master accepts for them.
Runs in the worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import AppLoadError
from twisted_cluster.interfaces import IMigratable
from twisted_cluster.wire import state
from twisted_cluster.wire.preamble import ListenerPlan

ACCEPTS_PER_TURN = 4
"""How many connections a worker that accepts for itself takes at a time."""

RETRY_DELAY = 0.05
"""Seconds between two attempts to accept while descriptors are exhausted."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_PLAIN = ("tcp:", "tcp6:", "unix:", "fd:", "systemd:")
"""Endpoints that put nothing around a factory.  Asking Twisted costs the time
and memory of looking for plug-ins, in each worker."""


class IConnectionWatch(Protocol):
    """
    Who is told what becomes of adopted connections.
    """

    def touched(self, number: int) -> None:
        """The connection is being served: the master's copy can go."""

    def opened(self, transport: Any) -> None:
        """A connection has been adopted."""

    def closed(self, transport: Any) -> None:
        """A connection is over."""


class _Adopted:
    """
    Mixed into Twisted's transports: tells when the connection is first read
    from or written to, and when it is over.
    """

    handoff: int | None = None
    handedOff = False
    listener: int
    watch: IConnectionWatch

    def _touch(self) -> None:
        number, self.handoff = self.handoff, None
        if number is not None:
            self.watch.touched(number)

    def doRead(self) -> Any:
        """Read."""
        if self.handoff is not None:
            self._touch()
        return super().doRead()  # type: ignore[misc]

    def writeSomeData(self, data: Any) -> Any:
        """Write."""
        if self.handoff is not None:
            self._touch()
        return super().writeSomeData(data)  # type: ignore[misc]

    def connectionLost(self, reason: Failure) -> None:
        """The end."""
        if self.handoff is not None:
            self._touch()
        super().connectionLost(reason)  # type: ignore[misc]
        self.watch.closed(self)


class AdoptedConnection(_Adopted, tcp.Server):
    """
    A TCP connection that the master accepted.
    """


class AdoptedUnixConnection(_Adopted, unix.Server):
    """
    A UNIX connection that the master accepted.
    """


class Adopter:
    """
    Serves connections that were accepted on one listener.  This does what
    Twisted's ports do with what they have accepted.

    @ivar listener: The number of the listener.
    @ivar name: What log lines call it.
    @ivar family: The address family of its connections.
    """

    log = Logger()

    def __init__(
        self, listener: int, name: str, family: int, watching: Callable[[], IConnectionWatch]
    ) -> None:
        """
        @param watching: Gives who is told of connections; a port may be opened
            before there is anybody.
        """
        self.listener = listener
        self.name = name
        self.family = socket.AddressFamily(family)
        self._watching = watching

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        raise NotImplementedError

    def stopListening(self) -> Any:
        """
        Take no more connections; those to come are refused.
        """
        raise NotImplementedError

    def adopt(self, descriptor: int, number: int | None, carried: bytes = b"") -> bool:
        """
        Serve a connection.

        @param descriptor: The socket, which is taken.
        @param number: Its number on the channel, if it came over it.
        @param carried: What its protocol carries from another worker, if it
            comes from one.
        @return: Whether a protocol serves it now.  If not, it has been closed.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM, 0, fileno=descriptor)
        transport = self._connect(sock, number)
        if transport is None:
            sock.close()
            return False
        self._begin(transport, carried)
        return True

    def _connect(self, sock: socket.socket, number: int | None) -> Any:
        inet6 = self.family == socket.AF_INET6
        try:
            # Twisted's helper adds the scope of an IPv6 address.
            peer = tcp._getpeername(sock) if inet6 else sock.getpeername()
        except OSError:
            # The client has reset the connection already.
            return None
        try:
            transport = self._makeTransport(sock, peer)
        except Exception:
            self.log.failure("the app could not take a connection from {name}", name=self.name)
            return None
        if transport is not None:
            transport.watch = self._watching()
            transport.listener = self.listener
            transport.handoff = number
            transport.handedOff = number is not None
        return transport

    def _makeTransport(self, sock: socket.socket, peer: Any) -> Any:
        """
        The transport of a new connection, with its protocol, or L{None} if
        the app wants no such connection.
        """
        raise NotImplementedError

    def _begin(self, transport: Any, carried: bytes) -> None:
        transport.watch.opened(transport)
        try:
            if carried:
                self._resume(transport.protocol, transport, state.decode(carried))
            else:
                transport.protocol.makeConnection(transport)
        except Exception:
            self.log.failure("the app failed at a connection from {name}", name=self.name)
            transport.abortConnection()

    def _resume(self, protocol: Any, transport: Any, carried: Any) -> None:
        if not IMigratable.providedBy(protocol):
            raise AppLoadError(
                f"a {type(protocol).__name__} can't go on with a connection of another worker"
            )
        began: Any = protocol
        began.connected = 1
        began.transport = transport
        began.resume(carried)


@implementer(IListeningPort)
class HandoffPort(Adopter):
    """
    The port of an app that is a factory: it has no socket at all.

    @ivar factory: Builds the protocols.
    """

    def __init__(
        self, listener: int, plan: ListenerPlan, factory: Any, reactor: Any, watch: IConnectionWatch
    ) -> None:
        super().__init__(listener, plan.name, plan.family, lambda: watch)
        self.factory = factory
        self._address = plan.address
        self._reactor = reactor
        self._sessions = 0
        self._listening = False
        self._realPortNumber = None if isinstance(plan.address, str) else plan.address[1]

    def startListening(self) -> None:
        """
        Begin to take connections.
        """
        self._listening = True
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """
        Take no more connections; those to come are refused.
        """
        if self._listening:
            self._listening = False
            self.factory.doStop()
        return succeed(None)

    def getHost(self) -> Any:
        """
        The address at which the master listens.
        """
        address = self._address
        if isinstance(address, str):
            return UNIXAddress(os.fsencode(address) or None)
        kind = IPv6Address if self.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *address)

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return self._listening

    def _makeTransport(self, sock: socket.socket, peer: Any) -> Any:
        protocol = self.factory.buildProtocol(self._addressOf(peer))
        if protocol is None:
            return None
        session = self._sessions
        self._sessions = session + 1
        unixSocket = self.family == socket.AF_UNIX
        make: Callable[..., Any] = AdoptedUnixConnection if unixSocket else AdoptedConnection
        return make(sock, protocol, peer, self, session, self._reactor)

    def _addressOf(self, peer: Any) -> Any:
        if self.family == socket.AF_UNIX:
            return UNIXAddress(peer or None)
        if self.family == socket.AF_INET6:
            return IPv6Address("TCP", *peer)
        return IPv4Address("TCP", *peer)


_adoptedKinds: dict[Any, Any] = {
    tcp.Server: AdoptedConnection,
    unix.Server: AdoptedUnixConnection,
}


def adoptedKind(kind: type[Any]) -> type[Any]:
    """
    The class of transports C{kind}, made to tell what becomes of a connection.
    """
    found: type[Any] | None = _adoptedKinds.get(kind)
    if found is None:
        found = type(f"Adopted{kind.__name__}", (_Adopted, kind), {})
        _adoptedKinds[kind] = found
    return found


class AppPort(Adopter):
    """
    Serves what was accepted for a port that the app has opened itself, with
    that port's own ways.

    @ivar port: Twisted's port, or a subclass of it.
    """

    def __init__(self, listener: int, port: Any, watching: Callable[[], IConnectionWatch]) -> None:
        place = getattr(port, "_bindPath", port.port)
        super().__init__(listener, f"port {place!r}", port.socket.family, watching)
        self.port = port

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        return bool(self.port.connected) and not self.port.disconnecting

    def stopListening(self) -> Any:
        """
        Have the port closed.
        """
        return self.port.stopListening()

    def _makeTransport(self, sock: socket.socket, peer: Any) -> Any:
        port = self.port
        protocol = port.factory.buildProtocol(port._buildAddr(peer))
        if protocol is None:
            return None
        session = port.sessionno
        port.sessionno = session + 1
        make = port.transport
        known = isinstance(make, type)
        if known:
            make = adoptedKind(make)
        transport = make(sock, protocol, peer, port, session, port.reactor)
        if not known:
            transport.__class__ = adoptedKind(type(transport))
        return transport


class SharedAcceptor(FileDescriptor):
    """
    Accepts for itself on a listening socket that is the master's.
    """

    reactor: Any

    def __init__(self, reactor: Any, descriptor: int, port: Adopter) -> None:
        super().__init__(reactor)
        self._socket = socket.socket(fileno=descriptor)
        self._port = port
        self.connected = True
        self.startReading()

    def fileno(self) -> int:
        """The listening socket."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """
        Accept some: few at a time, so that idle workers get their share.
        """
        for _ in range(ACCEPTS_PER_TURN):
            try:
                descriptor, _ = self._socket._accept()  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause()
                return
            self._port.adopt(descriptor, None)

    def _pause(self) -> None:
        """
        Out of descriptors: clients wait in the kernel for a while.
        """
        self.stopReading()
        self.reactor.callLater(RETRY_DELAY, self._resume)

    def _resume(self) -> None:
        if self.connected:
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """
        Accept no more; the master's socket stays as it is.
        """
        super().connectionLost(reason)
        self._socket.close()


class _CapturingReactor:
    """
    What endpoints take for a reactor: it keeps the factory that they would
    listen with, wrapped in what they wrap it in.
    """

    factory: Any = None

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        """Keep the factory."""
        self.factory = factory

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> None:
        """Keep the factory, with TLS around it."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        self.factory = TLSMemoryBIOFactory(contextFactory, False, factory)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> None:
        """Keep the factory."""
        self.factory = factory


def wrapFactory(reactor: Any, name: str, factory: Any) -> Any:
    """
    The factory that the endpoint string C{name} would listen with: inside of
    TLS for C{ssl:}, and of whatever an endpoint plug-in adds.

    @raise AppLoadError: if that can't be made here, for instance since this
        user may not read a private key.
    """
    if name.startswith(_PLAIN):
        return factory
    if name.startswith("tls:"):
        name = f"ssl:{name[4:]}"
    capturing = _CapturingReactor(reactor)
    try:
        endpoint: Any = serverFromString(capturing, name)
        failures: list[Any] = []
        endpoint.listen(factory).addErrback(failures.append)
        if failures:
            failures[0].raiseException()
    except Exception as error:
        raise AppLoadError(f"can't serve {name}: {type(error).__name__}: {error}") from error
    return capturing.factory
