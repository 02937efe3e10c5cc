"""
Proves of a server that knows nothing of clusters what has to hold for all of
them, with whatever client speaks to it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.integration import processes
from tests.integration.clients import Exchange, connect
from tests.integration.harness import APPS, PATIENCE, Cluster, ClusterTestCase, within

UNMODIFIED = os.path.join(APPS, "unmodified")


def app(name: str) -> str:
    """
    The path of one of the unmodified servers.
    """
    return os.path.join(UNMODIFIED, name)


def freePort(kind: int = socket.SOCK_STREAM) -> int:
    """
    A port that nobody listens on, for servers that can't be asked for theirs.
    """
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What a client does.

_numbers = itertools.count()


class Visit:
    """
    One connection of one client, on which it asks and is answered.

    @ivar over: Whether the server has announced that it ends the connection
        after the last answer.
    """

    over = False
    _end: str | None = None

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    async def ask(self) -> None:
        """
        Ask once.

        @raise AssertionError: if the answer is wrong, or there is none.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """
        End the connection.
        """
        self.exchange.transport.loseConnection()

    def lost(self) -> Deferred[Any]:
        """
        Await the end of the connection, of whatever kind.
        """
        return within(PATIENCE, "the end of a visit", self.exchange.ended, lambda: "")

    @property
    def isOpen(self) -> bool:
        """Whether the connection still stands."""
        return not self.exchange.ended.called

    @property
    def transport(self) -> Any:
        """The client's end of the connection."""
        return self.exchange.transport

    def owner(self, cluster: Cluster) -> int | None:
        """
        The worker that has the server's end of the connection; L{None} while
        it is on its way between two.
        """
        if self._end is None:
            transport = self.transport
            self._end = processes.serversEnd(transport.getPeer().port, transport.getHost().port)
        pids = [pid for pid in cluster.workers if processes.holds(pid, self._end)]
        return pids[-1] if pids else None

    async def answer(self, question: bytes, wanted: re.Pattern[bytes]) -> re.Match[bytes]:
        """
        Send C{question}, and await what matches C{wanted}.
        """
        if not self.isOpen:
            raise AssertionError("the connection has ended")
        self.exchange.received = b""
        self.exchange.send(question)
        found = wanted.search(await self.exchange.matching(wanted))
        assert found is not None
        return found


Opener = Callable[[], Awaitable[Visit]]
"""What a client does first."""


class WebVisit(Visit):
    """
    An HTTP/1.1 client that keeps its connection.
    """

    _QUESTION = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    _ANSWER = re.compile(rb"^HTTP/1\.1 200 .*?\r\n\r\n(?:hello\n|6\r\nhello\n\r\n0\r\n\r\n)$", re.S)

    async def ask(self) -> None:
        """Get a page."""
        found = await self.answer(self._QUESTION, self._ANSWER)
        self.over = re.search(rb"(?i)\r\nConnection: close\r\n", found[0]) is not None


class LineVisit(Visit):
    """
    Sends lines to a server that sends them back with the number of its
    process, in capitals if C{shouting}.
    """

    _ANSWER = re.compile(rb"^(\d+) (.*)\n$")

    def __init__(self, exchange: Exchange, shouting: bool = False) -> None:
        super().__init__(exchange)
        self._shouting = shouting
        self._pid = 0

    async def ask(self) -> None:
        """Send a line."""
        said = b"line %d" % next(_numbers)
        found = await self.answer(said + b"\n", self._ANSWER)
        if found[2] != (said.upper() if self._shouting else said):
            raise AssertionError(found[0])
        if self._pid not in (0, int(found[1])):
            raise AssertionError(f"{found[0]!r} after answers of {self._pid}")
        self._pid = int(found[1])

    def owner(self, cluster: Cluster) -> int | None:
        """The worker that has answered."""
        return self._pid


def visits(kind: Callable[[Exchange], Visit], port: int | str) -> Opener:
    """
    What opens visits of a kind.
    """

    async def opened() -> Visit:
        return kind(await connect(port))

    return opened


# Many of them.


class Crowd:
    """
    Clients that come, ask some times, and leave, again and again.

    @ivar answered: How many questions have been answered.
    @ivar failures: What else became of questions.
    """

    def __init__(self, opened: Opener, clients: int = 8, questions: int = 3) -> None:
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self._opened = opened
        self._questions = questions
        self._stopping = False
        self._waiters: list[tuple[int, Deferred[None]]] = []
        self._ends = [Deferred.fromCoroutine(self._come()) for _ in range(clients)]

    async def _come(self) -> None:
        while not self._stopping:
            try:
                await self._visit(await self._opened())
            except Exception as error:
                # Counted, for the test to look at: this client is served badly.
                self.failures[repr(error)] += 1
                return

    async def _visit(self, visit: Visit) -> None:
        for _ in range(self._questions):
            await visit.ask()
            self.answered += 1
            self._tell()
            if visit.over:
                break
        visit.leave()
        await visit.lost()

    def _tell(self) -> None:
        for waiter in tuple(self._waiters):
            if self.answered >= waiter[0]:
                self._waiters.remove(waiter)
                waiter[1].callback(None)

    def more(self, answers: int) -> Deferred[None]:
        """
        Await so many further answers.
        """
        done: Deferred[None] = Deferred()
        self._waiters.append((self.answered + answers, done))
        return within(PATIENCE, f"{answers} further answers", done, lambda: str(self.failures))

    def stop(self) -> Deferred[Any]:
        """
        Let each client finish its visit.
        """
        self._stopping = True
        done = gatherResults(self._ends)
        return within(PATIENCE, "the end of all visits", done, lambda: str(self.failures))


# What holds for every server.


class UnmodifiedTestCase(ClusterTestCase):
    """
    Runs servers as they are under two workers, and proves what has to hold
    for each.
    """

    async def serve(self, *words: str, **more: Any) -> Cluster:
        """
        Run C{twistd -n cluster --workers 2} and C{words}, in a process group
        of its own as a shell would, and await both workers.
        """
        cluster = self.launch("--workers", "2", *words, wrapper=("setsid",), **more)
        await cluster.allReady(2)
        return cluster

    async def settled(self, cluster: Cluster) -> None:
        """
        Await that both workers serve.  Those of most servers do once they are
        Ready.
        """
        await cluster.allReady(2)

    async def bound(self, cluster: Cluster, listeners: int = 1) -> list[str]:
        """
        Await that the app has so many addresses.
        """
        await cluster.when("addresses", lambda: len(cluster.addresses) >= listeners)
        return cluster.addresses

    async def prove(self, cluster: Cluster, opened: Opener) -> None:
        """
        The four checks.  The cluster has ended after them.
        """
        addresses = list(await self.bound(cluster))
        await self.assertBothServe(cluster, opened)
        await self.assertKillLosesItsOwn(cluster, opened)
        await self.assertReloadLosesNothing(cluster, opened)
        self.assertEqual(cluster.addresses, addresses, "what the master has bound")
        await self.assertInterruptEndsAll(cluster, opened)

    async def assertBothServe(self, cluster: Cluster, opened: Opener) -> None:
        """
        Visitors are spread over both workers, and each is answered.
        """
        await self.settled(cluster)
        await self.leave(await self._comeToBoth(cluster, opened, 4))

    async def assertKillLosesItsOwn(self, cluster: Cluster, opened: Opener) -> None:
        """
        SIGKILL of one worker ends the connections that it had and no others;
        it is replaced, and its successor serves the same port.
        """
        came = await self._comeToBoth(cluster, opened, 8)
        before = cluster.ready()
        hit = [visit for visit in came if visit.owner(cluster) == before[0]]
        others = [visit for visit in came if visit not in hit]
        os.kill(before[0], signal.SIGKILL)
        for visit in hit:
            await visit.lost()
        await self._ask(others)
        await cluster.says(f"pid {before[0]}] exited: killed by SIGKILL")
        await cluster.allReady(2)
        await self._ask(others)
        self.assertEqual([visit for visit in others if not visit.isOpen], [])
        self.assertEqual(self._owners(cluster, others), {before[1]})
        self.assertNotEqual(cluster.ready()[0], before[0])
        self.assertEqual(cluster.ready()[1], before[1])
        await self.leave(others)
        await self.assertBothServe(cluster, opened)

    async def assertReloadLosesNothing(self, cluster: Cluster, opened: Opener) -> None:
        """
        While clients come and go, a reload fails no question of any, and ends
        no connection that was there before.
        """
        before = cluster.ready()
        mark = len(cluster.lines)
        stay = await self._comeToBoth(cluster, opened, 4)
        crowd = Crowd(opened)
        await crowd.more(50)
        cluster.signal(signal.SIGHUP)
        drained = [self._stayThroughDrain(cluster, stay, pid) for pid in before.values()]
        await gatherResults([Deferred.fromCoroutine(one) for one in drained])
        await cluster.says(r"replacement by generation \d+ done", mark)
        await crowd.more(50)
        await crowd.stop()
        self.assertEqual(crowd.failures, Counter())
        self.assertEqual(set(cluster.ready().values()) & set(before.values()), set())
        self.assertEqual(cluster.matching("shed|not drained"), [])
        await self.leave([visit for visit in stay if visit.isOpen])
        await self.assertBothServe(cluster, opened)

    async def _stayThroughDrain(self, cluster: Cluster, stay: list[Visit], pid: int) -> None:
        """
        Those who stay at a worker are answered while it drains: by itself, or
        by whoever has taken the connection over.
        """
        mine = [visit for visit in stay if visit.owner(cluster) == pid]
        await cluster.says(f"pid {pid}] draining")
        await self._ask(mine)
        await self.leave([visit for visit in mine if visit.owner(cluster) == pid])

    async def assertInterruptEndsAll(self, cluster: Cluster, opened: Opener) -> None:
        """
        Ctrl-C, while clients have just been served, ends every process, which
        L{ClusterTestCase} looks for, as an ordinary stop.
        """
        came = await self._comeToBoth(cluster, opened, 2)
        os.killpg(cluster.pid, signal.SIGINT)
        await cluster.says("stopping: ")
        await self.leave([visit for visit in came if visit.isOpen])
        ended = await cluster.isExit()
        # As twistd ends always: by the signal that it was sent.
        self.assertEqual((ended.code, ended.signal), (None, signal.SIGINT), cluster.tail())
        self.assertEqual(cluster.matching("Traceback|Unhandled"), [])

    async def _comeToBoth(self, cluster: Cluster, opened: Opener, count: int) -> list[Visit]:
        """
        At least C{count} visits, of which each worker has some.  It may take
        more than two: who is busy is left out.
        """
        ready = set(cluster.ready().values())
        self.assertEqual(len(ready), 2)
        came: list[Visit] = []
        while len(came) < count or self._owners(cluster, came) != ready:
            self.assertLess(len(came), 100, "all to the same worker")
            came.append(await opened())
            await self._ask(came[-1:])
        return came

    async def _ask(self, came: Sequence[Visit]) -> None:
        await gatherResults([Deferred.fromCoroutine(visit.ask()) for visit in came])

    async def leave(self, came: Iterable[Visit]) -> None:
        """
        Have visits end.
        """
        for visit in came:
            visit.leave()
            await visit.lost()

    def _owners(self, cluster: Cluster, came: Sequence[Visit]) -> set[int | None]:
        return {visit.owner(cluster) for visit in came}
