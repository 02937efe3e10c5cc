"""
Lets unmodified apps share their ports: what they listen on is bound by the
master, which hands the connections over.  Runs in the worker.

Twisted's ports are changed where all ways to listen end: in the methods of the
port classes that bind a socket.  Whichever reactor runs, whatever made the
port, the app gets Twisted's own port object, with a genuine socket that it
just never accepts from.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import endpoints, tcp, udp, unix
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError
from twisted.python import log

from twisted_cluster import context, kernel
from twisted_cluster.worker.binder import Binder, Bound
from twisted_cluster.worker.loader import WrongName
from twisted_cluster.worker.ports import AppPort, IConnectionWatch

_LOCAL_HINT = (
    "; after start-up a UDP port belongs to the worker that binds it: bind it before the app is"
    " ready to have all workers share it"
)


_LATE = 1 << 20
"""What is added to the order of ports that are opened after start-up: a worker
that starts later must not take its first ones for them."""


_ADDRESSES: dict[int, Any] = {
    socket.AF_INET: IPv4Address,
    socket.AF_INET6: IPv6Address,
}


class Interception:
    """
    The ports of this process that the master holds.

    @ivar ports: By the number of the listener.
    @ivar datagrams: UDP ports likewise.
    @ivar watch: Hears of connections; set before the first one can come.
    @ivar binder: Asks the master for ports; L{None} in a template, where
        nobody may open any.
    """

    watch: IConnectionWatch

    def __init__(self, binder: Binder | None = None) -> None:
        self.binder = binder
        self._orders: Counter[tuple[int, str]] = Counter()
        self._claims: dict[Any, Bound] = {}
        self._started = False
        self._reading = False
        self.ports: dict[int, AppPort] = {}
        self.datagrams: dict[int, Any] = {}

    def install(self) -> None:
        """
        Change Twisted's classes, for good.
        """
        _patch(tcp.Port, "startListening", self._startStream)
        _patch(tcp.Port, "connectionLost", self._streamLost)
        _patch(unix.Port, "startListening", self._startPath)
        _patch(unix.Port, "connectionLost", self._pathLost)
        _patch(udp.Port, "_bindSocket", self._bindDatagram)
        _patch(udp.Port, "connectionLost", self._datagramLost)
        _patch(udp.Port, "startReading", self._readDatagrams)
        self._patchAdoption(tcp.Port)
        self._patchAdoption(unix.Port)
        _refuseStandardInput()

    def started(self) -> None:
        """
        The app is Ready: what it binds with port 0 from now on is its own.
        """
        self._started = True
        self._reading = True
        for port in self.datagrams.values():
            port.startReading()

    def pauseDatagrams(self) -> None:
        """
        Read what has come, then leave the rest to whoever serves the slot
        next.
        """
        reading, self._reading = self._reading, False
        for port in tuple(self.datagrams.values()) if reading else ():
            port.doRead()
            port.stopReading()

    def _ask(self, port: Any) -> Binder:
        """
        @raise PortOpened: if nobody may open C{port}.
        """
        if self.binder is None:
            raise PortOpened(f"it listens on port {port!r} while it is imported")
        return self.binder

    # Streams.

    def _startStream(self, original: Callable[[Any], None], port: Any) -> None:
        binder = self._ask(port.port)
        bound = self._claims.pop(port, None)
        if bound is None:
            if port._preexistingSocket is not None or self._isLocal(port.port):
                original(port)
                return
            bound = self._bindStream(binder, port)
        self._begin(port, bound, original)

    def _bindStream(self, binder: Binder, port: Any) -> Bound:
        order = self._order(port.interface) if port.port == 0 else 0
        try:
            bound = binder.bind("tcp", port.interface, port.port, port.backlog or 50, order=order)
        except CannotListenError as error:
            raise CannotListenError(port.interface, port.port, error.socketError) from error
        return self._refuseTwice(bound, port.interface, port.port)

    def _startPath(self, original: Callable[[Any], None], port: Any) -> None:
        binder = self._ask(port._bindPath)
        bound = self._claims.pop(port, None)
        if bound is None:
            if port._preexistingSocket is not None:
                original(port)
                return
            bound = self._bindPath(binder, port)
        self._begin(port, bound, _startOnPath)

    def _bindPath(self, binder: Binder, port: Any) -> Bound:
        path = os.fsdecode(port._bindPath)
        absolute = path if path.startswith("\0") else os.path.abspath(path)
        try:
            bound = binder.bind("unix", absolute, 0, port.backlog, port.mode, bool(port.wantPID))
        except CannotListenError as error:
            raise CannotListenError(None, port._bindPath, error.socketError) from error
        return self._refuseTwice(bound, None, port._bindPath)

    def _refuseTwice(self, bound: Bound, interface: Any, port: Any) -> Bound:
        """
        @raise CannotListenError: if this process listens there already, as the
            system would say.
        """
        if bound.listener in self.ports or bound.listener in self.datagrams:
            bound.socket.close()
            taken = errno.EADDRINUSE
            raise CannotListenError(interface, port, OSError(taken, os.strerror(taken)))
        return bound

    def _begin(self, port: Any, bound: Bound, start: Callable[[Any], None]) -> None:
        """
        Have C{start} make C{port} listen on what was bound.
        """
        port._preexistingSocket = bound.socket
        # The master, and others, listen on the same socket.
        port._shouldShutdown = False
        port.startReading = _doNothing
        # What the operator named may be of another family than the app thinks.
        kind = _ADDRESSES.get(bound.socket.family)
        if kind is not None:
            port.addressFamily, port._addressType = bound.socket.family, kind
        try:
            start(port)
        except BaseException:
            # The app's factory has failed: nothing listens, and it may try again.
            port._preexistingSocket = None
            del port.startReading
            self._giveBack(bound)
            raise
        port.clusterListener = bound.listener
        self.ports[bound.listener] = AppPort(bound.listener, port, lambda: self.watch)

    def _giveBack(self, bound: Bound) -> None:
        bound.socket.close()
        self._ask(bound.listener).unbind(bound.listener)

    def _streamLost(self, original: Callable[..., None], port: Any, reason: Any) -> None:
        # Both the app and the session may have asked for it in the same turn,
        # and Twisted's port ends as often as it is asked to.
        if port.connected:
            try:
                original(port, reason)
            finally:
                # The app's factory may fail; the port is closed all the same.
                self._detach(port)

    def _pathLost(self, original: Callable[..., None], port: Any, reason: Any) -> None:
        if getattr(port, "clusterListener", None) is None:
            original(port, reason)
        else:
            # Not Twisted's own: the path is the master's.
            tcp.Port.connectionLost(port, reason)

    def _detach(self, port: Any) -> None:
        listener = getattr(port, "clusterListener", None)
        if listener is not None:
            port.clusterListener = None
            del port.startReading
            del self.ports[listener]
            self._unbind(port, listener)

    def _unbind(self, port: Any, listener: int) -> None:
        # A reactor that is being stopped closes all there is: the port is
        # wanted still, by whoever comes next.
        if not getattr(port.reactor, "_startedBefore", False):
            self._ask(port.port).unbind(listener)

    # Sockets that somebody else has bound.

    def _patchAdoption(self, kind: Any) -> None:
        original = kind._fromListeningDescriptor.__func__

        def fromListeningDescriptor(cls: Any, reactor: Any, fd: int, *arguments: Any) -> Any:
            if kernel.isListening(fd) and not self._isOurs(fd):
                return original(cls, reactor, fd, *arguments)
            bound = self._refuseTwice(self._ask(fd).bind("descriptor", "", fd), None, fd)
            try:
                port = original(cls, reactor, bound.socket.fileno(), *arguments)
            except BaseException:
                self._giveBack(bound)
                raise
            port._preexistingSocket.close()
            self._claims[port] = bound
            return port

        kind._fromListeningDescriptor = classmethod(fromListeningDescriptor)

    def _isOurs(self, descriptor: int) -> bool:
        return any(adopted.port.fileno() == descriptor for adopted in self.ports.values())

    # Datagrams.

    def _bindDatagram(self, original: Callable[[Any], None], port: Any) -> None:
        binder = self._ask(port.port)
        shared = type(port) is udp.Port and port._preexistingSocket is None
        if not shared or port.port == 0:
            original(port)
        elif self._started:
            _bindLocally(original, port)
        else:
            bound = binder.bind("udp", port.interface, port.port)
            self._refuseTwice(bound, port.interface, port.port)
            port._preexistingSocket = bound.socket
            original(port)
            port.clusterListener = bound.listener
            self.datagrams[bound.listener] = port

    def _readDatagrams(self, original: Callable[[Any], None], port: Any) -> None:
        """
        Not before this worker is Ready: until then its predecessor reads.
        """
        if self._reading or getattr(port, "clusterListener", None) is None:
            original(port)

    def _datagramLost(self, original: Callable[..., None], port: Any, reason: Any = None) -> None:
        if not port.connected:
            # Twisted's port ends as often as it is asked to in one turn.
            return
        try:
            original(port, reason)
        finally:
            listener = getattr(port, "clusterListener", None)
            if listener is not None:
                port.clusterListener = None
                del self.datagrams[listener]
                self._unbind(port, listener)

    # What to share.

    def _isLocal(self, port: int) -> bool:
        return port == 0 and self._started and not context.current().sharing

    def _order(self, interface: str) -> int:
        """
        Which of several ports with the number 0 this is: the n-th is the same
        one in all workers.
        """
        first = _LATE if self._started else 0
        order = first + self._orders[first, interface]
        self._orders[first, interface] += 1
        return order


def _patch(kind: Any, name: str, replacement: Callable[..., Any]) -> None:
    original = getattr(kind, name)

    def method(port: Any, *arguments: Any) -> Any:
        return replacement(original, port, *arguments)

    setattr(kind, name, method)


def _startOnPath(port: Any) -> None:
    """
    Do what Twisted's own port does, less what touches the path.
    """
    log.msg(f"{port._getLogPrefix(port.factory)} starting on {port._bindPath!r}")
    port.lockFile = None
    port.factory.doStart()
    port.connected = True
    port.socket, port._preexistingSocket = port._preexistingSocket, None
    port.fileno = port.socket.fileno
    port.numberAccepts = 100


def _doNothing() -> None:
    """
    The master accepts.
    """


def _bindLocally(original: Callable[[Any], None], port: Any) -> None:
    try:
        original(port)
    except CannotListenError as error:
        raise CannotListenError(
            error.interface, error.port, f"{error.socketError}{_LOCAL_HINT}"
        ) from error


def _refuseStandardInput() -> None:
    def listen(endpoint: Any, factory: Any) -> None:
        raise WrongName(
            "can't listen on stdio: a worker has no standard input, for there is one and the"
            " workers are many; give the app a tcp: or unix: endpoint, or run it without cluster"
        )

    endpoints.StandardIOEndpoint.listen = listen  # type: ignore[method-assign]


class PortOpened(BaseException):
    """
    The app has opened a port where it must not: while it is imported for all
    workers.  Not an ordinary exception, lest the app takes it for one.
    """
