"""
Workers that are forked from templates, and workers that are not.
"""

from __future__ import annotations

import os
import signal

from tests.integration import processes
from tests.integration.clients import Ab, get, who
from tests.integration.harness import Cluster, ClusterTestCase


def templates(cluster: Cluster) -> list[int]:
    """
    The process ids of the templates: parents of workers other than the master.
    """
    parents = [pid for pid in processes.childrenOf(cluster.pid) if processes.childrenOf(pid)]
    return sorted(parents)


class TemplateTests(ClusterTestCase):
    """
    The app is imported once, in a template.
    """

    async def test_killedTemplate(self) -> None:
        """
        When a template is killed, its workers go on serving, and one that dies
        later is replaced from a new template; no request is lost.
        """
        cluster = await self.cluster("hello:quiet")
        before = cluster.ready()
        (template,) = templates(cluster)
        ab = Ab(cluster.port, concurrency=50)
        os.kill(template, signal.SIGKILL)
        await cluster.says("template generation 1 .* killed by SIGKILL")
        self.assertEqual(await get(cluster.port), b"hello\n")
        os.kill(before[0], signal.SIGTERM)
        await cluster.says("slot 0 .*exited")
        await cluster.allReady(2)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertEqual(cluster.ready()[1], before[1])
        os.kill(before[1], signal.SIGKILL)
        await cluster.says(f"slot 1 .*pid {before[1]}] exited")
        await cluster.allReady(2)
        self.assertEqual(len(templates(cluster)), 1)

    async def test_stopAfterTheTemplatesDeath(self) -> None:
        """
        Workers whose template is gone are stopped like all others.
        """
        cluster = await self.cluster("hello:resource")
        (template,) = templates(cluster)
        os.kill(template, signal.SIGKILL)
        await cluster.says("template generation 1 .* killed by SIGKILL")
        await cluster.stop()
        self.assertEqual(len(cluster.matching("exited")), 2)

    async def test_killedMaster(self) -> None:
        """
        A template does not outlive its master.
        """
        cluster = await self.cluster("hello:resource")
        self.assertEqual(len(templates(cluster)), 1)
        cluster.signal(signal.SIGKILL)
        await cluster.isExit()

    async def test_withoutATemplate(self) -> None:
        """
        With C{--no-preload} each worker is a process of its own making, and
        reloads and deaths are no different.
        """
        cluster = await self.cluster("hello:quiet", "--no-preload")
        self.assertEqual(templates(cluster), [])
        ab = Ab(cluster.port, concurrency=50)
        cluster.signal(signal.SIGHUP)
        await cluster.allReady(2, 2)
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        os.kill(cluster.ready()[0], signal.SIGKILL)
        await cluster.says("slot 0 .*exited: killed by SIGKILL")
        await cluster.allReady(2)
        self.assertEqual({(await who(cluster.port))[0] for _ in range(4)}, {0, 1})


class RenewalTests(ClusterTestCase):
    """
    A template that is still needed is replaced before anyone asks for it.
    """

    async def test_renewed(self) -> None:
        """
        After the death of a template there is another one, with all workers
        untouched; a later reload leaves one template again.
        """
        cluster = await self.cluster("hello:resource")
        before = cluster.ready()
        (first,) = templates(cluster)
        os.kill(first, signal.SIGKILL)
        await cluster.says("template generation 1 .* killed by SIGKILL")
        imported = await cluster.says(r"template generation 1 pid \d+\] has imported", times=2)
        second = int(imported[1].partition(" pid ")[2].partition("]")[0])
        self.assertEqual(cluster.ready(), before)
        os.kill(before[0], signal.SIGKILL)
        await cluster.says(f"pid {before[0]}] exited")
        await cluster.allReady(2)
        self.assertEqual(processes.childrenOf(second), [cluster.ready()[0]])


class NameTests(ClusterTestCase):
    """
    Whoever looks at the processes of a machine sees which is which.
    """

    async def test_names(self) -> None:
        """
        The name of a process has its slot and generation, forked or not.
        """
        for options in ((), ("--no-preload",)):
            cluster = await self.cluster("hello:resource", *options)
            names = [self._name(pid) for _, pid in sorted(cluster.ready().items())]
            self.assertEqual(names, ["worker 0.1", "worker 1.1"])
            self.assertEqual([self._name(pid) for pid in templates(cluster)], self._wanted(options))
            await cluster.stop()

    def _wanted(self, options: tuple[str, ...]) -> list[str]:
        return [] if options else ["template 1"]

    def _name(self, pid: int) -> str:
        with open(f"/proc/{pid}/comm") as comm:
            return comm.read().strip()
