"""
All listeners: those that the operator named, and those that apps have asked
for.  Runs in the master.

What an app asks for is bound once, and held as long as any worker wants it:
over crashes, and over reloads, in which the next generation gets the same
socket.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_cluster.errors import ClusterError
from twisted_cluster.events import EventStream, ListenerState
from twisted_cluster.interfaces import ListenerStatus
from twisted_cluster.master.datagrams import DatagramListener
from twisted_cluster.master.dispatcher import Dispatcher
from twisted_cluster.master.listener import BindRequest, Listener, bind, bindRequested

LATE_PATIENCE = 60.0
"""Seconds for which a listener that was asked for after start-up is held although
no worker asks for it: the next generation may take its time as well."""


class NotBound(ClusterError):
    """
    What an app asked for can't be bound.

    @ivar errno: What the system said, or 0.
    @ivar reason: The same in words.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = number
        self.reason = reason


class Listeners:
    """
    Owns the listeners.  A number once given stands for one listener, for ever.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        dispatcher: Dispatcher,
        events: EventStream,
        now: Callable[[], float],
        inherited: Collection[int] = (),
    ) -> None:
        """
        @param inherited: Listening descriptors that whoever started this
            process has left to it, and an app may ask for.
        """
        self._inherited = {number: _identity(number) for number in inherited}
        self._closed = False
        self._reactor = reactor
        self._dispatcher = dispatcher
        self._events = events
        self._now = now
        self._count = 0
        self._open: dict[int, Listener | DatagramListener] = {}
        self._named: list[Listener] = []
        self._requests: dict[BindRequest, int] = {}
        self._claims: dict[int, dict[Hashable, int]] = {}
        self._late: set[int] = set()
        self._closing: dict[int, IDelayedCall] = {}

    def __iter__(self) -> Iterator[Listener | DatagramListener]:
        return iter(tuple(self._open.values()))

    @property
    def named(self) -> Sequence[Listener]:
        """Those that the operator named, whose numbers are their indexes."""
        return self._named

    def statuses(self) -> tuple[ListenerStatus, ...]:
        """
        Every listener now.
        """
        return tuple(listener.status() for listener in self)

    def bindNamed(self, names: Sequence[str]) -> None:
        """
        Bind endpoint strings.

        @raise ListenError: if one can't be bound; then none is.
        """
        ports: list[Any] = []
        try:
            for name in names:
                ports.append(bind(self._reactor, name))
        except ClusterError:
            for port in ports:
                port.stopListening()
            raise
        self._named = [self._add(name, port) for name, port in zip(names, ports)]

    def claim(
        self, claimant: Hashable, slot: int, request: BindRequest, late: bool = False
    ) -> tuple[int, int]:
        """
        Give C{claimant}, a worker, what it asks for.

        @param late: Whether it was Ready before it asked.
        @return: The number of the listener, and the master's copy of the
            socket.
        @raise NotBound: if it can't be had.
        """
        if self._closed:
            raise NotBound(errno.ECANCELED, "the master is stopping")
        try:
            listener = self._find(request) or self._bind(request)
            descriptor = (
                listener.socketOf(slot).fileno()
                if isinstance(listener, DatagramListener)
                else listener.fileno()
            )
        except CannotListenError as error:
            raise _notBound(error.socketError) from error
        except (OSError, OverflowError, TypeError, ValueError) as error:
            raise _notBound(error) from error
        self._claims.setdefault(listener.number, {})[claimant] = slot
        if late:
            self._late.add(listener.number)
        self._keepOpen(listener.number)
        return listener.number, descriptor

    def unclaim(self, claimant: Hashable, number: int, leaving: bool = False) -> None:
        """
        A worker listens there no more.  If no other does either, the listener
        is closed, unless the operator named it.

        @param leaving: Whether that is only since the worker ends; then the
            listener is held for its successor.
        """
        claims = self._claims.get(number, {})
        if leaving:
            claims.pop(claimant, None)
            return
        slot = claims.pop(claimant, None)
        listener = self._open.get(number)
        if slot is None or listener is None:
            return
        if isinstance(listener, DatagramListener) and slot not in claims.values():
            listener.leave(slot)
        if not claims and not self._isKept(listener):
            self._close(listener)

    def gone(self, claimant: Hashable) -> None:
        """
        A worker has ended.  What it wanted stays open, for its successor.
        """
        for claims in self._claims.values():
            claims.pop(claimant, None)

    def claimedBy(self, claimant: Hashable) -> frozenset[int]:
        """
        The numbers of what a worker has asked for, and wants still.
        """
        return frozenset(number for number, claims in self._claims.items() if claimant in claims)

    def sweep(self, slots: int) -> None:
        """
        Every slot is served again: close what nobody has asked for, and the
        datagram sockets of slots that are no more.

        @param slots: How many there are.
        """
        for listener in self:
            claims = self._claims.get(listener.number, {})
            if isinstance(listener, DatagramListener):
                listener.keep(set(claims.values()) | set(range(slots)))
            if not claims and not self._isKept(listener):
                if listener.number in self._late:
                    self._closeLater(listener)
                else:
                    self._close(listener)

    def slotFailed(self, slot: int) -> None:
        """
        No worker will read what a slot is sent: leave it to the others.
        """
        for listener in self:
            if isinstance(listener, DatagramListener):
                listener.leave(slot)

    def close(self) -> Deferred[Any]:
        """
        Close all.

        @return: A Deferred that fires when that is done.
        """
        self._closed = True
        for number in tuple(self._closing):
            self._keepOpen(number)
        return gatherResults([listener.close() for listener in self])

    def _isKept(self, listener: Listener | DatagramListener) -> bool:
        """
        Whether it is not this process's to open again.
        """
        inherited = listener.name.startswith("fd:")
        return listener.number < len(self._named) or inherited

    def _closeLater(self, listener: Listener | DatagramListener) -> None:
        """
        Close it unless somebody asks for it in time.
        """
        if listener.number not in self._closing:
            self._closing[listener.number] = self._reactor.callLater(
                LATE_PATIENCE, self._close, listener
            )

    def _keepOpen(self, number: int) -> None:
        closing = self._closing.pop(number, None)
        if closing is not None and closing.active():
            closing.cancel()

    def _close(self, listener: Listener | DatagramListener) -> None:
        self._keepOpen(listener.number)
        self._late.discard(listener.number)
        self._claims.pop(listener.number, None)
        del self._open[listener.number]
        self._requests = {
            request: number
            for request, number in self._requests.items()
            if number != listener.number
        }
        if listener.state is ListenerState.CLOSED:
            return
        listener.closeNow()
        self._dispatcher.abandon(listener.number, "the app listens there no more")
        self.log.info("closed {name}: the app listens there no more", name=listener.name)

    def _find(self, request: BindRequest) -> Listener | DatagramListener | None:
        number = self._requests.get(request)
        if number is not None:
            return self._open[number]
        for listener in self._named:
            if _matches(request, listener) or self._isInherited(request, listener):
                return listener
        for other in self:
            if isinstance(other, Listener) and _isSame(request, other):
                return other
        return None

    def _isInherited(self, request: BindRequest, listener: Listener) -> bool:
        """
        Whether what an app asks for by its number is what C{listener} was made
        of, whatever the operator has called that.
        """
        if request.kind != "descriptor" or request.port not in self._inherited:
            return False
        return self._inherited[request.port] == _identity(listener.fileno())

    def _bind(self, request: BindRequest) -> Listener | DatagramListener:
        listener: Listener | DatagramListener
        if request.kind == "udp":
            listener = DatagramListener(
                self._count, str(request), (request.address, request.port), self._now
            )
            self._register(listener)
        elif request.kind == "descriptor" and not self._isThere(request.port):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        elif request.kind in ("tcp", "unix", "descriptor"):
            listener = self._add(str(request), bindRequested(self._reactor, request))
        else:
            raise ValueError(f"there is no kind of port called {request.kind!r}")
        self._requests[request] = listener.number
        return listener

    def _isThere(self, descriptor: int) -> bool:
        """
        Whether an inherited descriptor is what it was, and not something that
        has got its number since.
        """
        was = self._inherited.get(descriptor)
        return was is not None and was == _identity(descriptor)

    def _add(self, name: str, port: Any) -> Listener:
        listener = Listener(
            self._count, name, port, self._dispatcher, self._reactor, self._events, self._now
        )
        self._register(listener)
        return listener

    def _register(self, listener: Listener | DatagramListener) -> None:
        self._open[self._count] = listener
        self._count += 1
        status = listener.status()
        self.log.info(
            "listening on {name}, bound to {address}", name=status.name, address=status.address
        )


def _matches(request: BindRequest, listener: Listener) -> bool:
    """
    Whether what an app asks for is what the operator named.
    """
    address = listener.address
    if request.kind == "unix":
        return not isinstance(address, tuple) and _samePath(request.address, address)
    if request.kind != "tcp" or not isinstance(address, tuple) or request.port != address[1]:
        return False
    return request.address in ("", address[0]) or address[0] in ("0.0.0.0", "::")


def _isSame(request: BindRequest, listener: Listener) -> bool:
    """
    Whether what an app asks for is bound already, under whatever name.
    """
    address = listener.address
    if request.kind == "unix":
        return not isinstance(address, tuple) and _samePath(request.address, address)
    asked = (request.address or "0.0.0.0", request.port)
    return request.kind == "tcp" and isinstance(address, tuple) and asked == address[:2]


def _identity(descriptor: int) -> tuple[int, int]:
    """
    What is behind a descriptor: the same for each copy of it.
    """
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _samePath(path: str, address: Any) -> bool:
    bound = os.fsdecode(address)
    return path == bound or (
        not path.startswith("\0") and os.path.abspath(path) == os.path.abspath(bound)
    )


def _notBound(error: Any) -> NotBound:
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror) or not isinstance(number, int):
        return NotBound(errno.EADDRNOTAVAIL, str(error))
    return NotBound(number, os.strerror(number))
