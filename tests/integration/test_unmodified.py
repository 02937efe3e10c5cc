"""
Stock servers, C{.tac} files and scripts that know nothing of clusters.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from typing import ClassVar

from tests.integration.clients import Exchange, connect
from tests.integration.harness import Cluster
from tests.integration.unmodified import (
    LineVisit,
    Opener,
    UnmodifiedTestCase,
    Visit,
    app,
    freePort,
    visits,
)


class IRCVisit(Visit):
    """
    Somebody in a chat.  The server keeps who is there in its process.
    """

    nicks: ClassVar[deque[str]] = deque(f"nick{number}" for number in range(200))
    """Those that are free, longest first: the server has heard that they left."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self.nick = self.nicks.popleft()

    @classmethod
    async def opened(cls, port: int) -> IRCVisit:
        """
        Log in.
        """
        visit = cls(await connect(port))
        greeting = f"PASS secret\r\nNICK {visit.nick}\r\nUSER {visit.nick} 0 * :x\r\n"
        await visit.answer(greeting.encode(), re.compile(rb" 004 .*\r\n"))
        return visit

    def leave(self) -> None:
        """Let somebody else have the name."""
        super().leave()
        self.nicks.append(self.nick)

    async def ask(self) -> None:
        """Send oneself a message."""
        nick = re.escape(self.nick.encode())
        line = f"PRIVMSG {self.nick} :hello\r\n".encode()
        await self.answer(line, re.compile(rb"^:%b!\S+ PRIVMSG %b :hello\r\n$" % (nick, nick)))

    async def knows(self, other: IRCVisit) -> bool:
        """
        Whether the other one is in the same chat.
        """
        reply = re.compile(rb" (401|502) .*\r\n")
        found = await self.answer(f"MODE {other.nick}\r\n".encode(), reply)
        return found[1] == b"502"


class StockTests(UnmodifiedTestCase):
    """
    Servers that come with Twisted.
    """

    async def test_words(self) -> None:
        """
        C{twistd words}: those who happen to be at the same worker are in the
        same chat, and all of them stay in it as long as they like.
        """
        auth = ":".join(["memory", *(f"{nick}:secret" for nick in sorted(IRCVisit.nicks))])
        endpoint = "tcp:0:interface=127.0.0.1"
        cluster = await self.serve("words", "--irc-port", endpoint, "--auth", auth)
        await self._chats(cluster)
        await self.prove(cluster, lambda: IRCVisit.opened(cluster.port))

    async def _chats(self, cluster: Cluster) -> None:
        three = [await IRCVisit.opened(cluster.port) for _ in range(3)]
        asking, *others = three
        for other in others:
            together = other.owner(cluster) == asking.owner(cluster)
            self.assertEqual(await asking.knows(other), together)
        await self.leave(three)


class TacTests(UnmodifiedTestCase):
    """
    C{.tac} files.
    """

    async def test_twoServices(self) -> None:
        """
        Two services on two ports, one of them UNIX, described in the old way
        and in the new one.
        """
        cluster = await self.serve("--tac", app("two_services.tac"))
        await self.bound(cluster, 2)
        path = self.path("shout.sock")
        kinds = itertools.cycle([False, False, True, True])

        async def opened() -> Visit:
            shouting = next(kinds)
            return LineVisit(await connect(path if shouting else cluster.port), shouting)

        await self.prove(cluster, opened)


class ScriptTests(UnmodifiedTestCase):
    """
    Programs that run the reactor themselves.
    """

    async def test_asyncio(self) -> None:
        """
        A script that installs the asyncio reactor runs on it.
        """
        cluster = await self.serve("--script", app("asyncio_server.py"), "0")
        await self.prove(cluster, visits(LineVisit, cluster.port))


class LateTests(UnmodifiedTestCase):
    """
    Ports that are opened after start-up.
    """

    async def settled(self, cluster: Cluster) -> None:
        """They listen some time after they are Ready."""
        await super().settled(cluster)
        for pid in cluster.ready().values():
            await cluster.says(rf"pid {pid}] .*Factory starting on {cluster.port}$")

    async def test_lateListening(self) -> None:
        """
        A server that listens only some time after it has started loses
        nothing either; what it binds with port 0 then is each worker's own,
        and can be reached.
        """
        port = freePort()
        cluster = await self.serve("--script", app("late_ports.py"), str(port))
        await self.bound(cluster)
        opened = visits(LineVisit, port)
        await self._ownPorts(cluster, opened)
        await self.prove(cluster, opened)

    async def _ownPorts(self, cluster: Cluster, opened: Opener) -> None:
        ports: dict[int, int] = {}
        for _ in range(4):
            visit = await opened()
            found = await visit.answer(b"PASV\n", re.compile(rb"^(\d+) (\d+)\n$"))
            pid, ports[pid] = int(found[1]), int(found[2])
            for _ in range(3):
                data = LineVisit(await connect(ports[pid]))
                await data.ask()
                self.assertEqual(data.owner(cluster), pid)
                await self.leave([data])
            await self.leave([visit])
        self.assertEqual(set(ports), set(cluster.ready().values()))
        self.assertEqual(len(set(ports.values())), 2)
        self.assertEqual(len(cluster.addresses), 1)
