"""
Tests for L{twisted_cluster.master.worker}: one worker from spawn to exit.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zope.interface.verify import verifyClass

from tests.master.case import ClusterTestCase
from tests.support import Lines, connections, openDescriptors
from twisted_cluster.errors import ReloadFailed
from twisted_cluster.events import (
    ConnectionsShed,
    ExitStatus,
    State,
    WorkerHung,
    WorkerOutput,
)
from twisted_cluster.interfaces import (
    Account,
    IWorkerObserver,
    IWorkerProcess,
    IWorkerSpawner,
)
from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import NotBound
from twisted_cluster.master.worker import ABORT_GRACE, LOST_CHANNEL_GRACE, Worker
from twisted_cluster.testing import FakeProcess, FakeSpawner, FakeWorker
from twisted_cluster.wire import commands


class BootTests(ClusterTestCase):
    """
    From spawn to Ready.
    """

    def test_interfaces(self) -> None:
        """
        A worker observes its process; the fakes are what they stand for.
        """
        verifyClass(IWorkerObserver, Worker)
        verifyClass(IWorkerProcess, FakeProcess)
        verifyClass(IWorkerSpawner, FakeSpawner)

    def test_preamble(self) -> None:
        """
        The process is told what to run before anything else.
        """
        self.begin(workers=2, credit=7, reactor="poll")
        told = self.worker(1).preamble
        self.assertEqual((told.slot, told.generation, str(told.source)), (1, 1, "hello:resource"))
        self.assertEqual((told.credit, told.reactor), (7, "poll"))
        (listener,) = told.listeners
        self.assertEqual(listener.address, self.master._listeners.named[0].address)

    def test_gated(self) -> None:
        """
        No connection is sent to a worker before it is Ready.
        """
        self.begin(workers=1)
        self.clients(2)
        worker = self.worker()
        self.reactor.settle()
        self.assertEqual(worker.received, 0)
        worker.ready()
        self.reactor.settle()
        self.assertEqual(worker.received, 2)

    def test_readyTwice(self) -> None:
        """
        A worker that says so twice is Ready once.
        """
        self.begin(workers=1)
        self.worker().ready()
        self.ready()
        ready = [event for event in self.passages() if event.after is State.READY]
        self.assertEqual(len(ready), 1)
        self.clients(1)
        self.reactor.settle()
        self.assertEqual(self.worker().received, 1)

    def test_readyBeforeItsPid(self) -> None:
        """
        A worker that says so before it is known that it has been forked is
        Ready as soon as that is known, so that every event has its pid.
        """
        late: list[tuple[Worker, int]] = []
        started = Worker.started
        self.patch(Worker, "started", lambda worker, pid: late.append((worker, pid)))
        self.begin(workers=1)
        self.worker().ready()
        self.reactor.settle()
        self.assertEqual([event.after for event in self.passages()], [State.STARTING])
        ((worker, pid),) = late
        started(worker, pid)
        ready = self.passages()[-1]
        self.assertEqual((ready.after, ready.pid), (State.READY, pid))

    def test_timeout(self) -> None:
        """
        One that is not Ready in time is told to dump its stacks, then killed;
        that counts as a crash, with the reason.
        """
        self.begin(workers=1, generationTimeout=5)
        process = self.spawner.latest()
        self.wait(4.75)
        self.assertEqual(process.signals, [])
        self.wait(0.25)
        self.assertEqual(process.signals, [signal.SIGABRT])
        self.wait(ABORT_GRACE)
        self.assertEqual(process.signals, [signal.SIGABRT, signal.SIGKILL])
        (gone,) = self.exits()
        self.assertEqual(gone.reason, "not Ready within 5 s; killed by SIGKILL")
        self.assertEqual((gone.meant, gone.exit), (False, ExitStatus(signal=9)))

    def test_timeoutObeyed(self) -> None:
        """
        One that ends by SIGABRT is not killed too.
        """
        self.begin(workers=1, generationTimeout=5)
        process = self.spawner.latest()
        self.wait(5)
        process.die(signal.SIGABRT)
        self.wait(5)
        self.assertEqual(process.signals, [signal.SIGABRT])
        self.assertIn("killed by SIGABRT", self.exits()[0].reason)

    def test_noTimeoutOnceReady(self) -> None:
        """
        A worker that was Ready in time is left alone.
        """
        self.run_(workers=1, generationTimeout=5)
        self.wait(20)
        self.assertEqual(self.spawner.latest().signals, [])

    def test_notStarted(self) -> None:
        """
        A process that can't be started is a crash like another: it backs off.
        """
        self.spawner.failure = "out of memory"
        self.begin(workers=1)
        self.reactor.settle()
        gone = self.exits()[0]
        self.assertEqual(gone.reason, "not started: out of memory")
        self.assertEqual((gone.pid, gone.meant), (None, False))
        self.spawner.failure = None
        self.wait(1)
        self.ready()
        self.assertEqual(self.readyCount(), 1)

    def test_noDescriptors(self) -> None:
        """
        The same if the master has no descriptor for the channel: once there
        are some, the slot gets its worker.
        """
        self.run_(workers=1)

        def socketpair() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        patch = self.patch(socket, "socketpair", socketpair)
        self.spawner.latest().die()
        self.reactor.settle()
        self.assertEqual(self.spawner.alive(), [])
        self.assertIn("not started: [Errno 24] Too many open files", self.exits()[-1].reason)
        patch.restore()
        self.wait(1)
        self.ready()
        self.assertEqual(self.readyCount(), 1)

    def test_bootFailed(self) -> None:
        """
        What the app failed with is the reason of the exit.
        """
        self.begin(workers=1)
        self.worker().bootFailed("app hello:resource fails to load: ValueError: x")
        self.reactor.settle()
        (gone,) = self.exits()
        self.assertEqual(
            gone.reason, "app hello:resource fails to load: ValueError: x; exit code 1"
        )
        self.assertFalse(gone.meant)

    def test_output(self) -> None:
        """
        What a process writes is published and logged with its name.
        """
        lines = Lines(self)
        self.run_(workers=1)
        process = self.spawner.latest()
        process.say("hello")
        self.assertIn(WorkerOutput(1000.0, 0, 1, process.pid, "hello"), self.events)
        self.assertEqual(
            lines.containing("hello")[-1], f"[slot 0 generation 1 pid {process.pid}] hello"
        )

    def test_outputAfterExit(self) -> None:
        """
        Its last lines may come after its exit.
        """
        self.run_(workers=1)
        process = self.spawner.latest()
        process.die()
        process.say("last words")
        self.assertEqual(self.events[-1], WorkerOutput(1000.0, 0, 1, process.pid, "last words"))

    def test_watched(self) -> None:
        """
        The sentinel is told of each process while it lives.
        """
        self.run_(workers=2)
        pids = {process.pid for process in self.spawner.processes}
        self.assertEqual(self.sentinel._workers, pids)
        self.spawner.processes[0].die()
        self.assertNotIn(self.spawner.processes[0].pid, self.sentinel._workers)
        self.assertIn(self.spawner.latest(0).pid, self.sentinel._workers)


class ChannelTests(ClusterTestCase):
    """
    What becomes of the sockets when a channel or a process is lost.
    """

    def test_redispatched(self) -> None:
        """
        Invariant 1: untouched connections of a worker that dies are served by
        another one, and no client notices.
        """
        self.run_(workers=2)
        clients = self.clients(8)
        for client in clients:
            client.sendall(b"ping")
        self.reactor.settle()
        for _ in range(4):
            self.worker(1).acknowledge()
            self.reactor.settle()
        self.spawner.latest(0).die()
        for _ in range(4):
            self.worker(1).acknowledge()
            self.reactor.settle()
        survivor = self.worker(1)
        self.assertEqual(len(survivor.sockets), 8)
        for held in survivor.sockets.values():
            self.assertEqual(held.recv(10), b"ping")
            held.sendall(b"pong")
        self.assertEqual([client.recv(10) for client in clients], [b"pong"] * 8)
        self.assertEqual(self.status().account, Account(8, 8, 0, 0))

    def test_touchedDies(self) -> None:
        """
        What the dead worker had read is not served again.
        """
        self.run_(workers=2)
        (client,) = self.clients(1)
        client.sendall(b"POST")
        self.reactor.settle()
        (holder,) = [one for one in (self.worker(0), self.worker(1)) if one.sockets]
        self.assertEqual(holder.sockets[0].recv(10), b"POST")
        holder.process.die()
        self.reactor.settle()
        self.assertEqual(client.recv(10), b"")
        self.assertEqual(self.status().account, Account(1, 1, 0, 0))

    def test_channelLost(self) -> None:
        """
        A worker that has lost its channel gets nothing more, and is killed if
        it does not go by itself.
        """
        self.run_(workers=1)
        process = self.spawner.latest()
        self.worker().transport.abort()
        self.reactor.settle()
        self.assertEqual(process.signals, [])
        self.clients(1)
        self.reactor.settle()
        self.wait(LOST_CHANNEL_GRACE)
        self.assertEqual(process.signals, [signal.SIGKILL])
        self.assertNotEqual(self.spawner.latest(), process)
        self.ready()
        self.assertEqual(self.worker().received, 1)

    def test_violation(self) -> None:
        """
        A worker that lies is given nothing more, killed and replaced; its
        sockets go to its successor; the log has one line of it.
        """
        self.run_(workers=1)
        self.clients(3)
        self.reactor.settle()
        liar = self.worker()
        lines = Lines(self)
        liar.tell(99, 0, [])
        liar.tell(98, 0, [])
        self.reactor.settle()
        violations = lines.containing("protocol violation")
        self.assertEqual(len(violations), 1)
        self.assertIn(f"worker slot 0 generation 1 pid {liar.process.pid}", violations[0])
        self.wait(LOST_CHANNEL_GRACE)
        self.assertEqual(liar.process.signals, [signal.SIGKILL])
        self.assertEqual(self.ready().received, 3)

    def test_readyAfterViolation(self) -> None:
        """
        One that talks nonsense and says that it is Ready in the same breath
        is not scheduled.
        """
        self.begin(workers=1)
        worker = self.worker()
        worker.tell(99, 0, [])
        worker.ready()
        self.reactor.settle()
        self.clients(1)
        self.reactor.settle()
        self.assertEqual(self.states(), [(0, 1, "starting")])
        self.assertEqual(self.status().account.accepted, 0)

    def test_lastWords(self) -> None:
        """
        What a worker acknowledged before it died counts, although its exit is
        seen first.
        """
        self.run_(workers=1)
        (client,) = self.clients(1)
        self.reactor.settle()
        worker = self.worker()
        worker.acknowledge()
        worker.process.die()
        self.assertEqual(self.status().account, Account(1, 1, 0, 0))
        self.reactor.settle()
        self.assertEqual(client.recv(1), b"")

    def test_refused(self) -> None:
        """
        What a worker refuses goes to another one, and the log says why.
        """
        self.run_(workers=2)
        lines = Lines(self)
        self.clients(1)
        self.reactor.settle()
        holder, other = self.worker(0), self.worker(1)
        if not holder.sockets:
            holder, other = other, holder
        holder.throttle(True)
        holder.refuse([0], "no room")
        self.reactor.settle()
        self.assertEqual((holder.sockets, other.received), ({}, 1))
        self.assertEqual(len(lines.containing("refused 1 sockets: no room")), 1)

    def test_refusedByAll(self) -> None:
        """
        What everybody refuses is shed in the end, and that is said.
        """
        self.run_(workers=1)
        (client,) = self.clients(1)
        self.reactor.settle()
        worker = self.worker()
        for _ in range(20):
            if worker.sockets:
                worker.refuse(list(worker.sockets))
            self.reactor.settle()
        self.assertEqual(client.recv(1), b"")
        sheds = [event for event in self.events if isinstance(event, ConnectionsShed)]
        self.assertEqual([event.count for event in sheds], [1])
        self.assertEqual(self.status().account, Account(1, 0, 1, 0))

    def test_throttled(self) -> None:
        """
        A worker that wants no sockets gets none until it does.
        """
        self.run_(workers=1)
        worker = self.worker()
        worker.throttle(True)
        self.reactor.settle()
        self.clients(2)
        self.reactor.settle()
        self.assertEqual(worker.received, 0)
        worker.throttle(False)
        self.reactor.settle()
        self.assertEqual(worker.received, 2)


class OfferingWorker(FakeWorker):
    """
    Offers its connections when it drains, and hears what becomes of them.
    """

    taken: list[int] | None = None
    declined: list[int] | None = None

    def offer(self, numbers: Sequence[int], descriptors: Sequence[int] | None = None) -> None:
        """
        Offer some of what it holds.
        """
        box = commands.encode(
            commands.Offer,
            numbers=numbers,
            listeners=[self.listeners[number] for number in numbers],
            states=[b""] * len(numbers),
        )
        sockets = [self.sockets[number].fileno() for number in numbers]
        self.transport.writeWithDescriptors(box, sockets if descriptors is None else descriptors)

    @commands.Taken.responder
    def _taken(self, taken: list[int], declined: list[int]) -> dict[str, Any]:
        self.taken, self.declined = taken, declined
        for number in taken:
            self.close(number)
        self.acknowledge()
        return {}


class OfferTests(ClusterTestCase):
    """
    Connections that a draining worker gives back.
    """

    def reload(self, listeners: list[int], count: int = 2) -> OfferingWorker:
        """
        Replace a worker that serves connections with one that listens on
        these.

        @return: The old one, which drains.
        """
        self.begin(workers=1)
        old = OfferingWorker(self.reactor, self.spawner.latest(), obedient=False)
        old.ready()
        self.reactor.settle()
        self.served = self.clients(count)
        self.reactor.settle()
        old.acknowledge()
        self.reactor.settle()
        self.master.reload().addErrback(lambda failure: failure.trap(ReloadFailed))
        self.reactor.settle()
        if 0 in listeners:
            self.binding(self.current(new=True))
        self.worker().callRemote(commands.Ready, listeners=listeners)
        self.reactor.settle()
        self.assertEqual(old.told, ["Drain"])
        return old

    def current(self, new: bool = False) -> Worker:
        """
        The master's side of the worker that serves slot 0, or is about to.
        """
        slot = self.master._supervisor.slots[0]
        found = slot.candidate if new else slot.current
        assert isinstance(found, Worker)
        return found

    def binding(self, worker: Worker) -> None:
        """
        Have its app ask for the port that the operator named.
        """
        _, number = self.master._listeners.named[0].address
        worker.bindRequested(BindRequest("tcp", "127.0.0.1", number))

    def test_taken(self) -> None:
        """
        The new worker goes on with them.
        """
        old = self.reload([0])
        old.offer([0, 1])
        self.reactor.settle()
        self.assertEqual((old.taken, old.declined), ([0, 1], []))
        self.assertEqual(self.worker().received, 2)
        self.assertEqual(self.status().account, Account(2, 0, 0, 2))

    def test_declined(self) -> None:
        """
        Those of a listener that the new generation lacks stay with the old
        worker, and nothing of them is left open here.
        """
        old = self.reload([])
        before = openDescriptors()
        old.offer([0, 1])
        self.reactor.settle()
        self.assertEqual((old.taken, old.declined), ([], [0, 1]))
        self.assertEqual(openDescriptors(), before)
        self.assertEqual(self.worker().received, 0)
        self.assertEqual(self.status().account, Account(2, 2, 0, 0))
        old.sockets[0].sendall(b"still served")
        self.assertEqual(self.served[0].recv(20), b"still served")

    def test_lostDescriptors(self) -> None:
        """
        So do those whose descriptors were lost on the way.
        """
        old = self.reload([0])
        old.offer([0, 1], [old.sockets[0].fileno()])
        self.reactor.settle()
        self.assertEqual((old.taken, old.declined), ([0], [1]))
        self.assertEqual(self.status().account, Account(2, 1, 0, 1))

    def test_unasked(self) -> None:
        """
        Nobody may offer what nobody asked for; nothing is left open.
        """
        self.begin(workers=1)
        liar = OfferingWorker(self.reactor, self.spawner.latest())
        liar.ready()
        self.reactor.settle()
        self.clients(1)
        self.reactor.settle()
        lines = Lines(self)
        before = openDescriptors()
        liar.offer([0])
        self.reactor.settle()
        self.assertIn("an offer of connections that nobody asked for", lines.grave()[0])
        self.assertFalse(openDescriptors() - before)


class BindingTests(ClusterTestCase):
    """
    What an app listens on by itself.
    """

    REQUEST = BindRequest("tcp", "127.0.0.1", 0)

    def setUp(self) -> None:
        super().setUp()
        self.lines = Lines(self)

    def side(self, slot: int = 0) -> Worker:
        """
        The master's side of the worker of a slot.
        """
        found = self.master._supervisor.slots[slot].current
        assert isinstance(found, Worker)
        return found

    def bindIn(self, slot: int = 0, request: BindRequest = REQUEST) -> tuple[int, Any]:
        """
        Have the app in a worker ask for a port.

        @return: The number of the listener, and its address.
        """
        number, descriptor = self.side(slot).bindRequested(request)
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return number, found.getsockname()

    def say(self, slot: int, listeners: list[int]) -> None:
        """
        Have a worker say that it is Ready, and what it listens on.
        """
        self.worker(slot).callRemote(commands.Ready, listeners=listeners)
        self.reactor.settle()

    def visit(self, address: Any, count: int = 1) -> None:
        """
        Connect to an address; all workers take what they get.
        """
        connections(self, address, count)
        for _ in range(count):
            self.reactor.settle()
            for process in self.spawner.alive():
                if process.worker is not None:
                    process.worker.acknowledge()
        self.reactor.settle()

    def received(self) -> list[int]:
        """
        How many connections each slot has got.
        """
        self.status()
        return [self.worker(slot).received for slot in range(2)]

    def test_early(self) -> None:
        """
        What was asked for during start-up is served by those who asked.
        """
        self.begin(listen=())
        number, address = self.bindIn(0)
        self.assertEqual(self.bindIn(1, replace(self.REQUEST, order=1))[0], number + 1)
        self.say(0, [number])
        self.say(1, [number + 1])
        self.visit(address, 4)
        self.assertEqual(self.received(), [4, 0])

    def test_late(self) -> None:
        """
        So is what is asked for later, from then on and until it is given
        back.
        """
        self.begin(listen=())
        self.say(0, [])
        self.say(1, [])
        number, address = self.bindIn(1)
        self.visit(address, 2)
        self.assertEqual(self.received(), [0, 2])
        self.bindIn(0)
        self.visit(address, 4)
        self.assertEqual(self.received(), [2, 4])
        self.side(1).unbound(number)
        self.visit(address, 3)
        self.assertEqual(self.received(), [5, 4])
        self.side(0).unbound(number)
        self.reactor.settle()
        self.assertRaises(ConnectionRefusedError, connections, self, address, 1)

    def test_meanwhile(self) -> None:
        """
        Words of ports and words of being Ready come over different channels:
        what was asked for before C{Ready} is heard, and after it was said,
        counts.
        """
        self.begin(listen=())
        self.say(1, [])
        number, address = self.bindIn(0)
        self.say(0, [])
        self.visit(address, 2)
        self.assertEqual(self.received(), [2, 0])
        other, address = self.bindIn(1, replace(self.REQUEST, order=1))
        self.side(1).unbound(other)
        self.reactor.settle()
        self.assertNotEqual(other, number)
        self.assertRaises(ConnectionRefusedError, connections, self, address, 1)

    def test_gaveBackMeanwhile(self) -> None:
        """
        So does what was given back.
        """
        self.begin(listen=())
        for slot in (0, 1):
            number, address = self.bindIn(slot)
        self.side(0).unbound(number)
        self.say(0, [number])
        self.say(1, [number])
        self.visit(address, 2)
        self.assertEqual(self.received(), [0, 2])

    def test_named(self) -> None:
        """
        A worker whose app does not ask for what the operator named gets
        nothing from it, and that is said.
        """
        self.begin()
        named = self.master._listeners.named[0]
        self.bindIn(0, BindRequest("tcp", *named.address))
        self.say(0, [0])
        self.say(1, [])
        self.visit(named.address, 3)
        self.assertEqual(self.received(), [3, 0])
        (line,) = self.lines.containing("does not listen on")
        self.assertRegex(line, "worker slot 1 .* does not listen on tcp:0.*, which --listen names")

    def test_factory(self) -> None:
        """
        One that is served there without asking does.
        """
        self.begin()
        self.say(0, [0])
        self.say(1, [0])
        self.visit(self.master._listeners.named[0].address, 4)
        self.assertEqual(self.received(), [2, 2])

    def test_crash(self) -> None:
        """
        A listener outlives the worker that asked for it; its clients wait for
        the next one.
        """
        self.begin(listen=(), workers=1)
        number, address = self.bindIn()
        self.say(0, [number])
        self.spawner.latest().die()
        self.reactor.settle()
        connections(self, address, 2)
        self.reactor.settle()
        self.wait(1)
        self.assertEqual(self.bindIn(), (number, address))
        self.say(0, [number])
        self.assertEqual(self.worker().received, 2)

    def test_dropped(self) -> None:
        """
        One that the next worker does not ask for is closed as soon as that is
        Ready.
        """
        self.begin(listen=(), workers=1)
        number, address = self.bindIn()
        self.say(0, [number])
        self.spawner.latest().die()
        self.wait(1)
        self.say(0, [])
        self.assertRaises(ConnectionRefusedError, connections, self, address, 1)
        self.assertEqual(self.status().listeners, ())

    def test_untouched(self) -> None:
        """
        Connections that a worker had not touched when it died wait for one
        that listens where they came from, and don't keep others waiting.
        """
        self.begin(listen=(), credit=4)
        number, address = self.bindIn(0)
        other, elsewhere = self.bindIn(1, replace(self.REQUEST, order=1))
        self.say(0, [number])
        self.say(1, [other])
        connections(self, address, 12)
        for _ in range(6):
            self.reactor.settle()
            self.worker(0).tell(self.worker(0).received, 0, [])
        self.reactor.settle()
        self.assertEqual(self.worker(0).received, 12)
        self.spawner.latest(0).die()
        self.reactor.settle()
        self.visit(elsewhere, 3)
        self.assertEqual(self.worker(1).received, 3)
        self.wait(1)
        self.bindIn(0)
        self.say(0, [number])
        for _ in range(6):
            self.reactor.settle()
            self.worker(0).acknowledge()
        self.reactor.settle()
        self.assertEqual(self.worker(0).received, 12)
        self.assertEqual(self.status().account, Account(15, 15, 0, 0))

    def test_exhausted(self) -> None:
        """
        What can't be bound is refused, and nothing of it remains.
        """
        self.begin(listen=())
        with socket.create_server(("127.0.0.1", 0)) as taken:
            request = BindRequest("tcp", *taken.getsockname())
            error = self.assertRaises(NotBound, self.side().bindRequested, request)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        self.assertEqual(self.status().listeners, ())


class EndTests(ClusterTestCase):
    """
    Drains, stops and kills, and what is meant.
    """

    def test_drains(self) -> None:
        """
        Invariant 3: unscheduled first, told after; it serves what it has, says
        that it is drained, is told to stop, and goes: that was meant.
        """
        self.run_(workers=2, drainGrace=0.5)
        self.clients(2)
        self.reactor.settle()
        leaver = self.worker(1)
        done = self.master.scale(1)
        self.reactor.settle()
        self.assertEqual(leaver.told, ["Drain"])
        before = leaver.received
        for _ in range(5):
            self.clients(1)
            self.reactor.settle()
            self.worker(0).acknowledge()
            self.reactor.settle()
        self.assertEqual(leaver.received, before)
        self.assertNoResult(done)
        leaver.drained()
        self.reactor.settle()
        self.assertEqual(leaver.told, ["Drain", "Stop"])
        self.assertEqual(self.successResultOf(done), 1)
        (gone,) = self.exits(1)
        self.assertEqual((gone.meant, gone.reason), (True, "exit code 0"))

    def test_drainDeadline(self) -> None:
        """
        At the drain deadline it is stopped, at the stop deadline killed.
        """
        self.run_(workers=2, drainTimeout=3, stopTimeout=2)
        leaver = self.worker(1)
        leaver.obedient = False
        self.master.scale(1)
        self.wait(2.75)
        self.assertEqual(leaver.told, ["Drain"])
        self.wait(0.25)
        self.assertEqual(leaver.told, ["Drain", "Stop"])
        self.assertEqual(leaver.process.signals, [])
        self.wait(2)
        self.assertEqual(leaver.process.signals, [signal.SIGKILL])
        reasons = [(event.after.value, event.reason) for event in self.passages(1)][-3:]
        self.assertEqual(
            reasons,
            [
                ("draining", "scaled down"),
                ("stopping", "not drained in 3 s"),
                ("exited", "killed by SIGKILL"),
            ],
        )
        self.assertTrue(self.exits(1)[0].meant)

    def test_crashWhileDraining(self) -> None:
        """
        A worker that crashes while it drains was to go anyway: nothing
        replaces it.
        """
        self.run_(workers=2)
        leaver = self.worker(1)
        leaver.obedient = False
        done = self.master.scale(1)
        self.reactor.settle()
        leaver.process.die(signal.SIGSEGV)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(done), 1)
        self.assertTrue(self.exits(1)[0].meant)
        self.assertEqual(len(self.spawner.processes), 2)

    def test_unmeant(self) -> None:
        """
        An exit with code 0 that nobody asked for is no success.
        """
        self.run_(workers=1)
        self.spawner.latest().exit(0)
        (gone,) = self.exits()
        self.assertEqual((gone.meant, gone.reason), (False, "exit code 0"))
        self.assertEqual(len(self.spawner.alive()), 1)


class HungTests(ClusterTestCase):
    """
    A worker whose reactor does not run.
    """

    options = {"workers": 1, "hungTimeout": 10, "heartbeat": 2}

    def silence(self, seconds: float, cpu: float = 0.0, runnable: bool = False) -> None:
        """
        Let time pass in which the worker uses so much of a CPU, and is silent.
        """
        pid = self.spawner.latest().pid
        assert pid is not None
        for _ in range(round(seconds / 0.25)):
            used, _ = self.usages.get(pid, (0.0, False))
            self.usages[pid] = (used + cpu * 0.25, runnable)
            self.reactor.advance(0.25)
            self.reactor.settle()

    def test_hung(self) -> None:
        """
        It dumps its stacks, is killed, and replaced; that is published.
        """
        self.run_(**self.options)
        process = self.spawner.latest()
        self.silence(10)
        self.assertEqual(process.signals, [])
        self.silence(2)
        self.assertEqual(process.signals, [signal.SIGABRT])
        (hung,) = [event for event in self.events if isinstance(event, WorkerHung)]
        self.assertEqual((hung.slot, hung.pid, hung.silence), (0, process.pid, 12.0))
        self.silence(ABORT_GRACE)
        self.assertEqual(process.signals, [signal.SIGABRT, signal.SIGKILL])
        (gone,) = self.exits()
        self.assertEqual(gone.reason, "hung: no heartbeat for 12.0 s; killed by SIGKILL")
        self.assertFalse(gone.meant)
        self.assertIsNot(self.spawner.latest(), process)

    def test_told(self) -> None:
        """
        One that is hung is told so once, however long its end takes.
        """
        self.run_(**self.options)
        self.spawner.latest().mortal = False
        self.silence(30)
        hung = [event for event in self.events if isinstance(event, WorkerHung)]
        self.assertEqual(len(hung), 1)
        self.assertEqual(self.spawner.latest().signals, [signal.SIGABRT, signal.SIGKILL])

    def test_busy(self) -> None:
        """
        One that uses a whole CPU all the time is in an endless loop.
        """
        self.run_(**self.options)
        process = self.spawner.latest()
        self.silence(12, cpu=0.95, runnable=True)
        self.assertEqual(process.signals, [signal.SIGABRT])

    def test_starved(self) -> None:
        """
        One that wants to run and gets no CPU is not killed for it, and the
        log says what is wrong; but not for ever.
        """
        self.run_(**self.options)
        process = self.spawner.latest()
        lines = Lines(self)
        self.silence(26, cpu=0.02, runnable=True)
        self.assertEqual(process.signals, [])
        self.assertTrue(lines.containing("has been silent for 12.0 s, since it gets no CPU time"))
        self.silence(6, cpu=0.02, runnable=True)
        self.assertEqual(process.signals, [signal.SIGABRT])

    def test_masterLate(self) -> None:
        """
        If the master itself did not run, heartbeats may lie unread: it begins
        to count anew.
        """
        self.run_(**self.options)
        process = self.spawner.latest()
        self.reactor.advance(3600)
        self.reactor.settle()
        self.assertEqual(process.signals, [])
        self.silence(10)
        self.assertEqual(process.signals, [])
        self.silence(2)
        self.assertEqual(process.signals, [signal.SIGABRT])

    def test_healthy(self) -> None:
        """
        One that shows signs of life is left alone.
        """
        self.run_(**self.options)
        self.wait(60)
        self.assertEqual(self.spawner.latest().signals, [])

    def test_noLimit(self) -> None:
        """
        Without a limit nobody looks.
        """
        self.run_(workers=1, hungTimeout=0)
        self.silence(600)
        self.assertEqual(self.spawner.latest().signals, [])

    def test_unknownUsage(self) -> None:
        """
        Where the kernel does not tell of CPU times, silence alone decides.
        """
        self.patch(self, "usage", lambda pid: None)
        self.run_(**self.options)
        process = self.spawner.latest()
        self.silence(12)
        self.assertEqual(process.signals, [signal.SIGABRT])
