"""
Tests for L{twisted_cluster.worker.migration}: connections that go on in
another worker.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.worker.case import EchoFactory, SessionTestCase, Slow
from tests.worker.test_session import GET, Echo
from twisted_cluster.errors import ConnectionMigrated
from twisted_cluster.interfaces import IMigratable
from twisted_cluster.wire import commands, state


@implementer(IMigratable)
class Counter(Protocol):
    """
    Counts what it gets, across workers.
    """

    def __init__(self) -> None:
        self.count = 0
        self.idle = True
        self.began = ""
        self.reasons: list[Failure] = []

    def connectionMade(self) -> None:
        """Note."""
        self.began = "made"

    def dataReceived(self, data: bytes) -> None:
        """Count."""
        self.count += len(data)
        assert self.transport is not None
        self.transport.write(b"%d " % self.count)

    def isIdle(self) -> bool:
        """Tell."""
        return self.idle

    def migrationState(self) -> Any:
        """Tell."""
        return {"count": self.count}

    def resume(self, carried: Any) -> None:
        """Go on."""
        self.began = "resumed"
        self.count = carried["count"]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note."""
        self.reasons.append(reason)


class MigrationTests(SessionTestCase):
    """
    A drain that gives connections back.
    """

    def give(self, offer: int = 0) -> list[int]:
        """
        Take all of an offer.

        @return: The descriptors.
        """
        numbers, _, _, descriptors = self.master.offers[offer]
        self.master.callRemote(commands.Taken, taken=numbers, declined=[])
        self.reactor.settle()
        return descriptors

    def test_idle(self) -> None:
        """
        An idle HTTP connection is offered at once; when it is taken it is over
        here, and for the client nothing has happened.
        """
        self.begin(self.site())
        (client,) = self.connect()
        self.drain(1.0, migrate=True)
        ((_, listeners, states, descriptors),) = self.master.offers
        self.assertEqual((listeners, states, len(descriptors)), ([0], [b""], 1))
        self.give()
        self.wait(0.3)
        self.assertEqual(self.master.heard, ["Ready", "Offer", "Drained"])
        self.assertEqual((self.master.closed, self.read(client)), (1, b""))
        os.write(descriptors[0], b"still here")
        self.assertEqual(self.read(client), b"still here")

    def test_touchedFirst(self) -> None:
        """
        The master lets go of its own copy before it is offered one.
        """
        self.begin(self.site())
        self.connect(2)
        self.drain(1.0, migrate=True)
        self.assertEqual(self.master.touched, [0, 1])
        self.assertEqual(self.master.received, 2)

    def test_unread(self) -> None:
        """
        What the client sends meanwhile waits for the next owner.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect()
        self.drain(1.0, migrate=True)
        client.sendall(GET)
        self.reactor.settle()
        (descriptor,) = self.give()
        self.wait(0.3)
        self.assertEqual((slow.requests, os.read(descriptor, 100)), ([], GET))

    def test_inFlight(self) -> None:
        """
        A request that is being worked at is answered first; the response does
        not announce a close.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET)
        self.reactor.settle()
        self.drain(1.0, migrate=True)
        self.wait(5)
        self.assertEqual(self.master.offers, [])
        slow.requests[0].write(b"hello")
        slow.requests[0].finish()
        answer = self.read(client)
        self.assertIn(b"200 OK", answer)
        self.assertNotIn(b"Connection: close", answer)
        self.assertEqual(len(self.master.offers), 1)
        self.give()
        self.wait(0.3)
        self.assertIn("Drained", self.master.heard)
        self.assertEqual(self.read(client), b"")

    def test_declined(self) -> None:
        """
        What nobody takes is served on and closed as in any drain.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect()
        self.drain(1.0, migrate=True)
        ((numbers, _, _, _),) = self.master.offers
        self.master.callRemote(commands.Taken, taken=[], declined=numbers)
        client.sendall(GET)
        self.reactor.settle()
        slow.requests[0].finish()
        answer = self.read(client)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"<end>"))
        self.wait(1.3)
        self.assertEqual(self.master.heard, ["Ready", "Offer", "Drained"])

    def test_clientGone(self) -> None:
        """
        A client that is gone by then is no reason to wait.
        """
        self.begin(self.site())
        (client,) = self.connect()
        client.close()
        self.drain(0.2, migrate=True)
        for offer in range(len(self.master.offers)):
            self.give(offer)
        self.wait(1)
        self.assertIn("Drained", self.master.heard)

    def test_masterGone(self) -> None:
        """
        If the master dies before it has answered, the connection is served on
        here.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect()
        self.drain(1.0, migrate=True)
        for _, _, _, descriptors in self.master.offers:
            for descriptor in descriptors:
                os.close(descriptor)
        self.master.offers.clear()
        self.master.transport.abort()
        client.sendall(GET)
        self.reactor.settle()
        slow.requests[0].finish()
        self.assertIn(b"200 OK", self.read(client))
        self.wait(1.5)
        self.assertEqual(self.exits, [0])

    def test_many(self) -> None:
        """
        Many connections travel in several offers, each of them once.
        """
        self.begin(self.site())
        for _ in range(5):
            self.connect(10)
            self.reactor.settle()
        self.drain(1.0, migrate=True)
        numbers = [number for offer in self.master.offers for number in offer[0]]
        self.assertEqual(sorted(numbers), list(range(50)))
        self.assertGreater(len(self.master.offers), 1)
        for offer in range(len(self.master.offers)):
            self.give(offer)
        self.wait(0.3)
        self.assertEqual(self.master.heard[-1], "Drained")
        self.assertEqual(self.master.closed, 50)

    def test_state(self) -> None:
        """
        A protocol of the app's own takes its state along; the old instance
        hears that its connection goes on, the new one resumes.
        """
        factory = EchoFactory(Counter)
        self.begin(factory)
        (client,) = self.connect(send=b"abc")
        self.assertEqual(self.read(client), b"3 ")
        self.drain(1.0, migrate=True)
        ((_, _, (carried,), (descriptor,)),) = self.master.offers
        self.assertEqual(state.decode(carried), {"count": 3})
        self.give()
        factory.made[0].reasons[0].trap(ConnectionMigrated)
        self.assertEqual(len(factory.made[0].reasons), 1)
        successor = type(self)("test_state")
        successor.setUp()
        self.addCleanup(successor.doCleanups)
        successor.begin(EchoFactory(Counter))
        box = commands.encode(commands.Resume, first=0, listeners=[0], states=[carried])
        successor.master.transport.writeWithDescriptors(box, [descriptor])
        successor.reactor.settle()
        client.sendall(b"de")
        successor.reactor.settle()
        self.assertEqual(self.read(client), b"5 ")

    def test_busy(self) -> None:
        """
        It is asked from time to time, and offered when it is idle.
        """
        factory = EchoFactory(Counter)
        self.begin(factory)
        self.connect(send=b"abc")
        self.reactor.settle()
        factory.made[0].idle = False
        self.drain(0.1, migrate=True)
        self.wait(2)
        self.assertEqual(self.master.offers, [])
        factory.made[0].idle = True
        self.wait(0.3)
        self.assertEqual(len(self.master.offers), 1)

    def test_raises(self) -> None:
        """
        One that fails at it keeps its connection here and hurts no other.
        """

        class Broken(Counter):
            """Fails."""

            def migrationState(self) -> Any:
                """Fail."""
                raise RuntimeError("it broke")

        factory = EchoFactory(Broken)
        self.begin(factory)
        clients = self.connect(2, send=b"abc")
        self.reactor.settle()
        factory.made[1].migrationState = lambda: {}
        self.drain(0.1, migrate=True)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        ((numbers, _, _, _),) = self.master.offers
        self.assertEqual(len(numbers), 1)
        self.give()
        clients[0].sendall(b"de")
        self.assertEqual(self.read(clients[0]), b"3 5 ")
        clients[0].close()
        self.wait(0.5)
        self.assertEqual(self.master.heard[-1], "Drained")

    def test_isIdleRaises(self) -> None:
        """
        So does one that fails when it is asked whether it is idle.
        """

        class Broken(Counter):
            """Fails."""

            def isIdle(self) -> bool:
                """Fail."""
                raise RuntimeError("it broke")

        self.begin(EchoFactory(Broken))
        (client,) = self.connect(send=b"abc")
        self.reactor.settle()
        self.drain(0.1, migrate=True)
        self.wait(0.5)
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        self.assertEqual(self.read(client), b"3 ")
        client.close()
        self.wait(0.5)
        self.assertEqual(self.master.heard[-1], "Drained")
        self.flushLoggedErrors(RuntimeError)

    def test_wrongProtocol(self) -> None:
        """
        If the new code can't go on with a connection, that one is closed and
        the log says why.
        """
        self.begin(EchoFactory(Echo))
        client = socket.create_connection(self.listening[0].getsockname(), 10)
        self.addCleanup(client.close)
        accepted, _ = self.listening[0].accept()
        box = commands.encode(
            commands.Resume, first=0, listeners=[0], states=[state.encode({"a": 1})]
        )
        self.master.transport.writeWithDescriptors(box, [accepted.fileno()])
        self.reactor.settle()
        accepted.close()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.wait(0.1)
        self.assertEqual((self.master.received, self.master.closed), (1, 1))
