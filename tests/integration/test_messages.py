"""
Messages between the workers of a cluster.
"""

from __future__ import annotations

import ast
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
