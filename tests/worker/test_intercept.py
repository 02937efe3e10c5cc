"""
Tests for L{twisted_cluster.worker.intercept}.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import tempfile
from typing import Any

from twisted.application.internet import TCPServer
from twisted.internet import endpoints, tcp, udp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import StandardIOEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support import Lines, freePort, isOpen, openDescriptors
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


class FakeWatch:
    """
    Remembers what becomes of connections.
    """

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.began: list[Any] = []
        self.ended: list[Any] = []

    def touched(self, number: int) -> None:
        """Remember."""
        self.acknowledged.append(number)

    def opened(self, transport: Any) -> None:
        """Remember."""
        self.began.append(transport)

    def closed(self, transport: Any) -> None:
        """Remember."""
        self.ended.append(transport)


class Failing(Factory):
    """
    Can do nothing.
    """

    noisy = False

    def startFactory(self) -> None:
        """Fail."""
        1 / 0  # noqa: B018

    def stopFactory(self) -> None:
        """Fail."""
        1 / 0  # noqa: B018


def closeReactor(reactor: Any) -> None:
    """
    Close what a reactor that never ran has of its own.
    """
    for reader in reactor.removeAll() + list(reactor._internalReaders):
        reader.connectionLost(None)


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
        self.watch = FakeWatch()
        self.interception.watch = self.watch
        self.interception.install()

    def listen(self, port: int, interface: str = "", kind: Any = tcp.Port) -> Any:
        """
        Listen as a reactor does.
        """
        listening = kind(port, EchoFactory(Echo), 50, interface, self.reactor)
        listening.startListening()
        self.addCleanup(self.stop, listening)
        return listening

    def listenPath(self, path: Any) -> Any:
        """
        The same on a path.
        """
        listening = unix.Port(path, EchoFactory(Echo), reactor=self.reactor)
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

    def test_inheritedTwice(self) -> None:
        """
        A descriptor can be listened on once in a process, and again when that
        is over; nothing is left open.
        """
        adopt = tcp.Port._fromListeningDescriptor
        port = adopt(self.reactor, 987, socket.AF_INET, EchoFactory(Echo))
        port.startListening()
        before = openDescriptors()
        self.binder.first -= 1
        error = self.assertRaises(
            CannotListenError, adopt, self.reactor, 987, socket.AF_INET, EchoFactory(Echo)
        )
        self.assertEqual((error.port, error.socketError.errno), (987, errno.EADDRINUSE))
        self.assertEqual(openDescriptors(), before)
        self.stop(port)
        port = adopt(self.reactor, 987, socket.AF_INET, EchoFactory(Echo))
        port.startListening()
        self.addCleanup(self.stop, port)
        self.assertEqual(len(self.interception.ports), 1)
        self.assertEqual(len(openDescriptors()), len(before))

    def test_inheritedWrongly(self) -> None:
        """
        What can't be made a port of is given back.
        """
        before = openDescriptors()
        adopt: Any = tcp.Port._fromListeningDescriptor
        self.assertRaises(TypeError, adopt, self.reactor, 987, socket.AF_INET)
        self.assertEqual((self.binder.unbound, openDescriptors()), ([10], before))

    def test_sameNumber(self) -> None:
        """
        A descriptor that is one of the worker's own copies by accident is the
        master's all the same.
        """
        copy = self.listen(0, "127.0.0.1").fileno()
        port = tcp.Port._fromListeningDescriptor(
            self.reactor, copy, socket.AF_INET, EchoFactory(Echo)
        )
        port.startListening()
        self.addCleanup(self.stop, port)
        self.assertEqual(self.binder.asked[-1], ("descriptor", "", copy, 0))

    def test_abstract(self) -> None:
        """
        A name in the abstract namespace is no path.
        """
        name = f"\0twisted_cluster {os.path.basename(self.directory)}"
        port = self.listenPath(name)
        self.assertEqual(self.binder.asked, [("unix", name, 0, 0)])
        self.assertEqual(port.getHost(), UNIXAddress(name.encode()))

    def test_bytes(self) -> None:
        """
        A path may be bytes.
        """
        path = os.fsencode(self.directory) + b"/\xc3\xa4"
        port = self.listenPath(path)
        self.assertEqual(self.binder.asked, [("unix", os.fsdecode(path), 0, 0)])
        self.assertEqual(port.getHost(), UNIXAddress(path))

    def test_pathAgain(self) -> None:
        """
        A path can be listened on again.
        """
        port = self.listenPath(self.path)
        self.stop(port)
        self.assertEqual(self.interception.ports, {})
        os.remove(self.path)
        port.startListening()
        self.assertTrue(self.interception.ports[11].listening)
        self.assertEqual((self.reactor.getReaders(), port.factory.started), ([], 1))

    def test_pathRefused(self) -> None:
        """
        What the master can't bind is told as Twisted tells it.
        """
        self.binder.failure = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        error = self.assertRaises(CannotListenError, self.listenPath, self.path)
        self.assertEqual((error.interface, error.port), (None, os.fsencode(self.path)))
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)

    def test_endpoints(self) -> None:
        """
        C{listenTCP} and the like all end up here, each with what it was given.
        """
        own: Any = SelectReactor()
        self.addCleanup(closeReactor, own)
        ports = [
            own.listenTCP(0, EchoFactory(Echo), interface="127.0.0.1"),
            own.listenTCP(0, EchoFactory(Echo), interface="::1"),
            own.listenUNIX(self.path, EchoFactory(Echo)),
        ]
        endpoint = endpoints.serverFromString(own, "tcp:0:interface=127.0.0.1")
        ports.append(self.successResultOf(endpoint.listen(EchoFactory(Echo))))
        self.assertEqual(
            self.binder.asked,
            [
                ("tcp", "127.0.0.1", 0, 0),
                ("tcp", "::1", 0, 0),
                ("unix", self.path, 0, 0),
                ("tcp", "127.0.0.1", 0, 1),
            ],
        )
        self.assertIsInstance(ports[1].getHost(), IPv6Address)
        self.assertEqual([port in own.getReaders() for port in ports], [False] * 4)
        for port in ports:
            port.socket.close()

    def test_lateShared(self) -> None:
        """
        What is shared although it comes late is not taken for what another
        worker has listened on during its start-up.
        """
        self.listen(0, "127.0.0.1")
        self.interception.started()
        self.patch(context.current(), "sharing", True)
        for _ in range(2):
            self.listen(0, "127.0.0.1")
        orders = [order for _, _, _, order in self.binder.asked]
        self.assertEqual(orders, [0, intercept._LATE, intercept._LATE + 1])

    def test_failingFactory(self) -> None:
        """
        If the app's factory fails to start, nothing listens, nothing is left
        open, and the app may try again.
        """
        for port, again in (
            (tcp.Port(0, Failing(), 50, "127.0.0.1", self.reactor), lambda: None),
            (unix.Port(self.path, Failing(), reactor=self.reactor), self.remove),  # type: ignore[arg-type]
        ):
            before = openDescriptors()
            self.binder.unbound.clear()
            self.assertRaises(ZeroDivisionError, port.startListening)
            number = self.binder.first + len(self.binder.asked) - 1
            self.assertEqual((self.binder.unbound, self.interception.ports), ([number], {}))
            self.assertEqual(openDescriptors(), before)
            again()
            port.factory = EchoFactory(Echo)
            port.startListening()
            self.addCleanup(self.stop, port)
            self.assertTrue(self.interception.ports[number + 1].listening)
            self.stop(port)

    def remove(self) -> None:
        """
        Remove the path, as the master would.
        """
        os.remove(self.path)

    def test_failingStop(self) -> None:
        """
        If it fails to stop, the port is closed all the same, and given back.
        """
        port = self.listen(0, "127.0.0.1")
        port.factory = Failing()
        port.factory.numPorts = 1
        done = port.stopListening()
        self.reactor.settle()
        self.failureResultOf(done, ZeroDivisionError)
        self.assertEqual((self.binder.unbound, self.interception.ports), ([10], {}))
        self.assertFalse(port.connected)

    def test_descriptors(self) -> None:
        """
        Listening and stopping over and over leaves nothing open.
        """
        port = self.listen(0, "127.0.0.1")
        self.stop(port)
        before = openDescriptors()
        for _ in range(20):
            port.startListening()
            self.stop(port)
        self.assertEqual(openDescriptors(), before)

    def test_reactorStops(self) -> None:
        """
        What a reactor closes when it is stopped is wanted still, by the next
        worker.
        """
        port = self.listen(0, "127.0.0.1")
        self.reactor._startedBefore = True  # type: ignore[attr-defined]
        self.stop(port)
        self.assertEqual((self.binder.unbound, self.interception.ports), ([], {}))

    def test_standardInput(self) -> None:
        """
        There is no standard input to be shared.
        """
        endpoint = StandardIOEndpoint(self.reactor)
        error = self.assertRaises(WrongName, endpoint.listen, EchoFactory(Echo))
        self.assertIn("can't listen on stdio: a worker has no standard input", str(error))


class Marked(tcp.Server):
    """
    A transport of the app's own kind.
    """

    mark = "own"


class OwnPort(tcp.Port):
    """
    A port of the app's own kind.
    """

    transport = Marked
    begun = 0

    def startListening(self) -> None:
        """Count."""
        self.begun += 1
        super().startListening()


class AdoptionTests(InterceptionTestCase):
    """
    Connections that the master hands over for such ports.
    """

    def connect(self, port: Any, address: Any = None) -> tuple[socket.socket, int]:
        """
        Connect a client in the place of the master.

        @return: The client, and the descriptor of what was accepted.
        """
        listening: socket.socket = port.socket
        client = socket.socket(listening.family, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect(address or listening.getsockname())
        listening.setblocking(True)
        accepted, _ = listening.accept()
        return client, accepted.detach()

    def adopt(self, port: Any, descriptor: int, number: int = 7) -> bool:
        """
        Have the port take it.
        """
        (adopted,) = [one for one in self.interception.ports.values() if one.port is port]
        return adopted.adopt(descriptor, number)

    def assertEchoes(self, client: socket.socket) -> None:
        """
        The client is served, and what becomes of its connection is told.
        """
        client.sendall(b"hello")
        self.reactor.settle()
        self.assertEqual((client.recv(10), self.watch.acknowledged), (b"hello", [7]))
        client.close()
        self.reactor.settle()
        self.assertEqual(self.watch.ended, self.watch.began)

    def test_echo(self) -> None:
        """
        Connections are served with the port's own factory, transport and
        numbers.
        """
        port = self.listen(0, "127.0.0.1")
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        (protocol,) = port.factory.made
        self.assertEqual(protocol.address, IPv4Address("TCP", *client.getsockname()))
        transport = protocol.transport
        self.assertIsInstance(transport, tcp.Server)
        self.assertEqual((transport.server, transport.sessionno, port.sessionno), (port, 0, 1))
        self.assertEqual(transport.getHost(), port.getHost())
        self.assertEqual(transport.getPeer(), protocol.address)
        self.assertEchoes(client)

    def test_again(self) -> None:
        """
        A port that has been stopped and listens again takes connections.
        """
        port = self.listen(0, "127.0.0.1")
        self.stop(port)
        port.startListening()
        (adopted,) = self.interception.ports.values()
        self.assertTrue(adopted.listening)
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        self.assertEchoes(client)

    def test_stopping(self) -> None:
        """
        One that is being stopped takes none.
        """
        port = self.listen(0, "127.0.0.1")
        (adopted,) = self.interception.ports.values()
        port.stopListening()
        self.assertFalse(adopted.listening)

    def test_inet6(self) -> None:
        """
        The same over IPv6.
        """
        port = self.listen(0, "::1")
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        host, number, flow, scope = client.getsockname()
        (protocol,) = port.factory.made
        self.assertEqual(protocol.address, IPv6Address("TCP", host, number, flow, scope))
        self.assertEqual(protocol.transport.getPeer(), IPv6Address("TCP", host, number))
        self.assertEchoes(client)

    def test_otherFamily(self) -> None:
        """
        If what the operator named is IPv6, and the app says nothing of it, the
        port is one for IPv6, whose peers may be of either kind.
        """

        def bind(kind: str, address: str, port: int) -> socket.socket:
            return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)

        self.binder._socket = bind  # type: ignore[method-assign]
        port = self.listen(8080)
        self.assertIsInstance(port.getHost(), IPv6Address)
        client, descriptor = self.connect(port, ("::1", port.getHost().port))
        self.assertTrue(self.adopt(port, descriptor))
        self.assertEchoes(client)
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as old:
            accepted, _ = port.socket.accept()
            self.assertTrue(self.adopt(port, accepted.detach(), 8))
            peer = port.factory.made[-1].transport.getPeer()
            self.assertEqual((peer.host, peer.port), ("::ffff:127.0.0.1", old.getsockname()[1]))

    def test_path(self) -> None:
        """
        The same over a path, with and without a name on the client's side.
        """
        port = self.listenPath(self.path)
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        (protocol,) = port.factory.made
        self.assertIsInstance(protocol.transport, unix.Server)
        self.assertEqual(protocol.address, UNIXAddress(""))
        self.assertEchoes(client)

    def test_ownKinds(self) -> None:
        """
        A subclass of the port stays what it is, and so does its transport.
        """
        port = self.listen(0, "127.0.0.1", OwnPort)
        self.assertEqual(port.begun, 1)
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        transport = port.factory.made[0].transport
        self.assertIsInstance(transport, Marked)
        self.assertEqual(transport.mark, "own")
        self.assertEchoes(client)

    def test_transportFunction(self) -> None:
        """
        What makes transports may be any callable, whatever it makes.
        """
        made: list[Any] = []

        def transport(*arguments: Any) -> Any:
            made.append(Marked(*arguments))
            return made[-1]

        port = self.listen(0, "127.0.0.1")
        port.transport = transport
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        self.assertIs(port.factory.made[0].transport, made[0])
        self.assertIsInstance(made[0], Marked)
        self.assertEchoes(client)

    def test_refused(self) -> None:
        """
        A factory may want no connection, or fail over it, with whatever error
        it likes: the client is told, nothing is left open, and a failure is
        logged.
        """
        port = self.listen(0, "127.0.0.1")

        def fail(error: Exception) -> Any:
            raise error

        lines = Lines(self)
        for error in (None, ZeroDivisionError("x"), OSError(errno.ENOENT, "no such file")):
            port.factory.buildProtocol = lambda address, error=error: error and fail(error)
            client, descriptor = self.connect(port)
            before = openDescriptors()
            self.assertFalse(self.adopt(port, descriptor))
            self.assertEqual(before - openDescriptors(), {descriptor})
            self.assertEqual(client.recv(1), b"")
            kinds = [type(error)] if error is not None else []
            self.assertEqual([one.type for one in self.flushLoggedErrors()], kinds)
        self.assertEqual(self.watch.began, [])
        place = port.getHost().port
        told = lines.containing("the app could not take a connection from port 0")
        self.assertEqual((len(told), place > 0), (2, True))

    def test_reset(self) -> None:
        """
        A client that has gone already is no failure.
        """
        port = self.listen(0, "127.0.0.1")
        client, descriptor = self.connect(port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        lines = Lines(self)
        self.assertFalse(self.adopt(port, descriptor))
        self.assertEqual((lines.grave(), port.factory.made, isOpen(descriptor)), ([], [], False))

    def test_failingProtocol(self) -> None:
        """
        A protocol that fails at once costs its own connection.
        """

        class Broken(Echo):
            """Fails."""

            def connectionMade(self) -> None:
                """Fail."""
                1 / 0  # noqa: B018

        port = self.listen(0, "127.0.0.1")
        port.factory.kind = Broken
        client, descriptor = self.connect(port)
        self.assertTrue(self.adopt(port, descriptor))
        self.reactor.settle()
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertEqual(self.watch.ended, self.watch.began)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_transportFails(self) -> None:
        """
        So does what makes the transport.
        """
        port = self.listen(0, "127.0.0.1")
        port.transport = lambda *arguments: 1 / 0
        client, descriptor = self.connect(port)
        self.assertFalse(self.adopt(port, descriptor))
        self.assertEqual((client.recv(1), isOpen(descriptor)), (b"", False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


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

    def test_stopTwice(self) -> None:
        """
        A port that is stopped by two parties at once ends once.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        self.interception.started()
        port.stopListening()
        last = port.stopListening()
        self.reactor.settle()
        self.successResultOf(last)
        self.assertEqual((self.binder.unbound, self.interception.datagrams), ([10], {}))

    def test_again(self) -> None:
        """
        A port can be listened on again during start-up, and nothing is left
        open.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        before = openDescriptors()
        for _ in range(3):
            self.stop(port)
            port.startListening()
        self.assertEqual((list(self.interception.datagrams), openDescriptors()), ([13], before))

    def test_twice(self) -> None:
        """
        One process can't listen on the same address twice.
        """
        self.datagrams(freePort(socket.SOCK_DGRAM))
        before = openDescriptors()
        self.binder.first -= 1
        error = self.assertRaises(CannotListenError, self.datagrams, freePort(socket.SOCK_DGRAM))
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)
        self.assertEqual(openDescriptors(), before)

    def test_refused(self) -> None:
        """
        What the master can't bind is told as Twisted tells it.
        """
        self.binder.failure = OSError(errno.EACCES, os.strerror(errno.EACCES))
        error = self.assertRaises(CannotListenError, self.datagrams, 53)
        self.assertEqual((error.interface, error.port), ("127.0.0.1", 53))
        self.assertEqual(error.socketError.errno, errno.EACCES)

    def test_reactorStops(self) -> None:
        """
        What a reactor closes when it is stopped is wanted still: the next
        worker reads what has come meanwhile.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        self.reactor._startedBefore = True  # type: ignore[attr-defined]
        port.connectionLost()
        self.assertEqual((self.binder.unbound, self.interception.datagrams), ([], {}))

    def test_failingStop(self) -> None:
        """
        If the app's protocol fails to stop, the port is given back.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        port.protocol.stopProtocol = lambda: 1 / 0
        self.assertRaises(ZeroDivisionError, port.connectionLost)
        self.addCleanup(port.socket.close)
        self.assertEqual((self.binder.unbound, self.interception.datagrams), ([10], {}))

    def test_subclass(self) -> None:
        """
        Ports of another kind, such as those for multicast, are the worker's
        own.
        """
        port = udp.MulticastPort(0, Collector(), reactor=self.reactor)  # type: ignore[arg-type]
        port.startListening()
        self.addCleanup(self.stop, port)
        self.assertEqual((self.binder.asked, self.reactor.getReaders()), ([], [port]))

    def test_inet6(self) -> None:
        """
        IPv6 is asked for as such.
        """
        number = freePort(socket.SOCK_DGRAM)
        port = udp.Port(number, Collector(), "::1", reactor=self.reactor)
        port.startListening()
        self.addCleanup(self.stop, port)
        self.interception.started()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"hello", port.socket.getsockname())
        self.reactor.settle()
        self.assertEqual(self.binder.asked, [("udp", "::1", number, 0)])
        self.assertEqual(port.protocol.received, [b"hello"])
        self.assertEqual(port.getHost(), IPv6Address("UDP", "::1", number))

    def test_pausedByApp(self) -> None:
        """
        An app that pauses and resumes a port by itself does not begin to read
        too early by it.
        """
        port = self.datagrams(freePort(socket.SOCK_DGRAM))
        port.stopReading()
        port.startReading()
        self.send(port, b"early")
        self.assertEqual(port.protocol.received, [])


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
        self.assertRaises(
            intercept.PortOpened,
            tcp.Port._fromListeningDescriptor,
            reactor,
            987,
            socket.AF_INET,
            EchoFactory(Echo),
        )
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
