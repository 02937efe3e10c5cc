"""
Workers that misbehave.
"""

from __future__ import annotations

import resource
import signal

from tests.integration.clients import connect, get, request
from tests.integration.harness import LOCAL, ClusterTestCase


class HungWorkerTests(ClusterTestCase):
    """
    A worker whose reactor does not run.
    """

    async def _hangs(self, path: str, where: str, frame: str) -> None:
        cluster = await self.cluster("hangs:resource", "--hung-timeout", "1")
        client = await connect(cluster.port)
        client.send(request(path))
        await cluster.says(f"hanging in {where}")
        before = cluster.ready()
        await cluster.says("hung: no heartbeat for")
        await cluster.says("Fatal Python error: Aborted")
        await cluster.says(f"in {frame}")
        await cluster.says("exited: hung: .*killed by SIGABRT")
        await cluster.allReady(2)
        after = cluster.ready()
        self.assertEqual(sum(before[slot] == after[slot] for slot in (0, 1)), 1)
        self.assertEqual(await get(cluster.port), b"alive\n")
        self.assertEqual(len(cluster.matching("hung: no heartbeat.*stacks follow")), 1)

    async def test_inPython(self) -> None:
        """
        A worker stuck in a loop has its stacks dumped to the log, is killed,
        and is replaced; the other one goes on.
        """
        await self._hangs("/python", "Python", "spinForEver")

    async def test_inC(self) -> None:
        """
        So has one that is stuck in C code and keeps the GIL.
        """
        await self._hangs("/c", "C", "render_GET")


class CrashLoopTests(ClusterTestCase):
    """
    A worker that can't start.
    """

    async def test_oneSlotFails(self) -> None:
        """
        A slot whose worker crashes at each start backs off and fails in the
        end, loudly and with the app's traceback in the log, while the other
        slots serve.
        """
        cluster = self.launch(
            *("--app", "crash_on_start:app", "--listen", LOCAL, "--workers", "3"),
            *("--restart-intensity", "2"),
        )
        await cluster.says(r"slot 1 .* backoff: .*next attempt in")
        await cluster.says(r"#critical\] \[slot 1 .* failed: 3 crashes in ")
        await cluster.allReady(2)
        self.assertEqual(set(cluster.ready()), {0, 2})
        self.assertTrue(cluster.matching("RuntimeError: this slot is cursed"))
        self.assertTrue(cluster.matching("crash_on_start.py"))
        self.assertEqual(await get(cluster.port), b"hello\n")
        self.assertEqual(len(cluster.matching(r"slot 1 generation 1 pid -\] starting")), 3)
        self.assertEqual(len(cluster.matching(r"slot [02] .*exited")), 0)

    async def test_neverReady(self) -> None:
        """
        A worker that is not Ready in time counts as crashed, after its stacks
        have been dumped.
        """
        cluster = self.launch(
            *("--app", "never_ready:app", "--listen", LOCAL, "--workers", "1"),
            *("--generation-timeout", "500ms", "--restart-intensity", "1"),
        )
        await cluster.says("exited: not Ready within 0.5 s")
        await cluster.says("Fatal Python error: Aborted")
        await cluster.says("failed: 2 crashes")

    async def test_nameThatIsWrong(self) -> None:
        """
        An C{--app} that can't be found, or can't be served, ends the command
        with exit code 1 and one line that says why.
        """
        for app, why in (
            ("nosuchmodule:app", "there is no module 'nosuchmodule'"),
            ("hello:nosuch", "has no attribute 'nosuch'"),
            ("nonsense:number", "is a int; it must be a Factory"),
            ("nonsense:returnsNumber", "returned a int; it must return a Factory"),
        ):
            for command in ("twistd", "twist"):
                cluster = self.launch(
                    *("--app", app, "--listen", LOCAL, "--workers", "2"), command=command
                )
                ended = await cluster.isExit()
                self.assertEqual((ended.code, ended.signal), (1, None), cluster.tail())
                self.assertTrue(cluster.matching(f"can't start: app {app}.*{why}"), cluster.tail())
                self.assertEqual(cluster.matching("Traceback"), [], cluster.tail())

    async def test_appThatRaises(self) -> None:
        """
        An app that fails when it is called has its traceback in the log, which
        begins with the app's own code.
        """
        cluster = self.launch(
            *("--app", "nonsense:raises", "--listen", LOCAL, "--workers", "1"),
            *("--restart-intensity", "1"),
        )
        await cluster.says("failed: 2 crashes")
        self.assertTrue(cluster.matching("RuntimeError: no app today"))
        (first, *_) = cluster.matching('File ".*')
        self.assertIn("nonsense.py", first)

    async def test_leaks(self) -> None:
        """
        A worker whose app has used up all of its descriptors is left out, and
        the others answer everything.
        """
        cluster = await self.cluster("leaks:resource", "--credit", "8")
        victim = cluster.ready()[0]
        resource.prlimit(victim, resource.RLIMIT_NOFILE, (48, 48))
        for _ in range(120):
            await get(cluster.port)
        self.assertEqual(cluster.matching("shed|exited"), [])
        cluster.signal(signal.SIGHUP)
        await cluster.allReady(2, 2)
