"""
Tests for L{twisted_cluster.worker.intercept}.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.application.internet import TCPServer
from twisted.internet import tcp, udp, unix
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.endpoints import StandardIOEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support import freePort
from tests.worker.case import EchoFactory, FakeBinder, SessionTestCase, keepPorts
from tests.worker.test_session import Echo
from twisted_cluster import context
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands
from twisted_cluster.worker import intercept
from twisted_cluster.worker.intercept import Interception
from twisted_cluster.worker.loader import WrongName


class Collector(DatagramProtocol):
    """
    Keeps the datagrams that come.
    """

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Keep it."""
        self.received.append(datagram)


class InterceptionTestCase(SynchronousTestCase):
    """
    Has Twisted's ports intercepted for the time of a test.
    """

    def setUp(self) -> None:
        keepPorts(self)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "s")
        self.reactor = FakeReactor()
        self.binder = FakeBinder()
        self.interception = Interception(self.binder)  # type: ignore[arg-type]
        self.interception.install()

    def listen(self, port: int, interface: str = "", kind: Any = tcp.Port) -> Any:
        """
        Listen as a reactor does.
        """
        listening = kind(port, EchoFactory(Echo), 50, interface, self.reactor)
        listening.startListening()
        self.addCleanup(self.stop, listening)
        return listening

    def stop(self, port: Any) -> None:
        """
        Close a port, if it is open.
        """
        if port.connected:
            port.stopListening()
            self.reactor.settle()


class StreamTests(InterceptionTestCase):
    """
    Ports for connections.
    """

    def test_port(self) -> None:
        """
        The app gets Twisted's own port, with a genuine socket that it never
        reads from.
        """
        number = freePort()
        port = self.listen(number, "127.0.0.1")
        verifyObject(IListeningPort, port)
        self.assertIs(type(port), tcp.Port)
        self.assertEqual(self.binder.asked, [("tcp", "127.0.0.1", number, 0)])
        self.assertEqual(port.getHost(), IPv4Address("TCP", "127.0.0.1", number))
        self.assertEqual((port.factory.started, self.reactor.getReaders()), (1, []))
        self.assertTrue(self.interception.ports[10].listening)

    def test_stop(self) -> None:
        """
        A port that is stopped is given back, its socket left open for others,
        and the same can be listened on again.
        """
        port = self.listen(0, "127.0.0.1")
        other = port.socket.dup()
        self.addCleanup(other.close)
        done = port.stopListening()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.binder.unbound, [10])
        self.assertEqual((self.interception.ports, port.factory.started), ({}, 0))
        self.assertTrue(other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        other.close()
        port.startListening()
        self.assertEqual(list(self.interception.ports), [11])

    def test_stopTwice(self) -> None:
        """
        A port that is stopped by two parties at once ends once.
        """
        port = self.listen(0, "127.0.0.1")
        stops = [port.stopListening(), port.stopListening()]
        self.reactor.settle()
        for stop in stops:
            self.successResultOf(stop)
        self.assertEqual((self.binder.unbound, port.factory.started), ([10], 0))

    def test_orders(self) -> None:
        """
        Before the app is Ready, ports with the number 0 are told apart by
        their order, for each interface.
        """
        for interface in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            self.listen(0, interface)
        self.assertEqual([order for _, _, _, order in self.binder.asked], [0, 1, 0])

    def test_late(self) -> None:
        """
        After that they belong to this worker, unless the app says otherwise.
        """
        self.interception.started()
        port = self.listen(0, "127.0.0.1")
        self.assertEqual(self.binder.asked, [])
        self.assertIn(port, self.reactor.getReaders())
        self.patch(context.current(), "sharing", True)
        shared = self.listen(0, "127.0.0.1")
        self.assertEqual(len(self.binder.asked), 1)
        self.assertNotIn(shared, self.reactor.getReaders())

    def test_refused(self) -> None:
        """
        What the master can't bind is told as Twisted tells it.
        """
        self.binder.failure = OSError(errno.EACCES, os.strerror(errno.EACCES))
        error = self.assertRaises(CannotListenError, self.listen, 80, "127.0.0.1")
        self.assertEqual((error.interface, error.port), ("127.0.0.1", 80))
        self.assertEqual(error.socketError.errno, errno.EACCES)

    def test_twice(self) -> None:
        """
        One process can't listen on the same address twice.
        """
        self.listen(0, "127.0.0.1")
        self.binder.first -= 1
        error = self.assertRaises(CannotListenError, self.listen, 0, "127.0.0.1")
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)

    def test_path(self) -> None:
        """
        A path is the master's: made absolute, and not removed at the end.
        """
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        port = unix.Port("s", EchoFactory(Echo), reactor=self.reactor)  # type: ignore[arg-type]
        port.startListening()
        self.assertEqual(self.binder.asked, [("unix", os.path.realpath(self.path), 0, 0)])
        self.assertEqual(port.getHost(), UNIXAddress(os.path.realpath(self.path)))
        port.stopListening()
        self.reactor.settle()
        self.assertTrue(os.path.exists(self.path))
        self.assertEqual(self.binder.unbound, [10])

    def test_ownSocket(self) -> None:
        """
        A socket that the app itself has bound stays its own.
        """
        with socket.create_server(("127.0.0.1", 0)) as own:
            port = tcp.Port._fromListeningDescriptor(
                self.reactor, own.fileno(), socket.AF_INET, EchoFactory(Echo)
            )
        port.startListening()
        self.addCleanup(self.stop, port)
        self.assertEqual((self.binder.asked, self.reactor.getReaders()), ([], [port]))

    def test_inherited(self) -> None:
        """
        A descriptor that is none here is the master's.
        """
        port = tcp.Port._fromListeningDescriptor(
            self.reactor, 987, socket.AF_INET, EchoFactory(Echo)
        )
        port.startListening()
        self.addCleanup(self.stop, port)
        self.assertEqual(self.binder.asked, [("descriptor", "", 987, 0)])
        self.assertEqual((list(self.interception.ports), self.reactor.getReaders()), ([10], []))

    def test_standardInput(self) -> None:
        """
        There is no standard input to be shared.
        """
        endpoint = StandardIOEndpoint(self.reactor)
        error = self.assertRaises(WrongName, endpoint.listen, EchoFactory(Echo))
        self.assertIn("can't listen on stdio: a worker has no standard input", str(error))


class DatagramTests(InterceptionTestCase):
    """
    Ports for datagrams.
    """

    def datagrams(self, number: int) -> Any:
        """
        Listen for datagrams.
        """
        port = udp.Port(number, Collector(), "127.0.0.1", reactor=self.reactor)
        port.startListening()
        self.addCleanup(self.stop, port)
        return port

    def send(self, port: Any, data: bytes) -> None:
        """
        Send a datagram.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(data, port.socket.getsockname())
        self.reactor.settle()

    def test_gated(self) -> None:
        """
        Datagrams are read while this worker is Ready and does not drain.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        self.send(port, b"early")
        self.assertEqual(port.protocol.received, [])
        self.interception.started()
        self.reactor.settle()
        self.assertEqual(port.protocol.received, [b"early"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"last", port.socket.getsockname())
        self.interception.pauseDatagrams()
        self.send(port, b"late")
        self.assertEqual(port.protocol.received, [b"early", b"last"])

    def test_own(self) -> None:
        """
        Ports with the number 0, and those that are opened late, are this
        worker's own; who wants such a one twice is told why not.
        """
        self.datagrams(0)
        self.interception.started()
        number = self.datagrams(freePort(socket.SOCK_DGRAM)).socket.getsockname()[1]
        self.assertEqual(self.binder.asked, [])
        error = self.assertRaises(CannotListenError, self.datagrams, number)
        self.assertIn("after start-up a UDP port belongs to the worker that binds it", str(error))

    def test_stop(self) -> None:
        """
        A port that is stopped is given back.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        self.interception.started()
        self.stop(port)
        self.assertEqual((self.binder.unbound, self.interception.datagrams), ([10], {}))


class RefusalTests(SynchronousTestCase):
    """
    Where no port may be opened.
    """

    def test_refused(self) -> None:
        """
        Whoever opens one is told, in a way that is not caught by mistake, until
        there is somebody to ask.
        """
        keepPorts(self)
        interception = Interception()
        interception.install()
        reactor = FakeReactor()
        for port in (
            tcp.Port(7, EchoFactory(Echo), 50, "", reactor),
            udp.Port(7, Collector(), reactor=reactor),
            unix.Port(b"/7", EchoFactory(Echo), reactor=reactor),
        ):
            error = self.assertRaises(intercept.PortOpened, port.startListening)
            self.assertNotIsInstance(error, Exception)
            self.assertRegex(str(error), "it listens on port .*7'? while it is imported")
        interception.binder = FakeBinder()  # type: ignore[assignment]
        port = tcp.Port(0, EchoFactory(Echo), 50, "127.0.0.1", reactor)
        port.startListening()
        self.addCleanup(port.socket.close)
        self.assertEqual(list(interception.ports), [10])


class ServiceTests(SessionTestCase):
    """
    A service as the app.
    """

    def setUp(self) -> None:
        keepPorts(self)
        super().setUp()
        self.interception.install()

    def test_served(self) -> None:
        """
        Its port gets the sockets of the listener that it asked for, and stops
        with it.
        """
        factory = EchoFactory(Echo)

        class Reactor(FakeReactor):
            """Listens as Twisted's own do."""

            def listenTCP(
                inner, port: int, given: Any, backlog: int = 50, interface: str = ""
            ) -> Any:
                """Listen."""
                listening = tcp.Port(port, given, backlog, interface, self.reactor)
                listening.startListening()
                return listening

        server: Any = TCPServer(0, factory, interface="127.0.0.1", reactor=Reactor())
        self.begin(server)
        self.assertEqual((self.master.heard, self.master.listeners), (["Ready"], [10]))
        (client,) = self.connect(number=10, send=b"hello")
        self.assertEqual(self.read(client), b"hello")
        self.master.callRemote(commands.Stop)
        self.reactor.settle()
        self.assertEqual((self.exits, factory.started), ([0], 0))
