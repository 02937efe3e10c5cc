"""
Tests for L{twisted_cluster.worker.entry}: how a worker begins, as far as that
takes no process of its own.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import replace
from textwrap import dedent
from typing import Any

from twisted.application.service import Service
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import Lines, closeIfOpen, identity, isOpen, openDescriptors, socketPair
from tests.wire.test_preamble import PLAN
from tests.worker.case import FakeBinder, snapshotBox
from twisted_cluster.errors import AppLoadError
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands, preamble
from twisted_cluster.wire.channel import parseBox
from twisted_cluster.worker import entry, log
from twisted_cluster.worker.binder import Binder
from twisted_cluster.worker.intercept import Interception
from twisted_cluster.worker.loader import WrongName


def boxes(channel: socket.socket) -> list[dict[bytes, bytes]]:
    """
    All that has come over a channel whose other end is closed.
    """
    data = b""
    while part := channel.recv(65_536):
        data += part
    found = []
    while data:
        box, end = parseBox(data, 0)
        assert box is not None
        found.append(box)
        data = data[end:]
    return found


def textFile(test: SynchronousTestCase) -> Any:
    """
    A file for what is written to standard error.
    """
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115
    test.addCleanup(file.close)
    return file


class BeginTests(SynchronousTestCase):
    """
    L{entry.begin}, in a process that is not really a fresh one.
    """

    def setUp(self) -> None:
        self.patch(entry, "_MASTERS_SIGNALS", ())
        self.patch(faulthandler, "enable", lambda all_threads: None)
        self.patch(sys, "path", list(sys.path))
        self.errors = textFile(self)
        self.patch(sys, "stderr", self.errors)
        self.asking, self.asked = socketPair(self)
        self.ours, theirs = socketPair(self)
        self.channel = theirs.fileno()
        self.patch(entry, "CHANNEL_DESCRIPTOR", self.channel)

        def release() -> None:
            theirs.detach()
            closeIfOpen(self.channel)

        self.addCleanup(release)

    def said(self) -> str:
        """
        What was written to standard error.
        """
        self.errors.seek(0)
        return str(self.errors.read())

    def begun(self, **options: Any) -> tuple[socket.socket, Any, Binder]:
        """
        A worker that has begun.
        """
        self.plan = replace(PLAN, path=("/srv/app", *sys.path), **options)
        preamble.send(self.ours, self.plan, self.asking)
        begun = entry.begin(isTemplate=False)
        assert not isinstance(begun, int)
        channel, plan, binder = begun
        assert binder is not None
        self.addCleanup(channel.close)
        self.addCleanup(binder.close)
        return channel, plan, binder

    def test_worker(self) -> None:
        """
        A worker has its channel, which programs that it runs don't inherit,
        the plan, something to ask for ports with, and the master's module
        path.
        """
        channel, plan, binder = self.begun()
        self.assertEqual((channel.fileno(), channel.get_inheritable()), (self.channel, False))
        self.assertEqual((plan, tuple(sys.path)), (self.plan, self.plan.path))
        binder.unbind(5)
        self.assertIn(b"Unbind", self.asked.recv(100))

    def test_template(self) -> None:
        """
        A template has nothing to ask with.
        """
        self.ours.sendall(preamble.encode(replace(PLAN, slot=None, path=tuple(sys.path))))
        begun = entry.begin(isTemplate=True)
        assert not isinstance(begun, int)
        channel, plan, binder = begun
        channel.detach()
        self.assertEqual((plan.slot, binder), (None, None))

    def test_noMaster(self) -> None:
        """
        Whoever starts a worker by hand is told who does.
        """
        self.ours.close()
        self.assertEqual(entry.begin(isTemplate=False), entry.NO_MASTER)
        self.assertRegex(self.said(), "^can't work: .*; workers are started by the master\n$")

    def test_noChannel(self) -> None:
        """
        The same without any channel at all.
        """
        self.patch(entry, "CHANNEL_DESCRIPTOR", 987)
        self.assertEqual(entry.begin(isTemplate=True), entry.NO_MASTER)
        self.assertIn(f"{os.strerror(errno.EBADF)}; workers are started", self.said())

    def test_inherited(self) -> None:
        """
        What an app takes for descriptors that it has inherited, and closes
        once it has a port, is nothing of importance: neither of the channels,
        and no number that anything else will get.
        """
        first = self.channel
        numbers = (first, first + 40, *range(first + 1, first + 30))
        free = [one for one in numbers if not isOpen(one)]
        for number in free:
            self.addCleanup(closeIfOpen, number)
        channel, plan, binder = self.begun(inherited=numbers)
        self.assertEqual(plan.inherited, numbers)
        self.assertNotIn(channel.fileno(), numbers)
        nothing = os.stat(os.devnull).st_rdev
        for number in free:
            self.assertEqual(os.fstat(number).st_rdev, nothing)
            self.assertFalse(os.get_inheritable(number))
        for number in {first, *free}:
            os.close(number)
        channel.sendall(b"still there")
        self.assertEqual(self.ours.recv(100), b"still there")
        binder.unbind(5)
        self.assertIn(b"Unbind", self.asked.recv(100))

    def test_vacatedAlready(self) -> None:
        """
        A number that is in use already is left alone, and nothing leaks.
        """
        one, other = socketPair(self)
        before = openDescriptors()
        was = identity(other.fileno())
        self.assertIs(entry.vacate(one, [other.fileno()]), one)
        self.assertEqual(identity(other.fileno()), was)
        self.assertEqual(openDescriptors(), before)


class OfferTests(SynchronousTestCase):
    """
    What C{systemd:} endpoints are told.
    """

    def setUp(self) -> None:
        self.patch(os, "environ", {})

    def test_none(self) -> None:
        """
        Nothing, if the master has nothing.
        """
        entry.offerDescriptors(PLAN)
        self.assertEqual(os.environ, {})

    def test_unnamed(self) -> None:
        """
        How many there are, and that they are for this process.
        """
        entry.offerDescriptors(replace(PLAN, systemd=("", "")))
        self.assertEqual(os.environ, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})

    def test_named(self) -> None:
        """
        Their names too, if they have some.
        """
        entry.offerDescriptors(replace(PLAN, systemd=("http", "admin")))
        self.assertEqual(os.environ["LISTEN_FDNAMES"], "http:admin")


class RefuseTests(SynchronousTestCase):
    """
    L{entry.refuse}.
    """

    def setUp(self) -> None:
        self.output = textFile(self)
        self.patch(sys, "stderr", self.output)

    def test_told(self) -> None:
        """
        The master and the log are told whose fault it is, and why.
        """
        ours, theirs = socketPair(self)
        self.assertEqual(entry.refuse(theirs, WrongName("no such app")), 1)
        (box,) = boxes(ours)
        self.assertEqual((box[b"fault"], box[b"reason"]), (b"operator", b"no such app"))
        self.output.seek(0)
        self.assertEqual(self.output.read(), "no such app\n")

    def test_masterGone(self) -> None:
        """
        Without a master the exit code says that there is none.
        """
        ours, theirs = socketPair(self)
        ours.close()
        self.assertEqual(entry.refuse(theirs, AppLoadError("x", "trace")), entry.NO_MASTER)


class AttachTests(SynchronousTestCase):
    """
    L{entry.attach}.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.ours, theirs = socketPair(self)
        self.codes: list[int] = []
        self.attached = lambda: entry.attach(
            self.reactor,
            theirs,
            PLAN,
            Interception(FakeBinder()),  # type: ignore[arg-type]
            self.codes,
        )

    def test_stop(self) -> None:
        """
        When the master says so, the session is over and the reactor stops, if
        it runs.
        """
        session = self.attached()
        self.ours.sendall(commands.encode(commands.Stop))
        self.reactor.settle()
        self.assertEqual((self.codes, self.reactor.running), ([0], False))
        session.onExit(1)
        self.assertEqual(self.codes, [0, 1])

    def test_terminate(self) -> None:
        """
        SIGTERM from somebody else is told to the master once the reactor runs,
        in place of what Twisted does at it.
        """
        before = signal.getsignal(signal.SIGTERM)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        self.attached()
        self.assertIs(signal.getsignal(signal.SIGTERM), before)
        ((call, arguments),) = self.reactor.whenRunning
        call(*arguments)
        signal.raise_signal(signal.SIGTERM)
        self.reactor.settle()
        self.assertIn(b"Leaving", self.ours.recv(1000))

    def test_stoppedByApp(self) -> None:
        """
        When the app stops the reactor itself, its service is stopped first,
        as twistd would, and waited for; nobody says that the master is gone.
        """

        class Slow(Service):
            """Stops when it likes."""

            stopped: Deferred[None] = Deferred()

            def stopService(self) -> Deferred[None]:
                """Not at once."""
                return self.stopped

        session = self.attached()
        session.begin(Slow())
        self.reactor.settle()
        ((phase, event, stops),) = self.reactor.triggers
        self.assertEqual((phase, event), ("before", "shutdown"))
        done = stops()
        self.assertNoResult(done)
        Slow.stopped.callback(None)
        self.successResultOf(done)
        lines = Lines(self)
        session.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.codes, lines.grave(), stops()), ([], [], None))

    def test_otherThread(self) -> None:
        """
        A program whose reactor runs in another thread can't have signals, and
        is served all the same.
        """
        sessions: list[Any] = []
        thread = threading.Thread(target=lambda: sessions.append(self.attached()))
        thread.start()
        thread.join()
        self.assertEqual((len(sessions), self.reactor.whenRunning), (1, []))


class ProgramTests(SynchronousTestCase):
    """
    L{entry.runProgram}, with scripts that run a reactor of their own in the
    process of the test.
    """

    PRELUDE = """
        from twisted.internet.selectreactor import SelectReactor
        reactor = SelectReactor()
        def run(): reactor.run(installSignalHandlers=False)
        def later(turns, call):
            reactor.callLater(0, later, turns - 1, call) if turns else call()
    """

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "argv", list(sys.argv))
        self.patch(ReactorBase, "startRunning", ReactorBase.startRunning)
        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        self.begun: list[bool] = []
        self.patch(log, "beginIfNobodyDid", self.begun.append)
        self.errors = textFile(self)
        self.patch(sys, "stderr", self.errors)
        self.ours, self.theirs = socketPair(self)
        self.ours.sendall(snapshotBox())
        self.interception = Interception(FakeBinder())  # type: ignore[arg-type]

    def run_(self, program: str) -> int:
        """
        Run a script.

        @return: Its exit code.
        """
        path = os.path.join(self.directory, "program.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(dedent(self.PRELUDE) + dedent(program))
        plan = replace(PLAN, source=Source(SourceKind.SCRIPT, path))
        return entry.runProgram(self.theirs, plan, self.interception)

    def heard(self) -> list[bytes]:
        """
        The names of what the master was told, without heartbeats.
        """
        self.theirs.close()
        names = [box[b"_command"] for box in boxes(self.ours)]
        return [name for name in names if name != b"Beat"]

    def test_served(self) -> None:
        """
        The session begins with the reactor, and is Ready after all that the
        program has asked for to be called then.
        """
        code = self.run_(
            """
            import os, socket
            from twisted_cluster.worker import session
            ready = session.WorkerSession.beginProgram
            order = []
            def beginProgram(self):
                order.append("ready")
                later(1, reactor.stop)
            session.WorkerSession.beginProgram = beginProgram
            try:
                reactor.callWhenRunning(order.append, "app")
                reactor.callWhenRunning(lambda: reactor.callWhenRunning(order.append, "nested"))
                run()
            finally:
                session.WorkerSession.beginProgram = ready
            assert order == ["app", "nested", "ready"], order
            """
        )
        self.assertEqual((code, self.begun), (0, [PLAN.logTimes]))

    def test_ready(self) -> None:
        """
        The master is told so, once.
        """
        self.assertEqual(self.run_("later(5, reactor.stop); run()"), 0)
        self.assertEqual(self.heard(), [b"Ready"])

    def test_exitCode(self) -> None:
        """
        A program that ends by itself has its own exit code.
        """
        self.assertEqual(self.run_("later(5, reactor.stop); run(); raise SystemExit(5)"), 5)

    def test_told(self) -> None:
        """
        The exit code of one that the master stops is that of the session.
        """
        self.ours.sendall(commands.encode(commands.Stop))
        self.assertEqual(self.run_("run(); raise SystemExit(5)"), 0)

    def test_failsAfterwards(self) -> None:
        """
        A program that fails after it has served is not said to be one that
        can't be loaded; the traceback is in the log.
        """
        self.assertEqual(self.run_("later(5, reactor.stop); run(); 1 / 0"), 1)
        self.assertEqual(self.heard(), [b"Ready"])
        self.errors.seek(0)
        self.assertIn("ZeroDivisionError", self.errors.read())

    def test_noReactor(self) -> None:
        """
        A program that ends without a reactor serves nothing, which is the
        operator's mistake if it ends well, and the app's if it does not.
        """
        error = self.assertRaises(AppLoadError, self.run_, "pass")
        self.assertIsInstance(error, WrongName)
        self.assertRegex(str(error), r"app .*program.py ended with code 0 before it ran a reactor")
        error = self.assertRaises(AppLoadError, self.run_, "raise SystemExit('no database')")
        self.assertNotIsInstance(error, WrongName)
        self.assertIn("ended with code 1 before it ran a reactor: it serves nothing", str(error))
        self.errors.seek(0)
        self.assertEqual(self.errors.read(), "no database\n")

    def test_fails(self) -> None:
        """
        One that fails is said to be so, with its traceback.
        """
        error = self.assertRaises(AppLoadError, self.run_, "1 / 0")
        self.assertIn("ZeroDivisionError: division by zero", str(error))
        self.assertIn("program.py", error.traceback)
        self.assertNotIn("runpy", error.traceback)

    def test_firstReactor(self) -> None:
        """
        The first reactor that runs serves the channel; another one that the
        program runs after it is its own affair.
        """
        code = self.run_(
            """
            later(5, reactor.stop)
            run()
            reactor = SelectReactor()
            later(5, reactor.stop)
            run()
            """
        )
        self.assertEqual((code, self.heard()), (0, [b"Ready"]))
