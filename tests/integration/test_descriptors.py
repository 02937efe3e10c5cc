"""
Out of descriptors, in the master and in workers.
"""

from __future__ import annotations

import os
import resource
import signal

from twisted.internet.defer import Deferred, gatherResults

from tests.integration import processes
from tests.integration.clients import Exchange, connect, get, request
from tests.integration.harness import ClusterTestCase, reactor

WATCHED = 1.0
"""Seconds for which CPU time is observed."""


def pause(seconds: float) -> Deferred[None]:
    """
    Let time pass, to see what is done in it.
    """
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


class DescriptorTests(ClusterTestCase):
    """
    Each test limits the descriptors of a running process to few more than it
    has, and opens more connections than that.
    """

    def limit(self, pid: int, more: int) -> None:
        """
        Leave a process C{more} descriptors beside those that it has.
        """
        count = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1 + more
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, count))

    async def assertNoSpin(self, *pids: int) -> None:
        """
        None of these uses more than half a core.
        """
        before = [processes.cpuSeconds(pid) for pid in pids]
        await pause(WATCHED)
        after = [processes.cpuSeconds(pid) for pid in pids]
        for used in (two - one for one, two in zip(before, after)):
            self.assertLess(used, WATCHED / 2)

    async def assertAnswered(self, clients: list[Exchange]) -> None:
        """
        Each of these connections works.
        """
        for client in clients:
            client.send(request())
        for client in clients:
            self.assertTrue((await client.end()).endswith(b"hello\n"))

    async def test_master(self) -> None:
        """
        A master without descriptors lets clients wait in the kernel, tries
        again without spinning, and serves all of them when it has
        descriptors again.
        """
        cluster = await self.cluster("hello:quiet")
        workers = cluster.ready()
        for pid in (cluster.pid, *workers.values()):
            os.kill(pid, signal.SIGSTOP)
        self.limit(cluster.pid, 20)
        clients = await gatherResults([connect(cluster.port) for _ in range(100)])
        os.kill(cluster.pid, signal.SIGCONT)
        await cluster.says("listener .* is exhausted: Too many open files")
        await self.assertNoSpin(cluster.pid)
        for pid in workers.values():
            os.kill(pid, signal.SIGCONT)
        await self.assertAnswered(clients)
        account = (await cluster.status())["account"]
        self.assertEqual((account["accepted"], account["acked"], account["shed"]), (100, 100, 0))
        self.assertEqual(cluster.ready(), workers, cluster.tail())

    async def test_worker(self) -> None:
        """
        A worker without descriptors is left out, and another one serves what
        it had to refuse.
        """
        cluster = await self.cluster("hello:quiet")
        workers = cluster.ready()
        os.kill(cluster.pid, signal.SIGSTOP)
        clients = await gatherResults([connect(cluster.port) for _ in range(60)])
        self.limit(workers[0], 3)
        os.kill(cluster.pid, signal.SIGCONT)
        await cluster.says("slot 0 .* refused .* sockets: out of descriptors")
        await self.assertNoSpin(cluster.pid, *workers.values())
        await self.assertAnswered(clients)
        self.assertEqual(await get(cluster.port), b"hello\n")
        self.assertEqual(cluster.ready(), workers, cluster.tail())
        self.assertEqual(cluster.matching("shed|violation"), [])

    async def test_allWorkers(self) -> None:
        """
        When no worker has descriptors left, clients wait; when connections
        end, they are served, and none is lost.
        """
        cluster = await self.cluster("hello:quiet", "--credit", "8")
        workers = cluster.ready()
        for pid in workers.values():
            self.limit(pid, 60)
        clients = await gatherResults([connect(cluster.port) for _ in range(200)])
        await self.assertNoSpin(cluster.pid, *workers.values())
        await self.assertAnswered(clients)
        self.assertEqual(cluster.ready(), workers, cluster.tail())
        self.assertEqual(cluster.matching("shed|violation"), [])

    async def test_workerCantBeStarted(self) -> None:
        """
        A worker that dies while the master has no descriptors for another one
        is replaced when there are some again.
        """
        cluster = await self.cluster("hello:quiet", "--restart-intensity", "1000")
        victim = cluster.ready()[1]
        limits = resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(victim, signal.SIGKILL)
        await cluster.says("slot 1 .* exited: not started: .*Too many open files", times=2)
        resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE, limits)
        await cluster.allReady(2)
        self.assertEqual(await get(cluster.port), b"hello\n")
