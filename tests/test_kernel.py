"""
Tests for L{twisted_cluster.kernel}.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.support import noDescriptors, openDescriptors, socketPair
from twisted_cluster import kernel

if not sys.platform.startswith("linux"):
    skip = "what the kernel tells of connections is known for Linux alone"


def until(condition: Callable[[], bool]) -> None:
    """
    Wait for what another end of the loopback interface has done to be seen at
    this one.
    """
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the kernel never said so"
        time.sleep(0.001)


class UntouchedTests(SynchronousTestCase):
    """
    L{kernel.isUntouched} tells whether another process can serve a connection
    from its beginning.
    """

    family = socket.AF_INET
    host = "127.0.0.1"

    def setUp(self) -> None:
        with socket.socket(self.family, socket.SOCK_STREAM) as listening:
            listening.bind((self.host, 0))
            listening.listen()
            self.client = socket.socket(self.family, socket.SOCK_STREAM)
            self.addCleanup(self.client.close)
            self.client.connect(listening.getsockname())
            self.server, _ = listening.accept()
        self.addCleanup(self.server.close)

    def assertUntouched(self, expected: bool) -> None:
        """
        The verdict, of the connection and of a copy of it.
        """
        copy = os.dup(self.server.fileno())
        self.addCleanup(os.close, copy)
        self.assertIs(kernel.isUntouched(self.server.fileno()), expected)
        self.assertIs(kernel.isUntouched(copy), expected)

    def arrived(self, count: int) -> None:
        """
        Wait for bytes of the client.
        """
        until(lambda: kernel.unreadBytes(self.server.fileno()) == count)

    def hasEnded(self) -> None:
        """
        Wait for the end of the client's stream.
        """
        until(lambda: self.state() == 8)

    def state(self) -> int:
        """
        The state of the connection, as the kernel numbers it.
        """
        return self.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def test_fresh(self) -> None:
        """
        Nothing has been sent.
        """
        self.assertUntouched(True)

    def test_request(self) -> None:
        """
        The client has sent something that nobody has read.
        """
        self.client.sendall(b"GET / HTTP/1.1\r\n")
        self.arrived(16)
        self.assertUntouched(True)

    def test_end(self) -> None:
        """
        The client has sent its request and the end of its stream.
        """
        self.client.sendall(b"hello")
        self.client.shutdown(socket.SHUT_WR)
        self.hasEnded()
        self.assertUntouched(True)

    def test_endAlone(self) -> None:
        """
        The client has sent the end of its stream and nothing else.
        """
        self.client.shutdown(socket.SHUT_WR)
        self.hasEnded()
        self.assertUntouched(True)

    def test_endAfterRead(self) -> None:
        """
        One byte was read, and the end of the stream came: it must not make up
        for the byte.
        """
        self.client.sendall(b"hello")
        self.arrived(5)
        self.server.recv(1)
        self.client.shutdown(socket.SHUT_WR)
        self.hasEnded()
        self.assertUntouched(False)

    def test_partlyRead(self) -> None:
        """
        Some of it has been read.
        """
        self.client.sendall(b"hello")
        self.arrived(5)
        self.server.recv(2)
        self.assertUntouched(False)

    def test_readAll(self) -> None:
        """
        All of it has been read.
        """
        self.client.sendall(b"hello")
        self.arrived(5)
        self.server.recv(100)
        self.assertUntouched(False)

    def test_peeked(self) -> None:
        """
        A look that leaves the bytes where they are is no touch.
        """
        self.client.sendall(b"hello")
        self.arrived(5)
        self.server.recv(5, socket.MSG_PEEK)
        self.assertUntouched(True)

    def test_written(self) -> None:
        """
        The server has spoken first.
        """
        self.server.sendall(b"220 ready\r\n")
        self.client.recv(1)
        self.assertUntouched(False)

    def test_otherProcess(self) -> None:
        """
        What another process has read from its copy counts too.
        """
        self.client.sendall(b"hello")
        self.arrived(5)
        subprocess.run(
            [sys.executable, "-S", "-c", "import os; os.read(0, 3)"],
            stdin=self.server.fileno(),
            check=True,
        )
        self.assertUntouched(False)

    def test_reset(self) -> None:
        """
        There is nobody left to serve.
        """
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()
        until(lambda: self.state() == 7)
        self.assertUntouched(False)

    def test_shutDown(self) -> None:
        """
        The server has ended its own stream.
        """
        self.server.shutdown(socket.SHUT_WR)
        self.assertUntouched(False)


class Untouched6Tests(UntouchedTests):
    """
    The same over IPv6.
    """

    family = socket.AF_INET6
    host = "::1"
    if not socket.has_ipv6:
        skip = "there is no IPv6 here"


class OtherDescriptorsTests(SynchronousTestCase):
    """
    What is no TCP connection.
    """

    def test_unix(self) -> None:
        """
        Of a UNIX connection the kernel does not tell.
        """
        ours, _ = socketPair(self)
        self.assertIs(kernel.isUntouched(ours.fileno()), None)

    def test_none(self) -> None:
        """
        What is no socket, or is closed, can't be served by anybody; nothing is
        left open over it.
        """
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.close(writing)
        before = openDescriptors()
        self.assertIs(kernel.isUntouched(reading), False)
        self.assertIs(kernel.isUntouched(writing), False)
        self.assertEqual(openDescriptors(), before)

    def test_tellsTouch(self) -> None:
        """
        It is told of TCP in both families.
        """
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        self.assertEqual([kernel.tellsTouch(one) for one in families], [True, True, False])

    def test_unreadBytes(self) -> None:
        """
        The bytes that wait are counted.
        """
        ours, theirs = socketPair(self)
        theirs.sendall(b"12345")
        self.assertEqual(kernel.unreadBytes(ours.fileno()), 5)


class ListeningTests(SynchronousTestCase):
    """
    Which descriptors listen.
    """

    def test_sockets(self) -> None:
        """
        Sockets that listen do, of any family; others don't.
        """
        path = self.mktemp()
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_INET6, ("::1", 0)),
            (socket.AF_UNIX, f"\0{path}"),
        ):
            with socket.socket(family, socket.SOCK_STREAM) as found:
                found.bind(address)
                self.assertFalse(kernel.isListening(found.fileno()))
                found.listen()
                self.assertTrue(kernel.isListening(found.fileno()))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            self.assertFalse(kernel.isListening(found.fileno()))

    def test_others(self) -> None:
        """
        Nor does anything else, or what there is not.
        """
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        with open(os.devnull, "rb") as file, socket.create_server(("127.0.0.1", 0)) as gone:
            for number in (reading, writing, file.fileno(), -1, 987):
                self.assertFalse(kernel.isListening(number), number)
        closed = gone.fileno()
        self.assertFalse(kernel.isListening(closed))

    def test_leaksNothing(self) -> None:
        """
        Asking opens nothing for good, and closes nothing.
        """
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        ours, theirs = socketPair(self)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            numbers = (reading, writing, ours.fileno(), theirs.fileno(), listening.fileno(), 987)
            before = openDescriptors()
            for number in numbers * 3:
                kernel.isListening(number)
                kernel.isOpen(number)
            kernel.listeningDescriptors()
            self.assertEqual(openDescriptors(), before)

    def test_noDescriptors(self) -> None:
        """
        It can be asked even when there is no descriptor left.
        """
        with socket.create_server(("127.0.0.1", 0)) as listening:
            with noDescriptors():
                self.assertTrue(kernel.isListening(listening.fileno()))
            self.assertTrue(kernel.isListening(listening.fileno()))

    def test_all(self) -> None:
        """
        Those of this process are found, and nothing but those.
        """
        ours, _ = socketPair(self)
        before = kernel.listeningDescriptors()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.assertEqual(kernel.listeningDescriptors() - before, {listening.fileno()})
        self.assertNotIn(ours.fileno(), before)
        self.assertEqual(kernel.listeningDescriptors(), before)

    def test_open(self) -> None:
        """
        Whether there is a descriptor at all.
        """
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.assertTrue(kernel.isOpen(writing))
        os.close(writing)
        self.assertFalse(kernel.isOpen(writing))


class UsageTests(SynchronousTestCase):
    """
    L{kernel.processUsage}.
    """

    def test_own(self) -> None:
        """
        This process runs, and its CPU time only grows.
        """
        before = kernel.processUsage(os.getpid())
        assert before is not None
        until(lambda: (kernel.processUsage(os.getpid()) or (0, False))[0] > before[0])
        self.assertTrue(before[1])

    def test_sleeping(self) -> None:
        """
        A process that waits for something does not run, whatever its name is.
        """
        child = subprocess.Popen(["sleep", "60"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        until(lambda: kernel.processUsage(child.pid) == (0.0, False))

    def test_missing(self) -> None:
        """
        Of a process that does not exist nothing is known.
        """
        self.assertIs(kernel.processUsage(1 << 30), None)
