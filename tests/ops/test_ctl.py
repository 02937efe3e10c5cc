"""
Tests for L{twisted_cluster.ops.ctl} and L{twisted_cluster.ops.client}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

import twisted_cluster
from tests.ops.fakes import FakeCluster, InstantCluster, shortDirectory
from tests.support import openDescriptors
from twisted_cluster.config import DEFAULT_ADMIN
from twisted_cluster.errors import ReloadFailed
from twisted_cluster.events import Phase
from twisted_cluster.ops import client as client_
from twisted_cluster.ops import ctl
from twisted_cluster.ops.admin import AdminService
from twisted_cluster.ops.client import Client, endOf
from twisted_cluster.ops.credentials import Credentials
from twisted_cluster.wire import admin as wire

reactor: Any = _reactor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def turn() -> Deferred[None]:
    """
    One turn of the reactor.
    """
    return deferLater(reactor, 0, lambda: None)


async def until(check: Callable[[], Any]) -> None:
    """
    Let the reactor run until C{check} is true; the test times out otherwise.
    """
    while not check():
        await turn()


class Case(TestCase):
    """
    A service for a fake cluster, on a real socket.
    """

    timeout = 60

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        self.path = os.path.join(self.directory, "admin.sock")
        self.out, self.err = StringIO(), StringIO()
        self.cluster: FakeCluster = InstantCluster()
        self.service: AdminService | None = None

    def serve(self) -> None:
        """
        Begin to serve the cluster.
        """
        self.service = AdminService(reactor, self.cluster, self.path)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def begin(self, *arguments: str, end: Any = None) -> Deferred[int]:
        """
        Run the command.

        @param end: What stands for the end of the master.
        """
        options = ctl.parse(["--admin", self.path, *arguments])
        run = ctl.run(
            reactor, options, self.out, self.err, lambda reactor, client: end or client.closed
        )
        return ensureDeferred(run)

    async def succeeds(self, *arguments: str) -> str:
        """
        Run a command that must succeed, and return what it wrote.
        """
        code = await self.begin(*arguments)
        self.assertEqual((code, self.err.getvalue()), (ctl.DONE, ""))
        return self.out.getvalue()

    async def refused(self, *arguments: str, code: int = ctl.FAILED) -> str:
        """
        Run a command that must fail, and return what it wrote to standard
        error.
        """
        self.assertEqual(await self.begin(*arguments), code)
        self.assertEqual(self.out.getvalue(), "")
        return self.err.getvalue()


class CommandTests(Case):
    """
    Each command, against a cluster.
    """

    def setUp(self) -> None:
        super().setUp()
        self.serve()

    async def test_status(self) -> None:
        """
        C{status} shows the report.
        """
        text = await self.succeeds("status")
        self.assertIn("SLOT  GENERATION   PID  STATE", text)
        self.assertIn("sockets: 10 accepted = 7 acked + 1 shed + 2 in flight", text)
        self.assertTrue(text.endswith("in flight\n"))

    async def test_statusAsJson(self) -> None:
        """
        C{status --json} shows the status, however large.
        """
        self.cluster.workers = self.cluster.workers * 1000
        found = json.loads(await self.succeeds("status", "--json"))
        self.assertEqual(found, json.loads(json.dumps(self.cluster.status().asDict())))

    async def test_reload(self) -> None:
        """
        C{reload} prints a line for each slot, and one at the end.
        """
        self.assertEqual(
            await self.succeeds("reload"),
            "slot 0: replaced by generation 2 (1 of 2)\n"
            "slot 1: replaced by generation 2 (2 of 2)\n"
            "reloaded: generation 2 serves\n",
        )

    async def test_reloadAllHosts(self) -> None:
        """
        C{reload --all-hosts} tells of each host.
        """
        self.assertEqual(
            await self.succeeds("reload", "--all-hosts"),
            "host web1 (pid 7): reloading (1 of 2)\n"
            "host web1 (pid 7): slot 3: replaced by generation 7 (1 of 2)\n"
            "host web1 (pid 7): generation 7 serves\n"
            "reloaded 2 hosts\n",
        )

    async def test_restart(self) -> None:
        """
        C{restart} prints the same for one slot.
        """
        self.assertEqual(
            await self.succeeds("restart", "1"),
            "slot 1: replaced by generation 1 (1 of 1)\nrestarted slot 1\n",
        )

    async def test_restartRefused(self) -> None:
        """
        A slot that does not exist is refused.
        """
        self.assertEqual(
            await self.refused("restart", "99"),
            "twisted-cluster: can't restart slot 99: there are slots 0 to 1; name one\n",
        )

    async def test_scale(self) -> None:
        """
        C{scale} waits for what it asked for.
        """
        self.assertEqual(await self.succeeds("scale", "1"), "scaled to 1 worker\n")
        self.assertEqual(self.cluster.calls, [("scale", 1)])

    async def test_scaleRefused(self) -> None:
        """
        A negative number reaches the master, which refuses it.
        """
        self.assertEqual(
            await self.refused("scale", "-1"),
            "twisted-cluster: can't scale to -1: that is no number of workers; give another\n",
        )

    async def test_broadcast(self) -> None:
        """
        C{broadcast} says how far the text went.
        """
        self.assertEqual(await self.succeeds("broadcast", "h\xe9llo"), "sent to 2 workers\n")
        self.assertEqual(self.cluster.calls, [("broadcast", "h\xe9llo")])

    async def test_broadcastTooLong(self) -> None:
        """
        A text that AMP can't carry is refused before it is sent.
        """
        self.assertEqual(
            await self.refused("broadcast", "x" * 65_536),
            "twisted-cluster: can't broadcast: the text has 65536 bytes;"
            " send at most 65535 bytes\n",
        )

    async def test_broadcastBytes(self) -> None:
        """
        So are bytes that are no text.
        """
        self.assertIn("the text is not UTF-8", await self.refused("broadcast", "\udcff"))

    def test_adminAfterCommand(self) -> None:
        """
        The path may also be given after the command.
        """
        options = ctl.parse(["status", "--admin", self.path])
        self.assertEqual(options.admin, self.path)
        self.assertEqual(ctl.parse(["status"]).admin, DEFAULT_ADMIN)

    async def test_internal(self) -> None:
        """
        A bug of the master is told from a refusal.
        """
        with patch.object(self.cluster, "broadcast", side_effect=ZeroDivisionError):
            self.assertEqual(
                await self.refused("broadcast", "x"),
                "twisted-cluster: the master failed at this command; see its log\n",
            )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class WaitingTests(Case):
    """
    Commands that take their time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.cluster = FakeCluster()
        self.serve()

    async def test_reloadFails(self) -> None:
        """
        A failed reload is told with the reason and the traceback of the app,
        in which nothing can harm a terminal.
        """
        code = self.begin("reload")
        await until(lambda: self.cluster.replacement)
        self.cluster.abort("slot 0: exit code 1", "Traceback:\n\tboom \x1b[2J\n")
        self.assertEqual(await code, ctl.FAILED)
        self.assertEqual(
            self.err.getvalue(),
            "twisted-cluster: can't reload: slot 0: exit code 1; mend the app and try again\n"
            "\n"
            "Traceback:\n"
            "\tboom \N{REPLACEMENT CHARACTER}[2J\n",
        )

    async def test_hostFails(self) -> None:
        """
        A reload of all hosts that fails tells at which host.
        """
        code = self.begin("reload", "--all-hosts")
        await until(lambda: self.cluster.hosts)
        self.cluster.stepHost(Phase.BEGUN)
        self.cluster.stepHost(Phase.ABORTED, reason="slot 0: exit code 1")
        self.cluster.endHosts(ReloadFailed("host web1 (pid 7): slot 0: exit code 1", "Traceback:"))
        self.assertEqual(await code, ctl.FAILED)
        self.assertEqual(
            self.out.getvalue(),
            "host web1 (pid 7): reloading (1 of 2)\nhost web1 (pid 7): failed\n",
        )
        self.assertEqual(
            self.err.getvalue(),
            "twisted-cluster: can't reload all hosts: host web1 (pid 7): slot 0: exit code 1;"
            " mend the app and try again\n\nTraceback:\n",
        )

    async def test_progressAtOnce(self) -> None:
        """
        The line of a slot is there before the reload is over.
        """
        code = self.begin("reload")
        await until(lambda: self.cluster.replacement)
        self.cluster.step(Phase.REPLACED, 0, 1)
        await until(self.out.getvalue)
        self.assertEqual(self.out.getvalue(), "slot 0: replaced by generation 2 (1 of 2)\n")
        self.assertFalse(code.called)
        self.cluster.finish()
        self.assertEqual(await code, ctl.DONE)

    async def test_interrupted(self) -> None:
        """
        Whoever interrupts a reload is told that it goes on, and it does.
        """
        code = self.begin("reload")
        await until(lambda: self.cluster.replacement)
        code.cancel()
        self.assertEqual(await code, ctl.INTERRUPTED)
        self.assertEqual(
            self.err.getvalue(),
            "twisted-cluster: interrupted; the reload goes on in the master;"
            " watch it with: twisted-cluster status\n",
        )
        self.assertIsNotNone(self.cluster.replacement)
        self.cluster.finish()

    async def test_interruptedStop(self) -> None:
        """
        The same for a stop, which waits for the master no longer.
        """
        end: Deferred[None] = Deferred()
        code = self.begin("stop", end=end)
        await until(lambda: self.cluster.stopping)
        code.cancel()
        self.assertEqual(await code, ctl.INTERRUPTED)
        self.assertIn("interrupted; the master goes on stopping", self.err.getvalue())
        self.assertTrue(end.called)

    async def test_stop(self) -> None:
        """
        C{stop} waits for the answer, and then for the end of the master.
        """
        end: Deferred[None] = Deferred()
        code = self.begin("stop", "--now", end=end)
        await until(lambda: self.cluster.stopping)
        self.assertEqual(self.cluster.calls, [("stop", True)])
        assert self.cluster.stopping is not None and self.service is not None
        self.cluster.stopping.callback(None)
        await self.service.stopService()
        await turn()
        self.assertFalse(code.called)
        self.assertEqual(self.out.getvalue(), "")
        end.callback(None)
        self.assertEqual(await code, ctl.DONE)
        self.assertEqual(self.out.getvalue(), "stopped\n")

    async def test_diesStopping(self) -> None:
        """
        A master that goes without an answer has stopped as well.
        """
        code = self.begin("stop")
        await until(lambda: self.cluster.stopping)
        assert self.service is not None
        for connection in self.service.connections:
            connection.abort()
        self.assertEqual(await code, ctl.DONE)
        self.assertEqual(self.out.getvalue(), "stopped\n")

    async def test_lost(self) -> None:
        """
        A master that goes away during a reload can't tell how it ended.
        """
        code = self.begin("reload")
        await until(lambda: self.cluster.replacement)
        assert self.service is not None
        for connection in self.service.connections:
            connection.abort()
        self.assertEqual(await code, ctl.UNREACHABLE)
        self.assertEqual(
            self.err.getvalue(),
            "twisted-cluster: can't reload: the master has closed the connection;"
            " see its log for the reason\n",
        )
        self.cluster.finish()


class Stub(Protocol):
    """
    Something that listens and answers anything with C{reply}.
    """

    reply = b""
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(self.reply)


class Closing(Protocol):
    """
    Closes the connection when it is asked for something.
    """

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        """End."""
        self.transport.loseConnection()


class UnreachableTests(Case):
    """
    What may be at the path instead of a master.
    """

    def stub(self, reply: bytes) -> None:
        """
        Listen, and answer anything with C{reply}.
        """
        protocol = type("Replying", (Stub,), {"reply": reply})
        listening = reactor.listenUNIX(self.path, Factory.forProtocol(protocol))
        self.addCleanup(listening.stopListening)

    async def unreachable(self) -> str:
        """
        What C{status} says that finds no master.
        """
        text = await self.refused("status", code=ctl.UNREACHABLE)
        self.assertEqual(len(text.splitlines()), 1)
        self.assertTrue(text.startswith("twisted-cluster: can't show the status: "), text)
        return text

    async def test_nothing(self) -> None:
        """
        There is no socket.
        """
        self.assertEqual(
            await self.unreachable(),
            "twisted-cluster: can't show the status: no master answers at"
            f" {self.path}: there is no such socket; start the master, or name its socket"
            " with --admin\n",
        )

    async def test_dead(self) -> None:
        """
        There is a socket on which nobody listens.
        """
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path)
        self.assertIn("the master is dead; start it", await self.unreachable())

    async def test_longPath(self) -> None:
        """
        The path is none of a socket.
        """
        self.path = "x" * 108
        self.assertIn("is too long for a UNIX socket", await self.unreachable())

    async def test_file(self) -> None:
        """
        There is a directory on the way that is a file.
        """
        self.path = os.path.join(__file__, "admin.sock")
        self.assertIn("Not a directory", await self.unreachable())

    async def test_strangers(self) -> None:
        """
        What listens does not speak AMP, or makes no sense in it.
        """
        for reply in (
            b"-ERR unknown command\r\n",
            b"\0\x07_answer\0\x0299\0\0",
            b"\0\x07_answer\0\x011\0\0",
            b"\0\x07_answer\0\x011\0\x08protocol\0\x01x\0\0",
            b"\0\0",
        ):
            self.err = StringIO()
            self.path = os.path.join(self.directory, f"{len(os.listdir(self.directory))}.sock")
            self.stub(reply)
            text = await self.unreachable()
            self.assertRegex(text, "what listens there is no master|has closed the connection")

    async def test_silent(self) -> None:
        """
        What listens says nothing.
        """
        self.patch(client_, "GREETING_TIMEOUT", 0.05)
        self.stub(b"")
        self.assertIn("the master has not answered within 0 s", await self.unreachable())

    async def test_closes(self) -> None:
        """
        What listens closes the connection.
        """
        listening = reactor.listenUNIX(self.path, Factory.forProtocol(Closing))
        self.addCleanup(listening.stopListening)
        self.assertIn("the master has closed the connection", await self.unreachable())

    async def test_forbidden(self) -> None:
        """
        A user who may not use the socket learns who may.
        """
        service = AdminService(reactor, self.cluster, self.path, allowedUids=[65534])
        service.startService()
        self.addCleanup(service.stopService)
        self.assertEqual(
            await self.refused("stop"),
            f"twisted-cluster: can't use the admin socket: process {os.getpid()} of user"
            f" {os.getuid()} is neither the master's user nor root; run this as one of them\n",
        )
        self.assertEqual(self.cluster.calls, [])

    async def test_otherProtocol(self) -> None:
        """
        A master with another version of the protocol is named with its own.
        """
        self.serve()
        with patch.object(wire, "ADMIN_PROTOCOL_VERSION", 2):
            hello = wire.encodeAnswer(wire.Hello, b"1", {"protocol": 2, "version": "7.0", "pid": 1})
        self.path = os.path.join(self.directory, "other.sock")
        self.stub(hello)
        self.assertEqual(
            await self.refused("status"),
            "twisted-cluster: can't show the status: the master speaks admin protocol 2, this"
            " command 1; use the twisted-cluster command of its version, 7.0\n",
        )


class ParserTests(SynchronousTestCase):
    """
    The command line.
    """

    def exits(self, *arguments: str) -> tuple[int, str, str]:
        """
        Parse what ends the command: the code, and what was written.
        """
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            error = self.assertRaises(SystemExit, ctl.parse, arguments)
        return int(error.code or 0), out.getvalue(), err.getvalue()

    def test_version(self) -> None:
        """
        C{--version} shows it.
        """
        self.assertEqual(
            self.exits("--version"), (0, f"twisted_cluster {twisted_cluster.__version__}\n", "")
        )

    def test_help(self) -> None:
        """
        The help has every command and every exit code, on lines that fit.
        """
        code, text, _ = self.exits("--help")
        self.assertEqual(code, 0)
        for word in ("status [--json]", "reload", "scale N", "restart SLOT", "broadcast TEXT"):
            self.assertIn(f"\n  {word}", text)
        self.assertIn("stop [--now]", text)
        self.assertIn(DEFAULT_ADMIN, text)
        self.assertEqual([line for line in text.splitlines() if len(line) > 79], [])

    def test_helpOfCommand(self) -> None:
        """
        Each command has a help of its own.
        """
        for name in ctl.VERBS:
            code, text, _ = self.exits(name, "--help")
            self.assertEqual(code, 0)
            self.assertIn(f"usage: twisted-cluster {name}", text)

    def test_wrong(self) -> None:
        """
        Wrong usage has a code of its own, and says what is wrong.
        """
        cases = {
            (): "the following arguments are required: COMMAND; see twisted-cluster --help",
            ("relaod",): "invalid choice: 'relaod'",
            ("scale",): "the following arguments are required: N; see twisted-cluster scale --help",
            ("scale", "many"): "argument N: 'many' is not a whole number",
            ("reload", "now"): "unrecognized arguments: now",
            ("--admin",): "argument --admin: expected one argument",
        }
        for arguments, cause in cases.items():
            code, out, err = self.exits(*arguments)
            self.assertEqual((code, out), (ctl.USAGE, ""))
            self.assertTrue(err.startswith("twisted-cluster: can't read the command line: "), err)
            self.assertIn(cause, err)


class Child(ProcessProtocol):
    """
    A process whose output and end can be awaited.
    """

    transport: Any

    def __init__(self) -> None:
        self.written = {1: b"", 2: b""}
        self.exited: Deferred[int] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep it."""
        self.written[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        """Tell the exit code."""
        if reason.check(ProcessDone, ProcessTerminated):
            self.exited.callback(reason.value.exitCode)  # type: ignore[union-attr]
        else:
            self.exited.errback(reason)


def spawn(*arguments: str, **more: Any) -> Child:
    """
    Start a Python process in which the package can be imported.
    """
    child = Child()
    reactor.spawnProcess(
        child,
        sys.executable,
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        **more,
    )
    return child


class ProcessTests(Case):
    """
    The real command, as a process.
    """

    def command(self, *arguments: str) -> Child:
        """
        Start the command in the directory of the socket.
        """
        return spawn("-m", "twisted_cluster.ops.ctl", *arguments, path=self.directory)

    async def test_exitCodes(self) -> None:
        """
        The exit code tells success, refusal, wrong usage and no master apart;
        errors are on standard error, without a traceback.
        """
        self.path = os.path.join(self.directory, DEFAULT_ADMIN)
        self.serve()
        cases = {
            ("status",): ctl.DONE,
            ("reload",): ctl.DONE,
            ("restart", "99"): ctl.FAILED,
            ("nonsense",): ctl.USAGE,
            ("--admin", "missing.sock", "status"): ctl.UNREACHABLE,
        }
        children = {arguments: self.command(*arguments) for arguments in cases}
        for arguments, code in cases.items():
            child = children[arguments]
            self.assertEqual(await child.exited, code, child.written)
            self.assertEqual(bool(child.written[1]), code == ctl.DONE)
            self.assertEqual(bool(child.written[2]), code != ctl.DONE)
            self.assertNotIn(b"Traceback", child.written[2])

    async def test_interrupt(self) -> None:
        """
        Ctrl-C during a reload says that it goes on.
        """
        self.cluster = FakeCluster()
        self.serve()
        child = self.command("--admin", self.path, "reload")
        await until(lambda: self.cluster.replacement)
        child.transport.signalProcess(signal.SIGINT)
        self.assertEqual(await child.exited, ctl.INTERRUPTED)
        self.assertIn(b"interrupted; the reload goes on in the master", child.written[2])
        self.assertNotIn(b"Traceback", child.written[2])
        self.cluster.finish()

    async def test_closedPipe(self) -> None:
        """
        A reader that has seen enough, such as C{head}, gets no complaint.
        """
        self.serve()
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        child = spawn(
            "-m",
            "twisted_cluster.ops.ctl",
            "--admin",
            self.path,
            "status",
            childFDs={0: "w", 1: writing, 2: "r"},
        )
        self.assertEqual(await child.exited, ctl.FAILED)
        self.assertEqual(child.written[2], b"")

    async def test_example(self) -> None:
        """
        The tool in the documentation, which has nothing but Twisted, talks to
        the master and hears of the progress.
        """
        self.cluster.workers = self.cluster.workers * 1000
        self.serve()
        child = spawn("-P" if sys.version_info >= (3, 11) else "-B", EXAMPLE, self.path)
        self.assertEqual(await child.exited, 0, child.written)
        lines = child.written[1].decode("ascii").splitlines()
        self.assertEqual(lines.count("slot 0 is ready"), 1000)
        self.assertEqual(
            lines[2000:],
            ["slot 0 is replaced, 1 of 2", "slot 1 is replaced, 2 of 2", "generation 2 serves"],
        )
        with open(EXAMPLE, encoding="utf-8") as file:
            self.assertNotIn("twisted_cluster", file.read())

    async def test_exampleRefused(self) -> None:
        """
        It learns of a refusal as well.
        """
        self.cluster = FakeCluster()
        self.cluster.reload()
        self.serve()
        child = spawn(EXAMPLE, self.path)
        self.assertEqual(await child.exited, 1)
        self.assertEqual(
            child.written[2], b"can't reload: a replacement is under way; try again later\n"
        )


EXAMPLE = os.path.join(ROOT, "examples", "admin_client.py")

_MASTER = """
import sys
from twisted.internet import reactor
from tests.ops.fakes import InstantCluster
from twisted_cluster.ops.admin import AdminService

class Cluster(InstantCluster):
    def stop(self, now=False):
        reactor.callLater(0, reactor.stop)
        return super().stop(now)

service = AdminService(reactor, Cluster(), sys.argv[1])
service.startService()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.addSystemEventTrigger("after", "shutdown", sys.stdin.read)
print("up", flush=True)
reactor.run()
"""


class EndTests(Case):
    """
    L{endOf} a real process.
    """

    async def test_stopWaitsForTheProcess(self) -> None:
        """
        C{stop} returns when the process is gone, not when its socket is.
        """
        if not hasattr(os, "pidfd_open"):
            raise SkipTest("this platform has no pidfd_open")
        master = spawn("-c", _MASTER, self.path)
        await until(lambda: master.written[1])
        code = ensureDeferred(
            ctl.run(reactor, ctl.parse(["--admin", self.path, "stop"]), self.out, self.err)
        )
        await until(lambda: not os.path.lexists(self.path))
        await turn()
        self.assertFalse(code.called)
        master.transport.closeStdin()
        self.assertEqual(await code, ctl.DONE, self.err.getvalue())
        self.assertEqual(self.out.getvalue(), "stopped\n")
        self.assertEqual(await master.exited, 0)

    def test_withoutPidfd(self) -> None:
        """
        Where processes can't be watched, the end of the connection has to do.
        """
        client = Client()
        for credentials in (self.credentials, lambda transport: None):
            with (
                patch.multiple(client_, credentialsOf=credentials),
                patch("os.pidfd_open", side_effect=OSError(38, "no"), create=True),
            ):
                self.assertIs(endOf(reactor, client), client.closed)

    def credentials(self, transport: Any) -> Any:
        """
        Those of this process.
        """
        return Credentials(os.getpid(), 0, 0)

    async def test_alreadyGone(self) -> None:
        """
        A process that is gone need not be awaited.
        """
        client = Client()
        with (
            patch.multiple(client_, credentialsOf=self.credentials),
            patch("os.pidfd_open", side_effect=ProcessLookupError, create=True),
        ):
            await endOf(reactor, client)
        self.assertFalse(client.closed.called)

    def test_cancelled(self) -> None:
        """
        Whoever waits no longer leaves no descriptor behind.
        """
        before = openDescriptors()
        with patch.multiple(client_, credentialsOf=self.credentials):
            end = endOf(reactor, Client())
        self.assertEqual(len(openDescriptors() - before), 1)
        end.addErrback(lambda failure: None)
        end.cancel()
        self.assertEqual(openDescriptors(), before)
