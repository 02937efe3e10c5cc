"""
The policy with which workers accept for themselves.
"""

from __future__ import annotations

import os
import signal

from twisted.internet.defer import Deferred, gatherResults

from tests.integration.clients import Ab, connect, who
from tests.integration.harness import ClusterTestCase
from tests.integration.test_migration import ask, reload


class SharedTests(ClusterTestCase):
    """
    C{--policy shared}.
    """

    async def test_masterAcceptsNothing(self) -> None:
        """
        All is served, and none of it has passed through the master.
        """
        cluster = await self.cluster("hello:quiet", "--policy", "shared")
        ab = Ab(cluster.port, concurrency=20)
        served = {(await who(cluster.port))[0] for _ in range(40)}
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertTrue(served)
        status = await cluster.status()
        self.assertEqual(status["account"]["accepted"], 0)
        self.assertEqual(status["listeners"][0]["state"], "shared")

    async def test_reload(self) -> None:
        """
        Reloads lose nothing under load, and idle connections move as always.
        """
        cluster = await self.cluster("hello:quiet", "--policy", "shared")
        clients = [await connect(cluster.port) for _ in range(20)]
        await gatherResults([Deferred.fromCoroutine(ask(client)) for client in clients])
        ab = Ab(cluster.port, concurrency=50)
        for _ in range(2):
            await reload(cluster)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        for client in clients:
            self.assertEqual((await ask(client))[1], 3)

    async def test_killed(self) -> None:
        """
        When every worker is killed at once, clients wait in the kernel for
        their successors.
        """
        cluster = await self.cluster("hello:quiet", "--policy", "shared")
        for pid in cluster.ready().values():
            os.kill(pid, signal.SIGKILL)
        self.assertEqual((await who(cluster.port))[1], 1)

    async def test_stop(self) -> None:
        """
        A stop loses nobody either.
        """
        cluster = await self.cluster("hello:quiet", "--policy", "shared")
        self.assertEqual((await who(cluster.port))[1], 1)
        await cluster.stop()
