"""
Tests for L{twisted_cluster.ops.port} and the service on real sockets.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

from twisted.application.service import MultiService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.ops.fakes import FakeCluster, InstantCluster, shortDirectory
from tests.ops.test_admin import ask
from tests.support import Lines, openDescriptors
from twisted_cluster.errors import AdminError
from twisted_cluster.events import Phase
from twisted_cluster.ops import admin, port
from twisted_cluster.ops.admin import AdminService
from twisted_cluster.wire import admin as wire

reactor: Any = _reactor

NOBODY = 65534


def deadPid() -> int:
    """
    The id of a process that has ended.
    """
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def requireRoot() -> None:
    """
    @raise SkipTest: The test does not run as root.
    """
    if os.geteuid() != 0:
        raise SkipTest("only root can change the owner of a file")


class Raw(Protocol):
    """
    A peer that sends any bytes.

    @ivar data: What has come back.
    @ivar closed: Fires with all of it when the connection ends.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.closed: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell."""
        self.closed.callback(self.data)


class Case(TestCase):
    """
    A fake cluster, and a directory for sockets.
    """

    cluster: FakeCluster

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        self.path = os.path.join(self.directory, "admin.sock")
        self.cluster = InstantCluster()
        self.lines = Lines(self)

    def service(self, **more: Any) -> AdminService:
        """
        A service that is stopped with the test.
        """
        service = AdminService(reactor, self.cluster, self.path, **more)
        self.addCleanup(service.stopService)
        return service

    def started(self, **more: Any) -> AdminService:
        """
        A service that runs.
        """
        service = self.service(**more)
        service.privilegedStartService()
        service.startService()
        return service

    async def connect(self, protocol: Any) -> Any:
        """
        Connect to the socket.
        """
        connected = await connectProtocol(UNIXClientEndpoint(reactor, self.path), protocol)

        async def end() -> None:
            if connected.transport is not None:
                connected.transport.abortConnection()
            # The two ends of a UNIX socket end in turns of their own.
            await deferLater(reactor, 0, lambda: None)

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return connected

    async def assertServes(self) -> None:
        """
        The socket answers.
        """
        tool = await self.connect(AMP())
        answer = await tool.callRemote(wire.Hello)
        self.assertEqual(answer["protocol"], 1)

    def refusal(self, **more: Any) -> str:
        """
        Start a service that must be refused.
        """
        service = AdminService(reactor, self.cluster, self.path, **more)
        before = os.umask(0o022)
        os.umask(before)
        text = str(self.assertRaises(AdminError, service.privilegedStartService))
        self.assertEqual(os.umask(before), before)
        return text

    def left(self) -> list[str]:
        """
        What is in the directory.
        """
        return sorted(os.listdir(self.directory))


class BindTests(Case):
    """
    Where the socket is and whom it lets in.
    """

    async def test_served(self) -> None:
        """
        The socket is for its owner alone, and answers; the lock beside it
        names the process.
        """
        self.started()
        mode = os.lstat(self.path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        self.assertEqual(os.readlink(self.path + ".lock"), str(os.getpid()))
        await self.assertServes()

    def test_modeFromTheFirstMoment(self) -> None:
        """
        The socket has its mode as soon as it exists, before Twisted sets it;
        the umask is the old one afterwards.
        """
        modes = []
        chmod = os.chmod

        def look(path: Any, mode: int) -> None:
            modes.append(stat.S_IMODE(os.lstat(path).st_mode))
            chmod(path, mode)

        before = os.umask(0)
        try:
            with patch("os.chmod", look):
                self.started()
            self.assertEqual(os.umask(0), 0)
        finally:
            os.umask(before)
        self.assertEqual(modes, [0o600])

    def test_owner(self) -> None:
        """
        The socket and its lock are given to the user that the master will run
        as.
        """
        requireRoot()
        self.started(owner=(NOBODY, NOBODY))
        for path in (self.path, self.path + ".lock"):
            status = os.lstat(path)
            self.assertEqual((status.st_uid, status.st_gid), (NOBODY, NOBODY))

    def test_ownerRefused(self) -> None:
        """
        If the socket can't be given away, it is not left behind.
        """
        with patch("os.lchown", side_effect=PermissionError(1, "Operation not permitted")):
            text = self.refusal(owner=(NOBODY, NOBODY))
        self.assertIn("can't give admin socket", text)
        self.assertIn("Operation not permitted; start as root", text)
        self.assertEqual(self.left(), [])

    async def test_relativePath(self) -> None:
        """
        A relative path is that of when the service was made, whatever the
        current directory is later.
        """
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        service = AdminService(reactor, self.cluster, "admin.sock")
        os.chdir("/")
        service.startService()
        self.assertEqual(service.path, self.path)
        await self.assertServes()
        await service.stopService()
        self.assertEqual(self.left(), [])

    def test_longPath(self) -> None:
        """
        A path too long for a socket is refused with its length.
        """
        for length in (108, 5000):
            self.path = "/" + "x" * (length - 1)
            text = str(self.assertRaises(AdminError, self.service))
            self.assertIn(f"its path has {length} bytes", text)
            self.assertIn("at most 107; give a shorter path with --admin", text)

    async def test_longestPath(self) -> None:
        """
        The longest path that a socket can have works, lock and all.
        """
        self.path = os.path.join(self.directory, "x" * (107 - len(self.directory) - 1))
        self.started()
        await self.assertServes()

    def test_noPath(self) -> None:
        """
        What can't be a path is refused.
        """
        for self.path in ("", "a\0b"):
            self.assertIn("that is no path", str(self.assertRaises(AdminError, self.service)))

    def test_noDirectory(self) -> None:
        """
        The refusal names the directory that is missing.
        """
        self.path = os.path.join(self.directory, "missing", "admin.sock")
        self.assertIn(f"there is no directory {self.directory}/missing", self.refusal())

    def test_noPermission(self) -> None:
        """
        The refusal names the directory that can't be written to.
        """
        with patch(
            "twisted.python.lockfile.symlink", side_effect=PermissionError(13, "Permission denied")
        ):
            text = self.refusal()
        self.assertIn(f"Permission denied; let this user write to {self.directory}", text)

    def test_otherFile(self) -> None:
        """
        A file that is not a socket is never removed, and no lock stays.
        """
        with open(self.path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("there is a file which is not a socket; move it", self.refusal())
        self.assertEqual(self.left(), ["admin.sock"])
        self.assertEqual(os.path.getsize(self.path), 8)

    async def test_startedLate(self) -> None:
        """
        A service that is added to a parent that runs already binds when it
        starts.
        """
        parent = MultiService()
        parent.startService()
        AdminService(reactor, self.cluster, self.path).setServiceParent(parent)
        await self.assertServes()
        await parent.stopService()

    async def test_againAfterStop(self) -> None:
        """
        A service that was stopped can be started again.
        """
        service = self.started()
        await service.stopService()
        self.assertEqual(self.left(), [])
        service.startService()
        await self.assertServes()


class PredecessorTests(Case):
    """
    What another master has left at the path, or still uses there.
    """

    def leave(self, pid: int | None, listening: bool = False) -> socket.socket:
        """
        Have a socket at the path, and a lock of the process C{pid}.
        """
        left = socket.socket(socket.AF_UNIX)
        self.addCleanup(left.close)
        left.bind(self.path)
        if listening:
            left.listen(1)
        if pid is not None:
            os.symlink(str(pid), self.path + ".lock")
        return left

    async def test_dead(self) -> None:
        """
        The socket of a dead master is replaced.
        """
        self.leave(deadPid())
        self.started()
        await self.assertServes()

    async def test_pidInUse(self) -> None:
        """
        So it is if some other process, or this very one, has the process id of
        the dead master by now, as happens after a restart of a container.
        """
        for pid in (1, os.getpid()):
            self.leave(pid).close()
            service = self.started()
            await self.assertServes()
            await service.stopService()

    async def test_onlyLock(self) -> None:
        """
        A lock without a socket is replaced as well.
        """
        os.symlink("1", self.path + ".lock")
        self.started()
        await self.assertServes()

    async def test_onlySocket(self) -> None:
        """
        So is a socket without a lock on which nobody listens.
        """
        self.leave(None).close()
        self.started()
        await self.assertServes()

    async def test_live(self) -> None:
        """
        A live master keeps its socket; the refusal has its process id.
        """
        self.started()
        self.assertEqual(
            self.refusal(),
            f"can't listen on admin socket {self.path}: another master (pid {os.getpid()}) is"
            " using it; stop that one, or give another path with --admin",
        )
        await self.assertServes()

    def test_liveStranger(self) -> None:
        """
        So does another program, which has no lock.
        """
        self.leave(None, listening=True)
        self.assertIn("another process is using it", self.refusal())
        self.assertEqual(self.left(), ["admin.sock"])

    def test_busyStranger(self) -> None:
        """
        A listener whose accept queue is full is alive all the same.
        """
        self.leave(None, listening=True)
        for _ in range(5):
            waiting = socket.socket(socket.AF_UNIX)
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(self.path)
        self.assertIn("another process is using it", self.refusal())

    def test_cantRemove(self) -> None:
        """
        If what a dead master left can't be removed, the refusal says so.
        """
        self.leave(None).close()
        with patch("os.unlink", side_effect=PermissionError(13, "Permission denied")):
            self.assertIn("Permission denied; let this user write to", self.refusal())


class StopTests(Case):
    """
    The end of the service.
    """

    async def test_nothingLeft(self) -> None:
        """
        Socket, lock and descriptors are gone.
        """
        service = self.started()
        await service.stopService()
        before = openDescriptors()
        service.startService()
        await service.stopService()
        self.assertEqual(self.left(), [])
        self.assertEqual(openDescriptors(), before)

    async def test_cantUnlink(self) -> None:
        """
        A master that has dropped its privileges may not be able to remove the
        socket: that is logged, and the port is closed all the same.
        """
        service = self.started()
        with patch("os.unlink", side_effect=PermissionError(13, "Permission denied")):
            await service.stopService()
        (line,) = self.lines.grave()
        self.assertEqual(
            line,
            f"can't remove admin socket {self.path}: Permission denied;"
            " the next master replaces it",
        )
        with socket.socket(socket.AF_UNIX) as client:
            self.assertRaises(ConnectionRefusedError, client.connect, self.path)
        self.started()
        await self.assertServes()

    async def test_alreadyRemoved(self) -> None:
        """
        If somebody else has removed the socket, that is nothing to complain
        of.
        """
        service = self.started()
        os.unlink(self.path)
        await service.stopService()
        self.assertEqual((self.left(), self.lines.grave()), ([], []))

    async def test_successor(self) -> None:
        """
        A socket that has become that of another master stays.
        """
        service = self.started()
        os.unlink(self.path)
        os.unlink(self.path + ".lock")
        os.symlink("1", self.path + ".lock")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            await service.stopService()
        self.assertEqual(self.left(), ["admin.sock", "admin.sock.lock"])

    async def test_connections(self) -> None:
        """
        Connections are closed.
        """
        service = self.started()
        raw = await self.connect(Raw())
        await self.assertServes()
        await service.stopService()
        self.assertEqual(await raw.closed, b"")


class PeerTests(Case):
    """
    Peers on real sockets.
    """

    async def test_allowed(self) -> None:
        """
        Root and the effective user of the master may connect, whoever that is
        at the time.
        """
        service = self.started()
        self.assertEqual(service.allowedUids, {0, os.geteuid()})
        with patch("os.geteuid", lambda: 77):
            self.assertEqual(service.allowedUids, {0, 77})

    async def test_forbidden(self) -> None:
        """
        Another user is told so and cut off, with a line in the log.
        """
        self.started(allowedUids=[NOBODY])
        tool = await self.connect(AMP())
        with self.assertRaises(wire.Forbidden):
            await tool.callRemote(wire.Stop)
        self.assertEqual(self.cluster.calls, [])
        (line,) = self.lines.grave()
        self.assertEqual(
            line,
            f"admin socket: process {os.getpid()} of user {os.getuid()} is cut off:"
            " it may not use it",
        )

    async def test_garbage(self) -> None:
        """
        Garbage ends its connection and no other, with one line in the log and
        no traceback.
        """
        self.started()
        tool = await self.connect(AMP())
        raw = await self.connect(Raw())
        raw.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(await raw.closed, b"")
        (line,) = self.lines.grave()
        self.assertIn("this is not AMP", line)
        self.assertEqual(await tool.callRemote(wire.Broadcast, text="x"), {"workers": 2})

    async def test_descriptors(self) -> None:
        """
        Descriptors that a peer sends along are closed.
        """
        self.started()
        raw = await self.connect(Raw())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            before = openDescriptors()
            socket.send_fds(client, [ask(b"Hello")], [client.fileno()] * 100)
            raw.transport.write(ask(b"Broadcast", text=b"x"))
            while not self.cluster.calls:
                await deferLater(reactor, 0, lambda: None)
            client.setblocking(False)
            reply = b""
            while not reply:
                await deferLater(reactor, 0, lambda: None)
                try:
                    reply = client.recv(1000)
                except BlockingIOError:
                    continue
            # No more than the master's ends of the two connections.
            self.assertLessEqual(len(openDescriptors() - before), 2)

    async def test_slowReader(self) -> None:
        """
        A tool that asks and asks and never reads makes the master hold no more
        than a bound, and is cut off in the end.
        """
        self.patch(admin, "STALL_TIMEOUT", 0.2)
        service = self.started()
        raw = await self.connect(Raw())
        raw.transport.pauseProducing()
        (end,) = await self.ends(service, 1)
        raw.transport.write(ask(b"Status") * 20_000)
        await end.lost
        (line,) = self.lines.grave()
        self.assertIn("it does not read its answers", line)
        await self.assertServes()

    async def test_unreadProgress(self) -> None:
        """
        A tool that does not read its progress is cut off when too much of it
        is held; the reload goes on.
        """
        self.cluster = FakeCluster()
        service = self.started()
        raw = await self.connect(Raw())
        raw.transport.pauseProducing()
        (end,) = await self.ends(service, 1)
        raw.transport.write(ask(b"Reload", progress=b"True"))
        while self.cluster.replacement is None:
            await deferLater(reactor, 0, lambda: None)
        while not end.isOver:
            self.cluster.step(Phase.SPAWNED, reason="x" * 60_000)
            await deferLater(reactor, 0, lambda: None)
        await end.lost
        self.assertIn("bytes unread", self.lines.grave()[0])
        self.assertIsNotNone(self.cluster.replacement)
        self.cluster.finish()
        self.assertEqual(self.cluster.failures, [])

    async def ends(self, service: AdminService, count: int) -> list[admin.AdminProtocol]:
        """
        The master's ends of C{count} connections.
        """
        while len(service.connections) < count:
            await deferLater(reactor, 0, lambda: None)
        return list(service.connections)

    async def test_many(self) -> None:
        """
        However many connect, the next one still gets its answer.
        """
        service = self.started()
        crowd = [await self.connect(Raw()) for _ in range(admin.MAX_CONNECTIONS + 5)]
        await self.assertServes()
        for raw in crowd[:6]:
            await raw.closed
        self.assertLessEqual(len(service.connections), admin.MAX_CONNECTIONS)

    async def test_largeStatus(self) -> None:
        """
        A status of many parts, all asked for at once, arrives.
        """
        self.cluster.workers = self.cluster.workers * 2000
        self.started()
        tool = await self.connect(AMP())
        parts = (await tool.callRemote(wire.Status))["parts"]
        self.assertGreater(parts, 4)
        asked = [tool.callRemote(wire.Status, part=part) for part in range(1, parts)]
        got = [(await answer)["part"] for answer in asked]
        self.assertEqual(got, list(range(1, parts)))


class ResolveTests(Case):
    """
    L{port.resolve}.
    """

    def test_bytes(self) -> None:
        """
        What counts is the length in bytes, not in characters.
        """
        self.assertRaises(AdminError, port.resolve, "/" + "\N{EURO SIGN}" * 40)
        self.assertEqual(port.resolve("/" + "\N{EURO SIGN}" * 35), "/" + "\N{EURO SIGN}" * 35)
