"""
Tests for L{twisted_cluster.master.listeners}: who gets what, and how long what
apps asked for is held.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import (
    Lines,
    closeIfOpen,
    freePort,
    identity,
    isOpen,
    noDescriptors,
    openDescriptors,
)
from twisted_cluster.errors import ListenError
from twisted_cluster.events import EventStream, ListenerState
from twisted_cluster.interfaces import Account
from twisted_cluster.master.dispatcher import Connection, Dispatcher
from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import LATE_PATIENCE, Listeners, NotBound
from twisted_cluster.testing import FakeReactor

REQUEST = BindRequest("tcp", "127.0.0.1", 0)


class ListenersTestCase(SynchronousTestCase):
    """
    Has listeners that workers, here mere names, ask for.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.sheds: list[tuple[int, str]] = []
        self.dispatcher = Dispatcher(
            lambda loads, peer: loads[0],
            lambda descriptor, since: True,
            lambda count, reason: self.sheds.append((count, reason)),
        )
        self.listeners = self.make()
        self.directory = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def make(self, *inherited: int) -> Listeners:
        """
        Listeners, in the place of others.
        """
        self.listeners = Listeners(
            self.reactor, self.dispatcher, EventStream(self.fail), lambda: 5.0, inherited
        )
        self.addCleanup(self.close)
        return self.listeners

    def refused(self, request: BindRequest) -> NotBound:
        """
        Why something can't be had.
        """
        error: NotBound = self.assertRaises(NotBound, self.listeners.claim, "one", 0, request)
        return error

    def names(self) -> list[str]:
        """
        What is held, as C{status} shows it.
        """
        self.reactor.settle()
        return [status.name for status in self.listeners.statuses()]

    def close(self) -> None:
        """
        Close all that is open.
        """
        done = self.listeners.close()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def count(self) -> int:
        """
        How many are held.
        """
        self.reactor.settle()
        return len(self.listeners.statuses())


class ClaimTests(ListenersTestCase):
    """
    How long they are held.
    """

    def test_shared(self) -> None:
        """
        Who asks for the same gets the same.
        """
        found = {self.listeners.claim(name, 0, REQUEST) for name in ("old", "new")}
        self.assertEqual((len(found), self.count()), (1, 1))

    def test_stopped(self) -> None:
        """
        One that the last worker has stopped is closed at once.
        """
        number, _ = self.listeners.claim("one", 0, REQUEST)
        self.listeners.claim("other", 1, REQUEST)
        self.listeners.unclaim("one", number)
        self.assertEqual(self.count(), 1)
        self.listeners.unclaim("other", number)
        self.assertEqual(self.count(), 0)

    def test_leaving(self) -> None:
        """
        One whose last worker ends is held for the next, until all slots are
        served by workers that have not asked for it.
        """
        number, _ = self.listeners.claim("old", 0, REQUEST)
        self.listeners.unclaim("old", number, leaving=True)
        self.listeners.gone("old")
        self.assertEqual(self.count(), 1)
        self.listeners.sweep(1)
        self.assertEqual(self.count(), 0)

    def test_late(self) -> None:
        """
        One that was asked for after start-up is held longer: the next workers
        may ask as late.
        """
        self.listeners.claim("old", 0, REQUEST, late=True)
        self.listeners.gone("old")
        self.listeners.sweep(1)
        self.reactor.advance(LATE_PATIENCE - 1)
        self.listeners.sweep(1)
        self.listeners.claim("new", 0, REQUEST, late=True)
        self.reactor.advance(2)
        self.assertEqual(self.count(), 1)
        self.listeners.gone("new")
        self.listeners.sweep(1)
        self.reactor.advance(LATE_PATIENCE)
        self.assertEqual(self.count(), 0)

    def test_closedWhileLate(self) -> None:
        """
        Nothing is left to do when all are closed.
        """
        self.listeners.claim("old", 0, REQUEST, late=True)
        self.listeners.gone("old")
        self.listeners.sweep(1)
        self.close()

    def test_claimedBy(self) -> None:
        """
        It is known who wants what.
        """
        first, _ = self.listeners.claim("one", 0, REQUEST)
        second, _ = self.listeners.claim("one", 0, replace(REQUEST, order=1))
        self.listeners.claim("other", 1, REQUEST)
        self.assertEqual(self.listeners.claimedBy("one"), {first, second})
        self.listeners.unclaim("one", first)
        self.assertEqual(self.listeners.claimedBy("one"), {second})
        self.listeners.gone("one")
        self.assertEqual(self.listeners.claimedBy("one"), frozenset())
        self.assertEqual(self.listeners.claimedBy("other"), {first})

    def test_unclaimedWrongly(self) -> None:
        """
        Who gives back what it does not have, or what there is not, closes
        nothing, however often it does so.
        """
        number, _ = self.listeners.claim("one", 0, REQUEST)
        for _ in range(2):
            self.listeners.unclaim("other", number)
            self.listeners.unclaim("one", 99)
            self.assertEqual(self.count(), 1)
        self.listeners.unclaim("one", number)
        self.listeners.unclaim("one", number)
        self.assertEqual(self.count(), 0)

    def test_swept(self) -> None:
        """
        While anybody wants it, nothing is closed by tidying up; and it can be
        had again, under a new number, after that.
        """
        number, descriptor = self.listeners.claim("old", 0, REQUEST)
        self.listeners.claim("new", 0, REQUEST)
        self.listeners.gone("old")
        self.listeners.sweep(1)
        self.assertEqual((self.count(), isOpen(descriptor)), (1, True))
        self.listeners.gone("new")
        self.listeners.sweep(1)
        self.assertEqual(self.count(), 0)
        again, _ = self.listeners.claim("newer", 0, REQUEST)
        self.assertEqual(again, number + 1)

    def test_againAtOnce(self) -> None:
        """
        An address that was given back can be had again in the same turn.
        """
        request = replace(REQUEST, port=freePort())
        number, _ = self.listeners.claim("one", 0, request)
        self.listeners.unclaim("one", number)
        again, _ = self.listeners.claim("one", 0, request)
        self.assertEqual((again, self.count()), (number + 1, 1))

    def test_waiting(self) -> None:
        """
        What has been accepted and waits for somebody when its listener is
        closed is shed, and said to be.
        """
        number, descriptor = self.listeners.claim("one", 0, REQUEST)
        waits = os.dup(descriptor)
        self.dispatcher.submit(Connection(waits, number, ()))
        self.listeners.unclaim("one", number)
        self.reactor.settle()
        self.assertEqual(self.sheds, [(1, "the app listens there no more")])
        self.assertEqual(self.dispatcher.account(), Account(1, 0, 1, 0))
        self.assertFalse(isOpen(waits))

    def test_descriptors(self) -> None:
        """
        Nothing is left open, and nothing remembered, of what was closed.
        """
        self.listeners.claim("one", 0, REQUEST)
        before = openDescriptors()
        for _ in range(5):
            for kind in ("tcp", "udp"):
                request = BindRequest(kind, "127.0.0.1", freePort(_KINDS[kind]))
                for slot in range(3):
                    number, _ = self.listeners.claim(f"worker {slot}", slot, request)
                for slot in range(3):
                    self.listeners.unclaim(f"worker {slot}", number)
                self.reactor.settle()
        self.assertEqual(openDescriptors(), before)
        self.assertEqual((len(self.listeners._claims), len(self.listeners._requests)), (1, 1))


_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class FindTests(ListenersTestCase):
    """
    What is the same, and what is not.
    """

    def number(self, kind: str, address: str, port: int, **options: Any) -> int:
        """
        The number of what is given for a request of a worker.
        """
        return self.listeners.claim("one", 0, BindRequest(kind, address, port, **options))[0]

    def boundTo(self, descriptor: int) -> Any:
        """
        What a descriptor is bound to.
        """
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.getsockname()

    def test_options(self) -> None:
        """
        A new generation may want another backlog, or another mode, for what
        the old one still listens on: it is the same all the same.
        """
        number = freePort()
        path = os.path.join(self.directory, "s")
        first = self.number("tcp", "127.0.0.1", number)
        self.assertEqual(self.number("tcp", "127.0.0.1", number, backlog=99), first)
        second = self.number("unix", path, 0)
        self.assertEqual(self.number("unix", path, 0, mode=0o600, wantPID=True), second)
        self.assertNotEqual(first, second)

    def test_everywhere(self) -> None:
        """
        Two ways to say "everywhere" mean the same.
        """
        number = freePort()
        first = self.number("tcp", "", number)
        self.assertEqual(self.number("tcp", "0.0.0.0", number), first)

    def test_narrower(self) -> None:
        """
        Who wants to listen on one address alone is never given a port that
        others have opened to the world, nor the other way round.
        """
        number = freePort()
        self.number("tcp", "", number)
        error = self.refused(BindRequest("tcp", "127.0.0.1", number))
        self.assertEqual(error.errno, errno.EADDRINUSE)
        number = freePort()
        self.number("tcp", "127.0.0.1", number)
        self.assertEqual(self.refused(BindRequest("tcp", "", number)).errno, errno.EADDRINUSE)

    def test_chosenNumber(self) -> None:
        """
        Who asks for the number that the system had chosen for somebody else
        means that port.
        """
        first, descriptor = self.listeners.claim("one", 0, REQUEST)
        _, chosen = self.boundTo(descriptor)
        self.assertEqual(self.number("tcp", "127.0.0.1", chosen), first)

    def test_orders(self) -> None:
        """
        Ports with the number 0 are told apart by their order and address, and
        are different ones.
        """
        numbers = {
            self.number("tcp", address, 0, order=order)
            for address in ("127.0.0.1", "127.0.0.2", "::1", "")
            for order in (0, 1)
        }
        self.assertEqual(len(numbers), 8)
        self.assertEqual(self.number("tcp", "::1", 0, order=1), sorted(numbers)[5])
        self.assertEqual(len({one.address[:2] for one in self.listeners}), 8)  # type: ignore[union-attr]
        self.assertIn("tcp6:0 (2):interface=\\:\\:1", self.names())

    def test_families(self) -> None:
        """
        One number over IPv4 and IPv6 is two ports.
        """
        number = freePort()
        self.assertNotEqual(
            self.number("tcp", "127.0.0.1", number), self.number("tcp", "::1", number)
        )

    def test_paths(self) -> None:
        """
        A path is the same however it is written; a name in the abstract
        namespace is no path.
        """
        path = os.path.join(self.directory, "s")
        first = self.number("unix", path, 0, mode=0o640)
        self.assertEqual(self.number("unix", f"{self.directory}/./x/../s", 0), first)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)
        abstract = f"\0{path}"
        second = self.number("unix", abstract, 0)
        self.assertNotEqual(second, first)
        self.assertEqual(self.number("unix", abstract, 0), second)
        self.assertEqual(
            [status.address for status in self.listeners.statuses()], [path, f"@{path}"]
        )
        self.listeners.unclaim("one", first)
        self.reactor.settle()
        self.assertFalse(os.path.exists(path))

    def test_pathGone(self) -> None:
        """
        If somebody has removed the path, or the lock, the listener is closed
        all the same.
        """
        for gone in (("s",), ("s.lock",), ("s", "s.lock")):
            path = os.path.join(self.directory, "s")
            before = openDescriptors()
            number = self.number("unix", path, 0, wantPID=True)
            for name in gone:
                os.remove(os.path.join(self.directory, name))
            (listener,) = self.listeners
            done = listener.close()
            self.reactor.settle()
            self.successResultOf(done)
            self.assertEqual((listener.state, openDescriptors()), (ListenerState.CLOSED, before))
            self.listeners.unclaim("one", number)
            self.assertEqual(self.names(), [])

    def test_pathStays(self) -> None:
        """
        Nor does it matter if the path can't be removed any more, since the
        master is another user by now; but that is said.
        """
        path = os.path.join(self.directory, "s")
        number = self.number("unix", path, 0)
        os.remove(path)
        os.mkdir(path)
        lines = Lines(self)
        self.listeners.unclaim("one", number)
        self.assertEqual(self.names(), [])
        (line,) = lines.containing("left behind: ")
        self.assertIn(path, line)

    def test_lock(self) -> None:
        """
        The lock of a path is held by the master, which clears away what a
        dead process has left.
        """
        path = os.path.join(self.directory, "s")
        left = socket.socket(socket.AF_UNIX)
        left.bind(path)
        left.close()
        os.symlink("4194305", f"{path}.lock")
        number = self.number("unix", path, 0, wantPID=True)
        self.assertEqual(os.readlink(f"{path}.lock"), str(os.getpid()))
        self.listeners.unclaim("one", number)
        self.reactor.settle()
        self.assertEqual(os.listdir(self.directory), [])

    def test_errors(self) -> None:
        """
        Whatever can't be bound is refused with the system's error number.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            expected = {
                BindRequest("tcp", "127.0.0.1", number): errno.EADDRINUSE,
                BindRequest("tcp", "192.0.2.1", 0): errno.EADDRNOTAVAIL,
                BindRequest("tcp", "no such host.invalid", 0): errno.EADDRNOTAVAIL,
                BindRequest("tcp", "127.0.0.1", 70_000): errno.EADDRNOTAVAIL,
                BindRequest("tcp", "127.0.0.1", -1): errno.EADDRNOTAVAIL,
                BindRequest("tcp", "127.0.0.1\0", 0): errno.EADDRNOTAVAIL,
                BindRequest("udp", "127.0.0.1", 70_000): errno.EADDRNOTAVAIL,
                BindRequest("udp", "192.0.2.1", 0): errno.EADDRNOTAVAIL,
                BindRequest("unix", "/nonexistent/s", 0): errno.ENOENT,
                BindRequest("unix", f"/{'x' * 200}", 0): errno.EADDRNOTAVAIL,
                BindRequest("pigeon", "", 0): errno.EADDRNOTAVAIL,
                BindRequest("descriptor", "", 987): errno.EBADF,
                BindRequest("descriptor", "", -1): errno.EBADF,
            }
            before = openDescriptors()
            found = {request: self.refused(request).errno for request in expected}
            self.assertEqual(found, expected)
            self.assertEqual((openDescriptors(), self.names()), (before, []))

    def test_noDescriptors(self) -> None:
        """
        So is all if there are no descriptors left; once there are, it works.
        """
        for request in (REQUEST, BindRequest("udp", "127.0.0.1", freePort(socket.SOCK_DGRAM))):
            with noDescriptors():
                self.assertEqual(self.refused(request).errno, errno.EMFILE)
            self.listeners.claim("one", 0, request)

    def test_stopping(self) -> None:
        """
        A master that is stopping binds nothing, and gives nothing out.
        """
        number, _ = self.listeners.claim("one", 0, REQUEST)
        self.close()
        for request in (REQUEST, replace(REQUEST, order=1)):
            error = self.refused(request)
            self.assertEqual(
                (error.errno, error.reason), (errno.ECANCELED, "the master is stopping")
            )
        self.listeners.unclaim("one", number)
        self.listeners.sweep(1)
        self.assertEqual(self.names(), [])


class NamedTests(ListenersTestCase):
    """
    What the operator named.
    """

    def bind(self, *names: str) -> list[Any]:
        """
        Bind, and tell the addresses.
        """
        self.listeners.bindNamed(names)
        return [listener.address for listener in self.listeners.named]

    def asked(self, kind: str, address: str, port: int) -> int:
        """
        The number of what a worker gets.
        """
        return self.listeners.claim("one", 0, BindRequest(kind, address, port))[0]

    def test_found(self) -> None:
        """
        An app that listens on what was named gets that.
        """
        path = os.path.join(self.directory, "s")
        (_, one), (_, two), _ = self.bind(
            "tcp:0:interface=127.0.0.1", "tcp:0:interface=0.0.0.0", f"unix:{path}"
        )
        for address in ("127.0.0.1", ""):
            self.assertEqual(self.asked("tcp", address, one), 0)
        for address in ("127.0.0.1", "", "0.0.0.0"):
            self.assertEqual(self.asked("tcp", address, two), 1)
        self.assertEqual(self.asked("unix", path, 0), 2)
        self.assertEqual(self.asked("tcp", "127.0.0.1", 0), 3)
        self.assertEqual(self.asked("udp", "127.0.0.1", one), 4)

    def test_otherAddress(self) -> None:
        """
        An app that listens on another address does not.
        """
        ((_, number),) = self.bind("tcp:0:interface=127.0.0.1")
        self.assertEqual(self.asked("tcp", "127.0.0.2", number), 1)

    def test_kept(self) -> None:
        """
        It stays open whatever apps do.
        """
        ((_, number),) = self.bind("tcp:0:interface=127.0.0.1")
        self.asked("tcp", "127.0.0.1", number)
        self.listeners.unclaim("one", 0)
        self.listeners.sweep(1)
        self.assertEqual(self.names(), ["tcp:0:interface=127.0.0.1"])

    def test_allOrNone(self) -> None:
        """
        If one can't be bound, none is.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            before = openDescriptors()
            self.assertRaises(
                ListenError,
                self.listeners.bindNamed,
                ["tcp:0:interface=127.0.0.1", f"tcp:{number}:interface=127.0.0.1"],
            )
            self.reactor.settle()
            self.assertEqual((openDescriptors(), self.names()), (before, []))


class InheritedTests(ListenersTestCase):
    """
    Descriptors that the master was started with.
    """

    def setUp(self) -> None:
        super().setUp()
        self.inherited = socket.create_server(("127.0.0.1", 0)).detach()
        self.addCleanup(closeIfOpen, self.inherited)
        self.was = identity(self.inherited)
        self.make(self.inherited)
        self.request = BindRequest("descriptor", "", self.inherited)

    def test_adopted(self) -> None:
        """
        All workers get what is behind it, which stays open for good, since it
        can't be bound again.
        """
        number, descriptor = self.listeners.claim("one", 0, self.request)
        self.assertEqual((identity(descriptor), isOpen(self.inherited)), (self.was, False))
        self.assertEqual(self.listeners.claim("other", 1, self.request), (number, descriptor))
        self.listeners.unclaim("one", number)
        self.listeners.unclaim("other", number)
        self.listeners.sweep(2)
        self.assertEqual(self.names(), [f"fd:{self.inherited}"])
        self.assertEqual(self.listeners.claim("new", 0, self.request), (number, descriptor))

    def test_named(self) -> None:
        """
        The operator may have named the same, by its number.
        """
        self.listeners.bindNamed([f"fd:{self.inherited}"])
        self.assertEqual(self.listeners.claim("one", 0, self.request)[0], 0)

    def test_namedOtherwise(self) -> None:
        """
        Or by a name that does not tell its number, as C{systemd:} does.
        """
        self.listeners.bindNamed([f"fd:{self.inherited}"])
        self.listeners.named[0].name = "systemd:domain=INET:index=0"
        number, descriptor = self.listeners.claim("one", 0, self.request)
        self.assertEqual((number, identity(descriptor)), (0, self.was))
        self.assertEqual(len(self.names()), 1)

    def test_reused(self) -> None:
        """
        What has got its number since is not what was inherited, even if it
        listens as well.
        """
        os.close(self.inherited)
        with socket.create_server(("127.0.0.1", 0)) as other:
            if other.fileno() != self.inherited:
                os.dup2(other.fileno(), self.inherited)
            self.assertEqual(self.refused(self.request).errno, errno.EBADF)
            self.assertTrue(isOpen(self.inherited))

    def test_closed(self) -> None:
        """
        One that was closed is none.
        """
        os.close(self.inherited)
        self.assertEqual(self.refused(self.request).errno, errno.EBADF)

    def test_others(self) -> None:
        """
        Other descriptors of the master are none of the app's business.
        """
        with socket.create_server(("127.0.0.1", 0)) as own:
            request = BindRequest("descriptor", "", own.fileno())
            self.assertEqual(self.refused(request).errno, errno.EBADF)


class DatagramTests(ListenersTestCase):
    """
    UDP ports that workers ask for.
    """

    def setUp(self) -> None:
        super().setUp()
        number = freePort(socket.SOCK_DGRAM)
        self.request = BindRequest("udp", "127.0.0.1", number)

    def test_slots(self) -> None:
        """
        Each slot has a socket of its own; who comes next in the slot gets the
        same.
        """
        number, zero = self.listeners.claim("zero", 0, self.request)
        again, one = self.listeners.claim("one", 1, self.request)
        self.assertEqual((number, zero == one), (again, False))
        self.listeners.gone("zero")
        self.assertEqual(self.listeners.claim("successor", 0, self.request), (number, zero))

    def test_reload(self) -> None:
        """
        A worker that stops while its replacement listens does not take the
        slot's socket away.
        """
        number, zero = self.listeners.claim("old", 0, self.request)
        self.listeners.claim("new", 0, self.request)
        self.listeners.unclaim("old", number)
        self.assertTrue(isOpen(zero))
        self.listeners.unclaim("new", number)
        self.assertEqual((isOpen(zero), self.names()), (False, []))

    def test_stopped(self) -> None:
        """
        When a slot stops listening, its share goes to the others.
        """
        number, zero = self.listeners.claim("zero", 0, self.request)
        _, one = self.listeners.claim("one", 1, self.request)
        self.listeners.unclaim("zero", number)
        self.assertEqual((isOpen(zero), isOpen(one)), (False, True))

    def test_leaving(self) -> None:
        """
        One that only ends leaves its socket to its successor.
        """
        number, zero = self.listeners.claim("zero", 0, self.request)
        self.listeners.unclaim("zero", number, leaving=True)
        self.assertTrue(isOpen(zero))

    def test_scaled(self) -> None:
        """
        The sockets of slots that are no more are closed, unless somebody
        still reads; so is that of a slot that has failed.
        """
        copies = [self.listeners.claim(slot, slot, self.request)[1] for slot in range(4)]
        self.listeners.gone(2)
        self.listeners.sweep(2)
        self.assertEqual([isOpen(one) for one in copies], [True, True, False, True])
        self.listeners.slotFailed(0)
        self.assertEqual([isOpen(one) for one in copies], [False, True, False, True])

    def test_taken(self) -> None:
        """
        A port that somebody else has is refused.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", self.request.port))
            self.assertEqual(self.refused(self.request).errno, errno.EADDRINUSE)
        self.assertEqual(self.names(), [])

    def test_status(self) -> None:
        """
        Status shows it as what the workers read for themselves.
        """
        self.listeners.claim("one", 0, self.request)
        (status,) = self.listeners.statuses()
        place = f"127.0.0.1:{self.request.port}"
        self.assertEqual(
            (status.name, status.address, status.state),
            (f"udp:{self.request.port}:interface=127.0.0.1", place, ListenerState.SHARED),
        )
