"""
Runs a cluster as an operator would, and awaits what it says and does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from tests.integration import processes

reactor: Any = _reactor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
APPS = os.path.join(ROOT, "tests", "apps")

PATIENCE = 60
"""Seconds after which what has not happened is taken for failed."""

LOCAL = "tcp:0:interface=127.0.0.1"

_TWISTD = "from twisted.scripts.twistd import run; run()"
_CTL = "import sys; from twisted_cluster.ops.ctl import main; sys.exit(main())"

_STATE = re.compile(
    r"Journal#\w+\] \[slot (\d+) generation (\d+) pid (\S+)\] "
    r"(starting|ready|draining|stopping|exited|backoff|failed)\b(?:: )?(.*)"
)
_BOUND = re.compile(r"listening on (\S+), bound to (.*)$")


T = TypeVar("T")


def within(seconds: float, what: str, done: Deferred[T], detail: Callable[[], str]) -> Deferred[T]:
    """
    Have C{done} fail, with a word on what was waited for, if it takes too long.
    """

    def late(result: object, timeout: float) -> T:
        raise AssertionError(f"not within {timeout:g} s")

    def explain(failure: Failure) -> T:
        failure.trap(AssertionError)
        raise AssertionError(f"waited for {what}: {failure.value}\n{detail()}")

    return done.addTimeout(seconds, reactor, onTimeoutCancel=late).addErrback(explain)


def requireTool(name: str, package: str) -> str:
    """
    The path of a program that a test needs.

    @raise SkipTest: It is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise SkipTest(f"install {package} for {name}")
    return path


@dataclass
class Finished:
    """
    How a program ended and what it wrote.
    """

    code: int | None
    signal: int | None
    out: str
    err: str


class _Collector(ProcessProtocol):
    """
    Collects what a program writes until it has ended.
    """

    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[Finished] = Deferred()
        self._data: dict[int, bytes] = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._data[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        out, err = (self._data[number].decode("utf-8", "replace") for number in (1, 2))
        self.done.callback(Finished(value.exitCode, value.signal, out, err))

    @property
    def written(self) -> str:
        """What it has written so far."""
        return b"".join(self._data.values()).decode("utf-8", "replace")


def spawn(arguments: list[str], **more: Any) -> _Collector:
    """
    Start a program.
    """
    collector = _Collector()
    environment = more.pop("env", None) or dict(os.environ)
    reactor.spawnProcess(collector, arguments[0], arguments, env=environment, **more)
    return collector


def run(arguments: list[str], **more: Any) -> Deferred[Finished]:
    """
    Run a program to its end.
    """
    collector = spawn(arguments, **more)
    name = " ".join(arguments[:4])
    return within(PATIENCE, f"the end of {name}", collector.done, lambda: collector.written)


@dataclass
class Worker:
    """
    What the log says of one worker process.
    """

    slot: int
    generation: int
    pid: int
    state: str


@dataclass
class _Waiter:
    check: Callable[[], Any]
    done: Deferred[Any] = field(default_factory=Deferred)


class Cluster(ProcessProtocol):
    """
    A cluster: its master process, and what its log has said so far.

    @ivar directory: The current directory of the master.
    @ivar lines: The log.
    @ivar workers: By process id, in the order in which they appeared.
    @ivar addresses: Where the listeners are bound, in order.
    @ivar exit: How the master ended, or L{None}.
    """

    transport: Any

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self.workers: dict[int, Worker] = {}
        self.addresses: list[str] = []
        self.exit: Finished | None = None
        self._rest = b""
        self._waiters: list[_Waiter] = []

    # What it says.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lineReceived(line.decode("utf-8", "replace"))
        self._settle()

    def processExited(self, reason: Failure) -> None:
        value: Any = reason.value
        self.exit = Finished(value.exitCode, value.signal, "", "")
        self._settle()

    def processEnded(self, reason: Failure) -> None:
        # Nobody is left who could say any more.
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.done.errback(AssertionError("the cluster has ended"))

    def _lineReceived(self, line: str) -> None:
        self.lines.append(line)
        change = _STATE.search(line)
        if change is not None and change[3] != "-":
            slot, generation, pid = (int(change[number]) for number in (1, 2, 3))
            self.workers.pop(pid, None)
            self.workers[pid] = Worker(slot, generation, pid, change[4])
        bound = _BOUND.search(line)
        if bound is not None:
            self.addresses.append(bound[2])

    def _settle(self) -> None:
        for waiter in tuple(self._waiters):
            found = waiter.check()
            if found:
                self._waiters.remove(waiter)
                waiter.done.callback(found)

    def tail(self) -> str:
        """
        The end of the log, for failures.
        """
        end = "" if self.exit is None else f"\n(ended: {self.exit.code}, {self.exit.signal})"
        return "\n".join(self.lines[-60:]) + end

    def when(self, what: str, check: Callable[[], Any]) -> Deferred[Any]:
        """
        Await that C{check}, called after each thing the log says, is true.
        """
        found = check()
        waiter = _Waiter(check)
        if found:
            waiter.done.callback(found)
        else:
            self._waiters.append(waiter)
        return within(PATIENCE, what, waiter.done, self.tail)

    def says(self, pattern: str, since: int = 0, times: int = 1) -> Deferred[list[str]]:
        """
        Await that C{times} log lines match, from line number C{since} on.

        @return: A Deferred that fires with the matching lines.
        """

        def matching() -> list[str]:
            found = [line for line in self.lines[since:] if re.search(pattern, line)]
            return found if len(found) >= times else []

        return self.when(f"a log line like {pattern!r}", matching)

    def matching(self, pattern: str) -> list[str]:
        """
        The log lines so far that match.
        """
        return [line for line in self.lines if re.search(pattern, line)]

    # What it is.

    @property
    def pid(self) -> int:
        """The process id of the master."""
        return int(self._pid)

    def connectionMade(self) -> None:
        self._pid = self.transport.pid

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(self.addresses[0].rpartition(":")[2])

    def ready(self) -> dict[int, int]:
        """
        The process ids of the Ready workers, by slot.
        """
        return {one.slot: one.pid for one in self.workers.values() if one.state == "ready"}

    def lastOf(self, slot: int, generation: int) -> int:
        """
        The process id of the last worker of a slot and a generation.
        """
        found = [
            one.pid
            for one in self.workers.values()
            if (one.slot, one.generation) == (slot, generation)
        ]
        return found[-1]

    def allReady(self, wanted: int, generation: int | None = None) -> Deferred[Any]:
        """
        Await that C{wanted} slots are Ready, with workers of C{generation}.
        """

        def check() -> bool:
            ready = [one for one in self.workers.values() if one.state == "ready"]
            return len({one.slot for one in ready}) == wanted == len(ready) and (
                generation is None or all(one.generation == generation for one in ready)
            )

        return self.when(f"{wanted} workers Ready", check)

    def isExit(self) -> Deferred[Finished]:
        """
        Await the end of the master.
        """
        return self.when("the end of the master", lambda: self.exit)

    def signal(self, number: int) -> None:
        """
        Send a signal to the master.
        """
        self.transport.signalProcess(number)

    async def stop(self) -> Finished:
        """
        Stop it in the ordinary way.
        """
        if self.exit is None:
            self.signal(signal.SIGTERM)
        return await self.isExit()

    async def sentinel(self) -> int:
        """
        The process id of the sentinel.
        """
        (pid,) = [
            child
            for child in processes.childrenOf(self.pid)
            if "sentinel.py" in processes.commandLine(child)
        ]
        return pid

    # How it is asked.

    def ctl(self, *arguments: str) -> Deferred[Finished]:
        """
        Run C{twisted-cluster} in its directory.
        """
        return run([sys.executable, "-c", _CTL, *arguments], env=environment(), path=self.directory)

    async def status(self) -> dict[str, Any]:
        """
        What C{twisted-cluster status --json} says.
        """
        finished = await self.ctl("status", "--json")
        if finished.code != 0:
            raise AssertionError(f"status: {finished}\n{self.tail()}")
        found: dict[str, Any] = json.loads(finished.out)
        return found


def environment(**more: str) -> dict[str, str]:
    """
    The environment of processes under test: the package and the test apps can
    be imported.
    """
    path = os.pathsep.join(filter(None, (ROOT, APPS, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **more}


class Gate(Factory):
    """
    The other side of the app C{gated}: each request that a worker has read
    appears here, and is answered from here.

    @ivar waiting: The requests that have no answer yet.
    """

    def __init__(self) -> None:
        self.waiting: list[GatedRequest] = []
        self._wanted: list[tuple[int, Deferred[list[GatedRequest]]]] = []

    def buildProtocol(self, address: Any) -> GatedRequest:
        return GatedRequest(self)

    def arrived(self, request: GatedRequest) -> None:
        """
        A worker has read a request.
        """
        self.waiting.append(request)
        self._tell()

    def requests(self, count: int) -> Deferred[list[GatedRequest]]:
        """
        Await C{count} requests without an answer.
        """
        done: Deferred[list[GatedRequest]] = Deferred()
        self._wanted.append((count, done))
        self._tell()
        return within(PATIENCE, f"{count} gated requests", done, lambda: f"{len(self.waiting)}")

    def _tell(self) -> None:
        for count, done in tuple(self._wanted):
            if len(self.waiting) >= count:
                self._wanted.remove((count, done))
                done.callback(self.waiting[:count])


class GatedRequest(Protocol):
    """
    One request that a worker has read and waits to be told how to answer.

    @ivar path: Its path.
    @ivar pid: The worker.
    """

    transport: Any

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._data = b""
        self.path = b""
        self.pid = 0

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self._data.endswith(b"\n"):
            path, _, pid = self._data.partition(b" ")
            self.path, self.pid = path, int(pid)
            self._gate.arrived(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self in self._gate.waiting:
            self._gate.waiting.remove(self)

    def write(self, data: bytes) -> None:
        """
        Have a part of the response written.
        """
        self.transport.write(data)

    def release(self, data: bytes = b"released\n") -> None:
        """
        Have the response finished.
        """
        self.transport.write(data)
        self.transport.loseConnection()


class ClusterTestCase(TestCase):
    """
    Starts clusters, and sees to it that nothing is left of them.

    @ivar directory: Where the clusters of this test run.
    """

    timeout = 150

    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SkipTest("run this on Linux: it looks at /proc")
        self._before = set(processes.descendantsOf(os.getpid()))
        processes.adoptOrphans(True)
        self.addCleanup(processes.adoptOrphans, False)
        # Short, for the sake of UNIX sockets in it.
        self.directory = tempfile.mkdtemp(prefix="tc-")
        os.chmod(self.directory, 0o755)
        self.addCleanup(shutil.rmtree, self.directory)
        self.addCleanup(self._nothingIsLeft)
        self._clusters: list[Cluster] = []

    def path(self, name: str) -> str:
        """
        The path of a file in the directory of this test.
        """
        return os.path.join(self.directory, name)

    def write(self, name: str, text: str) -> str:
        """
        Write a file in the directory of this test, at once as a whole.
        """
        path = self.path(name)
        with open(f"{path}.new", "w") as file:
            file.write(text)
        os.replace(f"{path}.new", path)
        return path

    def launch(
        self,
        *options: str,
        before: Iterable[str] = (),
        command: str = "twistd",
        env: dict[str, str] | None = None,
        childFDs: dict[int, Any] | None = None,
        wrapper: Iterable[str] = (),
    ) -> Cluster:
        """
        Run the C{cluster} command with these options, and wait for nothing.

        @param before: The options of twistd or twist themselves.
        @param command: C{twistd} or C{twist}.
        @param wrapper: A command that runs the one that follows it.
        """
        python = [sys.executable, "-c", _TWISTD, "-n"]
        if command == "twist":
            python = [sys.executable, "-m", "twisted", "--log-format=text"]
        elif command == "twistd-daemon":
            python = python[:-1]
        return self.execute([*wrapper, *python, *before, "cluster", *options], env, childFDs)

    def execute(
        self,
        arguments: list[str],
        env: dict[str, str] | None = None,
        childFDs: dict[int, Any] | None = None,
    ) -> Cluster:
        """
        Run a program that becomes a master.
        """
        cluster = Cluster(self.directory)
        reactor.spawnProcess(
            cluster,
            arguments[0],
            arguments,
            env=environment(**(env or {})),
            path=self.directory,
            childFDs={0: "w", 1: "r", 2: "r", **(childFDs or {})},
        )
        self._clusters.append(cluster)
        self.addCleanup(self._end, cluster)
        return cluster

    async def cluster(
        self,
        app: str,
        *options: str,
        workers: int = 2,
        listen: Iterable[str] = (LOCAL,),
        **more: Any,
    ) -> Cluster:
        """
        Run a cluster and wait until all of its workers are Ready.
        """
        listeners = [word for one in listen for word in ("--listen", one)]
        cluster = self.launch("--app", app, *listeners, "--workers", str(workers), *options, **more)
        await cluster.allReady(workers)
        return cluster

    def gate(self) -> Gate:
        """
        Open the gate that requests of the app C{gated} wait at.
        """
        gate = Gate()
        port = reactor.listenUNIX(self.path("gate"), gate)
        self.addCleanup(port.stopListening)
        return gate

    async def _end(self, cluster: Cluster) -> None:
        """
        Stop a cluster that the test has not stopped itself.
        """
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGTERM):
            if cluster.exit is None:
                cluster.signal(number)
            if number == signal.SIGTERM:
                # Two signals of a kind may arrive as one.
                await cluster.when(
                    "the first signal's effect",
                    lambda: cluster.exit or cluster.matching(r"Journal#\w+\] stopping: "),
                )
        await cluster.isExit()
        cluster.transport.loseConnection()

    async def _nothingIsLeft(self) -> None:
        """
        No process may have outlived its cluster.
        """
        left = self._left()
        ends = [processes.endOf(reactor, pid) for pid in left]
        deadline: Deferred[Any] = DeferredList(ends)
        deadline.addTimeout(10, reactor, onTimeoutCancel=lambda result, seconds: None)
        await deadline
        for pid in left:
            processes.reapOrphan(pid)
        left = self._left()
        names = [processes.commandLine(pid) for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if left:
            await gatherResults([processes.endOf(reactor, pid) for pid in left])
        for pid in left:
            processes.reapOrphan(pid)
        self.assertEqual(names, [], "processes that have outlived their cluster")

    def _left(self) -> list[int]:
        return [pid for pid in processes.descendantsOf(os.getpid()) if pid not in self._before]


def endOf(pid: int) -> Deferred[None]:
    """
    Await the end of a process.
    """
    done = processes.endOf(reactor, pid)
    return within(PATIENCE, f"the end of {pid}", done, lambda: processes.commandLine(pid))


def signalIfAlive(pid: int, number: int) -> bool:
    """
    Send a signal to a process.

    @return: Whether there was one.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
