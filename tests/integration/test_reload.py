"""
Reloads under load: nothing is lost, whatever the new code is like.
"""

from __future__ import annotations

import os
import signal

from twisted.internet.defer import gatherResults

from tests.integration import processes
from tests.integration.clients import Ab, Load, connect, get, request, who
from tests.integration.harness import Cluster, ClusterTestCase, requireTool, run

APP = """
import os
from twisted.web import resource as web, server

class Version(web.Resource):
    isLeaf = True

    def render_GET(self, request):
        return b"{version}"

class Quiet(server.Site):
    def log(self, request):
        pass

site = Quiet(Version())
"""

KEPT_ALIVE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def reload(cluster: Cluster, number: int = signal.SIGHUP) -> None:
    """
    Reload and await the end of it.
    """
    mark = len(cluster.lines)
    cluster.signal(number)
    await cluster.says(r"replacement by generation \d+ done", mark)


class ReloadUnderLoadTests(ClusterTestCase):
    """
    Rolling reloads while clients of all kinds send requests.
    """

    async def _threeUnderAb(self, *options: str) -> None:
        cluster = await self.cluster("hello:quiet")
        ab = Ab(cluster.port, *options)
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
            await reload(cluster, number)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertGreater(report.complete, 500)
        self.assertEqual({(await who(cluster.port))[1] for _ in range(2)}, {4})
        self.assertEqual(cluster.matching("shed"), [])

    async def test_threeReloads(self) -> None:
        """
        Three reloads under C{ab -c200} lose no request.
        """
        await self._threeUnderAb()

    async def test_threeReloadsKeptAlive(self) -> None:
        """
        Three reloads under C{ab -k -c200} lose no request.
        """
        await self._threeUnderAb("-k")

    async def test_keptAliveConnections(self) -> None:
        """
        HTTP/1.1 clients on persistent connections, and clients that post
        bodies of 16 kB, get an answer to each request while reloads come: no
        connection is refused, reset, or closed without an announcement.
        """
        cluster = await self.cluster("hello:quiet")
        body = bytes(16384)
        post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16384\r\n\r\n" + body
        loads = [
            Load(cluster.port, 20, KEPT_ALIVE, b"hello\n").start(),
            Load(cluster.port, 10, post, b"16384\n").start(),
        ]
        for _ in range(3):
            await gatherResults([load.more(100) for load in loads])
            await reload(cluster)
        for load in loads:
            counts = await load.stop()
            self.assertEqual(set(counts) - {"success", "announced"}, set(), counts)
            self.assertGreater(counts["success"], 300)

    async def test_wrk(self) -> None:
        """
        wrk, which keeps its connections alive, reports no error of any kind
        through a reload.
        """
        path = requireTool("wrk", "wrk")
        cluster = await self.cluster("hello:quiet")
        load = run([path, "-t2", "-c50", "-d3s", f"http://127.0.0.1:{cluster.port}/"])
        await reload(cluster)
        finished = await load
        self.assertIn("requests in", finished.out)
        self.assertNotIn("Socket errors", finished.out)
        self.assertNotIn("Non-2xx", finished.out)

    async def test_twentyReloadsLeakNothing(self) -> None:
        """
        After 20 reloads the master has as many descriptors and children as
        before, and no zombie.
        """
        cluster = await self.cluster("hello:resource", "--reload-parallel", "2")
        await reload(cluster)
        before = processes.openDescriptors(cluster.pid)
        children = len(processes.childrenOf(cluster.pid))
        for _ in range(20):
            await reload(cluster)
            await get(cluster.port)
        await cluster.allReady(2, 22)
        after = processes.openDescriptors(cluster.pid)
        # Some of the last replacement may still be on their way out.
        self.assertLess(len(after), len(before) + 10, (before, after))
        self.assertEqual(len(processes.childrenOf(cluster.pid)), children)
        self.assertEqual(processes.zombiesOf(cluster.pid), [])


class BrokenReloadTests(ClusterTestCase):
    """
    The new code is of no use.
    """

    BREAKS = (
        ("site = (", "SyntaxError"),
        ("raise RuntimeError('no such table')", "no such table"),
        ("import os; os._exit(3)", "exit code 3"),
        ("del site", "no attribute 'site'"),
        ("from twisted.internet.defer import Deferred\nsite = Deferred", "not Ready within 2 s"),
    )

    async def test_brokenCode(self) -> None:
        """
        New code that can't be parsed, fails at import, exits, lacks the app,
        or never gets Ready fails the reload with the reason and a non-zero
        exit; no request fails, and the old code goes on serving.  When it has
        been mended, a reload serves it.
        """
        good = APP.replace("{version}", "one")
        self.write("app.py", good)
        cluster = await self.cluster("app:site", "--generation-timeout", "2")
        before = cluster.ready()
        ab = Ab(cluster.port, concurrency=50)
        for code, reason in self.BREAKS:
            self.write("app.py", good + code + "\n")
            finished = await cluster.ctl("reload")
            self.assertNotEqual(finished.code, 0, finished)
            self.assertIn(reason, finished.out + finished.err)
            self.assertEqual(await get(cluster.port), b"one")
        self.assertEqual(cluster.ready(), before)
        self.write("app.py", APP.replace("{version}", "two"))
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertEqual((await cluster.ctl("reload")).code, 0)
        self.assertEqual({await get(cluster.port) for _ in range(4)}, {b"two"})

    async def test_changedWhileReloading(self) -> None:
        """
        A signal that comes while a reload is under way is remembered: the
        code that it was sent for is served in the end.
        """
        self.write("app.py", APP.replace("{version}", "one"))
        cluster = await self.cluster("app:site")
        cluster.signal(signal.SIGHUP)
        await cluster.says("generation 2 .*starting")
        self.write("app.py", APP.replace("{version}", "three"))
        cluster.signal(signal.SIGHUP)
        cluster.signal(signal.SIGHUP)
        await cluster.allReady(2, 3)
        self.assertEqual({await get(cluster.port) for _ in range(4)}, {b"three"})

    async def test_touchedFile(self) -> None:
        """
        Touching the file of C{--reload-on-touch} reloads.
        """
        path = self.write("touch-me", "")
        cluster = await self.cluster("hello:resource", "--reload-on-touch", path)
        os.utime(path, (1, 1))
        await cluster.allReady(2, 2)


class DrainTests(ClusterTestCase):
    """
    What a reload does to requests that take their time.
    """

    async def test_gatedResponse(self) -> None:
        """
        A request that is under way when its worker is replaced is answered by
        that worker, and the reload ends when it has been.
        """
        gate = self.gate()
        cluster = await self.cluster("gated:resource")
        clients = await gatherResults([connect(cluster.port) for _ in range(6)])
        for client in clients:
            client.send(request("/slow"))
        held = await gate.requests(6)
        before = {one.pid for one in held}
        cluster.signal(signal.SIGHUP)
        await cluster.says("slot 0 generation 1 .* draining")
        for one in held:
            if one.pid == cluster.lastOf(0, 1):
                one.release()
        await cluster.says("slot 1 generation 1 .* draining")
        for one in held:
            if one.pid == cluster.lastOf(1, 1):
                one.release()
        for client in clients:
            self.assertIn(b"released\n", await client.end())
        await cluster.says("replacement by generation 2 done")
        self.assertFalse(before & set(cluster.ready().values()))

    async def test_streamCutAtTheDeadline(self) -> None:
        """
        A response that outlasts the drain timeout is cut then, and not
        before; the others are not touched, and the reload goes on.
        """
        gate = self.gate()
        cluster = await self.cluster("gated:resource", "--drain-timeout", "1", workers=1)
        client = await connect(cluster.port)
        client.send(request("/stream"))
        (held,) = await gate.requests(1)
        held.write(b"first")
        await client.until(b"first")
        cluster.signal(signal.SIGHUP)
        await cluster.says("generation 1 .* draining")
        held.write(b"second")
        await client.until(b"second")
        self.assertEqual(cluster.matching("generation 1 .*stopping"), [])
        await cluster.says("generation 1 .* stopping: not drained in 1 s")
        await client.ended
        self.assertTrue(client.received.endswith(b"firstsecond"), client.received)
        await cluster.says("replacement by generation 2 done")

    async def test_protocolWithoutADrain(self) -> None:
        """
        A connection of which nothing is known stays open and works until the
        drain timeout.
        """
        cluster = await self.cluster("ignores_drain:factory", "--drain-timeout", "1", workers=1)
        client = await connect(cluster.port)
        client.send(b"one")
        await client.until(b"one")
        cluster.signal(signal.SIGHUP)
        await cluster.says("generation 1 .* draining")
        client.send(b"two")
        await client.until(b"onetwo")
        await cluster.says("generation 1 .* stopping: not drained in 1 s")

    async def test_protocolWithADrain(self) -> None:
        """
        A protocol that provides C{IDrainable} is told, finishes what it holds,
        and is closed in good order as soon as it is idle.
        """
        cluster = await self.cluster("websocketish:factory", "--drain-grace", "0", workers=1)
        idle, busy = await gatherResults([connect(cluster.port) for _ in range(2)])
        busy.send(b"hold\r\n")
        idle.send(b"hello\r\n")
        await idle.until(b"hello")
        cluster.signal(signal.SIGHUP)
        self.assertEqual(await idle.end(), b"hello\r\ngoing away\r\n")
        await busy.until(b"going away\r\n")
        busy.send(b"bye\r\n")
        self.assertEqual(await busy.end(), b"going away\r\nbye\r\n")
        await cluster.says("replacement by generation 2 done")
