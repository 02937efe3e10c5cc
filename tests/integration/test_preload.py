"""
What apps do at import, and whether they can be forked after it.
"""

from __future__ import annotations

import os
import signal

from tests.integration import processes
from tests.integration.clients import get
from tests.integration.harness import LOCAL, Cluster, ClusterTestCase
from tests.integration.test_migration import reload

HELLO = """
from twisted.web.resource import Resource

class Hello(Resource):
    isLeaf = True

    def render_GET(self, request):
        return answer(request).encode("ascii")

resource = Hello()
"""


class PreloadTests(ClusterTestCase):
    """
    Each app is served, in whichever way suits it.
    """

    async def _start(self, code: str, workers: int = 2) -> Cluster:
        self.write("app.py", HELLO + code)
        cluster = self.launch("--app", "app:resource", "--listen", LOCAL, "--workers", str(workers))
        await cluster.allReady(workers)
        return cluster

    async def _spawner(self, cluster: Cluster) -> str:
        status = await cluster.status()
        return str(status["spawner"])

    async def test_thread(self) -> None:
        """
        An app whose import starts a thread is executed for each worker; the
        thread is named in the status and the log.
        """
        cluster = await self._start(
            "import threading\n"
            "gate = threading.Event()\n"
            "threading.Thread(target=gate.wait, name='poller', daemon=True).start()\n"
            "def answer(request):\n"
            "    return str(threading.active_count())\n"
        )
        self.assertEqual(await get(cluster.port), b"2")
        self.assertIn("poller", await self._spawner(cluster))
        self.assertEqual(len(cluster.matching("can't be preloaded: .*poller")), 1)
        await reload(cluster)
        self.assertEqual(await get(cluster.port), b"2")

    async def test_unforkableReactor(self) -> None:
        """
        An app that installs a reactor which can't be forked is executed for
        each worker, on that reactor.
        """
        cluster = await self._start(
            "from twisted.internet import asyncioreactor\n"
            "asyncioreactor.install()\n"
            "def answer(request):\n"
            "    from twisted.internet import reactor\n"
            "    return type(reactor).__name__\n"
        )
        self.assertEqual(await get(cluster.port), b"AsyncioSelectorReactor")
        self.assertIn("AsyncioSelectorReactor", await self._spawner(cluster))

    async def test_reactorAtImport(self) -> None:
        """
        An app that imports the reactor is forked, and each worker has a
        reactor that works: timers, threads and connections.
        """
        cluster = await self._start(
            "from twisted.internet import reactor, threads\n"
            "from twisted.internet.task import deferLater\n"
            "from twisted.web.server import NOT_DONE_YET\n"
            "import os\n"
            "def ask(self, request):\n"
            "    done = deferLater(reactor, 0, threads.deferToThread, os.getpid)\n"
            "    done.addCallback(lambda pid: (request.write(b'%d' % pid), request.finish()))\n"
            "    return NOT_DONE_YET\n"
            "Hello.render_GET = ask\n"
        )
        self.assertEqual(await self._spawner(cluster), "template")
        pids = {int(await get(cluster.port)) for _ in range(4)}
        self.assertEqual(pids, set(cluster.ready().values()))

    async def test_randomness(self) -> None:
        """
        Workers of one template do not share their random numbers.
        """
        cluster = await self._start(
            "import random\nrandom.seed(1)\ndef answer(request):\n    return str(random.random())\n"
        )
        self.assertNotEqual(await get(cluster.port), await get(cluster.port))

    async def test_place(self) -> None:
        """
        While the app is imported there is no slot yet, but it is no master
        either; in a worker C{current} knows, even if it was asked before.
        """
        cluster = await self._start(
            "import twisted_cluster\n"
            "here = twisted_cluster.current()\n"
            "before = f'{here.isWorker} {here.slot}'\n"
            "def answer(request):\n"
            "    return f'{before} {here.isWorker} {here.slot}'\n",
            workers=1,
        )
        self.assertEqual(await get(cluster.port), b"True None True 0")

    async def test_oldCodeAfterAFailedReload(self) -> None:
        """
        After a reload that failed, a worker that dies is replaced by one with
        the old code, although that is no longer on disk.
        """
        cluster = await self._start("def answer(request):\n    return 'old'\n")
        self.write("app.py", "raise RuntimeError('broken')")
        failed = await cluster.ctl("reload")
        self.assertEqual(failed.code, 1)
        self.assertIn("RuntimeError: broken", failed.err)
        victim = cluster.ready()[0]
        os.kill(victim, signal.SIGKILL)
        await cluster.says(f"pid {victim}] exited")
        await cluster.allReady(2)
        self.assertEqual({await get(cluster.port) for _ in range(4)}, {b"old"})

    async def test_hangsAtImport(self) -> None:
        """
        An import that does not end has its stack dumped to the log when the
        time is up, and aborts a reload.
        """
        cluster = await self._start("def answer(request):\n    return 'old'\n")
        await cluster.stop()
        self.write("app.py", HELLO + "def answer(request):\n    return 'old'\n")
        second = self.launch(
            *("--app", "app:resource", "--listen", LOCAL, "--workers", "1"),
            *("--generation-timeout", "2s"),
        )
        await second.allReady(1)
        self.write("app.py", "import time\nwhile True:\n    time.sleep(1)\n")
        failed = await second.ctl("reload")
        self.assertEqual(failed.code, 1)
        self.assertIn("not Ready within 2 s", failed.err)
        await second.says(r"app\.py\", line 3")
        self.assertEqual(await get(second.port), b"old")

    async def test_oneTemplate(self) -> None:
        """
        After reloads there is one template: those of old generations are gone.
        """
        cluster = await self._start("def answer(request):\n    return 'x'\n")
        for _ in range(3):
            await reload(cluster)
        parents = [pid for pid in processes.childrenOf(cluster.pid) if processes.childrenOf(pid)]
        self.assertEqual(len(parents), 1)
