"""
Connections that go on in another worker, across reloads and scaling.
"""

from __future__ import annotations

import os
import re
import shutil
import signal

from twisted.internet.defer import Deferred, gatherResults

from tests.integration.clients import Exchange, connect
from tests.integration.harness import ROOT, Cluster, ClusterTestCase, requireTool, spawn

WHO = b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n"
_FIVE = re.compile(rb"(?:HTTP/1.1 200.*?\r\n\r\n\d+ \d+ \d+\n){5}", re.DOTALL)
_ANSWER = re.compile(rb"\r\n\r\n(\d+) (\d+) (\d+)\n$")


async def reload(cluster: Cluster) -> None:
    """
    Reload, and await that the old workers are gone.
    """
    mark = len(cluster.lines)
    cluster.signal(signal.SIGHUP)
    await cluster.says(r"replacement by generation \d+ done", mark)


async def ask(client: Exchange) -> tuple[int, int, int]:
    """
    Slot, generation and process id of the worker that answers one more request
    on this connection.
    """
    client.received = b""
    client.send(WHO)
    return await answer(client)


async def answer(client: Exchange) -> tuple[int, int, int]:
    """
    The same for a request that is under way.
    """
    found = _ANSWER.search(await client.matching(_ANSWER))
    assert found is not None
    slot, generation, pid = (int(group) for group in found.groups())
    return slot, generation, pid


class IdleHTTPTests(ClusterTestCase):
    """
    Keep-alive connections of twisted.web between two requests.
    """

    async def test_acrossReloads(self) -> None:
        """
        Fifty idle connections survive three reloads: each is answered by the
        newest generation on the same TCP connection, none was closed, and
        both workers have their share.
        """
        cluster = await self.cluster("hello:quiet")
        clients = []
        for _ in range(50):
            # One after another, so that both workers always have credit and the
            # turns decide.
            clients.append(await connect(cluster.port))
            self.assertEqual((await ask(clients[-1]))[1], 1)
        for generation in (2, 3, 4):
            await reload(cluster)
            answers = await gatherResults(
                [Deferred.fromCoroutine(ask(client)) for client in clients]
            )
            self.assertEqual({one[1] for one in answers}, {generation})
            shares = [sum(one[0] == slot for one in answers) for slot in (0, 1)]
            self.assertEqual(sum(shares), 50)
            self.assertGreater(min(shares), 10)
        self.assertEqual([client for client in clients if client.ended.called], [])

    async def test_halfARequest(self) -> None:
        """
        A request of which the old worker has read a part is answered by it;
        the connection moves after that.
        """
        cluster = await self.cluster("hello:quiet", workers=1)
        client = await connect(cluster.port)
        _, _, old = await ask(client)
        client.received = b""
        client.send(WHO[:20])
        await self._hasRead(old)
        mark = len(cluster.lines)
        cluster.signal(signal.SIGHUP)
        await cluster.says("draining", mark)
        client.send(WHO[20:])
        self.assertEqual((await answer(client))[1:], (1, old))
        await cluster.says(r"replacement by generation \d+ done", mark)
        self.assertEqual((await ask(client))[1], 2)

    async def _hasRead(self, pid: int) -> None:
        """
        Await that a worker has read all that was sent to it: it says so by
        answering somebody else.
        """
        other = await connect(self._clusters[0].port)
        self.assertEqual((await ask(other))[2], pid)
        other.transport.loseConnection()

    async def test_pipelined(self) -> None:
        """
        Of several requests sent at once while reloads run, each gets its
        answer, in order, on the one connection.
        """
        cluster = await self.cluster("hello:quiet")
        client = await connect(cluster.port)
        mark = len(cluster.lines)
        cluster.signal(signal.SIGHUP)
        while not cluster.matching("replacement by generation 2 done"):
            client.received = b""
            client.send(WHO * 5)
            await client.matching(_FIVE)
        self.assertGreater(len(cluster.lines), mark)
        self.assertEqual((await ask(client))[1], 2)

    async def test_scaledDown(self) -> None:
        """
        SIGTERM to a worker moves its connections too.
        """
        cluster = await self.cluster("hello:quiet")
        clients = [await connect(cluster.port) for _ in range(6)]
        pids = [(await ask(client))[2] for client in clients]
        mark = len(cluster.lines)
        os.kill(pids[0], signal.SIGTERM)
        await cluster.says(r"replacement by generation \d+ done", mark)
        after = [(await ask(client))[2] for client in clients]
        self.assertNotIn(pids[0], after)

    async def test_stop(self) -> None:
        """
        A cluster that stops has nobody to give connections to: idle ones are
        closed after the grace.
        """
        cluster = await self.cluster("hello:quiet", "--drain-grace", "100ms")
        client = await connect(cluster.port)
        await ask(client)
        cluster.signal(signal.SIGTERM)
        await client.end()
        await cluster.isExit()

    async def test_wrk(self) -> None:
        """
        wrk with 200 connections sees five reloads as nothing at all.
        """
        wrk = requireTool("wrk", "wrk")
        cluster = await self.cluster("hello:quiet")
        load = spawn([wrk, "-t1", "-c200", "-d60s", f"http://127.0.0.1:{cluster.port}/"], env={})
        for _ in range(5):
            await reload(cluster)
        load.transport.signalProcess("INT")
        finished = await load.done
        self.assertNotIn("Socket errors", finished.out)
        self.assertNotIn("Non-2xx", finished.out)
        self.assertIn("requests in", finished.out)


class MigratableTests(ClusterTestCase):
    """
    Protocols that take part through C{IMigratable}.
    """

    async def test_names(self) -> None:
        """
        The users of the example keep connection and name across two reloads,
        and nobody is greeted twice.
        """
        cluster = self.launch("--app", "names:factory", "--listen", "tcp:0", "--workers", "2")
        shutil.copy(os.path.join(ROOT, "examples", "names.py"), self.directory)
        await cluster.allReady(2)
        users = [await connect(cluster.port) for _ in range(8)]
        for number, user in enumerate(users):
            await user.until(b"who are you?\n")
            user.send(b"name user%d\n" % number)
            await user.until(b"generation 1\n")
        for generation in (2, 3):
            await reload(cluster)
            for number, user in enumerate(users):
                user.received = b""
                user.send(b"who\n")
                said = await user.until(b"generation %d\n" % generation)
                self.assertTrue(said.startswith(b"user%d: " % number), said)

    async def test_halfALine(self) -> None:
        """
        A connection that is not idle stays with its worker until it is.
        """
        shutil.copy(os.path.join(ROOT, "examples", "names.py"), self.directory)
        cluster = self.launch("--app", "names:factory", "--listen", "tcp:0", "--workers", "1")
        await cluster.allReady(1)
        user = await connect(cluster.port)
        await user.until(b"who are you?\n")
        user.send(b"name Ada\nwh")
        await user.until(b"generation 1\n")
        mark = len(cluster.lines)
        cluster.signal(signal.SIGHUP)
        await cluster.says("draining", mark)
        user.received = b""
        user.send(b"o\n")
        await user.until(b"Ada: slot 0 generation 1\n")
        await cluster.says(r"replacement by generation \d+ done", mark)
        user.send(b"who\n")
        await user.until(b"Ada: slot 0 generation 2\n")
