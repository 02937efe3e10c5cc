"""
Messages between the workers of a cluster.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred

from tests.integration.clients import Ab, get
from tests.integration.harness import ClusterTestCase

MEGABYTE = 1_000_000


async def ask(port: int | str, path: str) -> Any:
    """
    Have one of the workers do something.
    """
    return ast.literal_eval((await get(port, path)).decode())


def mostMemoryOf(pid: int) -> int:
    """
    The most bytes that a process has had in memory so far.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) * 1024


class MessagesTests(ClusterTestCase):
    """
    The app C{messaging}.
    """

    async def test_large(self) -> None:
        """
        While messages of 50 MB go from worker to worker, requests are answered
        and no worker is taken for hung.
        """
        cluster = await self.cluster("messaging:resource", "--hung-timeout", "2")
        ab = Ab(cluster.port, concurrency=10)
        calling = ensureDeferred(ask(cluster.port, f"/large/{50 * MEGABYTE}"))
        self.assertEqual(await calling, 4 * 50 * MEGABYTE)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertEqual(cluster.matching("hung"), [])
        self.assertEqual(set(cluster.ready()), {0, 1})

    async def test_notReading(self) -> None:
        """
        For a worker that does not read only so much is kept; whoever sends
        more is told, and so is the operator, once.  When it reads again it has
        all that was passed on.
        """
        cluster = await self.cluster("messaging:resource", "--hung-timeout", "60")
        sent, (count, same), reason = await ask(cluster.port, f"/flood/{MEGABYTE}")
        # What waits, what the kernel has, and what a worker has half read.
        self.assertTrue(60 <= sent <= 80, sent)
        self.assertEqual((count, same), (sent, True))
        self.assertIn("too much waits for its worker to read", reason)
        self.assertEqual(len(cluster.matching("does not read: .* messages for it are dropped")), 1)
        self.assertEqual((await cluster.status())["dropped"], 1)
        status = await cluster.ctl("status")
        self.assertIn("1 message dropped: a worker did not read", status.out)

    async def test_stopped(self) -> None:
        """
        What is told to all costs the master no more memory for a worker that
        does not run than the bound: the rest is dropped, counted, and said once.
        """
        cluster = await self.cluster("messaging:resource", "--hung-timeout", "60")
        before = mostMemoryOf(cluster.pid)
        told, (count, same) = await ask(cluster.port, f"/deafen/{MEGABYTE}/300")
        self.assertEqual((len(told), set(told)), (300, {0, 1}))
        self.assertEqual((count, same), (sum(told), True))
        self.assertTrue(60 <= sum(told) <= 80, sum(told))
        self.assertLess(mostMemoryOf(cluster.pid) - before, 150 * MEGABYTE)
        self.assertEqual((await cluster.status())["dropped"], 300 - sum(told))
        self.assertEqual(len(cluster.matching("messages for it are dropped")), 1)

    async def test_everybody(self) -> None:
        """
        Workers and master send to each other and call each other, also while
        one of them waits for the other's answer.
        """
        cluster = await self.cluster(
            "messaging:resource", "--service", "messaging:Talking", workers=2
        )
        pid, back, sent, notes, others, everyone, theirs, mine = await ask(cluster.port, "/both")
        self.assertEqual(back, ["to me", pid])
        self.assertEqual((sent, notes), (1, [{"a": [1, None]}]))
        self.assertEqual((others, everyone), (1, 2))
        self.assertEqual((theirs, mine), ([1, 2], [3, 2]))

    async def test_restarted(self) -> None:
        """
        A worker that is replaced while it has a call to answer still answers
        it, and the next one goes to its successor.
        """
        cluster = await self.cluster("messaging:resource")
        before = cluster.ready()
        asking = ensureDeferred(ask(cluster.port, "/outlast"))
        (line,) = await cluster.says(r"slot \d waits until it drains")
        found = re.search(r"slot (\d) waits", line)
        assert found is not None, line
        slot = int(found[1])
        finished = await cluster.ctl("restart", str(slot))
        self.assertEqual(finished.code, 0, finished.err)
        answers = await asking
        self.assertEqual(answers, [before[slot], cluster.ready()[slot]])
        self.assertNotEqual(answers[0], answers[1])

    async def test_called(self) -> None:
        """
        A call that fails says why, be it that the handler raised, that there
        is none, or that the worker has ended.
        """
        cluster = await self.cluster("messaging:resource")
        for topic, expected in (
            ("raise", r"can't call 'raise' of slot \d: ValueError: no such thing"),
            ("nothing", r"can't call 'nothing' of slot \d: its app handles no 'nothing'"),
            ("die", r"can't call 'die' of slot \d: the worker of slot \d has ended"),
        ):
            answer = (await get(cluster.port, f"/call/{topic}")).decode()
            self.assertRegex(answer, expected)
        self.assertTrue(cluster.matching("ValueError: no such thing"))
        await cluster.says("exited: killed by SIGKILL")
        await cluster.allReady(2)
