"""
What is said of apps that can't be run, and how those that can are made.
"""

from __future__ import annotations

import os
import signal
import socket

from tests.integration.harness import Cluster, ClusterTestCase
from tests.integration.unmodified import LineVisit, UnmodifiedTestCase, app, visits

STDIO = """
from twisted.internet import endpoints, protocol, reactor

factory = protocol.Factory.forProtocol(protocol.Protocol)
endpoints.serverFromString(reactor, "stdio:").listen(factory)
reactor.run()
"""

RAISES = """
from twisted.internet import reactor

raise RuntimeError("no such database")
"""


class WrongUsageTests(ClusterTestCase):
    """
    The operator's mistakes.
    """

    async def _refused(self, reason: str, *words: str) -> Cluster:
        """
        Assert that the command ends at once with exit code 1 and one line with
        C{reason} and a hint, without a traceback.

        @return: What has ended.
        """
        cluster = self.launch("--workers", "2", *words)
        ended = await cluster.isExit()
        self.assertEqual((ended.code, ended.signal), (1, None), cluster.tail())
        told = cluster.matching(rf"ClusterService#critical\] can't [^;]*{reason}.*; \w")
        self.assertEqual(len(told), 1, cluster.tail())
        self.assertEqual(
            cluster.matching(r"Traceback \(most|\] ready|Unhandled"), [], cluster.tail()
        )
        return cluster

    async def test_noSuchCommand(self) -> None:
        """
        A command that twistd does not have.
        """
        await self._refused("twistd has no command 'wbe'", "wbe", "--path", ".")

    async def test_noSuchOption(self) -> None:
        """
        An option that the command does not have: it says so itself.
        """
        await self._refused("option --nonsense not recognized", "web", "--nonsense")

    async def test_help(self) -> None:
        """
        The help of a command is shown, but nothing is served.
        """
        cluster = await self._refused("web --help says something and ends", "web", "--help")
        self.assertTrue(cluster.matching("--path="))

    async def test_noSuchFile(self) -> None:
        """
        Scripts, modules and C{.tac} files that do not exist.
        """
        await self._refused("there is no script .*missing.py", "--script", "missing.py")
        await self._refused("there is no module 'missing'", "--module", "missing")
        await self._refused("there is no file .*missing.tac", "--tac", "missing.tac")

    async def test_endsAtOnce(self) -> None:
        """
        A script that runs no reactor.
        """
        self.write("ends.py", "print('nothing to do')\n")
        cluster = await self._refused(
            "ended with code 0 before it ran a reactor", "--script", "ends.py"
        )
        self.assertTrue(cluster.matching("nothing to do"))

    async def test_standardInput(self) -> None:
        """
        A server on standard input, of which there is but one.
        """
        self.write("server.py", STDIO)
        await self._refused("listen on stdio", "--script", "server.py")
        await self._refused("listen on stdio", "web", "--listen", "stdio:", "--path", ".")

    async def test_portTaken(self) -> None:
        """
        A port that somebody else listens on.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            reason = rf"listen on 127\.0\.0\.1:{port}: Address already in use"
            endpoint = f"tcp:{port}:interface=127.0.0.1"
            await self._refused(reason, "web", "--listen", endpoint, "--path", ".")
            await self._refused(reason, "--script", app("asyncio_server.py"), str(port))

    async def test_raises(self) -> None:
        """
        A script that fails does so with its own traceback and none of the
        cluster's.  As it is the code that is at fault, a reload with better
        code is all it takes.
        """
        self.write("server.py", RAISES)
        script = ("--script", "server.py", "0")
        cluster = self.launch("--workers", "2", "--restart-intensity", "1", *script)
        given = await cluster.says("critical.* failed: 2 crashes .* until a reload or", times=2)
        self.assertEqual(len(given), 2)
        self.assertTrue(
            cluster.matching("server.py 0 fails to load: RuntimeError: no such database")
        )
        files = cluster.matching(' File "')
        self.assertEqual([line for line in files if "server.py" not in line], [])
        with open(app("asyncio_server.py")) as better:
            self.write("server.py", better.read())
        cluster.signal(signal.SIGHUP)
        await cluster.allReady(2)
        await (await visits(LineVisit, cluster.port)()).ask()


class SpawnerTests(UnmodifiedTestCase):
    """
    Workers are forked from a template wherever that can't change what the app
    does.
    """

    async def _spawner(self, *words: str) -> str:
        cluster = await self.serve(*words)
        status = await cluster.status()
        await cluster.stop()
        return str(status["spawner"])

    async def test_template(self) -> None:
        """
        Commands, C{.tac} files, scripts and modules are imported ahead, even
        if the script installs a reactor itself: the template stops before.
        """
        port = "tcp:0:interface=127.0.0.1"
        for words in (
            ("web", "--listen", port, "--path", "."),
            ("--tac", app("two_services.tac")),
            ("--module", "unmodified.klein_server", "0"),
            ("--script", app("asyncio_server.py"), "0"),
        ):
            self.assertEqual(await self._spawner(*words), "template", words)

    async def test_exec(self) -> None:
        """
        Where an import installs a reactor that can't be forked, each worker is
        a fresh interpreter, and the status says why.
        """
        with open(app("asyncio_server.py")) as original:
            head, install, rest = original.read().partition("asyncioreactor.install()\n")
        self.assertTrue(install)
        self.write("loop.py", f"from twisted.internet import asyncioreactor\n\n{install}")
        self.write("server.py", f"import loop\n{head}{rest}")
        spawner = await self._spawner("--script", "server.py", "0")
        self.assertRegex(spawner, "^exec.*AsyncioSelectorReactor")
        self.assertTrue(os.path.exists(self.path("server.py")))
