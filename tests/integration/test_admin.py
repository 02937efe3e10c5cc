"""
The admin socket and C{twisted-cluster}, from outside.
"""

from __future__ import annotations

import os
import random
import stat

from twisted.internet.defer import gatherResults

from tests.integration.clients import Ab, connect, get, who
from tests.integration.harness import ClusterTestCase

GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0" * 1000,
    b"\xff" * 1000,
    b"\0\x04_ask\0\x011\0\x08_command\0\x06Status",
    b"\0\x08_command\0\x06Status\0\0" * 100,
    b"\0\x08_command\0\x05Eject\0\0",
    b"\0\x04_ask\xff\xff" + b"x" * 65535 + b"\0\x01a\xff\xff" + b"y" * 65535,
)


class AdminTests(ClusterTestCase):
    """
    Commands to a running cluster.
    """

    async def test_scale(self) -> None:
        """
        C{scale} adds workers and takes them away without a lost request.
        """
        cluster = await self.cluster("hello:quiet")
        ab = Ab(cluster.port, concurrency=50)
        for wanted in (4, 1, 2):
            finished = await cluster.ctl("scale", str(wanted))
            self.assertEqual(finished.code, 0, finished)
            await cluster.allReady(wanted)
            self.assertEqual(set(cluster.ready()), set(range(wanted)))
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertEqual((await cluster.status())["wanted"], 2)

    async def test_reload(self) -> None:
        """
        C{reload} returns when the last slot has been replaced.
        """
        cluster = await self.cluster("hello:quiet")
        finished = await cluster.ctl("reload")
        self.assertEqual(finished.code, 0, finished)
        self.assertEqual({(await who(cluster.port))[:2] for _ in range(4)}, {(0, 2), (1, 2)})

    async def test_stop(self) -> None:
        """
        C{stop} ends all processes.
        """
        cluster = await self.cluster("hello:quiet")
        finished = await cluster.ctl("stop")
        self.assertEqual(finished.code, 0, finished)
        await cluster.isExit()

    async def test_onlyForTheOwner(self) -> None:
        """
        Nobody else can open the admin socket, and it is gone after the end.
        """
        cluster = await self.cluster("hello:quiet", workers=1)
        path = self.path("twisted-cluster.sock")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        await cluster.stop()
        self.assertFalse(os.path.exists(path))

    async def test_garbage(self) -> None:
        """
        Garbage, half commands, unknown and huge ones, and clients who say
        nothing hurt nobody: requests and other commands are answered.
        """
        cluster = await self.cluster("hello:quiet")
        path = self.path("twisted-cluster.sock")
        ab = Ab(cluster.port, concurrency=20)
        noise = random.Random(1).randbytes(100_000)
        clients = await gatherResults([connect(path) for _ in range(20)])
        for client, data in zip(clients, (*GARBAGE, noise)):
            client.send(data)
        self.assertEqual((await cluster.status())["wanted"], 2)
        self.assertEqual(await get(cluster.port), b"hello\n")
        for client in clients:
            client.transport.abortConnection()
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertEqual((await cluster.status())["wanted"], 2)
        self.assertEqual(cluster.matching("Traceback|exited"), [])
        self.assertLess(len(cluster.lines), 200)
