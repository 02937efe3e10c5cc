"""
The examples, run as their first lines say.
"""

from __future__ import annotations

import json
import os
import re
import signal
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

    async def test_query(self) -> None:
        """
        examples/query.py asks once, and all workers answer with what was
        found, one that was killed and replaced as well as the others.
        """
        cluster = await self.cluster(
            "query:resource", "--service", "query:Querying", workers=3, env=FIRST
        )
        os.kill(cluster.ready()[1], signal.SIGKILL)
        await cluster.says(r"slot 1 generation 1 pid \d+\] ready", times=2)
        answers = [json.loads(await get(cluster.port)) for _ in range(6)]
        self.assertEqual({one["slot"] for one in answers}, {0, 1, 2})
        found = {(one["answer"]["price"], one["answer"]["queries"]) for one in answers}
        self.assertEqual(found, {(101, 1)})

    async def test_messages(self) -> None:
        """
        examples/messages.py shows at each worker what was pinned up at one,
        and at one that has started since.
        """
        cluster = await self.cluster(
            "messages:board", "--service", "messages:Keeper", workers=2, env=FIRST
        )
        client = await connect(cluster.port)
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 11\r\n\r\ntea at four")
        self.assertIn(b", 2 workers are told\n", await client.end())
        os.kill(cluster.ready()[1], signal.SIGKILL)
        await cluster.says(r"slot 1 generation 1 pid \d+\] ready", times=2)
        for _ in range(4):
            self.assertEqual(await get(cluster.port), b"tea at four\n")

    async def test_login(self) -> None:
        """
        examples/login.py knows in each worker who has logged in to one.
        """
        cluster = await self.cluster("login:site", env=FIRST)
        cookie = await self.login(cluster.port, "Ada")
        pages = [await self.page(cluster.port, cookie) for _ in range(4)]
        found = [re.fullmatch(r"Hello Ada, visit (\d), slot (\d)\n", page) for page in pages]
        self.assertEqual([one[1] for one in found if one], ["1", "2", "3", "4"])
        self.assertEqual({one[2] for one in found if one}, {"0", "1"})
        await self.page(cluster.port, cookie, "/logout")
        self.assertIn("<form", await self.page(cluster.port, cookie))

    async def login(self, port: int, name: str) -> str:
        """
        Log in.

        @return: The cookie.
        """
        form = f"name={name}"
        head = f"POST /login HTTP/1.0\r\nContent-Length: {len(form)}\r\n"
        kind = "Content-Type: application/x-www-form-urlencoded\r\n"
        client = await connect(port)
        client.send(f"{head}{kind}\r\n{form}".encode("ascii"))
        response = (await client.end()).decode("ascii")
        found = re.search(r"(?im)^set-cookie: (TWISTED_SESSION=\w+)", response)
        assert found is not None, response
        return found[1]

    async def page(self, port: int, cookie: str, path: str = "/") -> str:
        """
        A page as this visitor sees it.
        """
        client = await connect(port)
        client.send(f"GET {path} HTTP/1.0\r\nCookie: {cookie}\r\n\r\n".encode("ascii"))
        return (await client.end()).decode("ascii").partition("\r\n\r\n")[2]

    async def test_echo(self) -> None:
        """
        examples/echo.py is a script, and each of its workers answers.
        """
        script = os.path.join(EXAMPLES, "echo.py")
        cluster = self.launch("--workers", "2", "--script", script, "0", env=FIRST)
        await cluster.allReady(2)
        said = set()
        for _ in range(2):
            client = await connect(cluster.port)
            client.send(b"hello\n")
            said.add(await client.matching(re.compile(rb"\n")))
        pids = cluster.ready().values()
        self.assertEqual(said, {b"%d hello\n" % pid for pid in pids})

    async def test_once(self) -> None:
        """
        examples/once.tac is served by two workers, one of which does the job.
        """
        text = Path(EXAMPLES, "once.tac").read_text(encoding="utf-8")
        self.assertEqual(text.count("tcp:8007"), 1)
        path = self.write("once.tac", text.replace("tcp:8007", LOCAL))
        cluster = self.launch("--workers", "2", "--tac", path, env=FIRST)
        await cluster.allReady(2)
        client = await connect(cluster.port)
        client.send(b"hello")
        await client.matching(re.compile(rb"hello"))
        # The workers would wait for it to the end of the drain.
        client.transport.loseConnection()
        await client.ended
        self.assertEqual(len(cluster.matching("sweeping in slot 0$")), 1)
        self.assertEqual(len(cluster.matching("sweeping in slot")), 1)
        await cluster.stop()
        self.assertEqual(cluster.matching("Traceback|Unhandled"), [])

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
