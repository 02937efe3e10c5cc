"""
Tests for L{twisted_cluster.service}, and for L{twisted_cluster.testing} as
authors of apps use it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support import Lines, connections
from twisted_cluster import service
from twisted_cluster.config import ClusterConfig
from twisted_cluster.errors import (
    AppError,
    CallFailed,
    ConfigError,
    ListenError,
    NoSuchSlot,
    ReloadFailed,
)
from twisted_cluster.events import ExitStatus, Phase, ReloadStepped, State
from twisted_cluster.interfaces import ILoad, Message, Peer, WorkerStatus
from twisted_cluster.service import ClusterService
from twisted_cluster.testing import FakeReactor, FakeSpawner, FakeWorker
from twisted_cluster.wire.messages import MASTER

LOCAL = "tcp:0:interface=127.0.0.1"


class Hooked(ClusterService):
    """
    Remembers what its hooks were called with.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.called: list[Any] = []
        super().__init__(*arguments, **options)

    def workerReady(self, worker: WorkerStatus) -> None:
        """Remember."""
        self.called.append(("ready", worker.slot, worker.generation, worker.pid))

    def workerExited(self, worker: WorkerStatus, exit: ExitStatus, meant: bool) -> None:
        """Remember."""
        self.called.append(("exited", worker.slot, str(exit), meant))

    def reloadStep(self, step: ReloadStepped) -> None:
        """Remember."""
        self.called.append((step.phase, step.slot))


class ServiceTestCase(SynchronousTestCase):
    """
    A service with neither processes nor waiting.
    """

    kind: type[ClusterService] = ClusterService

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.spawner = FakeSpawner(self.reactor)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def make(self, kind: type[ClusterService] | None = None, **options: Any) -> Any:
        """
        Make one.
        """
        values = {"app": "a:b", "listen": (LOCAL,), "workers": 2, "admin": None, **options}
        made = (kind or self.kind)(
            ClusterConfig(**values),
            reactor=self.reactor,
            spawner=self.spawner,
        )
        self.service = made
        self.addCleanup(self.stop, made)
        return made

    def stop(self, made: ClusterService) -> None:
        """
        Stop one at once.
        """
        made._stopNow("the test is over")
        self.reactor.settle()
        made._signals.restore()

    def run_(self, kind: type[ClusterService] | None = None, **options: Any) -> Any:
        """
        One whose workers are Ready.
        """
        made = self.make(kind, **options)
        made.privilegedStartService()
        made.startService()
        self.readyAll()
        return made

    def readyAll(self) -> None:
        """
        Have all workers become Ready.
        """
        for process in self.spawner.alive():
            if process.worker is None:
                FakeWorker(self.reactor, process).ready()
        self.reactor.settle()

    def worker(self, slot: int) -> FakeWorker:
        """
        Who speaks for a slot.
        """
        worker = self.spawner.latest(slot).worker
        assert worker is not None
        return worker


class LifeTests(ServiceTestCase):
    """
    A cluster is a service like any other.
    """

    def test_interface(self) -> None:
        """
        It is one.
        """
        verifyObject(IService, self.make())

    def test_order(self) -> None:
        """
        It binds while it is privileged, and spawns when it is not any more.
        """
        made = self.make()
        made.privilegedStartService()
        self.assertEqual(len(made.status().listeners), 1)
        self.assertEqual(self.spawner.processes, [])
        made.startService()
        self.assertEqual(len(self.spawner.processes), 2)
        self.assertEqual(len(made.status().listeners), 1)
        self.assertEqual([call for call, _ in self.reactor.whenRunning], [made._signals.install])

    def test_runningParent(self) -> None:
        """
        Added to a parent that runs already it is started as well, without a
        privileged moment.
        """
        parent = MultiService()
        parent.startService()
        self.addCleanup(parent.stopService)
        made = self.make()
        made.setServiceParent(parent)
        self.readyAll()
        self.assertEqual([one.state for one in made.workers.values()], [State.READY] * 2)
        done: Any = made.disownServiceParent()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.spawner.alive(), [])

    def test_stop(self) -> None:
        """
        A stop drains, and is over when no worker is left.
        """
        made = self.run_()
        self.worker(0).obedient = False
        done = made.stopService()
        self.reactor.settle()
        self.assertNoResult(done)
        self.worker(0).process.exit()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.spawner.alive(), [])
        self.assertTrue(self.spawner.stopped)

    def test_cantBind(self) -> None:
        """
        What can't be bound is an error of the operator's, and spawns nothing.
        """
        made = self.make(listen=("tcp:0:interface=192.0.2.1",))
        self.assertRaises(ListenError, made.privilegedStartService)
        self.assertEqual(self.spawner.processes, [])

    def test_policy(self) -> None:
        """
        A policy that does not exist is refused at once.
        """
        self.assertRaises(ConfigError, self.make, policy="chance")
        self.make()

    def test_admin(self) -> None:
        """
        The admin socket is there while the service runs, for its owner alone.
        """
        path = os.path.join(self.directory, "admin")
        made = self.run_(admin=path)
        status = os.stat(path)
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o600)
        done = made.stopService()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertFalse(os.path.exists(path))

    def test_tool(self) -> None:
        """
        A tool's stop ends the process in the reactor's own way.
        """
        made = self.run_()
        made._master.stop()
        self.assertFalse(self.reactor.running)


class UseTests(ServiceTestCase):
    """
    What a service can do.
    """

    def test_workers(self) -> None:
        """
        The workers are a mapping from slots.
        """
        made = self.run_()
        view = made.workers
        self.assertEqual(sorted(view), [0, 1])
        self.assertEqual(
            (view[1].slot, view[1].generation, view[1].pid, view[1].state, view[1].connections),
            (1, 1, self.spawner.latest(1).pid, State.READY, 0),
        )
        self.assertGreater(view[1].since, 1e9)

    def test_connections(self) -> None:
        """
        They count what is open.
        """
        made = self.run_()
        (listener,) = made._master._listeners
        connections(self, listener.address, 3)
        self.reactor.settle()
        self.assertEqual(sorted(one.connections for one in made.workers.values()), [1, 2])

    def test_scale(self) -> None:
        """
        It scales, restarts, reloads, and broadcasts.
        """
        made = self.run_()
        for done, result in (
            (made.scale(3), 3),
            (made.restart(2), 1),
        ):
            self.readyAll()
            self.assertEqual(self.successResultOf(done), result)
        done = made.reload()
        for _ in range(3):
            self.readyAll()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(made.broadcast("hello"), 3)
        self.reactor.settle()
        self.assertEqual(self.worker(2).messages, ["hello"])
        self.failureResultOf(made.restart(9), NoSuchSlot)


class HookTests(ServiceTestCase):
    """
    What subclasses override.
    """

    kind = Hooked

    def test_ready(self) -> None:
        """
        C{workerReady} is called for each worker.
        """
        made = self.run_()
        pids = [process.pid for process in self.spawner.processes]
        self.assertEqual(made.called, [("ready", 0, 1, pids[0]), ("ready", 1, 1, pids[1])])

    def test_exited(self) -> None:
        """
        C{workerExited} has how it ended, and whether that was meant.
        """
        made = self.run_()
        made.called.clear()
        self.spawner.latest(0).die(11)
        self.readyAll()
        self.assertEqual(made.called[0], ("exited", 0, "killed by SIGSEGV", False))
        made.called.clear()
        made.scale(1)
        self.reactor.settle()
        self.assertEqual(made.called, [("exited", 1, "exit code 0", True)])

    def test_reloadStep(self) -> None:
        """
        C{reloadStep} has every step.
        """
        made = self.run_(workers=1)
        made.called.clear()
        made.reload()
        self.readyAll()
        steps = [call for call in made.called if isinstance(call[0], Phase)]
        self.assertEqual(
            steps,
            [
                (Phase.BEGUN, None),
                (Phase.SPAWNED, 0),
                (Phase.READY, 0),
                (Phase.REPLACED, 0),
                (Phase.DONE, None),
            ],
        )

    def test_raise(self) -> None:
        """
        Hooks that fail hurt nobody.
        """

        class Broken(ClusterService):
            """Fails."""

            def workerReady(self, worker: WorkerStatus) -> None:
                """Fail."""
                raise RuntimeError("it broke")

            workerExited = reloadStep = workerReady  # type: ignore[assignment]

        made = self.run_(Broken)
        self.spawner.latest(0).exit(1)
        self.readyAll()
        done = made.reload()
        for _ in range(2):
            self.readyAll()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertTrue(self.flushLoggedErrors())
        self.stop(made)
        self.flushLoggedErrors()

    def test_use(self) -> None:
        """
        A hook may use the service: here a slot that was just replaced makes
        room for another one.
        """

        class Growing(ClusterService):
            """Grows."""

            def workerReady(self, worker: WorkerStatus) -> None:
                """Grow."""
                if len(self.workers) < 4:
                    self.scale(len(self.workers) + 1)

        made = self.run_(Growing)
        for _ in range(3):
            self.readyAll()
        self.assertEqual(len(made.workers), 4)


class Listening(ClusterService):
    """
    Answers what nothing else does.
    """

    def messageReceived(self, message: Message) -> str:
        """Say who says what."""
        return f"{message.topic} of {message.sender}: {message.value}"


class MessagesTests(ServiceTestCase):
    """
    What a service says to its workers, and they to it, tested as an author of
    one would.
    """

    def heard(self, slot: int) -> list[tuple[str, Any]]:
        """
        What a worker was said.
        """
        self.reactor.settle()
        return self.worker(slot).heard()

    def test_says(self) -> None:
        """
        It sends to one, and tells all.
        """
        made = self.run_()
        self.successResultOf(made.send(1, "note", [1]))
        self.assertEqual(made.tell("price", {"tea": 3}), 2)
        self.assertEqual(self.heard(0), [("price", {"tea": 3})])
        self.assertEqual(self.heard(1), [("note", [1]), ("price", {"tea": 3})])

    def test_calls(self) -> None:
        """
        It calls, and gets an answer or the reason why there is none.
        """
        made = self.run_()
        answers = [made.call(0, "online"), made.call(0, "online")]
        self.reactor.settle()
        first, second = self.worker(0).said[-2:]
        self.worker(0).answer(first, 7)
        self.worker(0).fail(second, "no")
        self.reactor.settle()
        self.assertEqual(self.successResultOf(answers[0]), 7)
        error = self.failureResultOf(answers[1], CallFailed)
        self.assertEqual(str(error.value), "can't call 'online' of slot 0: no")
        self.failureResultOf(made.call(9, "online"), CallFailed)

    def test_refused(self) -> None:
        """
        What can't be said is refused, and so is a handler of it.
        """
        made = self.run_()
        self.failureResultOf(made.send(0, "twisted_cluster.state", 1), AppError)
        self.failureResultOf(made.call(0, "topic", {1}), AppError)
        self.assertRaises(AppError, made.tell, "", 1)
        self.assertRaises(AppError, made.handle("twisted_cluster.state"), print)

    def test_handle(self) -> None:
        """
        It hears, by handlers.
        """
        made = self.run_()
        made.handle("double")(lambda message: message.value * 2)
        self.worker(1).ask(MASTER, "double", 4)
        self.worker(1).ask(MASTER, "nothing", 4, number=2)
        self.assertEqual(self.heard(1), [("", 8), ("", "the master handles no 'nothing'")])

    def test_hook(self) -> None:
        """
        What no handler is for goes to the hook, which can raise.
        """
        made = self.run_(Listening)
        made.handle("double")(lambda message: message.value * 2)
        self.worker(1).ask(MASTER, "double", 4)
        self.worker(1).ask(MASTER, "else", 4)
        self.assertEqual(self.heard(1), [("", 8), ("", "else of 1: 4")])
        self.assertRaises(LookupError, ClusterService.messageReceived, made, Message("x", 1, 0))


class ChooseTests(ServiceTestCase):
    """
    The C{chooseSlot} hook.
    """

    def test_notOverridden(self) -> None:
        """
        Where it is not overridden the policy is asked directly.
        """
        made = self.make(Hooked)
        self.assertIs(made._master._scheduler, made._policy)

    def test_overridden(self) -> None:
        """
        Where it is, it decides, and may leave it to the policy.
        """
        asked: list[Peer] = []

        class Choosing(ClusterService):
            """Prefers slot 1."""

            def chooseSlot(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
                """Choose."""
                asked.append(peer)
                for load in loads:
                    if load.slot == 1:
                        return load
                return super().chooseSlot(loads, peer)

        made = self.run_(Choosing, credit=2)
        (listener,) = made._master._listeners
        clients = connections(self, listener.address, 3)
        self.reactor.settle()
        self.assertEqual(asked, [client.getsockname() for client in clients])
        self.assertEqual([self.worker(slot).received for slot in range(2)], [1, 2])

    def test_raises(self) -> None:
        """
        One that fails costs no client its connection.
        """

        class Broken(ClusterService):
            """Fails."""

            def chooseSlot(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
                """Fail."""
                raise RuntimeError("it broke")

        made = self.run_(Broken)
        (listener,) = made._master._listeners
        connections(self, listener.address, 2)
        self.reactor.settle()
        self.assertEqual([self.worker(slot).received for slot in range(2)], [1, 1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)


class FatalTests(ServiceTestCase):
    """
    Apps whose name is wrong.
    """

    def test_wrongName(self) -> None:
        """
        The process stops, says why, and is to exit with 1.
        """
        registered: list[Any] = []
        self.patch(atexit, "register", registered.append)
        lines = Lines(self)
        made = self.make(workers=1)
        made.privilegedStartService()
        made.startService()
        worker = FakeWorker(self.reactor, self.spawner.latest())
        worker.bootFailed("app a:b: there is no module 'a'", fault="operator")
        self.reactor.settle()
        self.assertEqual(registered, [service._exitWithFailure])
        self.assertFalse(self.reactor.running)
        self.assertEqual(self.spawner.alive(), [])
        self.assertTrue(lines.containing("can't start: app a:b: there is no module 'a'"))

    def test_exitCode(self) -> None:
        """
        What is registered then makes the exit code 1, whatever the process
        itself was to end with, and loses no output.
        """
        script = (
            "import atexit, sys; from twisted_cluster.service import _exitWithFailure;"
            " atexit.register(_exitWithFailure); sys.stdout.write('out');"
            " sys.stderr.write('err'); sys.exit(0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, b"out", b"err"))

    def test_failedReload(self) -> None:
        """
        A reload that fails for the same reason does not stop anything.
        """
        made = self.run_(workers=1)
        done = made.reload()
        worker = FakeWorker(self.reactor, self.spawner.latest())
        worker.bootFailed("app a:b: there is no module 'a'", fault="operator")
        self.reactor.settle()
        self.failureResultOf(done, ReloadFailed)
        self.assertTrue(self.reactor.running)


class TestingTests(ServiceTestCase):
    """
    The fakes themselves.
    """

    def test_spin(self) -> None:
        """
        What spins is found, instead of hanging the test.
        """

        def again() -> None:
            self.reactor.callLater(0, again)

        again()
        error = self.assertRaises(AssertionError, self.reactor.settle)
        self.assertIn("it spins", str(error))

    def test_noSuchProcess(self) -> None:
        """
        A slot for which nothing was spawned has no latest process.
        """
        self.assertRaises(LookupError, self.spawner.latest, 5)

    def test_deadProcess(self) -> None:
        """
        A process ends once, and gets no signal after.
        """
        self.run_(workers=1)
        process = self.spawner.latest()
        process.exit(3)
        process.exit(4)
        process.signal(15)
        self.assertEqual((process.status, process.signals), (ExitStatus(code=3), []))
        self.assertFalse(process.alive)

    def test_reactor(self) -> None:
        """
        The reactor moves its clock, descriptors and calls only when told to.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        reads: list[bytes] = []

        class Reader:
            """Reads."""

            def fileno(self) -> int:
                """The descriptor."""
                return ours.fileno()

            def doRead(self) -> None:
                """Read."""
                reads.append(ours.recv(10))

        reader = Reader()
        self.reactor.addReader(reader)
        theirs.sendall(b"hello")
        calls: list[str] = []
        self.reactor.callLater(1, calls.append, "later")
        self.reactor.callFromThread(calls.append, "soon")
        self.assertEqual((reads, calls), ([], []))
        self.reactor.settle()
        self.assertEqual((reads, calls), ([b"hello"], ["soon"]))
        self.reactor.advance(1)
        self.assertEqual(calls, ["soon", "later"])
        self.assertEqual(self.reactor.removeAll(), [reader])
        self.assertEqual(self.reactor.getReaders(), [])
