"""
State and leases while workers come and go.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import DeferredList, ensureDeferred, gatherResults

from tests.integration.clients import get
from tests.integration.harness import PATIENCE, Cluster, ClusterTestCase, reactor
from tests.integration.test_redis import answerOf, ask

WORKERS = 8

EACH = 500
"""How many increments each worker makes."""

OUTSTANDING = 20
"""How many of them may be on their way."""


class CountingTests(ClusterTestCase):
    """
    The app C{counting}.
    """

    def told(self) -> list[int]:
        """
        The sums that workers were told.
        """
        with open(self.path("told")) as file:
            return [int(line) for line in file.read().split("\n")[:-1]]

    async def start(self, *options: str) -> tuple[Cluster, list[Any]]:
        """
        Have each worker count.
        """
        cluster = await self.cluster("counting:resource", *options, workers=WORKERS)
        counting = [
            ensureDeferred(get(cluster.port, f"/{EACH}")).addErrback(lambda _: None)
            for _ in range(WORKERS)
        ]
        return cluster, counting

    async def test_exact(self) -> None:
        """
        Each increment counts, and each has a sum of its own.
        """
        _, counting = await self.start()
        await gatherResults(counting)
        self.assertEqual(sorted(self.told()), list(range(1, WORKERS * EACH + 1)))

    async def test_killed(self) -> None:
        """
        Workers are killed meanwhile: every increment that was acknowledged
        counts, none twice, and of the others at most those that were on their
        way; those that live go on, and those that come have it all.
        """
        cluster, counting = await self.start()
        victims = [cluster.ready()[slot] for slot in (0, 1)]
        while len(self.told()) < WORKERS * EACH // 10:
            await get(cluster.port, "/0")
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        await DeferredList(counting)
        await cluster.allReady(WORKERS)
        told = self.told()
        self.assertEqual(len(set(told)), len(told))
        answers = {int(await get(cluster.port, "/0")) for _ in range(WORKERS)}
        (total,) = answers
        self.assertLessEqual(max(told), total)
        self.assertGreaterEqual(len(told), (WORKERS - len(victims)) * EACH)
        self.assertLess(len(told), WORKERS * EACH)
        unheard = total - len(told)
        self.assertTrue(0 <= unheard <= OUTSTANDING * len(victims), unheard)


class LifeTests(ClusterTestCase):
    """
    The app C{sharing}.
    """

    async def test_survives(self) -> None:
        """
        The state survives every worker and every reload, and whoever is Ready
        has it.
        """
        cluster = await self.cluster("sharing:resource")
        await ask(cluster, "set/greeting/hello")
        for pid in cluster.ready().values():
            os.kill(pid, signal.SIGKILL)
        await cluster.says(r"\] ready", times=4)
        await self.allHave(cluster)
        reloaded = await cluster.ctl("reload")
        self.assertEqual(reloaded.code, 0, reloaded.err)
        await self.allHave(cluster)

    async def allHave(self, cluster: Cluster) -> None:
        """
        Ask each worker.
        """
        self.assertEqual([await ask(cluster, "get/greeting") for _ in range(2)], ["hello"] * 2)

    async def test_leaseOfTheDead(self) -> None:
        """
        A lease that a killed worker had is another one's at once.
        """
        cluster = await self.cluster("sharing:resource")
        # Requests take turns.
        slot, _, _ = await ask(cluster, "who")
        first = await ask(cluster, "lease/job")
        waiting = ensureDeferred(ask(cluster, "lease/job"))
        self.assertEqual(await ask(cluster, "holds"), ["job"])
        self.assertNoResult(waiting)
        os.kill(cluster.ready()[1 - slot], signal.SIGKILL)
        self.assertGreater(await waiting, first)


class OnceTests(ClusterTestCase):
    """
    The app C{once}.
    """

    async def doing(self, cluster: Cluster) -> int:
        """
        Wait until a worker that is Ready does the job.

        @return: Its process.
        """
        end = reactor.seconds() + PATIENCE
        while (found := (await answerOf(cluster, ""))["doing"]) not in cluster.ready().values():
            self.assertLess(reactor.seconds(), end, f"{found} does the job")
        return int(found)

    async def test_computedOnce(self) -> None:
        """
        Of workers that ask at the same time one computes, and the watch of
        each is called once.
        """
        cluster = await self.cluster("once:resource")
        await gatherResults([ensureDeferred(answerOf(cluster, "")) for _ in range(8)])
        answers = [await answerOf(cluster, "") for _ in range(4)]
        self.assertEqual([answer["seen"] for answer in answers], [[1]] * 4)

    async def test_jobOfTheDead(self) -> None:
        """
        The job of a worker that is killed is another one's.
        """
        cluster = await self.cluster("once:resource")
        first = await self.doing(cluster)
        os.kill(first, signal.SIGKILL)
        await cluster.says(r"\] ready", times=3)
        self.assertNotEqual(await self.doing(cluster), first)

    async def test_jobOfTheReplaced(self) -> None:
        """
        After a reload the job is done by the new generation.
        """
        cluster = await self.cluster("once:resource")
        first = await self.doing(cluster)
        finished = await cluster.ctl("reload")
        self.assertEqual(finished.code, 0, finished.err)
        second = await self.doing(cluster)
        self.assertNotEqual(second, first)
        self.assertIn(second, [cluster.lastOf(slot, 2) for slot in (0, 1)])
