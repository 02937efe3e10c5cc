"""
Tests for L{twisted_cluster.master.datagrams}.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import freePort, isOpen
from twisted_cluster.events import ListenerState
from twisted_cluster.master.datagrams import DatagramListener


class DatagramListenerTests(SynchronousTestCase):
    """
    One socket for each slot.
    """

    def listener(self, host: str = "127.0.0.1", port: int | None = None) -> DatagramListener:
        """
        A listener on a free port.
        """
        number = freePort(socket.SOCK_DGRAM) if port is None else port
        made = DatagramListener(3, f"udp:{number}", (host, number))
        self.addCleanup(made.close)
        return made

    def receivers(self, listener: DatagramListener, peers: list[Any]) -> list[int]:
        """
        The slot that gets what each of C{peers} sends.
        """
        host, port = listener._address
        found = []
        for peer in peers:
            peer.sendto(b"x", (host or "127.0.0.1", port))
            slots = {one.fileno(): slot for slot, one in listener._sockets.items()}
            (ready, _, _) = select.select(list(slots), [], [], 10)
            self.assertEqual(len(ready), 1)
            os.read(ready[0], 10)
            found.append(slots[ready[0]])
        return found

    def peers(self, count: int) -> list[Any]:
        """
        Sockets to send from.
        """
        made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for peer in made:
            self.addCleanup(peer.close)
            peer.bind(("127.0.0.1", 0))
        return made

    def test_spread(self) -> None:
        """
        Peers are spread over the slots, and each keeps its own.
        """
        listener = self.listener()
        for slot in (0, 1):
            listener.socketOf(slot)
        peers = self.peers(64)
        first = self.receivers(listener, peers)
        self.assertEqual(set(Counter(first)), {0, 1})
        self.assertEqual(self.receivers(listener, peers), first)

    def test_same(self) -> None:
        """
        A slot has one socket, however often it is asked for.
        """
        listener = self.listener()
        self.assertIs(listener.socketOf(0), listener.socketOf(0))
        self.assertFalse(listener.socketOf(0).getblocking())

    def test_leave(self) -> None:
        """
        What a slot got goes to the others when it leaves.
        """
        listener = self.listener()
        for slot in (0, 1):
            listener.socketOf(slot)
        peers = self.peers(32)
        descriptor = listener.socketOf(0).fileno()
        listener.leave(0)
        listener.leave(0)
        self.assertFalse(isOpen(descriptor))
        self.assertEqual(set(self.receivers(listener, peers)), {1})

    def test_keep(self) -> None:
        """
        Those of slots that are no more are closed.
        """
        listener = self.listener()
        for slot in range(4):
            listener.socketOf(slot)
        listener.keep({0, 1})
        self.assertEqual(sorted(listener._sockets), [0, 1])

    def test_taken(self) -> None:
        """
        An address that somebody else has is refused, though he would share
        it, and nothing is left open.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            error = self.assertRaises(OSError, self.listener, port=port)
            self.assertEqual(error.errno, errno.EADDRINUSE)

    def test_inet6(self) -> None:
        """
        An address of IPv6 is one.
        """
        listener = self.listener("::1")
        self.assertEqual(listener.socketOf(0).family, socket.AF_INET6)

    def test_status(self) -> None:
        """
        It is the workers who read.
        """
        listener = self.listener("", 0)
        status = listener.status()
        self.assertEqual((status.state, status.accepted), (ListenerState.SHARED, 0))
        self.successResultOf(listener.close())
        self.assertIs(listener.state, ListenerState.CLOSED)
        self.assertEqual(listener._sockets, {})
