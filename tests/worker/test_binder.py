"""
Tests for L{twisted_cluster.worker.binder}: whatever the master answers, and
if it does not, the app gets a port or a C{CannotListenError}.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from tests.support import identity, noDescriptors, openDescriptors, socketPair
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import parseBox
from twisted_cluster.worker import binder
from twisted_cluster.worker.binder import Binder


class BinderTests(SynchronousTestCase):
    """
    The worker's end, with the master's in the hands of the test.  What the
    master is going to answer is written before it is asked.
    """

    def setUp(self) -> None:
        ours, self.theirs = socketPair(self)
        self.theirs.settimeout(10)
        self.binder = Binder(ours)
        self.patience(0.01)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.before = openDescriptors()

    def patience(self, seconds: float) -> None:
        """
        Set how long to wait for an answer.
        """
        self.patch(binder, "PATIENCE", seconds)
        self.binder._channel.settimeout(seconds)

    def answer(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """
        Say something in the name of the master.
        """
        socket.send_fds(self.theirs, [data], descriptors)

    def bound(self, listener: int) -> None:
        """
        Answer that a port is bound.
        """
        box = commands.encode(commands.Bound, listener=listener)
        self.answer(box, [self.listening.fileno()])

    def notBound(self, number: int, reason: str) -> None:
        """
        Answer that one is not.
        """
        self.answer(commands.encode(commands.NotBound, errno=number, reason=reason))

    def heard(self) -> list[dict[bytes, bytes]]:
        """
        The boxes that the master has got.
        """
        data = self.theirs.recv(65_536)
        found = []
        while data:
            box, end = parseBox(data, 0)
            assert box is not None
            found.append(box)
            data = data[end:]
        return found

    def refused(self, *arguments: Any) -> CannotListenError:
        """
        What is raised when a port is asked for; nothing is left open.
        """
        error: CannotListenError = self.assertRaises(
            CannotListenError, self.binder.bind, *arguments
        )
        self.assertEqual(openDescriptors(), self.before)
        return error

    def test_bound(self) -> None:
        """
        The worker gets a copy of the listening socket, which programs that it
        runs don't inherit; the master gets all it needs.
        """
        self.bound(7)
        bound = self.binder.bind("tcp", "127.0.0.1", 8080, 9, 0o600, True, 2)
        self.addCleanup(bound.socket.close)
        self.assertEqual(bound.listener, 7)
        self.assertEqual(identity(bound.socket.fileno()), identity(self.listening.fileno()))
        self.assertFalse(bound.socket.get_inheritable())
        self.assertEqual(len(openDescriptors() - self.before), 1)
        (box,) = self.heard()
        self.assertEqual(
            commands.Bind.parseArguments(box, None),
            {
                "kind": "tcp",
                "address": b"127.0.0.1",
                "port": 8080,
                "backlog": 9,
                "mode": 0o600,
                "wantPID": True,
                "order": 2,
            },
        )

    def test_paths(self) -> None:
        """
        Paths are bytes, whatever they consist of.
        """
        for path, expected in (("\0name", b"\0name"), (b"/\xff", b"/\xff"), ("/\udcff", b"/\xff")):
            self.notBound(errno.EADDRINUSE, "taken")
            self.refused("unix", path, 0)
            self.assertEqual(self.heard()[0][b"address"], expected)

    def test_slowAnswer(self) -> None:
        """
        An answer may come in pieces.
        """
        self.patience(10)
        box = commands.encode(commands.Bound, listener=7)
        self.answer(box[:1], [self.listening.fileno()])
        self.answer(box[1:20])
        self.answer(box[20:])
        bound = self.binder.bind("tcp", "", 0)
        bound.socket.close()
        self.assertEqual((bound.listener, openDescriptors()), (7, self.before))

    def test_notBound(self) -> None:
        """
        The system's error number and words reach the app.
        """
        self.notBound(errno.EACCES, "Permission denied")
        error = self.refused("tcp", "127.0.0.1", 80)
        self.assertEqual((error.interface, error.port), ("127.0.0.1", 80))
        self.assertEqual(error.socketError.errno, errno.EACCES)
        self.assertEqual(error.socketError.strerror, "Permission denied")

    def test_unknownError(self) -> None:
        """
        An error without a number has one for the app.
        """
        self.notBound(0, "no idea")
        self.assertEqual(self.refused("tcp", "", 80).socketError.errno, errno.EINVAL)

    def test_masterGone(self) -> None:
        """
        Without a master nothing can be bound, and nothing has to be given
        back.
        """
        self.theirs.close()
        self.before = openDescriptors()
        for _ in range(2):
            self.assertEqual(self.refused("tcp", "", 80).socketError.errno, errno.EPIPE)
        self.binder.unbind(3)

    def test_masterGoneMeanwhile(self) -> None:
        """
        The same if it goes in the middle of its answer.
        """
        self.answer(commands.encode(commands.Bound, listener=7)[:9])
        self.theirs.shutdown(socket.SHUT_WR)
        error = self.refused("tcp", "", 80)
        self.assertEqual(error.socketError.errno, errno.EPIPE)
        self.assertEqual(error.socketError.strerror, "the master is gone")

    def test_closed(self) -> None:
        """
        Neither can anything be bound after this end was closed.
        """
        self.binder.close()
        self.before = openDescriptors()
        self.assertEqual(self.refused("tcp", "", 80).socketError.errno, errno.EBADF)
        self.binder.unbind(3)

    def test_noAnswer(self) -> None:
        """
        A master that does not answer in time is not waited for.
        """
        error = self.refused("tcp", "", 80)
        self.assertEqual(error.socketError.errno, errno.ETIMEDOUT)
        self.assertIn("the master has not answered for 0.01 s", str(error))

    def test_lateAnswer(self) -> None:
        """
        An answer that comes too late is not taken for that to the next
        question: its port is given back, its socket closed.
        """
        self.refused("tcp", "", 80)
        self.refused("tcp", "", 81)
        self.bound(80)
        self.notBound(errno.EACCES, "not 81")
        self.bound(82)
        bound = self.binder.bind("tcp", "", 82)
        bound.socket.close()
        self.assertEqual((bound.listener, openDescriptors()), (82, self.before))
        last = self.heard()[-1]
        self.assertEqual((last[b"_command"], last[b"listener"]), (b"Unbind", b"80"))
        self.bound(83)
        bound = self.binder.bind("tcp", "", 83)
        bound.socket.close()
        self.assertEqual(bound.listener, 83)

    def test_halfAnAnswer(self) -> None:
        """
        Neither is the rest of one that began in time.
        """
        box = commands.encode(commands.Bound, listener=80)
        self.answer(box[:5], [self.listening.fileno()])
        self.assertRaises(CannotListenError, self.binder.bind, "tcp", "", 80)
        self.answer(box[5:])
        self.notBound(errno.EACCES, "not 81")
        self.assertEqual(self.refused("tcp", "", 81).socketError.errno, errno.EACCES)

    def test_noDescriptors(self) -> None:
        """
        If there is no descriptor left for the socket, that is what the app is
        told, and the port is given back.
        """
        self.bound(7)
        with noDescriptors():
            error = self.assertRaises(CannotListenError, self.binder.bind, "tcp", "", 80)
        self.assertEqual(error.socketError.errno, errno.EMFILE)
        self.assertEqual(openDescriptors(), self.before)
        last = self.heard()[-1]
        self.assertEqual((last[b"_command"], last[b"listener"]), (b"Unbind", b"7"))

    def test_nonsense(self) -> None:
        """
        An answer that is none is met as an error of the system would be, and
        is the last one.
        """
        for data in (
            commands.encode(commands.Stop),
            b"\0\x05hello\0\x05world\0\0",
            b"\0\x08_command\0\x08NotBound\0\x05errno\0\x01x\0\0",
            b"\0\x08_command\0\x05Bound\0\0",
            b"\xff" * 10,
        ):
            ours, self.theirs = socketPair(self)
            self.before = openDescriptors() - {ours.fileno()}
            self.binder = Binder(ours)
            self.answer(data, [self.listening.fileno()])
            self.assertEqual(self.refused("tcp", "", 80).socketError.errno, errno.EPROTO)
            self.assertEqual(self.refused("tcp", "", 80).socketError.errno, errno.EBADF)

    def test_tooLong(self) -> None:
        """
        What can't even be asked for is refused, and the next question is
        answered.
        """
        error = self.refused("unix", "/" * 70_000, 0)
        self.assertEqual(error.socketError.errno, errno.ENAMETOOLONG)
        self.bound(7)
        bound = self.binder.bind("tcp", "", 80)
        bound.socket.close()
        self.assertEqual(bound.listener, 7)

    def test_unbind(self) -> None:
        """
        What is wanted no more is told, without waiting for an answer.
        """
        self.binder.unbind(5)
        (box,) = self.heard()
        self.assertEqual(commands.Unbind.parseArguments(box, None), {"listener": 5})
