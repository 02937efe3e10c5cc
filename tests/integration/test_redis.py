"""
Two clusters on one Redis server, as on two hosts.
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults

from tests.backends.server import RedisServer
from tests.integration.clients import connect, get
from tests.integration.harness import PATIENCE, ROOT, Cluster, ClusterTestCase, reactor

EXAMPLES = {"PYTHONPATH": os.pathsep.join((os.path.join(ROOT, "examples"), ROOT))}

APP = "from sharing import resource  # {}"


async def answerOf(cluster: Cluster, path: str) -> dict[str, Any]:
    """
    What one of the workers answers.
    """
    answer: dict[str, Any] = json.loads(await get(cluster.port, "/" + path))
    return answer


async def ask(cluster: Cluster, path: str) -> Any:
    """
    Have one of the workers do something.

    @return: What came of it.
    """
    answer = await answerOf(cluster, path)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["value"]


async def askUntil(cluster: Cluster, path: str, wanted: Any) -> None:
    """
    Ask until the answer is C{wanted}.
    """
    end = reactor.seconds() + PATIENCE
    while (found := await ask(cluster, path)) != wanted:
        if reactor.seconds() > end:
            raise AssertionError(f"{path} is {found!r}, not {wanted!r}")


class _Case(ClusterTestCase):
    """
    A Redis server, and hosts.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = RedisServer(self)

    async def host(
        self, name: str, *options: str, app: str = "sharing:resource", **more: Any
    ) -> Cluster:
        """
        The cluster of one host.
        """
        admin = ("--admin", self.path(name + ".sock"))
        state = ("--state", self.server.text())
        # There may be one of its name in a directory.
        before = ("--pidfile", name + ".pid")
        return await self.cluster(app, *admin, *state, *options, before=before, **more)

    async def two(self, *options: str, **more: Any) -> tuple[Cluster, Cluster]:
        """
        Two hosts on a server that has been started.
        """
        await self.server.start()
        names = ("one", "two")
        starting = [ensureDeferred(self.host(name, *options, **more)) for name in names]
        one, two = await gatherResults(starting)
        return one, two


class SharingTests(_Case):
    """
    What the workers of all hosts share.
    """

    async def test_stateAndCache(self) -> None:
        """
        What a worker of one host writes a worker of the other reads; sums are
        exact.
        """
        one, two = await self.two()
        await ask(one, "set/colour/red")
        await askUntil(two, "get/colour", "red")
        await gatherResults(
            [ensureDeferred(ask(host, "add/n")) for host in (one, two) for _ in range(50)]
        )
        await askUntil(one, "get/n", 100)
        await askUntil(two, "get/n", 100)
        await ask(two, "remember/user/anna")
        self.assertEqual(await ask(one, "recall/user"), "anna")
        self.assertEqual(await ask(one, "count/hits"), 1)
        self.assertEqual(await ask(two, "count/hits"), 2)

    async def test_survivesAll(self) -> None:
        """
        The state outlives all masters, and a new worker has it before it is
        asked for anything.
        """
        one, two = await self.two(workers=1)
        await ask(one, "set/colour/red")
        await one.stop()
        await two.stop()
        again = await self.host("one", workers=1)
        self.assertEqual(await ask(again, "get/colour"), "red")

    async def test_broadcast(self) -> None:
        """
        A broadcast to everywhere reaches each worker of all hosts.
        """
        one, two = await self.two(workers=1)
        self.assertEqual(await ask(one, "tell/hello"), 1)
        await askUntil(one, "heard", ["hello"])
        await askUntil(two, "heard", ["hello"])

    async def test_sessions(self) -> None:
        """
        Who logs in on one host is known on the other: twisted.web's own
        sessions, in the cache.
        """
        await self.server.start()
        one, two = [
            await self.host(name, app="login:site", env=EXAMPLES) for name in ("one", "two")
        ]
        form = b"name=Ada"
        head = b"POST /login HTTP/1.0\r\nContent-Length: 8\r\n"
        kind = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        answer = await self.exchange(one, head + kind + form)
        cookie = re.search(rb"(?i)set-cookie: (TWISTED_SESSION=\w+)", answer)
        assert cookie is not None
        for visit, host in enumerate((two, one, two), 1):
            page = b"GET / HTTP/1.0\r\nCookie: %b\r\n\r\n" % cookie[1]
            self.assertIn(b"Hello Ada, visit %d," % visit, await self.exchange(host, page))

    async def exchange(self, cluster: Cluster, data: bytes) -> bytes:
        """
        Send a request.

        @return: The whole response.
        """
        client = await connect(cluster.port)
        client.send(data)
        return await client.end()

    async def test_leases(self) -> None:
        """
        One worker of all hosts has a lease; when its process dies, or its
        whole host does, another one has it.
        """
        one, two = await self.two(workers=1)
        first = await ask(one, "lease/job")
        waiting = ensureDeferred(ask(two, "lease/job"))
        os.kill(one.ready()[0], signal.SIGKILL)
        second = await waiting
        self.assertGreater(second, first)
        await one.allReady(1)
        waiting = ensureDeferred(ask(one, "lease/job"))
        # Nobody is left there who could give it back.
        two.signal(signal.SIGKILL)
        self.assertGreater(await waiting, second)
        self.assertEqual(await ask(one, "holds"), ["job"])


class FaultTests(_Case):
    """
    Redis goes, hangs, and comes back.
    """

    async def test_away(self) -> None:
        """
        Without Redis reads go on, and writes fail with a clear text; when it
        is back all goes on.  Data that it has lost are lost everywhere.
        """
        one, two = await self.two("--state-timeout", "300ms", workers=1)
        await ask(one, "set/colour/red")
        await askUntil(two, "get/colour", "red")
        await self.server.kill()
        for host in (one, two):
            await host.says("Redis at 127.0.0.1:.* can't be used: the connection was lost")
            self.assertEqual(await ask(host, "get/colour"), "red")
            answer = await answerOf(host, "set/colour/blue")
            self.assertRegex(
                answer["error"], "^can't write the state: Redis at .* can't be used: .*; try again"
            )
            self.assertIn("error", await answerOf(host, "recall/user"))
        await self.server.start()
        for host in (one, two):
            await host.says("Redis at .* is reached again")
            await askUntil(host, "get/colour", None)
        await ask(two, "set/colour/green")
        await askUntil(one, "get/colour", "green")

    async def test_hangs(self) -> None:
        """
        A Redis that hangs is given up and found again; what was asked
        meanwhile is done once.
        """
        one, two = await self.two("--state-timeout", "30s", workers=2)
        await ask(one, "add/n")
        self.server.signal("STOP")
        waiting = [ensureDeferred(ask(host, "add/n")) for host in (one, two) for _ in range(5)]
        for host in (one, two):
            await host.says("Redis at .* can't be used: it has been silent for 3 s")
        self.server.signal("CONT")
        sums = await gatherResults(waiting)
        self.assertEqual(sorted(sums), list(range(2, 12)))
        await askUntil(one, "get/n", 11)

    async def test_loseLease(self) -> None:
        """
        Who can't renew a lease has lost it before anybody else can have it.
        """
        await self.server.start()
        one = await self.host("one", workers=1)
        await ask(one, "lease/job")
        self.server.signal("STOP")
        await one.says("lost job: it could not be renewed for 2 seconds")
        self.assertEqual(await ask(one, "holds"), [])
        self.server.signal("CONT")

    async def test_pausedHost(self) -> None:
        """
        A host that hangs loses its leases to another one, and knows that when
        it goes on.
        """
        one, two = await self.two(workers=1)
        first = await ask(one, "lease/job")
        one.signal(signal.SIGSTOP)
        self.assertGreater(await ask(two, "lease/job"), first)
        one.signal(signal.SIGCONT)
        await one.says("lost job: ")
        self.assertEqual(await ask(one, "holds"), [])
        self.assertEqual(await ask(two, "holds"), ["job"])

    async def test_neverThere(self) -> None:
        """
        Without Redis a master starts and waits for it; the log says so.
        """
        starting = self.launch(
            "--app=sharing:resource", "--listen=tcp:0", "--workers=1", f"--state={self.url()}"
        )
        await starting.says("Redis at 127.0.0.1:.* can't be used: .*refused")
        self.assertEqual(starting.ready(), {})
        await self.server.start()
        await starting.allReady(1)

    async def test_stopWithout(self) -> None:
        """
        A master that waits for Redis can be stopped.
        """
        starting = self.launch(
            "--app=sharing:resource", "--listen=tcp:0", "--workers=1", f"--state={self.url()}"
        )
        await starting.says("Redis at 127.0.0.1:.* can't be used: .*refused")
        await starting.stop()

    def url(self) -> str:
        """
        The server, as an operator writes it.
        """
        return self.server.text()


class AllHostsTests(_Case):
    """
    C{reload --all-hosts}.
    """

    async def reload(self, cluster: Cluster, name: str) -> Any:
        """
        Reload all hosts, by way of one.
        """
        return await cluster.ctl("--admin", self.path(name + ".sock"), "reload", "--all-hosts")

    async def status(self, cluster: Cluster, name: str) -> Any:
        """
        The status of a host.
        """
        asked = await cluster.ctl("--admin", self.path(name + ".sock"), "status", "--json")
        return json.loads(asked.out)

    async def test_oneAfterAnother(self) -> None:
        """
        All hosts reload, first the one that was asked; one word is printed for
        each step.
        """
        one, two = await self.two(workers=1)
        finished = await self.reload(two, "two")
        self.assertEqual((finished.code, finished.err), (0, ""))
        self.assertRegex(
            finished.out,
            rf"^host \S+ \(pid {two.pid}\): reloading \(1 of 2\)\n"
            r"host \S+ .*: slot 0: replaced by generation 2 \(1 of 1\)\n"
            r"host \S+ .*: generation 2 serves\n"
            rf"host \S+ \(pid {one.pid}\): reloading \(2 of 2\)\n"
            r"host \S+ .*: slot 0: replaced by generation 2 \(1 of 1\)\n"
            r"host \S+ .*: generation 2 serves\n"
            r"reloaded 2 hosts\n$",
        )
        for host in (one, two):
            self.assertEqual((await ask(host, "who"))[1], 2)

    async def test_stopsAtFirst(self) -> None:
        """
        The first host that fails is the last; it goes on with what it has.
        """
        await self.server.start()
        one = await self.host("one", workers=1)
        self.write("changing.py", APP.format("as it was"))
        bad = await self.host("bad", app="changing:resource", workers=1)
        self.write("changing.py", "raise RuntimeError('a mistake')")
        finished = await self.reload(one, "one")
        self.assertEqual(finished.code, 1)
        self.assertRegex(
            finished.err,
            rf"^twisted-cluster: can't reload all hosts: host \S+ \(pid {bad.pid}\): .*;"
            r" 1 of 2 hosts were reloaded; mend the app and try again\n",
        )
        self.assertIn("RuntimeError: a mistake", finished.err)
        self.assertTrue(finished.out.endswith(": failed\n"))
        self.assertEqual((await ask(one, "who"))[1], 2)
        self.assertEqual((await ask(bad, "who"))[1], 1)

    async def test_dies(self) -> None:
        """
        A host that dies unsaid is found missing.
        """
        one, two = await self.two(workers=1)
        while len((await self.status(one, "one"))["shared"]["hosts"]) < 2:
            pass
        two.signal(signal.SIGSTOP)
        finished = await self.reload(one, "one")
        self.assertEqual(finished.code, 1)
        self.assertRegex(
            finished.err, rf"host \S+ \(pid {two.pid}\) has not begun within 5 s; 1 of 2 hosts"
        )
        two.signal(signal.SIGCONT)

    async def test_memory(self) -> None:
        """
        Without Redis it is refused.
        """
        cluster = await self.cluster("sharing:resource", workers=1)
        finished = await cluster.ctl("reload", "--all-hosts")
        self.assertEqual((finished.code, finished.out), (1, ""))
        self.assertRegex(
            finished.err,
            "^twisted-cluster: can't reload all hosts: the state is in this master's memory.*;"
            " run the masters with --state redis://",
        )
