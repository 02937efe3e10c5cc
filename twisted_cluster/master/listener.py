"""
Listening sockets: bound from endpoint strings, accepting only what some worker
has credit for.  Runs in the master.

The kernel's accept queue is the only queue in front of the workers: when none
of them has credit, the listener pauses, so memory stays bounded and nobody
waits in a place that can't be seen from outside.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ListenError
from twisted_cluster.events import EventStream, ListenerChanged, ListenerState
from twisted_cluster.interfaces import ListenerStatus
from twisted_cluster.master.dispatcher import Connection, Dispatcher

DEFAULT_BACKLOG = 1024
"""The accept queue of a listener that asks for none, or for less: Twisted's
own default is 50, for a server that always accepts at once."""

ACCEPTS_PER_TURN = 256
RETRY_DELAY = 0.05
"""Seconds between two attempts while descriptors are exhausted."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


_NOT_ACCEPTING = frozenset({ListenerState.CLOSED, ListenerState.EXHAUSTED, ListenerState.SHARED})


@dataclass(frozen=True)
class BindRequest:
    """
    A port that the app in a worker wants.

    @ivar kind: C{tcp}, C{unix}, C{udp}, or C{descriptor} for a socket that
        this process has inherited.
    @ivar address: An interface, or an absolute path.
    @ivar port: A port, or the number of the descriptor.
    @ivar mode: The mode of the path.
    @ivar wantPID: Whether to hold the lock of the path.
    @ivar order: Which of several ports with the number 0 it is.

    Two that differ in C{backlog}, C{mode} or C{wantPID} alone are for the same
    port, of which there can be just one.
    """

    kind: str
    address: str
    port: int
    backlog: int = field(default=50, compare=False)
    mode: int = field(default=0o666, compare=False)
    wantPID: bool = field(default=False, compare=False)
    order: int = 0

    def __str__(self) -> str:
        """The endpoint string that comes closest."""
        if self.kind == "unix":
            return f"unix:{self.address}"
        if self.kind == "descriptor":
            return f"fd:{self.port}"
        number = f"{self.port}" if self.port or not self.order else f"0 ({self.order + 1})"
        kind = f"{self.kind}6" if ":" in self.address else self.kind
        interface = self.address.replace(":", "\\:")
        return f"{kind}:{number}" + (f":interface={interface}" if interface else "")


class _ListeningPort(tcp.Port):
    """
    Twisted's port with everything it knows of binding and closing; what is
    ready to be accepted goes to the listener instead of a protocol.
    """

    listener: Listener | None = None

    def doRead(self) -> None:
        """Accept."""
        assert self.listener is not None
        self.listener.acceptReady()

    def connectionLost(self, reason: Failure) -> None:
        """Accept what has come until now, then close."""
        if self.listener is not None:
            self.listener.acceptLast()
        super().connectionLost(reason)


class _UnixListeningPort(_ListeningPort, unix.Port):
    """
    The same for a path.
    """

    log = Logger()

    def connectionLost(self, reason: Failure) -> None:
        """Accept what has come until now, remove the path, close."""
        if self.listener is not None:
            self.listener.acceptLast()
        if unix._inFilesystemNamespace(self._bindPath):
            self._remove(os.unlink, self._bindPath)
        if self.lockFile is not None:
            self._remove(self.lockFile.unlock)
        tcp.Port.connectionLost(self, reason)

    def _remove(self, remove: Callable[..., object], *arguments: Any) -> None:
        """
        Remove something, unless somebody has done that already.
        """
        try:
            remove(*arguments)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            # For instance since this process is another user by now.
            self.log.warn("left behind: {error}", error=error)


class _InheritedUnixPort(_UnixListeningPort):
    """
    A UNIX socket that somebody else has bound: its path, mode and lock are
    not ours to touch.
    """

    def startListening(self) -> None:
        """Adopt the socket as it is."""
        adopted, factory = self._preexistingSocket, self.factory
        assert adopted is not None and factory is not None
        self.socket = adopted
        self._preexistingSocket = None
        self._shouldShutdown = False
        factory.doStart()
        self.connected = True
        self.fileno = adopted.fileno  # type: ignore[method-assign]

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and leave its path alone."""
        if self.listener is not None:
            self.listener.acceptLast()
        tcp.Port.connectionLost(self, reason)


class _PlaceholderFactory(Factory):
    """
    Endpoints want a factory; the master builds no protocol.
    """

    noisy = False

    def logPrefix(self) -> str:
        """What log lines call it."""
        return "cluster"


class BindingReactor:
    """
    What endpoints take for a reactor: it binds the sockets that they ask for
    as ports that do not read yet, and passes on anything else.

    @ivar ports: The ports bound so far.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.ports: list[_ListeningPort] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> _ListeningPort:
        """Bind a TCP socket."""
        return self._begin(_ListeningPort(port, factory, backlog, interface, self._reactor))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> _ListeningPort:
        """Bind a TCP socket: the worker does the TLS."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> _ListeningPort:
        """Bind a path."""
        return self._begin(
            _UnixListeningPort(address, factory, backlog, mode, self._reactor, wantPID)
        )

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """Take over a socket that somebody else has bound."""
        if addressFamily == socket.AF_UNIX:
            port = _InheritedUnixPort._fromListeningDescriptor(
                self._reactor, fileDescriptor, factory
            )
        else:
            port = _ListeningPort._fromListeningDescriptor(
                self._reactor, fileDescriptor, addressFamily, factory
            )
        return self._begin(port)

    def _begin(self, port: _ListeningPort) -> _ListeningPort:
        port.startListening()
        port.stopReading()
        self.ports.append(port)
        return port


def bind(reactor: Any, name: str) -> _ListeningPort:
    """
    Bind the endpoint string C{name}, without accepting yet.

    @raise ListenError: if that is not possible.
    """
    binding = BindingReactor(reactor)
    try:
        _listen(binding, name)
    except CannotListenError as error:
        raise _cannotListen(name, error.socketError) from error
    except OSError as error:
        raise _cannotListen(name, error) from error
    except Exception as error:
        raise ListenError(
            f"listen on {name}",
            f"{type(error).__name__}: {error}",
            "check the endpoint string, for instance tcp:8080, unix:/run/app.sock,"
            " ssl:443:privateKey=key.pem:certKey=cert.pem, systemd:domain=INET:index=0 or fd:3",
        ) from error
    (port,) = binding.ports
    if "backlog=" not in name and port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        port.socket.listen(DEFAULT_BACKLOG)
    return port


def bindRequested(reactor: Any, request: BindRequest) -> _ListeningPort:
    """
    Bind a stream port that an app has asked for, without accepting yet.

    @raise CannotListenError: if that is not possible.
    @raise OSError: likewise.
    @raise ValueError: likewise.
    """
    binding = BindingReactor(reactor)
    factory = _PlaceholderFactory()
    backlog = max(request.backlog, DEFAULT_BACKLOG)
    if request.kind == "tcp":
        return binding.listenTCP(request.port, factory, backlog, request.address)
    if request.kind == "unix":
        return binding.listenUNIX(
            request.address, factory, backlog, request.mode, int(request.wantPID)
        )
    _adoptDescriptor(binding, request.port)
    (port,) = binding.ports
    return port


def _listen(binding: BindingReactor, name: str) -> None:
    prefix, _, rest = name.partition(":")
    if prefix == "fd":
        _adoptDescriptor(binding, int(rest))
        return
    if prefix == "tls":
        name = f"ssl:{rest}"
    results: list[Any] = []
    serverFromString(binding, name).listen(_PlaceholderFactory()).addBoth(results.append)
    if results and isinstance(results[0], Failure):
        results[0].raiseException()
    if len(binding.ports) != 1:
        raise ValueError("it is no endpoint that binds one stream socket at once")


def _adoptDescriptor(binding: BindingReactor, descriptor: int) -> None:
    inherited = socket.socket(fileno=descriptor)
    try:
        if not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"descriptor {descriptor} is no listening socket")
        inherited.setblocking(False)
        family = inherited.family
    finally:
        inherited.detach()
    binding.adoptStreamPort(descriptor, family, _PlaceholderFactory())
    os.close(descriptor)


def _cannotListen(name: str, cause: Any) -> ListenError:
    number = getattr(cause, "errno", None)
    text = os.strerror(number) if isinstance(number, int) else str(cause)
    remedies = {
        errno.EADDRINUSE: "stop the process that uses it or choose another address",
        errno.EACCES: "run as a user that may bind it or choose another address",
        errno.ENOENT: "check the paths that it names",
        errno.EADDRNOTAVAIL: "choose an address that this host has",
        errno.EBADF: "pass an open listening socket under that number",
        errno.ENOTSOCK: "pass an open listening socket under that number",
    }
    remedy = remedies.get(number or 0, "choose another address or stop the master that holds it")
    return ListenError(f"listen on {name}", text, remedy)


class Listener:
    """
    One bound port and its state.

    @ivar number: Its number on the wire.
    @ivar name: Its endpoint string.
    @ivar accepted: How many connections it has accepted.
    """

    def __init__(
        self,
        number: int,
        name: str,
        port: _ListeningPort,
        dispatcher: Dispatcher,
        clock: Any,
        events: EventStream,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.number = number
        self.name = name
        self.accepted = 0
        self.state = ListenerState.BOUND
        self._port = port
        self._dispatcher = dispatcher
        self._clock = clock
        self._events = events
        self._now = now
        self._retry: IDelayedCall | None = None
        self._accepting = False
        self.family = port.socket.family
        self.address: Any = port.socket.getsockname()
        port.listener = self

    def status(self) -> ListenerStatus:
        """
        This listener now.
        """
        address = self.address
        text = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else _pathOf(address)
        return ListenerStatus(self.name, text, self.state, self.accepted)

    def fileno(self) -> int:
        """The descriptor of the listening socket."""
        return int(self._port.socket.fileno())

    def share(self) -> int:
        """
        Leave it to the workers to accept.

        @return: The descriptor of the listening socket.
        """
        self._become(ListenerState.SHARED)
        return self.fileno()

    def capacityChanged(self) -> None:
        """
        Accept or pause, as the dispatcher's capacity allows.

        After a pause there is most often somebody waiting, and what can be
        accepted uses up the capacity again: so it is tried at once, and the
        reactor is asked to watch only if nobody waits any more.
        """
        if self.state in _NOT_ACCEPTING:
            return
        if self._capacity() <= 0:
            self._pause()
        elif self.state is not ListenerState.ACCEPTING and not self._accepting:
            self.acceptReady()

    def acceptReady(self) -> None:
        """
        Accept what waits in the kernel, as far as there is credit, and send
        it on its way.  Called by the reactor, or when there is credit again.
        """
        self._accepting = True
        error = self._accept(min(self._capacity(), ACCEPTS_PER_TURN))
        self._dispatcher.flush()
        self._accepting = False
        if error in _EXHAUSTED:
            self._exhausted(error)
        elif self._capacity() <= 0:
            self._pause()
        elif self.state is not ListenerState.ACCEPTING:
            self._become(ListenerState.ACCEPTING)
            self._port.startReading()

    def _capacity(self) -> int:
        return self._dispatcher.capacityOf(self.number)

    def _pause(self) -> None:
        if self.state is ListenerState.ACCEPTING:
            self._port.stopReading()
        if self.state is not ListenerState.BOUND or self.accepted:
            self._become(ListenerState.PAUSED)

    def _accept(self, most: int) -> int:
        """
        Accept up to C{most} connections.

        @return: The errno that ended it, or 0.
        """
        # socket.accept() would build a socket object around each descriptor
        # only for it to be taken apart again.
        listening: Any = self._port.socket
        accept = listening._accept
        submit = self._dispatcher.submit
        count = 0
        try:
            while count < most:
                descriptor, peer = accept()
                count += 1
                submit(Connection(descriptor, self.number, peer))
        except OSError as error:
            return error.errno or 0
        finally:
            self.accepted += count
        return 0

    def _exhausted(self, error: int) -> None:
        """
        Out of descriptors: close copies that are no longer strictly needed,
        and try again a little later.  Clients wait in the kernel meanwhile.
        """
        self._dispatcher.releaseHeld()
        self._port.stopReading()
        self._become(ListenerState.EXHAUSTED, os.strerror(error))
        self._retry = self._clock.callLater(RETRY_DELAY, self._tryAgain)

    def _tryAgain(self) -> None:
        self._retry = None
        error = self._accept(min(self._capacity(), 1))
        self._dispatcher.flush()
        if error in _EXHAUSTED:
            self._exhausted(error)
        else:
            self._become(ListenerState.PAUSED)
            self.capacityChanged()

    def close(self) -> Deferred[Any]:
        """
        Close the port.

        @return: A Deferred that fires when it is closed, and all that the
            kernel had taken in by then has been accepted.
        """
        self._cancelRetry()
        return maybeDeferred(self._port.stopListening)

    def closeNow(self) -> None:
        """
        Close the port, and not a turn later as Twisted's ports do: whoever
        listened there may listen there again with its next word.
        """
        self._cancelRetry()
        self._port.stopReading()
        self._port.connectionLost(Failure(ConnectionDone()))

    def _cancelRetry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def acceptLast(self) -> None:
        """
        Accept all that the kernel has taken in, whether or not there is
        credit, so that no client who believes to be connected is reset.
        Called by the port, which closes next.
        """
        if self.state is ListenerState.CLOSED:
            return
        self._become(ListenerState.CLOSED)
        self._accept(DEFAULT_BACKLOG)
        self._dispatcher.flush()

    def _become(self, state: ListenerState, reason: str = "") -> None:
        before, self.state = self.state, state
        quiet = {ListenerState.ACCEPTING, ListenerState.PAUSED}
        if before is not state and not quiet.issuperset((before, state)):
            self._events.publish(ListenerChanged(self._now(), self.name, before, state, reason))


def _pathOf(address: Any) -> str:
    text = os.fsdecode(address)
    return f"@{text[1:]}" if text.startswith("\0") else text
