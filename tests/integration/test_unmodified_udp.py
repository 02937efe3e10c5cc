"""
UDP servers that know nothing of clusters.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from tests.integration.harness import PATIENCE, Cluster, endOf, reactor, within
from tests.integration.unmodified import UnmodifiedTestCase, Visit, app, freePort

_numbers = itertools.count()


class Peer(DatagramProtocol):
    """
    A client with an address of its own.
    """

    transport: Any

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._answer: Deferred[bytes] | None = None

    def startProtocol(self) -> None:
        """Speak to nobody but the server."""
        self.transport.connect(*self._server)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """An answer, or one too many."""
        answer, self._answer = self._answer, None
        assert answer is not None, datagram
        answer.callback(datagram)

    def say(self, datagram: bytes) -> Deferred[bytes]:
        """
        Send a datagram, once, and await the answer.
        """
        self._answer = Deferred()
        self.transport.write(datagram)
        return within(PATIENCE, "an answer to a datagram", self._answer, lambda: repr(datagram))


class DatagramVisit(Visit):
    """
    A peer of an echo server.  There is no connection that could end.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._left: Deferred[Any] | None = None
        self._pid: int | None = None

    @classmethod
    async def opened(cls, port: int) -> DatagramVisit:
        """
        Take an address.
        """
        peer = Peer(port)
        reactor.listenUDP(0, peer, interface="127.0.0.1")
        return cls(peer)

    async def ask(self) -> None:
        """Have a datagram echoed."""
        said = b"datagram %d" % next(_numbers)
        found = re.fullmatch(rb"(\d+) (.*)", await self.peer.say(said))
        if found is None or found[2] != said:
            raise AssertionError(f"{found} for {said!r}")
        self._pid = int(found[1])

    def owner(self, cluster: Cluster) -> int | None:
        """Who has answered last."""
        return self._pid

    def slot(self, cluster: Cluster) -> int:
        """
        Its slot.
        """
        assert self._pid is not None
        return cluster.workers[self._pid].slot

    def leave(self) -> None:
        """Give the address back."""
        if self._left is None:
            self._left = maybeDeferred(self.peer.transport.stopListening)

    def lost(self) -> Deferred[Any]:
        """Nobody else ends it."""
        self.leave()
        assert self._left is not None
        return self._left

    @property
    def isOpen(self) -> bool:
        """Whether it has an address."""
        return self._left is None


class DatagramTests(UnmodifiedTestCase):
    """
    An echo server.
    """

    async def _echo(self) -> tuple[Cluster, int]:
        port = freePort(socket.SOCK_DGRAM)
        return await self.serve("--script", app("udp_echo.py"), str(port)), port

    async def test_echo(self) -> None:
        """
        It does what has to hold for all.
        """
        cluster, port = await self._echo()
        await self.prove(cluster, lambda: DatagramVisit.opened(port))

    async def test_peersKeepTheirSlot(self) -> None:
        """
        Many peers are spread over both slots.  Each stays at its slot over a
        reload and over the death of a worker, and each datagram is answered:
        during the reload, and even if it came while its slot had no worker.
        """
        cluster, port = await self._echo()
        peers = [await DatagramVisit.opened(port) for _ in range(64)]
        await self._ask(peers)
        slots = [peer.slot(cluster) for peer in peers]
        self.assertGreater(min(slots.count(0), slots.count(1)), 10)
        await self._whileReloading(cluster, peers, slots)
        victim = cluster.ready()[0]
        os.kill(victim, signal.SIGKILL)
        await endOf(victim)
        await self._ask(peers)
        await cluster.says(f"pid {victim}] exited: killed by SIGKILL")
        await cluster.allReady(2)
        self.assertEqual([peer.slot(cluster) for peer in peers], slots)
        self.assertEqual({peer.owner(cluster) for peer in peers}, set(cluster.ready().values()))
        await self.leave(peers)

    async def _whileReloading(
        self, cluster: Cluster, peers: list[DatagramVisit], slots: list[int]
    ) -> None:
        done: list[bool] = []

        answered: set[tuple[int | None, int]] = set()

        async def goOn(peer: DatagramVisit, slot: int) -> None:
            while not done:
                await peer.ask()
                answered.add((peer.owner(cluster), slot))

        talks = [Deferred.fromCoroutine(goOn(*pair)) for pair in zip(peers, slots)]
        for generation in (2, 3):
            cluster.signal(signal.SIGHUP)
            await cluster.says(f"replacement by generation {generation} done")
        done.append(True)
        await gatherResults(talks)
        self.assertLessEqual(answered, {(one.pid, one.slot) for one in cluster.workers.values()})
        await self._ask(peers)
        self.assertEqual({cluster.workers[one._pid or 0].generation for one in peers}, {3})
