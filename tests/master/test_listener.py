"""
Tests for L{twisted_cluster.master.listener}, with genuine sockets and a
reactor that runs only when told to.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tests.support import closeIfOpen, connections, isOpen, noDescriptors, openDescriptors
from twisted_cluster.errors import ListenError
from twisted_cluster.events import Event, EventStream, ListenerChanged, ListenerState
from twisted_cluster.interfaces import Account
from twisted_cluster.master.dispatcher import Dispatcher, Recipient
from twisted_cluster.master.listener import (
    ACCEPTS_PER_TURN,
    DEFAULT_BACKLOG,
    RETRY_DELAY,
    Listener,
    bind,
)
from twisted_cluster.testing import FakeReactor

LOCAL = "tcp:0:interface=127.0.0.1"


class Sink:
    """
    A worker that keeps what it is sent.
    """

    def __init__(self) -> None:
        self.sent: list[int] = []

    def sendHandoff(self, first: int, listeners: Sequence[int], descriptors: Sequence[int]) -> None:
        """
        Take sockets.
        """
        self.sent.extend(descriptors)

    def sendResume(
        self,
        first: int,
        listeners: Sequence[int],
        descriptors: Sequence[int],
        states: Sequence[bytes],
    ) -> None:
        """
        Take sockets with state.
        """
        self.sent.extend(descriptors)


class ListenerTestCase(SynchronousTestCase):
    """
    Listeners of one dispatcher.
    """

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.reactor = FakeReactor()
        self.events: list[Event] = []
        self.stream = EventStream(self.fail)
        self.stream.subscribe(self.events.append)
        self.sheds: list[tuple[int, str]] = []
        self.dispatcher = Dispatcher(
            lambda loads, peer: loads[0],
            lambda descriptor, since: True,
            lambda count, reason: self.sheds.append((count, reason)),
        )
        self.listeners: list[Listener] = []
        self.dispatcher.onCapacity = self.capacityChanged
        self.sinks: list[Sink] = []
        self.addCleanup(self.closeAll)

    def capacityChanged(self) -> None:
        """
        What the master does.
        """
        for listener in self.listeners:
            listener.capacityChanged()

    def closeAll(self) -> None:
        """
        Close listeners, and what was accepted.
        """
        done = [listener.close() for listener in self.listeners]
        self.reactor.settle()
        for one in done:
            self.successResultOf(one)
        for sink in self.sinks:
            for descriptor in sink.sent:
                closeIfOpen(descriptor)
        self.dispatcher.shedWaiting("the test is over")

    def path(self, name: str = "s") -> str:
        """
        A path of this test's own.
        """
        return os.path.join(self.directory, name)

    def bound(self, name: str) -> Any:
        """
        A port that is closed with the test.
        """
        port = bind(self.reactor, name)
        self.addCleanup(self.close, port)
        return port

    def close(self, port: Any) -> None:
        """
        Close a port, unless that was done.
        """
        port.stopListening()
        self.reactor.settle()

    def listener(self, name: str = LOCAL) -> Listener:
        """
        A listener of C{name}.
        """
        port = bind(self.reactor, name)
        number = len(self.listeners)
        listener = Listener(
            number, name, port, self.dispatcher, self.reactor, self.stream, lambda: 5.0
        )
        self.listeners.append(listener)
        return listener

    def worker(self, credit: int = 4, listeners: tuple[int, ...] = (0,)) -> Recipient:
        """
        A scheduled worker.
        """
        sink = Sink()
        self.sinks.append(sink)
        recipient = Recipient(len(self.sinks), sink, credit, listeners=listeners)
        self.dispatcher.schedule(recipient)
        return recipient

    def acknowledge(self, recipient: Recipient) -> None:
        """
        Have a worker report that it serves all it was sent.
        """
        self.dispatcher.acknowledge(recipient, recipient.sequence, 0, list(recipient.held))


class BindTests(ListenerTestCase):
    """
    Binding what an operator named.
    """

    def assertRefused(self, name: str, *texts: str) -> None:
        """
        C{name} can't be bound, and the error says what, why, and what to do;
        nothing is left open.
        """
        before = openDescriptors()
        error = self.assertRaises(ListenError, bind, self.reactor, name)
        self.assertEqual(error.what, f"listen on {name}")
        self.assertTrue(error.cause and error.remedy)
        for text in texts:
            self.assertIn(text, str(error))
        # Twisted leaves a socket that it could not bind to the collector.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self.assertEqual(openDescriptors(), before)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_usedPort(self) -> None:
        """
        A port that another socket has.
        """
        port = self.bound(LOCAL).getHost().port
        self.assertRefused(
            f"tcp:{port}:interface=127.0.0.1",
            "Address already in use",
            "stop the process that uses it or choose another address",
        )

    def test_noSuchAddress(self) -> None:
        """
        An address that this host does not have.
        """
        self.assertRefused("tcp:0:interface=192.0.2.1", "choose an address that this host has")

    def test_syntax(self) -> None:
        """
        What is no endpoint string.
        """
        for name in ("", ":", "8080", "tcp", "tcp:", "tcp:x", "nonsense:1", "tcp:0:bogus=1"):
            self.assertRefused(name, "check the endpoint string, for instance tcp:8080")

    def test_missingKey(self) -> None:
        """
        A TLS key that does not exist.
        """
        for kind in ("ssl", "tls"):
            self.assertRefused(
                f"{kind}:0:interface=127.0.0.1:privateKey={self.path('no.pem')}", "no.pem"
            )

    def test_descriptor(self) -> None:
        """
        A descriptor that is closed, is no socket, does not listen, or is no
        number.
        """
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        unbound = socket.socket()
        self.addCleanup(unbound.close)
        self.assertRefused("fd:987", "Bad file descriptor", "under that number")
        self.assertRefused(
            f"fd:{reading}", "non-socket", "pass an open listening socket under that number"
        )
        self.assertRefused(f"fd:{unbound.fileno()}", "is no listening socket")
        self.assertRefused("fd:three")
        self.assertRefused("fd:-1")
        self.assertTrue(isOpen(reading) and isOpen(unbound.fileno()))

    def test_stdio(self) -> None:
        """
        An endpoint that binds no socket.
        """
        self.assertRefused("stdio:")
        self.assertEqual(self.reactor.getReaders(), [])

    def test_path(self) -> None:
        """
        A path in a directory that does not exist, one that is too long, and
        one that is no socket.
        """
        self.assertRefused(f"unix:{self.path('none/s')}", "No such file or directory")
        self.assertRefused(f"unix:{self.path('x' * 200)}")
        with open(self.path("file"), "w", encoding="ascii") as file:
            file.write("mine")
        self.assertRefused(f"unix:{self.path('file')}:lockfile=0", "Address already in use")
        with open(self.path("file"), encoding="ascii") as file:
            self.assertEqual(file.read(), "mine")

    def test_notReading(self) -> None:
        """
        What is bound accepts nothing yet.
        """
        self.bound(LOCAL)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_address(self) -> None:
        """
        Both families are bound, and say where.
        """
        self.assertRegex(self.listener(LOCAL).status().address, r"^127\.0\.0\.1:\d+$")
        listener = self.listener("tcp6:0:interface=\\:\\:1")
        self.assertEqual(listener.family, socket.AF_INET6)
        self.assertRegex(listener.status().address, r"^::1:\d+$")

    def backlogOf(self, name: str) -> list[int]:
        """
        With which backlogs a port was told to listen.
        """
        told: list[int] = []

        class Listening(socket.socket):
            """Remembers."""

            def listen(self, *arguments: int) -> None:
                """Remember."""
                told.extend(arguments)
                super().listen(*arguments)

        self.patch(socket, "socket", Listening)
        self.bound(name)
        return told

    def test_defaultBacklog(self) -> None:
        """
        Where the string names no backlog, it is larger than Twisted's.
        """
        self.assertEqual(self.backlogOf(LOCAL)[-1], DEFAULT_BACKLOG)

    def test_backlog(self) -> None:
        """
        The backlog that the string names is left alone.
        """
        self.assertEqual(self.backlogOf(f"{LOCAL}:backlog=7"), [7])


class UnixTests(ListenerTestCase):
    """
    Paths.
    """

    def test_life(self) -> None:
        """
        The path exists while the port does, with the mode that was asked for,
        and is removed with its lock.
        """
        port = bind(self.reactor, f"unix:{self.path()}:mode=600")
        status = os.stat(self.path())
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.directory)), ["s", "s.lock"])
        self.close(port)
        self.assertEqual(os.listdir(self.directory), [])

    def test_locked(self) -> None:
        """
        A path that a living process holds is not taken from it.
        """
        self.bound(f"unix:{self.path()}")
        error = self.assertRaises(ListenError, bind, self.reactor, f"unix:{self.path()}")
        self.assertIn("can't listen on unix:", str(error))
        connections(self, self.path(), 1)

    def test_stale(self) -> None:
        """
        What a master that was killed has left behind is replaced.
        """
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path())
        os.symlink(str(1 << 30), self.path("s.lock"))
        self.bound(f"unix:{self.path()}")
        connections(self, self.path(), 1)

    def test_accepts(self) -> None:
        """
        Connections to a path are handed off like others.
        """
        listener = self.listener(f"unix:{self.path()}")
        self.assertEqual(listener.status().address, self.path())
        connections(self, self.path(), 2)
        self.worker()
        self.assertEqual(len(self.sinks[0].sent), 2)

    def test_abstract(self) -> None:
        """
        A name without a file is told with an C{@}.
        """
        with socket.socket(socket.AF_UNIX) as given:
            given.bind(f"\0twisted_cluster-test-{os.getpid()}")
            given.listen()
            listener = self.listener(f"fd:{given.detach()}")
        self.assertEqual(listener.status().address, f"@twisted_cluster-test-{os.getpid()}")


class InheritedTests(ListenerTestCase):
    """
    Sockets that somebody else has bound.
    """

    def test_inet(self) -> None:
        """
        An inherited socket is served, and its number is free again.
        """
        given = socket.create_server(("127.0.0.1", 0))
        address, number = given.getsockname(), given.detach()
        listener = self.listener(f"fd:{number}")
        self.assertEqual(listener.status().address, f"127.0.0.1:{address[1]}")
        self.assertFalse(isOpen(number))
        connections(self, address, 1)
        self.worker()
        self.assertEqual(len(self.sinks[0].sent), 1)

    def test_unix(self) -> None:
        """
        An inherited path is left as it is: no mode is set, no lock made, and
        it is not removed at the end.
        """
        given = socket.socket(socket.AF_UNIX)
        given.bind(self.path())
        given.listen()
        os.chmod(self.path(), 0o640)
        listener = self.listener(f"fd:{given.detach()}")
        connections(self, self.path(), 1)
        self.worker()
        self.assertEqual(len(self.sinks[0].sent), 1)
        self.successResultOf(self.closed(listener))
        self.assertEqual(os.listdir(self.directory), ["s"])
        self.assertEqual(stat.S_IMODE(os.stat(self.path()).st_mode), 0o640)

    def closed(self, listener: Listener) -> Any:
        """
        Close a listener.
        """
        done = listener.close()
        self.reactor.settle()
        return done

    def test_systemd(self) -> None:
        """
        What a service manager passes is found by its index.
        """
        from twisted.internet.endpoints import _SystemdParser
        from twisted.python.systemd import ListenFDs

        given = socket.create_server(("127.0.0.1", 0))
        address = given.getsockname()
        passed = ListenFDs([given.fileno()], ["web"])
        self.patch(_SystemdParser, "_sddaemon", passed)
        listener = self.listener("systemd:domain=INET:index=0")
        self.assertEqual(listener.address, address)
        given.detach()


class AcceptTests(ListenerTestCase):
    """
    The kernel's accept queue is the only queue in front of the workers.
    """

    def test_notBefore(self) -> None:
        """
        Nothing is accepted before there is a worker.
        """
        listener = self.listener()
        connections(self, listener.address, 3)
        listener.capacityChanged()
        self.reactor.settle()
        self.assertEqual((listener.state, listener.accepted), (ListenerState.BOUND, 0))

    def test_pauses(self) -> None:
        """
        It accepts what there is credit for, leaves the rest in the kernel,
        and goes on when there is credit again.
        """
        listener = self.listener()
        connections(self, listener.address, 6)
        recipient = self.worker(4)
        self.reactor.settle()
        self.assertEqual((listener.state, listener.accepted), (ListenerState.PAUSED, 4))
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.dispatcher.waiting, 0)
        self.acknowledge(recipient)
        self.reactor.settle()
        self.assertEqual((listener.state, listener.accepted), (ListenerState.PAUSED, 6))
        self.acknowledge(recipient)
        self.assertEqual(listener.state, ListenerState.ACCEPTING)
        self.assertEqual(len(self.reactor.getReaders()), 1)
        connections(self, listener.address, 1)
        self.reactor.settle()
        self.assertEqual(listener.accepted, 7)

    def test_shares(self) -> None:
        """
        All listeners pause and resume together, none takes more than there is
        credit for.
        """
        one, other = self.listener(), self.listener()
        connections(self, one.address, 3)
        connections(self, other.address, 3)
        recipient = self.worker(4, (one.number, other.number))
        self.reactor.settle()
        self.assertEqual((one.accepted, other.accepted), (3, 0))
        self.acknowledge(recipient)
        self.reactor.settle()
        self.assertEqual((one.accepted, other.accepted), (3, 3))

    def test_fairness(self) -> None:
        """
        One turn of the reactor accepts no more than so many.
        """
        listener = self.listener()
        self.worker(10_000)
        count = 0
        clients = connections(self, listener.address, 1)
        copies = clients[0].fileno()

        def accept() -> tuple[int, Any]:
            nonlocal count
            count += 1
            return os.dup(copies), ("127.0.0.1", 1)

        self.acceptWith(listener, accept)
        listener.acceptReady()
        self.assertEqual(count, ACCEPTS_PER_TURN)

    def acceptWith(self, listener: Listener, accept: Callable[[], Any]) -> None:
        """
        Replace what the listener accepts with.
        """

        class Accepting(socket.socket):
            """A socket with another C{accept}."""

            def _accept(self) -> Any:
                """Accept."""
                return accept()

        port: Any = listener._port
        port.socket = Accepting(fileno=port.socket.detach())
        port.fileno = port.socket.fileno

    def test_quiet(self) -> None:
        """
        Pauses are ordinary work and not published; the first accept is.
        """
        listener = self.listener()
        recipient = self.worker(1)
        for _ in range(3):
            connections(self, listener.address, 2)
            self.reactor.settle()
            self.acknowledge(recipient)
            self.reactor.settle()
            self.acknowledge(recipient)
        before, after = ListenerState.BOUND, ListenerState.ACCEPTING
        self.assertEqual(self.events, [ListenerChanged(5.0, LOCAL, before, after)])

    def test_abortedConnection(self) -> None:
        """
        A client that was gone before it was accepted disturbs nobody.
        """
        listener = self.listener()
        self.worker()
        script = [OSError(errno.ECONNABORTED, "gone")]

        def accept() -> Any:
            raise script.pop() if script else BlockingIOError(errno.EAGAIN, "later")

        self.acceptWith(listener, accept)
        listener.acceptReady()
        listener.acceptReady()
        self.assertEqual(listener.state, ListenerState.ACCEPTING)
        self.assertEqual(script, [])

    def test_close(self) -> None:
        """
        Whoever has connected before the port closes is accepted, whether or
        not there is a worker with credit.
        """
        listener = self.listener()
        connections(self, listener.address, 3)
        done = listener.close()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual((listener.state, listener.accepted), (ListenerState.CLOSED, 3))
        self.assertEqual(self.dispatcher.waiting, 3)
        self.assertRaises(ConnectionRefusedError, connections, self, listener.address, 1)
        self.worker()
        self.assertEqual(len(self.sinks[0].sent), 3)
        self.assertEqual(listener.state, ListenerState.CLOSED)

    def test_closeTwice(self) -> None:
        """
        To close it again is harmless.
        """
        listener = self.listener()
        for _ in range(2):
            done = listener.close()
            self.reactor.settle()
            self.successResultOf(done)
        (event,) = self.events
        self.assertEqual(event, ListenerChanged(5.0, LOCAL, ListenerState.BOUND, listener.state))

    def test_portDies(self) -> None:
        """
        However the port ends, what has connected is accepted first.
        """
        from twisted.python.failure import Failure

        listener = self.listener()
        connections(self, listener.address, 2)
        listener._port.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((listener.state, listener.accepted), (ListenerState.CLOSED, 2))


class ExhaustedTests(ListenerTestCase):
    """
    The master is out of descriptors: it waits, and neither spins nor loses
    anything.
    """

    def exhaust(self, listener: Listener) -> list[bool]:
        """
        Have accept(2) fail as long as the list that is returned says so.
        """
        accepting: Any = listener._port.socket
        accept = accepting._accept
        failing = [True]
        self.tries = 0

        def tryToAccept() -> Any:
            self.tries += 1
            if failing[0]:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept()

        class Accepting:
            """A socket that does not accept."""

            def __init__(self, inner: Any) -> None:
                self._inner = inner

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

            def _accept(self) -> Any:
                return tryToAccept()

        port: Any = listener._port
        port.socket = Accepting(port.socket)
        return failing

    def states(self) -> list[tuple[str, str]]:
        """
        What was published.
        """
        changes = [event for event in self.events if isinstance(event, ListenerChanged)]
        return [(event.after.value, event.reason) for event in changes]

    def test_recovers(self) -> None:
        """
        It stops reading, tries again on a clock, publishes the trouble once
        and the end of it once, and accepts who has waited.
        """
        listener = self.listener()
        recipient = self.worker()
        failing = self.exhaust(listener)
        connections(self, listener.address, 2)
        self.reactor.settle()
        self.assertEqual(listener.state, ListenerState.EXHAUSTED)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.tries, 1)
        for _ in range(5):
            self.reactor.advance(RETRY_DELAY)
            self.reactor.settle()
        self.assertEqual(self.tries, 6)
        failing[0] = False
        self.reactor.advance(RETRY_DELAY)
        self.assertEqual((listener.state, listener.accepted), (ListenerState.PAUSED, 1))
        self.acknowledge(recipient)
        self.acknowledge(recipient)
        self.assertEqual((listener.state, listener.accepted), (ListenerState.ACCEPTING, 2))
        self.assertEqual(
            self.states(),
            [("accepting", ""), ("exhausted", "Too many open files"), ("paused", "")],
        )

    def test_credit(self) -> None:
        """
        Credit that comes meanwhile does not make it spin.
        """
        listener = self.listener()
        recipient = self.worker(1)
        connections(self, listener.address, 1)
        self.reactor.settle()
        self.exhaust(listener)
        connections(self, listener.address, 1)
        self.acknowledge(recipient)
        self.assertEqual(listener.state, ListenerState.EXHAUSTED)
        for _ in range(3):
            listener.capacityChanged()
            self.reactor.settle()
        self.assertEqual(self.tries, 1)

    def test_release(self) -> None:
        """
        Copies of what has arrived at its worker are given up first.
        """
        listener = self.listener()
        recipient = self.worker(2)
        connections(self, listener.address, 2)
        self.reactor.settle()
        self.dispatcher.acknowledge(recipient, 2, 0, [])
        self.exhaust(listener)
        connections(self, listener.address, 1)
        self.reactor.settle()
        self.assertEqual(listener.state, ListenerState.EXHAUSTED)
        self.assertEqual(self.dispatcher.account(), Account(2, 2, 0, 0))

    def test_noCredit(self) -> None:
        """
        If there is no credit any more when it tries again, it pauses.
        """
        listener = self.listener()
        recipient = self.worker(1)
        self.exhaust(listener)
        connections(self, listener.address, 1)
        self.reactor.settle()
        self.dispatcher.unschedule(recipient)
        self.reactor.advance(RETRY_DELAY)
        self.assertEqual(listener.state, ListenerState.PAUSED)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_closedMeanwhile(self) -> None:
        """
        It can be closed at such a time; nothing is tried after.
        """
        listener = self.listener()
        self.worker()
        self.exhaust(listener)
        connections(self, listener.address, 1)
        self.reactor.settle()
        done = listener.close()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(listener.state, ListenerState.CLOSED)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_genuine(self) -> None:
        """
        The same with the kernel's own limit.
        """
        listener = self.listener()
        recipient = self.worker()
        connections(self, listener.address, 1)
        with noDescriptors():
            listener.acceptReady()
            self.assertEqual(listener.state, ListenerState.EXHAUSTED)
        self.reactor.advance(RETRY_DELAY)
        self.acknowledge(recipient)
        self.assertEqual((listener.state, listener.accepted), (ListenerState.ACCEPTING, 1))
