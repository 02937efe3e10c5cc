"""
Tests for L{twisted_cluster.worker.ports}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.worker.case import EchoFactory
from tests.worker.test_session import Echo
from twisted_cluster.errors import AppLoadError
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire.preamble import ListenerPlan
from twisted_cluster.worker.ports import HandoffPort, wrapFactory


class HandoffPortTests(SynchronousTestCase):
    """
    What an app gets for a port.
    """

    def port(self, family: int, address: Any) -> HandoffPort:
        """
        A port of a listener.
        """
        plan = ListenerPlan("name", int(family), address)
        return HandoffPort(0, plan, EchoFactory(Echo), FakeReactor(), None)  # type: ignore[arg-type]

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
