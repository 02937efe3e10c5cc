"""
Tests for L{twisted_cluster.master.binding}, with the worker's own end of it.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from tests.support import Lines, freePort, identity, openDescriptors, socketPair
from twisted_cluster.events import EventStream
from twisted_cluster.master.binding import BindSession
from twisted_cluster.master.dispatcher import Dispatcher
from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import Listeners, NotBound
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import ChannelTransport
from twisted_cluster.worker.binder import Binder

REQUEST = commands.encode(
    commands.Bind, kind="tcp", address=b"", port=1, backlog=1, mode=1, wantPID=False, order=0
)


class Requests:
    """
    Decides as a test says.

    @ivar asked: What was asked for.
    @ivar given: What was given back.
    """

    name = "worker 7"

    def __init__(self) -> None:
        self.asked: list[BindRequest] = []
        self.given: list[int] = []
        self.answer: Callable[[BindRequest], tuple[int, int]] = self.refuse

    def refuse(self, request: BindRequest) -> tuple[int, int]:
        """Always."""
        raise NotBound(errno.EACCES, "not you")

    def bindRequested(self, request: BindRequest) -> tuple[int, int]:
        """See L{IBindRequests.bindRequested}."""
        self.asked.append(request)
        return self.answer(request)

    def unbound(self, listener: int) -> None:
        """See L{IBindRequests.unbound}."""
        self.given.append(listener)


class BindingTestCase(SynchronousTestCase):
    """
    Has both ends of a channel in one process: the worker's end has the
    reactor of the master do its part before it waits for the answer.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.requests: Any = Requests()
        ours, self.theirs = socketPair(self)
        self.session = BindSession(self.requests)
        self.transport = ChannelTransport(ours, self.session, self.reactor)
        self.addCleanup(self.transport.abort)
        self.binder = Binder(self.theirs)
        receive = self.binder._receive

        def settleFirst() -> None:
            self.reactor.settle()
            receive()

        self.binder._receive = settleFirst  # type: ignore[method-assign]

    def refused(self, *arguments: Any) -> Any:
        """
        The system's error with which a request fails.
        """
        error: Any = self.assertRaises(CannotListenError, self.binder.bind, *arguments)
        return error.socketError


class BindSessionTests(BindingTestCase):
    """
    What is said, and how it is heard.
    """

    def test_request(self) -> None:
        """
        All that the worker says of a port reaches who decides on it, whatever
        bytes a path consists of.
        """
        self.refused("unix", b"/a\xff", 3, 99, 0o640, True, 7)
        (request,) = self.requests.asked
        self.assertEqual(request, BindRequest("unix", "/a\udcff", 3, order=7))
        self.assertEqual((request.backlog, request.mode, request.wantPID), (99, 0o640, True))

    def test_bound(self) -> None:
        """
        The worker gets a copy, and the master keeps its own.
        """
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.requests.answer = lambda request: (5, listening.fileno())
            before = openDescriptors()
            bound = self.binder.bind("tcp", "", 80)
            with bound.socket:
                self.assertEqual(bound.listener, 5)
                self.assertEqual(identity(bound.socket.fileno()), identity(listening.fileno()))
            self.assertEqual(openDescriptors(), before)

    def test_notBound(self) -> None:
        """
        Or the reason why not.
        """
        error = self.refused("tcp", "", 80)
        self.assertEqual((error.errno, error.strerror), (errno.EACCES, "not you"))

    def test_reasons(self) -> None:
        """
        Reasons may be of any length, and of any characters.
        """

        def refuse(request: BindRequest) -> tuple[int, int]:
            raise NotBound(0, request.address * 100_000)

        self.requests.answer = refuse
        for text, expected in (
            ("x", "x" * 4000),
            ("\udcff", "?" * 4000),
            ("\u20ac", "\u20ac" * 4000),
        ):
            error = self.refused("tcp", text, 80)
            self.assertEqual((error.errno, error.strerror), (errno.EINVAL, expected))

    def test_unbound(self) -> None:
        """
        What is given back is told.
        """
        self.binder.unbind(5)
        self.reactor.settle()
        self.assertEqual(self.requests.given, [5])

    def test_order(self) -> None:
        """
        Words are heard in the order in which they were said.
        """
        heard: list[Any] = []
        self.requests.unbound = heard.append

        def answer(request: BindRequest) -> tuple[int, int]:
            heard.append(request.port)
            raise NotBound(errno.EACCES, "no")

        self.requests.answer = answer
        self.binder.unbind(1)
        self.refused("tcp", "", 80)
        self.binder.unbind(2)
        self.refused("tcp", "", 81)
        self.assertEqual(heard, [1, 80, 2, 81])

    def test_ownFault(self) -> None:
        """
        If the master itself fails over a request, the worker does not wait
        for an answer, and the log says which worker had asked.
        """
        self.requests.answer = lambda request: 1 / 0
        lines = Lines(self)
        self.assertEqual(self.refused("tcp", "", 80).errno, errno.EPIPE)
        (line,) = lines.containing("protocol violation")
        self.assertTrue(line.startswith("worker 7: protocol violation: ZeroDivisionError"), line)

    def test_nonsense(self) -> None:
        """
        A worker that talks nonsense is heard no more; nothing is left open.
        """
        for data in (
            b"\xff\xff\xff\xff",
            commands.encode(commands.Ready, listeners=[]),
            b"\0\x08_command\0\x04Bind\0\0",
            b"\0\x08_command\0\x06Unbind\0\x08listener\0\x01x\0\0",
        ):
            ours, theirs = socketPair(self)
            session = ChannelTransport(ours, BindSession(self.requests), self.reactor)
            before = openDescriptors()
            lines = Lines(self)
            socket.send_fds(theirs, [data], [theirs.fileno()])
            self.reactor.settle()
            self.assertEqual((session.connected, theirs.recv(1)), (False, b""))
            self.assertEqual(len(lines.grave()), 1)
            self.assertEqual(before - openDescriptors(), {min(before - openDescriptors())})
        self.assertEqual((self.requests.asked, self.requests.given), ([], []))

    def test_gone(self) -> None:
        """
        A worker that goes in the middle of a word has asked for nothing, and
        the log says nothing.
        """
        lines = Lines(self)
        request = commands.encode(
            commands.Bind,
            kind="tcp",
            address=b"",
            port=1,
            backlog=1,
            mode=1,
            wantPID=False,
            order=0,
        )
        self.theirs.sendall(request[:-5])
        self.theirs.close()
        self.reactor.settle()
        self.assertEqual((self.requests.asked, lines.grave()), ([], []))
        self.assertFalse(self.transport.connected)

    def test_goneBeforeAnswer(self) -> None:
        """
        Nor does it matter if it goes before it has its answer.
        """
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.requests.answer = lambda request: (5, listening.fileno())
            self.theirs.sendall(REQUEST)
            self.theirs.close()
            self.reactor.settle()
            self.assertEqual(len(self.requests.asked), 1)
            self.assertFalse(self.transport.connected)
            self.assertTrue(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


class GenuineTests(BindingTestCase):
    """
    From the worker's question to a genuine port, and back.
    """

    def setUp(self) -> None:
        super().setUp()
        dispatcher = Dispatcher(
            lambda loads, peer: loads[0], lambda descriptor, since: True, lambda count, reason: None
        )
        self.listeners = Listeners(self.reactor, dispatcher, EventStream(self.fail), lambda: 5.0)
        self.requests.answer = lambda request: self.listeners.claim("one", 0, request)
        self.requests.unbound = lambda number: self.listeners.unclaim("one", number)
        self.addCleanup(self.close)
        self.directory = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def close(self) -> None:
        """
        Close all.
        """
        self.listeners.close()
        self.reactor.settle()

    def address(self, *arguments: Any) -> Any:
        """
        What the worker's copy of a port is bound to.
        """
        bound = self.binder.bind(*arguments)
        with bound.socket:
            return bound.socket.getsockname()

    def test_ports(self) -> None:
        """
        All kinds of ports can be had.
        """
        number = freePort()
        datagrams = freePort(socket.SOCK_DGRAM)
        path = os.path.join(self.directory, "s")
        self.assertEqual(self.address("tcp", "127.0.0.1", number), ("127.0.0.1", number))
        self.assertEqual(self.address("tcp", "::1", number)[:2], ("::1", number))
        self.assertEqual(self.address("udp", "127.0.0.1", datagrams), ("127.0.0.1", datagrams))
        self.assertEqual(self.address("unix", path, 0), path)
        self.assertEqual(self.address("unix", f"\0{path}", 0), f"\0{path}".encode())
        self.assertNotEqual(self.address("tcp", "", 0), self.address("tcp", "", 0, 1, 1, False, 1))

    def test_errors(self) -> None:
        """
        What the system says reaches the app; nonsense too is refused, and the
        next question is answered.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for arguments, number in (
                (("tcp", *taken.getsockname()), errno.EADDRINUSE),
                (("tcp", "192.0.2.1", 0), errno.EADDRNOTAVAIL),
                (("unix", "/nonexistent/s", 0), errno.ENOENT),
                (("tcp", "", 1 << 20), errno.EADDRNOTAVAIL),
                (("tcp", "", -1), errno.EADDRNOTAVAIL),
                (("unix", "/" + "x" * 200, 0), errno.EADDRNOTAVAIL),
            ):
                self.assertEqual(self.refused(*arguments).errno, number, arguments)
        self.assertEqual(self.address("tcp", "127.0.0.1", 0)[0], "127.0.0.1")

    def test_again(self) -> None:
        """
        What was given back can be had again at once.
        """
        number, datagrams = freePort(), freePort(socket.SOCK_DGRAM)
        path = os.path.join(self.directory, "s")
        for arguments in (
            ("tcp", "127.0.0.1", number),
            ("tcp", "", number),
            ("tcp", "127.0.0.1", number),
            ("udp", "127.0.0.1", datagrams),
            ("udp", "127.0.0.1", datagrams),
            ("unix", path, 0),
            ("unix", path, 0),
        ):
            bound = self.binder.bind(*arguments)
            bound.socket.close()
            self.binder.unbind(bound.listener)
        self.reactor.settle()
        self.assertEqual(self.listeners.statuses(), ())
