"""
Tests for L{twisted_cluster.endpoints}, by way of the plug-in.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster import context
from twisted_cluster.endpoints import ClusterEndpoint


class EndpointTests(SynchronousTestCase):
    """
    C{cluster:} before another endpoint.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()

    def parse(self, text: str) -> Any:
        """
        The endpoint that a string describes.
        """
        return serverFromString(self.reactor, text)

    def test_interface(self) -> None:
        """
        It is an endpoint like any other.
        """
        endpoint = self.parse("cluster:tcp:8080")
        self.assertIsInstance(endpoint, ClusterEndpoint)
        verifyObject(IStreamServerEndpoint, endpoint)

    def test_inner(self) -> None:
        """
        What follows is read as ever, with all that it may contain.
        """
        tcp = self.parse(r"cluster:tcp:0:interface=\:\:1:backlog=7")._inner
        self.assertIsInstance(tcp, TCP4ServerEndpoint)
        self.assertEqual((tcp._port, tcp._interface, tcp._backlog), (0, "::1", 7))
        unix = self.parse(r"cluster:unix:/run/a\:b\=c\\d:mode=600")._inner
        self.assertIsInstance(unix, UNIXServerEndpoint)
        self.assertEqual((unix._address, unix._mode), (r"/run/a:b=c\d", 0o600))

    @settings(max_examples=40, deadline=None)
    @given(path=st.text(st.characters(codec="utf-8"), min_size=1), mode=st.integers(0, 0o777))
    def test_quoting(self, path: str, mode: int) -> None:
        """
        Whatever is quoted stays what it is, as an argument and as an option.
        """
        quoted = quoteStringArgument(path).replace("=", "\\=")
        for text in (f"unix:{quoted}:mode={mode:o}", f"unix:mode={mode:o}:address={quoted}"):
            plain: Any = self.parse(text)
            shared = self.parse(f"cluster:{text}")._inner
            self.assertEqual((plain._address, plain._mode), (path, mode))
            self.assertEqual((shared._address, shared._mode), (path, mode))

    def test_twice(self) -> None:
        """
        The prefix may come twice.
        """
        inner = self.parse("cluster:cluster:tcp:80")._inner
        self.assertEqual(inner._inner._port, 80)

    def test_nonsense(self) -> None:
        """
        What can't be read is refused as without the prefix.
        """
        for text in (
            "cluster:nonsense:1",
            "cluster:",
            "cluster",
            "cluster:tcp:http",
            "cluster:unix",
        ):
            self.assertRaises((ValueError, TypeError), self.parse, text)
            inner = text.partition(":")[2]
            self.assertRaises((ValueError, TypeError), self.parse, inner)

    def test_sharing(self) -> None:
        """
        While it listens, and only then, ports are to be shared.
        """
        here = context.current()
        seen: list[bool] = []
        listen = self.reactor.listenTCP

        def listenTCP(*arguments: Any, **options: Any) -> Any:
            seen.append(here.sharing)
            return listen(*arguments, **options)

        self.reactor.listenTCP = listenTCP
        self.successResultOf(self.parse("cluster:tcp:0").listen(Factory()))
        self.assertEqual((seen, here.sharing), ([True], False))

    def test_failing(self) -> None:
        """
        That is so too if it can't listen.
        """

        def listenTCP(*arguments: Any, **options: Any) -> Any:
            raise CannotListenError("", 0, OSError(98, "taken"))

        self.reactor.listenTCP = listenTCP
        self.failureResultOf(self.parse("cluster:tcp:0").listen(Factory()), CannotListenError)
        self.assertFalse(context.current().sharing)
