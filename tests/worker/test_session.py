"""
Tests for L{twisted_cluster.worker.session}, over a genuine channel.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from tests.support import Lines, limitDescriptors, openDescriptors
from tests.worker.case import EchoFactory, SessionTestCase, Slow
from twisted_cluster.errors import AppLoadError
from twisted_cluster.interfaces import IDrainable
from twisted_cluster.testing import pretendWorker
from twisted_cluster.wire import commands
from twisted_cluster.worker import session
from twisted_cluster.worker.loader import WrongName
from twisted_cluster.worker.session import SILENT_LIMIT, encodeBootFailed

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Echo(Protocol):
    """
    Sends back what it gets.
    """

    def dataReceived(self, data: bytes) -> None:
        """Echo."""
        assert self.transport is not None
        self.transport.write(data)


class Greeting(Protocol):
    """
    Speaks first.
    """

    def connectionMade(self) -> None:
        """Greet."""
        assert self.transport is not None
        self.transport.write(b"220 ready\r\n")


class BootTests(SessionTestCase):
    """
    From the object that was found to Ready.
    """

    def test_ready(self) -> None:
        """
        The factory is started, then the worker says that it is Ready, and
        that it lives.
        """
        factory = EchoFactory(Echo)
        self.begin(factory)
        self.assertEqual((self.master.heard, factory.started), (["Ready"], 1))
        self.wait(10)
        self.assertEqual(self.master.beats, 6)

    def test_deferred(self) -> None:
        """
        An app that takes time to make is waited for.
        """
        made: Deferred[Any] = Deferred()
        self.begin(lambda: made)
        self.assertEqual(self.master.heard, [])
        made.callback(EchoFactory(Echo))
        self.reactor.settle()
        self.assertEqual(self.master.heard, ["Ready"])

    def test_coroutine(self) -> None:
        """
        So is a coroutine.
        """

        async def make() -> EchoFactory:
            await succeed(None)
            return EchoFactory(Echo)

        self.begin(make)
        self.assertEqual(self.master.heard, ["Ready"])

    def test_serviceDeferred(self) -> None:
        """
        A service whose start gives a Deferred is Ready when that has fired.
        """
        started: Deferred[None] = Deferred()

        class Starting(Service):
            """Takes time to start."""

            def startService(self) -> Any:
                """Start."""
                return started

        self.interceptHere()
        self.begin(Starting())
        self.assertEqual(self.master.heard, [])
        started.callback(None)
        self.reactor.settle()
        self.assertEqual(self.master.heard, ["Ready"])

    def interceptHere(self) -> None:
        """
        Undo after the test what the session does to Twisted's ports.
        """
        from twisted.internet import tcp, unix

        self.patch(tcp.Port, "startListening", tcp.Port.startListening)
        self.patch(unix.Port, "startListening", unix.Port.startListening)

    def assertFailed(self, fault: str, reason: str, trace: str) -> None:
        """
        The worker has said why, and exits with 1.
        """
        ((saidFault, saidReason, saidTrace),) = self.master.failures
        self.assertEqual(saidFault, fault)
        self.assertIn(reason, saidReason)
        self.assertIn(trace, saidTrace)
        self.assertEqual((self.exits, self.master.heard), ([1], ["BootFailed"]))
        self.assertTrue(self.master.lost)

    def test_wrongName(self) -> None:
        """
        What can't be served is the operator's fault.
        """
        self.begin(3)
        self.assertFailed("operator", "app hello:app is a int; it must be", "")

    def test_wrongResult(self) -> None:
        """
        So is a Deferred of what can't be.
        """
        self.begin(lambda: succeed(3))
        self.assertFailed("operator", "app hello:app returned a int; it must return", "")

    def test_raises(self) -> None:
        """
        An app that fails when it is made is at fault itself; the log has its
        traceback.
        """
        lines = Lines(self)

        def broken() -> None:
            raise KeyError("DATABASE")

        self.begin(broken)
        self.assertFailed("app", "app hello:app fails to load: KeyError: 'DATABASE'", "in broken")
        self.assertIn("in broken", lines.grave()[0])

    def test_fails(self) -> None:
        """
        So is one whose Deferred fails.
        """
        self.begin(lambda: fail(RuntimeError("no database")))
        self.assertFailed("app", "app hello:app fails to start: RuntimeError: no database", "")

    def test_serviceFails(self) -> None:
        """
        So is a service that can't be started.
        """

        class Broken(Service):
            """Can't be started."""

            def startService(self) -> None:
                """Fail."""
                raise RuntimeError("no database")

        self.interceptHere()
        self.begin(Broken())
        self.assertFailed("app", "fails to start: RuntimeError: no database", "startService")

    def test_serviceCantBind(self) -> None:
        """
        One that fails before it is started, where ports are bound, is not
        stopped either: it need not be able to.
        """
        stops: list[bool] = []

        class Broken(Service):
            """Can't be bound."""

            def privilegedStartService(self) -> None:
                """Fail."""
                raise RuntimeError("no port")

            def stopService(self) -> None:
                """Remember."""
                stops.append(True)

        self.interceptHere()
        self.begin(Broken())
        self.assertFailed("app", "fails to start: RuntimeError: no port", "privilegedStartService")
        self.assertEqual(stops, [])

    def test_encodeBootFailed(self) -> None:
        """
        However long and strange the reason is, it can be told.
        """
        for error in (
            AppLoadError("x" * 100_000, "y\u00e9" * 100_000),
            WrongName("\udcff", "\udcff"),
        ):
            data = encodeBootFailed(error)
            self.assertLess(len(data), 60_000)
        self.assertIn(b"operator", data)


class SocketTests(SessionTestCase):
    """
    Sockets that are handed over.
    """

    def test_served(self) -> None:
        """
        They are served, acknowledged in one account, and its end is told.
        """
        factory = EchoFactory(Echo)
        self.begin(factory)
        clients = self.connect(3, send=b"hello")
        self.assertEqual([self.read(client) for client in clients], [b"hello"] * 3)
        self.assertEqual((self.master.received, self.master.touched), (3, [0, 1, 2]))
        self.assertEqual(self.master.accounts, 1)
        self.assertEqual(factory.made[0].address.host, "127.0.0.1")
        self.assertEqual(
            factory.made[0].transport.getHost().port, self.plan.listeners[0].address[1]
        )
        for client in clients[:2]:
            client.close()
        self.wait(0.1)
        self.assertEqual(self.master.closed, 2)

    def test_touch(self) -> None:
        """
        What the protocol writes is a touch as well.
        """
        self.begin(EchoFactory(Greeting))
        (client,) = self.connect()
        self.assertEqual(self.read(client), b"220 ready\r\n")
        self.assertEqual(self.master.touched, [0])

    def test_silent(self) -> None:
        """
        Where nothing happens the arrival is told at once, and the touch only
        after a while: until then another worker could take over.
        """
        self.begin(EchoFactory(Echo))
        self.connect(2)
        self.reactor.settle()
        self.assertEqual((self.master.received, self.master.touched), (2, []))
        self.wait(2 * SILENT_LIMIT + 0.1)
        self.assertEqual(self.master.touched, [0, 1])

    def test_manySilent(self) -> None:
        """
        No more of them are kept that way than the master can be asked to hold.
        """
        self.patch(session, "SILENT_MOST", 16)
        self.begin(EchoFactory(Echo))
        self.connect(10)
        self.connect(10)
        self.reactor.settle()
        self.assertEqual(self.master.touched, [0, 1, 2, 3])

    def test_reset(self) -> None:
        """
        A client that has reset its connection meanwhile is acknowledged and
        over.
        """
        self.begin(EchoFactory(Echo))
        listening = self.listening[0]
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        self.master.hand([accepted.fileno()])
        self.reactor.settle()
        accepted.close()
        self.wait(0.1)
        self.assertEqual((self.master.received, self.master.closed), (1, 1))
        self.assertEqual(self.master.touched, [0])

    def test_rejected(self) -> None:
        """
        So is a connection that the app does not want, or fails at; it is
        closed.
        """
        factory = EchoFactory(lambda: 1 / 0)
        self.begin(factory)
        (first,) = self.connect()
        self.assertEqual(self.read(first), b"<end>")
        self.patch(factory, "buildProtocol", lambda address: None)
        (second,) = self.connect()
        self.assertEqual(self.read(second), b"<end>")
        self.wait(0.1)
        self.assertEqual((self.master.closed, self.master.touched), (2, [0, 1]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connectionMadeRaises(self) -> None:
        """
        A protocol that fails at its beginning loses its connection and no
        other one.
        """

        class Broken(Echo):
            """Fails."""

            def connectionMade(self) -> None:
                """Fail."""
                if len(self.factory.made) == 1:
                    raise RuntimeError("it broke")

        self.begin(EchoFactory(Broken))
        clients = self.connect(2, send=b"hello")
        self.reactor.settle()
        self.assertRaises(ConnectionResetError, clients[0].recv, 10)
        self.assertEqual(self.read(clients[1]), b"hello")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.wait(0.1)
        self.assertEqual((self.master.closed, self.master.received), (1, 2))

    def test_nothingListens(self) -> None:
        """
        A socket for which the app does not listen is refused and not served.
        """
        self.begin(EchoFactory(Echo))
        self.session._factoryPorts[0].stopListening()
        before = openDescriptors()
        self.connect(2)
        self.reactor.settle()
        self.assertEqual(
            self.master.refused,
            [([0], "nothing listens on tcp:0"), ([1], "nothing listens on tcp:0")],
        )
        self.assertEqual((self.master.received, self.master.closed), (2, 0))
        self.assertEqual(len(openDescriptors() - before), 2)

    def test_wrongNumber(self) -> None:
        """
        A handoff that does not follow the last one ends the channel.
        """
        lines = Lines(self)
        self.begin(EchoFactory(Echo))
        self.master.sent = 5
        self.connect()
        self.reactor.settle()
        self.assertTrue(self.master.lost)
        self.assertIn(
            "channel of slot 1: protocol violation: a handoff that begins with 5 instead of 0",
            lines.grave(),
        )

    def test_unknownListener(self) -> None:
        """
        A socket of a listener that the app has given up meanwhile is refused.
        """
        self.begin(EchoFactory(Echo))
        client = socket.create_connection(self.listening[0].getsockname())
        self.addCleanup(client.close)
        accepted, _ = self.listening[0].accept()
        self.master.hand([accepted.fileno()], 7)
        self.reactor.settle()
        accepted.close()
        self.assertEqual(self.master.refused, [([0], "nothing listens on listener 7")])
        self.assertFalse(self.master.lost)
        self.assertEqual(client.recv(1), b"")


class ShortageTests(SessionTestCase):
    """
    A worker that is out of descriptors.
    """

    def test_truncated(self) -> None:
        """
        What got lost on the way is refused, what arrived is served, and it
        wants no more until there is room again.
        """
        self.begin(EchoFactory(Echo))
        listening = self.listening[0]
        clients, accepted = [], []
        for _ in range(3):
            client = socket.create_connection(listening.getsockname(), 10)
            self.addCleanup(client.close)
            clients.append(client)
            accepted.append(listening.accept()[0])
            client.sendall(b"hello")
        cleanUps: list[Any] = []
        limitDescriptors(lambda *call: cleanUps.append(call), 2)
        try:
            self.master.hand([one.fileno() for one in accepted])
            self.reactor.settle()
            self.assertEqual(self.master.refused, [([2], "out of descriptors")])
            self.assertIn("Throttle 1", self.master.heard)
            self.wait(1)
            self.assertNotIn("Throttle 0", self.master.heard)
        finally:
            for call, *arguments in cleanUps:
                call(*arguments)
        for one in accepted:
            one.close()
        self.assertEqual([self.read(client) for client in clients[:2]], [b"hello"] * 2)
        self.wait(0.2)
        self.assertEqual(
            [one for one in self.master.heard if one.startswith("Throttle")],
            ["Throttle 1", "Throttle 0"],
        )
        (client,) = self.connect(send=b"again")
        self.assertEqual(self.read(client), b"again")
        self.assertEqual((self.master.received, self.master.sent), (4, 4))

    def test_reserve(self) -> None:
        """
        It wants no more before the last descriptor is gone: the app needs
        some.
        """
        self.begin(EchoFactory(Echo))
        limitDescriptors(self.addCleanup, 20)
        self.connect(send=b"hello")
        self.reactor.settle()
        self.assertEqual(self.master.heard, ["Ready", "Throttle 1"])
        self.assertEqual(self.master.refused, [])


class UnixSessionTests(SessionTestCase):
    """
    Connections of which the kernel does not tell whether they were touched.
    """

    families = (socket.AF_UNIX,)

    def test_toldFirst(self) -> None:
        """
        Their arrival is told before they are read, so that the master can
        tell what a dead worker may have read.
        """
        reads: list[int] = []

        class Late(Echo):
            """Notes what had been told when it read."""

            def dataReceived(inner, data: bytes) -> None:
                """Note."""
                reads.append(self.session.transport.sent)
                super().dataReceived(data)

        self.begin(EchoFactory(Late))
        before = self.session.transport.sent
        (client,) = self.connect(send=b"hello")
        self.assertEqual(self.read(client), b"hello")
        self.assertGreater(reads[0], before)
        self.assertEqual(self.master.touched, [0])

    def test_address(self) -> None:
        """
        The protocol sees where it is.
        """
        factory = EchoFactory(Echo)
        self.begin(factory)
        self.connect()
        self.reactor.settle()
        transport = factory.made[0].transport
        self.assertEqual(os.fsdecode(transport.getHost().name), self.plan.listeners[0].address)


class Inet6SessionTests(SessionTestCase):
    """
    Connections over IPv6.
    """

    families = (socket.AF_INET6, socket.AF_INET)

    def test_served(self) -> None:
        """
        Both listeners are served, with addresses of their own kinds.
        """
        factory = EchoFactory(Echo)
        self.begin(factory)
        (six,) = self.connect(1, 0, b"six")
        (four,) = self.connect(1, 1, b"four")
        self.assertEqual((self.read(six), self.read(four)), (b"six", b"four"))
        self.assertEqual([one.address.host for one in factory.made], ["::1", "127.0.0.1"])
        self.assertEqual(factory.made[0].transport.getHost().host, "::1")


class DrainTests(SessionTestCase):
    """
    A drain loses no request.
    """

    def test_nothingOpen(self) -> None:
        """
        Without connections it is drained at once.
        """
        self.begin(self.site())
        self.drain()
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_twice(self) -> None:
        """
        To be told twice changes nothing.
        """
        self.begin(self.site())
        self.drain()
        self.drain()
        self.wait(5)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_idle(self) -> None:
        """
        An idle HTTP connection is closed when the grace is over, not before.
        """
        self.begin(self.site())
        (client,) = self.connect()
        self.drain(1.0)
        self.wait(0.8)
        self.assertEqual(self.read(client), b"")
        self.assertEqual(self.master.heard, ["Ready"])
        self.wait(0.4)
        self.assertEqual(self.read(client), b"<end>")
        self.wait(0.2)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])
        self.assertEqual(self.master.closed, 1)

    def test_unread(self) -> None:
        """
        A request that waits in the kernel at that moment is answered.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect()
        self.drain(1.0)
        self.wait(0.9)
        client.sendall(GET)
        self.reactor.advance(0.5)
        self.reactor.settle()
        (request,) = slow.requests
        self.wait(2)
        request.write(b"hello")
        request.finish()
        answer = self.read(client)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"<end>"))

    def test_inFlight(self) -> None:
        """
        A request that is being worked at is answered, with C{Connection:
        close}, however long it takes.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET)
        self.reactor.settle()
        self.drain(1.0)
        self.wait(20)
        self.assertEqual(self.master.heard, ["Ready"])
        slow.requests[0].write(b"hello")
        slow.requests[0].finish()
        answer = self.read(client)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"<end>"))
        self.wait(0.2)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_started(self) -> None:
        """
        A response whose head is out already said nothing of a close: the
        connection stays, and is closed when it is idle.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET)
        self.reactor.settle()
        slow.requests[0].write(b"hel")
        self.drain(1.0)
        self.wait(2)
        slow.requests[0].write(b"lo")
        slow.requests[0].finish()
        answer = self.read(client)
        self.assertNotIn(b"Connection: close", answer)
        self.assertFalse(answer.endswith(b"<end>"))
        self.wait(0.2)
        self.assertEqual(self.read(client), b"<end>")

    def test_startedThenAnother(self) -> None:
        """
        If another request comes on it in time, that one is answered and says
        it.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET)
        self.reactor.settle()
        slow.requests[0].write(b"hel")
        self.drain(5.0)
        slow.requests[0].finish()
        self.read(client)
        client.sendall(GET)
        self.reactor.settle()
        slow.requests[1].finish()
        answer = self.read(client)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"<end>"))

    def test_pipelined(self) -> None:
        """
        Of requests that had been sent one after the other in one breath, none
        is dropped without the client being told: the last response that comes
        says that no other will.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET * 3)
        self.reactor.settle()
        self.drain(1.0)
        answers = b""
        for number in range(3):
            if len(slow.requests) <= number:
                break
            slow.requests[number].write(b"hello")
            slow.requests[number].finish()
            answers += self.read(client)
        last = answers[answers.rindex(b"HTTP/1.1 200 OK") :]
        self.assertIn(b"Connection: close\r\n", last)
        self.assertEqual(len(slow.requests), answers.count(b"HTTP/1.1 200 OK"))
        self.assertTrue(answers.endswith(b"<end>"))

    def test_onTheirWay(self) -> None:
        """
        Sockets that arrive after the drain began are served like the others.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (first,) = self.connect(send=GET)
        self.drain(1.0)
        (second,) = self.connect(send=GET)
        self.wait(0.2)
        for request in slow.requests:
            request.finish()
        for client in (first, second):
            self.assertIn(b"Connection: close\r\n", self.read(client))
        self.wait(0.2)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_unknownProtocol(self) -> None:
        """
        A protocol of which nothing is known is left alone until it ends by
        itself, or the master says to stop.
        """
        self.begin(EchoFactory(Echo))
        (client,) = self.connect(send=b"one")
        self.drain(0.0)
        self.wait(20)
        client.sendall(b"two")
        self.assertEqual(self.read(client), b"onetwo")
        self.assertEqual(self.master.heard, ["Ready"])
        client.close()
        self.wait(0.5)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_drainable(self) -> None:
        """
        A protocol that can end in good order is told to, and closed when it
        says that it is idle, not before.
        """

        @implementer(IDrainable)
        class Drainable(Echo):
            """Can be drained."""

            drained = 0
            idle = False

            def drain(self) -> None:
                """Count."""
                self.drained += 1

            def isIdle(self) -> bool:
                """Tell."""
                return self.idle

        factory = EchoFactory(Drainable)
        self.begin(factory)
        (client,) = self.connect(send=b"one")
        self.drain(0.5)
        self.wait(3)
        self.assertEqual((factory.made[0].drained, self.read(client)), (1, b"one"))
        factory.made[0].idle = True
        self.wait(0.3)
        self.assertEqual(self.read(client), b"<end>")
        self.wait(0.3)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_drainableWithParts(self) -> None:
        """
        Whatever attributes such a protocol has, it is the one that is asked.
        """

        @implementer(IDrainable)
        class Subscriber(Echo):
            """Has a channel of another kind."""

            _channel = "news"
            wrappedProtocol = "nothing of ours"
            drained = 0

            def drain(self) -> None:
                """Count."""
                self.drained += 1

            def isIdle(self) -> bool:
                """Tell."""
                return True

        factory = EchoFactory(Subscriber)
        self.begin(factory)
        self.connect()
        self.drain(0.1)
        self.wait(1)
        self.assertEqual(factory.made[0].drained, 1)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])

    def test_unrelatedParts(self) -> None:
        """
        Nor does an attribute that happens to be called like one of twisted.web
        hurt a protocol that can't be drained.
        """

        class Subscriber(Echo):
            """Has a channel of another kind."""

            _channel = "news"

        self.begin(EchoFactory(Subscriber))
        (client,) = self.connect(send=b"one")
        self.drain(0.1)
        self.wait(1)
        self.assertEqual(self.read(client), b"one")
        client.close()
        self.wait(0.5)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drainableRaises(self) -> None:
        """
        One that fails at it hurts no other connection; the log has why, and
        the drain ends when that one is gone too.
        """

        @implementer(IDrainable)
        class Broken(Echo):
            """Fails."""

            def drain(self) -> None:
                """Fail."""
                raise RuntimeError("can't drain")

            def isIdle(self) -> bool:
                """Fail."""
                raise RuntimeError("can't tell")

        self.begin(EchoFactory(Broken))
        clients = self.connect(2, send=b"one")
        self.drain(0.1)
        self.wait(1)
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        for client in clients:
            self.assertEqual(self.read(client), b"one")
            client.close()
        self.wait(0.5)
        self.assertEqual(self.master.heard, ["Ready", "Drained"])
        self.flushLoggedErrors(RuntimeError)


class EndTests(SessionTestCase):
    """
    The end of a worker.
    """

    def test_stop(self) -> None:
        """
        It stops the app, then exits with 0.
        """
        factory = EchoFactory(Echo)
        self.begin(factory)
        self.master.callRemote(commands.Stop)
        self.reactor.settle()
        self.assertEqual((self.exits, factory.started), ([0], 0))

    def test_stopTwice(self) -> None:
        """
        It exits once.
        """
        self.begin(EchoFactory(Echo))
        for _ in range(2):
            self.master.callRemote(commands.Stop)
        self.reactor.settle()
        self.assertEqual(self.exits, [0])

    def test_stopService(self) -> None:
        """
        A service is waited for; one that fails to stop does not hold it up.
        """
        from twisted.internet import tcp, unix

        self.patch(tcp.Port, "startListening", tcp.Port.startListening)
        self.patch(unix.Port, "startListening", unix.Port.startListening)
        stopped: Deferred[None] = Deferred()

        class Stopping(Service):
            """Takes time to stop."""

            def stopService(self) -> Any:
                """Stop."""
                return stopped

        self.begin(Stopping())
        self.master.callRemote(commands.Stop)
        self.reactor.settle()
        self.assertEqual(self.exits, [])
        stopped.errback(RuntimeError("it broke"))
        self.assertEqual(self.exits, [0])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_leave(self) -> None:
        """
        Whoever else tells it to terminate has the master replace it.
        """
        self.begin(EchoFactory(Echo))
        self.session.leave()
        self.reactor.settle()
        self.assertEqual((self.master.heard, self.exits), (["Ready", "Leaving"], []))

    def lose(self) -> Lines:
        """
        Have the master die.
        """
        lines = Lines(self)
        self.master.transport.abort()
        self.reactor.settle()
        return lines

    def test_orphan(self) -> None:
        """
        Invariant 5: without its master it finishes what it serves, says so,
        and goes.
        """
        slow = Slow()
        self.begin(self.site(slow))
        busy, idle = self.connect(2)
        busy.sendall(GET)
        self.reactor.settle()
        lines = self.lose()
        self.assertEqual(
            lines.grave(), ["the master is gone; this worker finishes what it serves and exits"]
        )
        self.wait(3)
        self.assertEqual((self.read(idle), self.exits), (b"<end>", []))
        slow.requests[0].finish()
        self.assertIn(b"200 OK", self.read(busy))
        self.wait(0.3)
        self.assertEqual(self.exits, [0])

    def test_orphanDeadline(self) -> None:
        """
        What takes longer than the drain timeout is given up.
        """
        self.begin(EchoFactory(Echo))
        self.connect(send=b"hello")
        self.reactor.settle()
        self.lose()
        self.wait(29)
        self.assertEqual(self.exits, [])
        self.wait(1.5)
        self.assertEqual(self.exits, [0])

    def test_orphanIdle(self) -> None:
        """
        Without connections it goes at once.
        """
        self.begin(EchoFactory(Echo))
        self.lose()
        self.assertEqual(self.exits, [0])

    def test_orphanDrained(self) -> None:
        """
        So it does if it had been drained already.
        """
        self.begin(EchoFactory(Echo))
        self.drain()
        self.assertEqual(self.exits, [])
        self.lose()
        self.wait(0.5)
        self.assertEqual(self.exits, [0])

    def test_orphanDraining(self) -> None:
        """
        One that drains goes on with it, then goes.
        """
        slow = Slow()
        self.begin(self.site(slow))
        (client,) = self.connect(send=GET)
        self.drain(0.1)
        self.lose()
        self.wait(1)
        self.assertEqual(self.exits, [])
        slow.requests[0].finish()
        self.assertIn(b"200 OK", self.read(client))
        self.wait(0.3)
        self.assertEqual(self.exits, [0])

    def test_orphanTold(self) -> None:
        """
        One that is told to terminate goes at once.
        """
        self.begin(EchoFactory(Echo))
        self.connect(send=b"hello")
        self.reactor.settle()
        self.lose()
        self.session.leave()
        self.assertEqual(self.exits, [0])

    def test_orphanBeforeReady(self) -> None:
        """
        One whose app is still on its way goes too.
        """
        made: Deferred[Any] = Deferred()
        self.begin(lambda: made)
        self.lose()
        self.wait(1)
        self.assertEqual(self.exits, [0])

    def test_undelivered(self) -> None:
        """
        Sockets whose box never came are closed with the channel.
        """
        self.begin(EchoFactory(Echo))
        before = openDescriptors()
        client = socket.create_connection(self.listening[0].getsockname(), 10)
        accepted, _ = self.listening[0].accept()
        self.master.transport.writeWithDescriptors(b"\0\x08_comm", [accepted.fileno()])
        self.reactor.settle()
        accepted.close()
        self.master.transport.abort()
        self.reactor.settle()
        self.assertEqual(client.recv(1), b"")
        client.close()
        self.assertLess(openDescriptors(), before)


class MessageTests(SessionTestCase):
    """
    Broadcasts.
    """

    def test_handlers(self) -> None:
        """
        Each handler of the app gets the text; one that raises keeps it from
        no other.
        """
        here = pretendWorker(self.addCleanup)
        got: list[str] = []

        @here.onMessage
        def broken(text: str) -> None:
            raise RuntimeError("it broke")

        here.onMessage(got.append)
        self.begin(EchoFactory(Echo))
        self.master.callRemote(commands.Message, text="h\u00e9llo")
        self.reactor.settle()
        self.assertEqual(got, ["h\u00e9llo"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(self.master.lost)
