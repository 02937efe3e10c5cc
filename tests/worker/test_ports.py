"""
Tests for L{twisted_cluster.worker.ports}.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.application.internet import TCPServer
from twisted.application.service import MultiService
from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.worker.case import EchoFactory, SessionTestCase
from tests.worker.test_session import Echo
from twisted_cluster.errors import AppLoadError
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands
from twisted_cluster.wire.preamble import ListenerPlan
from twisted_cluster.worker.ports import HandoffPort, Interception, wrapFactory


class HandoffPortTests(SynchronousTestCase):
    """
    What an app gets for a port.
    """

    def port(self, family: int, address: Any) -> HandoffPort:
        """
        A port of a listener.
        """
        plan = ListenerPlan("name", int(family), address)
        return HandoffPort(plan, EchoFactory(Echo), FakeReactor(), None)  # type: ignore[arg-type]

    def test_interface(self) -> None:
        """
        It is a listening port.
        """
        verifyObject(IListeningPort, self.port(socket.AF_INET, ("1.2.3.4", 80)))

    def test_address(self) -> None:
        """
        It says where the master listens.
        """
        self.assertEqual(
            self.port(socket.AF_INET, ("1.2.3.4", 80)).getHost(), IPv4Address("TCP", "1.2.3.4", 80)
        )
        self.assertEqual(
            self.port(socket.AF_INET6, ("::1", 80, 0, 0)).getHost(), IPv6Address("TCP", "::1", 80)
        )
        self.assertEqual(self.port(socket.AF_UNIX, "/run/s").getHost(), UNIXAddress(b"/run/s"))

    def test_factory(self) -> None:
        """
        The factory is started and stopped once with it.
        """
        port = self.port(socket.AF_INET, ("1.2.3.4", 80))
        port.startListening()
        self.assertEqual((port.factory.started, port.listening), (1, True))
        self.successResultOf(port.stopListening())
        self.successResultOf(port.stopListening())
        self.assertEqual((port.factory.started, port.listening), (0, False))


class WrapTests(SynchronousTestCase):
    """
    What endpoint strings put around a factory.
    """

    def test_plain(self) -> None:
        """
        Plain sockets need nothing.
        """
        factory = EchoFactory(Echo)
        for name in ("tcp:80", "tcp6:80", "unix:/run/s", "fd:3", "systemd:domain=INET:index=0"):
            self.assertIs(wrapFactory(FakeReactor(), name, factory), factory)

    def test_unreadableKey(self) -> None:
        """
        A key that this process can't read is told with its endpoint.
        """
        for kind in ("ssl", "tls"):
            name = f"{kind}:443:privateKey=/nonexistent/key.pem"
            error = self.assertRaises(
                AppLoadError, wrapFactory, FakeReactor(), name, EchoFactory(Echo)
            )
            self.assertIn("can't serve ssl:443:privateKey=/nonexistent/key.pem: ", str(error))


class InterceptionTests(SynchronousTestCase):
    """
    Services that listen for themselves.
    """

    def setUp(self) -> None:
        for kind in (tcp.Port, unix.Port):
            self.patch(kind, "startListening", kind.startListening)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "s")
        self.reactor = FakeReactor()
        self.attached: dict[int, HandoffPort] = {}

    def install(self, *addresses: Any) -> None:
        """
        Intercept ports of these addresses.
        """
        plans = tuple(
            ListenerPlan("name", self.familyOf(address), address) for address in addresses
        )
        Interception(plans, self.attached.__setitem__, None).install()  # type: ignore[arg-type]

    def familyOf(self, address: Any) -> int:
        """
        The family of an address.
        """
        if isinstance(address, str):
            return int(socket.AF_UNIX)
        return int(socket.AF_INET if len(address) == 2 else socket.AF_INET6)

    def listen(self, port: int, interface: str = "") -> Any:
        """
        Listen as a reactor does.
        """
        listening = tcp.Port(port, EchoFactory(Echo), 50, interface, self.reactor)
        listening.startListening()
        self.addCleanup(self.stop, listening)
        return listening

    def stop(self, listening: Any) -> None:
        """
        Stop listening.
        """
        listening.stopListening()
        self.reactor.settle()

    def test_match(self) -> None:
        """
        The port that has the number of a listener gets the master's sockets,
        and binds nothing.
        """
        self.install(("127.0.0.1", 7), ("127.0.0.1", 9))
        port = self.listen(9)
        self.assertEqual(list(self.attached), [1])
        self.assertIs(self.attached[1].factory, port.factory)
        self.assertEqual(port.getHost(), IPv4Address("TCP", "127.0.0.1", 9))
        self.assertEqual((port.factory.started, self.reactor.getReaders()), (1, []))
        self.successResultOf(port.stopListening())
        self.assertFalse(self.attached[1].listening)

    def test_interfaces(self) -> None:
        """
        An interface of its own must be that of the listener, unless that one
        has them all.
        """
        self.install(("127.0.0.1", 7), ("0.0.0.0", 8), ("::", 9, 0, 0))
        self.listen(7, "127.0.0.1")
        self.listen(8, "127.0.0.1")
        self.listen(9, "::1")
        self.assertEqual(sorted(self.attached), [0, 1, 2])

    def test_other(self) -> None:
        """
        Any other port is bound here, as ever.
        """
        self.install(("127.0.0.1", 7))
        port = self.listen(0, "127.0.0.1")
        self.assertEqual(self.attached, {})
        self.assertGreater(port.getHost().port, 0)
        with socket.create_connection(("127.0.0.1", port.getHost().port)):
            self.reactor.settle()
        self.assertEqual(len(port.factory.made), 1)

    def test_taken(self) -> None:
        """
        One that is taken, as each but the first worker will find, says what to
        do about it.
        """
        self.install(("127.0.0.1", 7))
        number = self.listen(0, "127.0.0.1").getHost().port
        error = self.assertRaises(CannotListenError, self.listen, number, "127.0.0.1")
        self.assertIn("Address already in use", str(error))
        self.assertIn(
            "a port that all workers serve needs a --listen option of its own", str(error)
        )
        self.assertEqual((error.interface, error.port), ("127.0.0.1", number))

    def test_path(self) -> None:
        """
        Paths are matched however they are written; other ones are bound.
        """
        self.install(self.path)
        odd = os.path.join(self.directory, ".", "x", "..", "s")
        for path in (self.path, odd):
            port = unix.Port(os.fsencode(path), EchoFactory(Echo), reactor=self.reactor)
            port.startListening()
            self.assertEqual(list(self.attached), [0])
            self.assertFalse(os.path.exists(self.path))
            self.attached.clear()
        other = unix.Port(os.fsencode(self.path + "2"), EchoFactory(Echo), reactor=self.reactor)
        other.startListening()
        self.addCleanup(self.stop, other)
        self.assertEqual(self.attached, {})
        self.assertTrue(os.path.exists(self.path + "2"))


class ServiceTests(SessionTestCase):
    """
    A service as the app.
    """

    def setUp(self) -> None:
        for kind in (tcp.Port, unix.Port):
            self.patch(kind, "startListening", kind.startListening)
        super().setUp()

    def test_served(self) -> None:
        """
        Its port gets the sockets of the listener with the same number, and
        stops with it.
        """
        factory = EchoFactory(Echo)
        number = self.plan.listeners[0].address[1]
        service = MultiService()

        class Reactor(FakeReactor):
            """Listens as Twisted's own do."""

            def listenTCP(
                inner, port: int, given: Any, backlog: int = 50, interface: str = ""
            ) -> Any:
                """Listen."""
                listening = tcp.Port(port, given, backlog, interface, self.reactor)
                listening.startListening()
                return listening

        server: Any = TCPServer(number, factory, reactor=Reactor())
        server.setServiceParent(service)
        self.begin(service)
        self.assertEqual(self.master.heard, ["Ready"])
        (client,) = self.connect(send=b"hello")
        self.assertEqual(self.read(client), b"hello")
        self.master.callRemote(commands.Stop)
        self.reactor.settle()
        self.assertEqual((self.exits, factory.started), ([0], 0))
