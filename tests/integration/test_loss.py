"""
What is lost when workers die: only what they had already read.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.integration.clients import Ab, Exchange, connect, get, request, who
from tests.integration.harness import (
    Cluster,
    ClusterTestCase,
    endOf,
    reactor,
    signalIfAlive,
)


class Killer:
    """
    Signals workers of a cluster, chosen at random, at random moments.
    """

    def __init__(
        self, cluster: Cluster, enough: int, signals: tuple[int, ...] = (signal.SIGKILL,)
    ) -> None:
        self.killed = 0
        self.done: Deferred[None] = Deferred()
        self._cluster = cluster
        self._enough = enough
        self._signals = signals
        self._next()

    def _next(self) -> None:
        reactor.callLater(random.uniform(0.02, 0.25), self._kill)

    def _kill(self) -> None:
        ready = list(self._cluster.ready().values())
        if ready and signalIfAlive(random.choice(ready), random.choice(self._signals)):
            self.killed += 1
        if self.killed < self._enough:
            self._next()
        else:
            self.done.callback(None)


def assertBalance(test: ClusterTestCase, status: dict[str, Any]) -> None:
    """
    Invariant 1, with nothing shed.
    """
    account = status["account"]
    settled = account["acked"] + account["shed"] + account["inFlight"]
    test.assertEqual(account["accepted"], settled, account)
    test.assertEqual(account["shed"], 0, account)


class KilledWorkerTests(ClusterTestCase):
    """
    Workers are killed with SIGKILL while clients are served.
    """

    async def test_onlyWhatWasReadIsLost(self) -> None:
        """
        While workers are killed at random under C{ab -c200}, no more requests
        are lost than workers had begun to read and not finished; the account
        balances, and all slots come back.
        """
        cluster = await self.cluster("recording:site", "--restart-intensity", "1000")
        ab = Ab(cluster.port)
        killer = Killer(cluster, 8)
        await killer.done
        await cluster.allReady(2)
        report = await ab.stop()
        await cluster.allReady(2)
        self.assertGreater(report.complete, 200)
        self.assertLessEqual(report.lost, self.unfinished(), report.text)
        # What ab had opened and left may still come in between.
        slots = {(await who(cluster.port))[0] for _ in range(10)}
        self.assertEqual(slots, {0, 1})
        status = await cluster.status()
        assertBalance(self, status)
        self.assertEqual([worker["state"] for worker in status["workers"]], ["ready", "ready"])

    async def test_everythingAtOnce(self) -> None:
        """
        Workers killed and terminated at random during reloads: still nothing
        is lost but what had been read, and the cluster comes to rest with all
        slots Ready.
        """
        cluster = await self.cluster("recording:site", "--restart-intensity", "1000")
        ab = Ab(cluster.port, concurrency=50)
        killer = Killer(cluster, 12, (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL))
        for _ in range(3):
            mark = len(cluster.lines)
            cluster.signal(signal.SIGHUP)
            await cluster.says(r"replacement by generation \d+ (done|aborted)", mark)
        await killer.done
        report = await ab.stop()
        await cluster.when("a rest", lambda: self._rests(cluster))
        self.assertLessEqual(report.lost, self.unfinished(), report.text)
        self.assertEqual(await get(cluster.port), b"hello\n")
        status = await cluster.status()
        assertBalance(self, status)
        self.assertEqual([worker["state"] for worker in status["workers"]], ["ready", "ready"])

    def _rests(self, cluster: Cluster) -> bool:
        """
        Whether no replacement is under way and two workers are all there is.
        """
        begun = cluster.matching(r"replacement by generation \d+ begun")
        ended = cluster.matching(r"replacement by generation \d+ (done|aborted)")
        states = [one.state for one in cluster.workers.values() if one.state != "exited"]
        return len(begun) == len(ended) and states == ["ready", "ready"]

    def unfinished(self) -> int:
        """
        How many connections workers have begun to read and not finished.
        """
        with open(self.path("record")) as file:
            lines = file.read().split()
        return lines.count("read") - lines.count("done")

    async def test_stoppedThenKilled(self) -> None:
        """
        200 connections that were handed to a worker which was stopped with
        SIGSTOP, and then killed, are all answered by others.
        """
        cluster = await self.cluster("hello:quiet", "--credit", "250", "--service", "hooks:Cluster")
        victim = cluster.ready()[1]
        os.kill(victim, signal.SIGSTOP)
        # With the master stopped too, all of them come in one handoff.
        os.kill(cluster.pid, signal.SIGSTOP)
        clients: list[Exchange] = await gatherResults([connect(cluster.port) for _ in range(200)])
        for client in clients[:100]:
            client.send(request("/who"))
        os.kill(cluster.pid, signal.SIGCONT)
        account = (await cluster.status())["account"]
        self.assertEqual((account["accepted"], account["inFlight"]), (200, 200))
        os.kill(victim, signal.SIGKILL)
        for client in clients[100:]:
            client.send(request("/who"))
        answers = await gatherResults([client.end() for client in clients])
        workers = {int(answer.split()[-1]) for answer in answers}
        self.assertNotIn(victim, workers)
        self.assertEqual(sum(b" 200 OK\r\n" in answer for answer in answers), 200)
        await cluster.allReady(2)
        assertBalance(self, await cluster.status())

    async def test_terminatedWorkerIsReplaced(self) -> None:
        """
        SIGTERM to each worker has them replaced, without a lost request.
        """
        cluster = await self.cluster("hello:quiet")
        ab = Ab(cluster.port, concurrency=50)
        before = dict(cluster.ready())
        for pid in before.values():
            os.kill(pid, signal.SIGTERM)
        for pid in before.values():
            await endOf(pid)
        await cluster.allReady(2)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertFalse(set(before.values()) & set(cluster.ready().values()))

    async def test_crashOfARequest(self) -> None:
        """
        A worker that dies of a request, even with exit code 0, is replaced at
        once, and nobody else's slot notices.
        """
        cluster = await self.cluster("crash_on_request:resource")
        for path, how in (("/abort", "killed by SIGABRT"), ("/exit", "exit code 0")):
            before = cluster.ready()
            mark = len(cluster.lines)
            client = await connect(cluster.port)
            client.send(request(path))
            await client.ended
            self.assertEqual(client.received, b"")
            await cluster.says(f"exited: {how}", mark)
            await cluster.allReady(2)
            after = cluster.ready()
            self.assertEqual(sum(before[slot] == after[slot] for slot in (0, 1)), 1)
            self.assertEqual(await get(cluster.port), b"alive\n")
