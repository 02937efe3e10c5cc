"""
The examples, run as their first lines say.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.integration.clients import connect, get
from tests.integration.harness import LOCAL, ROOT, ClusterTestCase

EXAMPLES = os.path.join(ROOT, "examples")
FIRST = {"PYTHONPATH": os.pathsep.join((EXAMPLES, ROOT))}
"""An environment in which the examples are found, and not the apps of the tests."""


class ExampleTests(ClusterTestCase):
    """
    The files in C{examples}.
    """

    async def test_hello(self) -> None:
        """
        examples/hello.py is served by each of its workers.
        """
        cluster = await self.cluster("hello:resource", env=FIRST)
        said = {(await get(cluster.port)).decode("ascii") for _ in range(2)}
        expected = {
            f"hello from slot {slot}, generation 1, pid {pid}\n"
            for slot, pid in cluster.ready().items()
        }
        self.assertEqual(said, expected)

    async def test_cpu(self) -> None:
        """
        examples/cpu.py counts in several workers.
        """
        cluster = await self.cluster("cpu:resource", env=FIRST)
        answers = [await get(cluster.port) for _ in range(4)]
        self.assertEqual(set(answers), {b"counted to a million\n"})

    async def test_service(self) -> None:
        """
        examples/service.py runs the cluster, and tells of workers and reloads;
        clients from one address stay with one slot.
        """
        cluster = await self.cluster("hello:resource", "--service", "service:Sticky", env=FIRST)
        for slot, pid in cluster.ready().items():
            await cluster.says(f"slot {slot} is served by {pid}")
        slots = {(await get(cluster.port)).split()[3] for _ in range(4)}
        self.assertEqual(len(slots), 1)
        finished = await cluster.ctl("reload")
        self.assertEqual(finished.code, 0, finished.err)
        await cluster.says("all slots: done")

    async def test_names(self) -> None:
        """
        examples/names.py keeps connection and name across a reload.
        """
        cluster = await self.cluster("names:factory", env=FIRST)
        user = await connect(cluster.port)
        user.send(b"name Ada\n")
        await user.matching(re.compile(rb"Ada: slot \d generation 1\n"))
        finished = await cluster.ctl("reload")
        self.assertEqual(finished.code, 0, finished.err)
        user.send(b"who\n")
        await user.matching(re.compile(rb"Ada: slot \d generation 2\n"))

    async def test_embedded(self) -> None:
        """
        examples/embedded.tac is a cluster without the command.
        """
        text = Path(EXAMPLES, "embedded.tac").read_text(encoding="utf-8")
        self.assertEqual(text.count("tcp:8080"), 1)
        path = self.write("embedded.tac", text.replace("tcp:8080", LOCAL))
        code = "from twisted.scripts.twistd import run; run()"
        cluster = self.execute([sys.executable, "-c", code, "-ny", path], env=FIRST)
        await cluster.says(r"pid \d+\] ready")
        self.assertIn(b"hello from slot", await get(cluster.port))
