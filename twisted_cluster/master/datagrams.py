"""
UDP listeners: one socket for each slot, all bound to the same address, among
which the kernel spreads datagrams by the addresses of their senders.  Runs in
the master, which never touches a datagram itself.

The kernel's choice stays the same as long as the group of sockets does, so a
peer keeps its slot.  The sockets outlive the workers: what comes while a slot
has no worker, or passes from one to the next, waits in the socket.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, succeed

from twisted_cluster.events import ListenerState
from twisted_cluster.interfaces import ListenerStatus


class DatagramListener:
    """
    One UDP address and its sockets.

    @ivar number: Its number on the wire.
    @ivar name: What logs and status call it.
    @ivar accepted: Always 0: it is the workers who read.
    """

    accepted = 0

    def __init__(
        self,
        number: int,
        name: str,
        address: tuple[str, int],
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @raise OSError: if the address is taken, or can't be had.
        """
        self.number = number
        self.name = name
        self.state = ListenerState.SHARED
        self._address = address
        self._family = socket.AF_INET6 if isIPv6Address(address[0]) else socket.AF_INET
        self._sockets: dict[int, socket.socket] = {}
        # One that insists on being alone finds out whether somebody else,
        # another cluster for instance, is there already.
        with socket.socket(self._family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)

    def status(self) -> ListenerStatus:
        """
        This listener now.
        """
        host, port = self._address
        return ListenerStatus(self.name, f"{host or '0.0.0.0'}:{port}", self.state, self.accepted)

    def socketOf(self, slot: int) -> socket.socket:
        """
        The socket of a slot; a new one, if it has none yet.

        @raise OSError: if it can't be bound.
        """
        found = self._sockets.get(slot)
        if found is None:
            found = socket.socket(self._family, socket.SOCK_DGRAM)
            try:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                found.setblocking(False)
                found.bind(self._address)
            except OSError:
                found.close()
                raise
            self._sockets[slot] = found
        return found

    def leave(self, slot: int) -> None:
        """
        A slot reads no datagrams any more: the others get its share.
        """
        left = self._sockets.pop(slot, None)
        if left is not None:
            left.close()

    def keep(self, slots: Collection[int]) -> None:
        """
        Close the sockets of all other slots.
        """
        for slot in [one for one in self._sockets if one not in slots]:
            self.leave(slot)

    def capacityChanged(self) -> None:
        """
        Nothing is accepted here.
        """

    def share(self) -> None:
        """
        The workers read for themselves anyway.
        """

    def close(self) -> Deferred[Any]:
        """
        Close all sockets.
        """
        self.closeNow()
        return succeed(None)

    def closeNow(self) -> None:
        """
        The same.
        """
        self.state = ListenerState.CLOSED
        self.keep(())
