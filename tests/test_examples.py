"""
Tests of the examples: that they do what their first lines say.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceCollection, loadApplication
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python import components
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from twisted.web.test.requesthelper import DummyRequest
from zope.interface.verify import verifyObject

from twisted_cluster import context
from twisted_cluster.config import ClusterConfig
from twisted_cluster.context import Context, Role
from twisted_cluster.errors import CallFailed
from twisted_cluster.events import ExitStatus, Phase, ReloadStepped, State
from twisted_cluster.interfaces import IMigratable, Message, WorkerStatus
from twisted_cluster.service import ClusterService
from twisted_cluster.testing import pretendWorker

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


class ExampleTestCase(SynchronousTestCase):
    """
    Makes the examples importable, and forgets them afterwards.
    """

    def setUp(self) -> None:
        """
        Import them as if from their own directory.
        """
        names = [path.stem for path in EXAMPLES.glob("*.py")]
        before = {name: sys.modules.pop(name, None) for name in names}
        self.patch(sys, "path", [str(EXAMPLES), *sys.path])
        # One of them registers an adapter, each time that it is imported.
        self.patch(components, "ALLOW_DUPLICATES", True)
        importlib.invalidate_caches()

        def restore() -> None:
            for name, module in before.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module

        self.addCleanup(restore)

    def load(self, name: str) -> Any:
        """
        Import one.
        """
        return importlib.import_module(name)

    def place(self, role: Role, slot: int | None, generation: int | None) -> None:
        """
        Have this process be somewhere in a cluster.
        """
        here = Context()
        here.role, here.slot, here.generation = role, slot, generation
        self.patch(context, "_current", here)


class AllTests(ExampleTestCase):
    """
    What goes for each of them.
    """

    def test_import(self) -> None:
        """
        Each can be imported, and that alone starts nothing.
        """
        names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
        self.assertLessEqual({"cpu", "hello", "names", "service"}, set(names))
        for name in names:
            with self.subTest(name):
                self.assertTrue(self.load(name).__doc__)

    def test_named(self) -> None:
        """
        What C{--app} and C{--service} are given in their first lines exists.
        """
        for path in sorted(EXAMPLES.glob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            words = text.split()
            for option, value in pairwise(words):
                if option in ("--app", "--service"):
                    module, _, attribute = value.partition(":")
                    self.assertTrue(hasattr(self.load(module), attribute), value)


class HelloTests(ExampleTestCase):
    """
    examples/hello.py
    """

    def ask(self) -> str:
        """
        What it answers.
        """
        resource = self.load("hello").resource
        self.assertTrue(verifyObject(IResource, resource))
        request = DummyRequest([b""])
        answer: bytes = resource.render(request)
        return answer.decode("utf-8")

    def test_worker(self) -> None:
        """
        In a worker it says which one.
        """
        self.place(Role.WORKER, 3, 2)
        self.assertEqual(self.ask(), f"hello from slot 3, generation 2, pid {os.getpid()}\n")

    def test_plain(self) -> None:
        """
        It works in a plain process too.
        """
        self.place(Role.MASTER, None, None)
        self.assertEqual(self.ask(), f"hello from outside of a cluster, pid {os.getpid()}\n")


class CpuTests(ExampleTestCase):
    """
    examples/cpu.py
    """

    def test_answer(self) -> None:
        """
        It answers when it has counted.
        """
        resource = self.load("cpu").resource
        self.assertTrue(verifyObject(IResource, resource))
        self.assertEqual(resource.render(DummyRequest([b""])), b"counted to a million\n")


class NamesTests(ExampleTestCase):
    """
    examples/names.py
    """

    def test_protocol(self) -> None:
        """
        Its connections can move.
        """
        factory = self.load("names").factory
        self.assertTrue(verifyObject(IProtocolFactory, factory))
        self.assertTrue(verifyObject(IMigratable, factory.buildProtocol(None)))


class EchoTests(ExampleTestCase):
    """
    examples/echo.py
    """

    def test_line(self) -> None:
        """
        A line comes back with the number of the process.
        """
        protocol = self.load("echo").Echo()
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"hello\nrest")
        self.assertEqual(transport.value(), b"%d hello\n" % os.getpid())


class OnceTests(ExampleTestCase):
    """
    examples/once.tac
    """

    def runs(self, role: Role, slot: int | None) -> int:
        """
        How often the job is done in three periods at some place.
        """
        application = loadApplication(str(EXAMPLES / "once.tac"), "python")
        job = next(one for one in IServiceCollection(application) if hasattr(one, "step"))
        clock = Clock()
        times: list[float] = []
        job.clock, job.call = clock, (lambda: times.append(clock.seconds()), (), {})
        self.place(role, slot, 1)
        job.startService()
        clock.pump([job.step] * 3)
        self.successResultOf(maybeDeferred(job.stopService))
        clock.pump([job.step] * 3)
        return len(times)

    def test_slotZero(self) -> None:
        """
        Slot 0 does the job until it is stopped, and no other slot does.
        """
        self.assertEqual(self.runs(Role.WORKER, 0), 4)
        self.assertEqual(self.runs(Role.WORKER, 1), 0)

    def test_plain(self) -> None:
        """
        So does a plain process.
        """
        self.assertEqual(self.runs(Role.MASTER, None), 4)


class _Load:
    """
    A worker as a policy sees it.
    """

    def __init__(self, slot: int, connections: int = 0) -> None:
        self.slot = slot
        self.connections = connections


class ServiceTests(ExampleTestCase):
    """
    examples/service.py
    """

    def make(self) -> Any:
        """
        One that is not started.
        """
        kind = self.load("service").Sticky
        self.assertTrue(issubclass(kind, ClusterService))
        return kind(ClusterConfig(app="hello:resource", admin=None))

    def test_sticky(self) -> None:
        """
        A client address keeps its slot; not all have the same.
        """
        service = self.make()
        loads = [_Load(slot) for slot in range(4)]
        slots = set()
        for number in range(64):
            chosen = {
                service.chooseSlot(loads, (f"192.0.2.{number}", port)).slot
                for port in (1024, 2048, 4096)
            }
            self.assertEqual(len(chosen), 1)
            slots |= chosen
        self.assertEqual(slots, {0, 1, 2, 3})

    def test_notTooSticky(self) -> None:
        """
        A slot that is far busier than another is left alone.
        """
        service = self.make()
        for busy in range(2):
            loads = [_Load(0), _Load(1)]
            loads[busy].connections = 100
            self.assertEqual(service.chooseSlot(loads, ("192.0.2.1", 1)).slot, 1 - busy)

    def test_unixClient(self) -> None:
        """
        A client without an address is no problem.
        """
        self.assertEqual(self.make().chooseSlot([_Load(0)], ()).slot, 0)

    def test_hooks(self) -> None:
        """
        It counts crashes, and only those.
        """
        service = self.make()
        worker = WorkerStatus(1, 1, 99, State.EXITED, 0, 0.0)
        service.workerReady(worker)
        service.workerExited(worker, ExitStatus(code=0), True)
        service.workerExited(worker, ExitStatus(signal=9), False)
        service.workerExited(worker, ExitStatus(signal=9), False)
        service.reloadStep(ReloadStepped(0.0, 2, Phase.REPLACED, 1))
        service.reloadStep(ReloadStepped(0.0, 2, Phase.DONE))
        self.assertEqual(dict(service.crashes), {1: 2})


class MessagesTests(ExampleTestCase):
    """
    examples/messages.py
    """

    def setUp(self) -> None:
        super().setUp()
        self.here = pretendWorker(self.addCleanup, slot=1)
        self.example = self.load("messages")

    def show(self) -> DummyRequest:
        """
        Ask the board for its notes.
        """
        request = DummyRequest([b""])
        self.assertEqual(self.example.board.render_GET(request), NOT_DONE_YET)
        return request

    def test_asks(self) -> None:
        """
        A worker asks for the notes once, and then knows what it is told.
        """
        self.here.messenger.answers["notes"] = ["tea at four"]
        self.assertEqual(self.show().written, [b"tea at four\n"])
        self.here.handlers["pinned"](Message("pinned", ["tea at five"], None))
        self.assertEqual(self.show().written, [b"tea at five\n"])
        self.assertEqual(len(self.here.messenger.sent), 1)

    def test_unavailable(self) -> None:
        """
        If the master does not answer, the response says so.
        """
        self.here.messenger.answers["notes"] = CallFailed("call", "a test says so")
        request = self.show()
        self.assertEqual((request.responseCode, request.finished), (503, 1))
        self.assertEqual(request.written, [b"can't call: a test says so\n"])

    def test_clientGone(self) -> None:
        """
        A client that has gone gets no answer, and nothing fails.
        """
        request = self.show()
        request.processingFailed(Failure(ConnectionLost()))
        self.assertEqual((request.written, request.finished), ([], 0))

    def test_keeps(self) -> None:
        """
        The master keeps so many notes and no more.
        """
        keeper = self.example.Keeper(ClusterConfig(app="messages:board", admin=None))
        for number in range(150):
            self.assertEqual(keeper.pin(Message("pin", f"note {number}", 0)), 0)
        self.assertEqual(keeper.notes, [f"note {number}" for number in range(50, 150)])


class EmbeddedTests(ExampleTestCase):
    """
    examples/embedded.tac
    """

    def test_load(self) -> None:
        """
        twistd gets an application with a cluster in it.
        """
        application = loadApplication(str(EXAMPLES / "embedded.tac"), "python")
        self.assertEqual(IService(application).name, "hello")
        collection: Any = IServiceCollection(application)
        (cluster,) = collection
        self.assertIsInstance(cluster, ClusterService)
        self.assertEqual(cluster.config.app, "hello:resource")
        self.assertEqual(cluster.config.listen, ("tcp:8080",))
