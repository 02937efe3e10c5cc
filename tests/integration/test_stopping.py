"""
The end of a cluster, wanted or not.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionRefusedError

from tests.integration import processes
from tests.integration.clients import connect, get, request
from tests.integration.harness import LOCAL, Cluster, ClusterTestCase, endOf


class SignalTests(ClusterTestCase):
    """
    SIGTERM and SIGINT.
    """

    async def _answeredWhileStopping(self, cluster: Cluster, send: Any) -> None:
        gate = self.gates
        client = await connect(cluster.port)
        client.send(request("/slow"))
        (held,) = await gate.requests(1)
        send()
        await cluster.says("stopping: ")
        await cluster.says(f"pid {held.pid}] draining")
        await self.assertFailure(connect(cluster.port), ConnectionRefusedError)
        held.release()
        self.assertIn(b"released\n", await client.end())
        await cluster.isExit()
        self.assertEqual(cluster.matching("killed by|Traceback"), [])

    async def test_terminate(self) -> None:
        """
        After SIGTERM no connection is accepted, what is under way is answered,
        and then all processes end.
        """
        self.gates = self.gate()
        cluster = await self.cluster("gated:resource")
        await self._answeredWhileStopping(cluster, lambda: cluster.signal(signal.SIGTERM))

    async def test_signalToTheGroup(self) -> None:
        """
        Ctrl-C, which signals all processes of the group, does the same; so
        does SIGTERM to all of them, as service managers send it.
        """
        self.gates = self.gate()
        for number in (signal.SIGINT, signal.SIGTERM):
            cluster = await self.cluster("gated:resource", wrapper=("setsid",))

            def send(number: int = number, cluster: Cluster = cluster) -> None:
                os.killpg(cluster.pid, number)

            await self._answeredWhileStopping(cluster, send)
            self.assertEqual(cluster.matching("replacement"), [])

    async def test_secondTerminate(self) -> None:
        """
        A second SIGTERM ends all processes at once, whatever they serve.
        """
        gate = self.gate()
        cluster = await self.cluster("gated:resource")
        client = await connect(cluster.port)
        client.send(request("/slow"))
        await gate.requests(1)
        cluster.signal(signal.SIGTERM)
        await cluster.says("draining")
        cluster.signal(signal.SIGTERM)
        await cluster.isExit()
        await client.ended
        self.assertEqual(client.received, b"")

    async def test_terminateWhileStarting(self) -> None:
        """
        SIGTERM before any worker is Ready ends all processes.
        """
        cluster = self.launch("--app", "never_ready:app", "--listen", LOCAL, "--workers", "2")
        await cluster.says("slot 1 .* starting")
        cluster.signal(signal.SIGTERM)
        await cluster.isExit()

    async def test_terminateWhileReloading(self) -> None:
        """
        SIGTERM during a reload ends old and new workers.
        """
        cluster = await self.cluster("hello:resource")
        cluster.signal(signal.SIGHUP)
        await cluster.says("generation 2 .* starting")
        cluster.signal(signal.SIGTERM)
        await cluster.isExit()
        self.assertEqual(cluster.matching("Traceback"), [])

    async def test_queuedConnectionsAreServed(self) -> None:
        """
        Clients who have connected, but wait since all workers are busy, are
        served after SIGTERM too.
        """
        cluster = await self.cluster("hello:quiet", workers=1)
        (worker,) = cluster.ready().values()
        os.kill(worker, signal.SIGSTOP)
        clients = await gatherResults([connect(cluster.port) for _ in range(150)])
        for client in clients:
            client.send(request("/who"))
        cluster.signal(signal.SIGTERM)
        await cluster.says("stopping: ")
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            self.assertIn(b" 200 OK", await client.end())
        await cluster.isExit()
        self.assertEqual(cluster.matching("shed"), [])

    async def test_stopThatFails(self) -> None:
        """
        An app that fails when it is stopped is said so in the log, and its
        workers end all the same.
        """
        cluster = await self.cluster("raises_on_stop:site")
        await cluster.stop()
        self.assertEqual(len(cluster.matching("RuntimeError: not now")), 2, cluster.tail())
        self.assertEqual(cluster.matching("killed by"), [])


class KilledMasterTests(ClusterTestCase):
    """
    The master is killed with SIGKILL.
    """

    async def _others(self, cluster: Cluster) -> list[int]:
        """
        The workers and the sentinel.
        """
        children = processes.childrenOf(cluster.pid)
        self.assertIn(await cluster.sentinel(), children)
        return children

    async def _kill(self, cluster: Cluster) -> None:
        cluster.signal(signal.SIGKILL)
        await cluster.isExit()

    async def test_workIsFinished(self) -> None:
        """
        A request under way is answered after the master's death; then nobody
        is left, well before the drain timeout.
        """
        gate = self.gate()
        for command in ("twistd", "twist"):
            cluster = await self.cluster("gated:resource", command=command)
            others = await self._others(cluster)
            client = await connect(cluster.port)
            client.send(request("/slow"))
            (held,) = await gate.requests(1)
            await self._kill(cluster)
            held.release()
            self.assertIn(b"released\n", await client.end())
            await gatherResults([endOf(pid) for pid in others])

    async def test_stuckWorkerGoesToo(self) -> None:
        """
        Of two workers stuck where they never hear of the master's death, one
        in C code with the GIL held, none is left after the drain timeout.
        """
        cluster = await self.cluster("hangs:resource", "--drain-timeout", "1")
        others = await self._others(cluster)
        for path, where in (("/c", "C"), ("/python", "Python")):
            client = await connect(cluster.port)
            client.send(request(path))
            await cluster.says(f"hanging in {where}")
        await self._kill(cluster)
        await gatherResults([endOf(pid) for pid in others])

    async def test_stuckRequestIsCut(self) -> None:
        """
        A request that is not answered within the drain timeout holds nobody
        up for longer.
        """
        gate = self.gate()
        cluster = await self.cluster("gated:resource", "--drain-timeout", "1")
        others = await self._others(cluster)
        client = await connect(cluster.port)
        client.send(request("/slow"))
        await gate.requests(1)
        await self._kill(cluster)
        await gatherResults([endOf(pid) for pid in others])
        await client.ended

    async def test_newMasterServesAtOnce(self) -> None:
        """
        While the workers of the dead master still serve, a new one binds the
        same port and the same path, and serves.
        """
        gate = self.gate()
        path = self.path("http.sock")
        cluster = await self.cluster("gated:resource", listen=(LOCAL, f"unix:{path}"))
        others = await self._others(cluster)
        clients = await gatherResults([connect(cluster.port), connect(path)])
        for client in clients:
            client.send(request("/slow"))
        held = await gate.requests(2)
        await self._kill(cluster)
        again = f"tcp:{cluster.port}:interface=127.0.0.1"
        new = await self.cluster("hello:resource", listen=(again, f"unix:{path}"))
        self.assertEqual(await get(new.port), b"hello\n")
        self.assertEqual(await get(path), b"hello\n")
        for one in held:
            one.release()
        for client in clients:
            self.assertIn(b"released\n", await client.end())
        await gatherResults([endOf(pid) for pid in others])
        self.assertEqual(await get(path), b"hello\n")

    async def test_killedSentinel(self) -> None:
        """
        A sentinel that is killed is replaced, and the new one sees to the
        workers that there are.
        """
        cluster = await self.cluster("hangs:resource", "--drain-timeout", "1")
        first = await cluster.sentinel()
        os.kill(first, signal.SIGKILL)
        await cluster.says("the sentinel is gone")
        client = await connect(cluster.port)
        client.send(request("/c"))
        await cluster.says("hanging in C")
        await cluster.says("the sentinel is pid", times=2)
        others = await self._others(cluster)
        self.assertNotIn(first, others)
        await self._kill(cluster)
        await gatherResults([endOf(pid) for pid in others])
