"""
Tests for L{twisted_cluster.master.master}: everything put together.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.master.case import LOCAL, ClusterTestCase
from tests.support import Lines, openDescriptors
from twisted_cluster.errors import ListenError, OperatorError
from twisted_cluster.events import (
    ClusterStopping,
    ConnectionsShed,
    Event,
    State,
    WorkerChanged,
)
from twisted_cluster.interfaces import Account, ICluster, ILoad, IScheduler, Peer
from twisted_cluster.master.touch import INTERVAL
from twisted_cluster.wire.commands import MAX_VALUE


class BindTests(ClusterTestCase):
    """
    Binding all listeners or none.
    """

    def test_interface(self) -> None:
        """
        The master is what operators' tools see.
        """
        verifyObject(ICluster, self.make())

    def test_allOrNone(self) -> None:
        """
        If one can't be bound, those before it are closed again.
        """
        master = self.make(listen=(LOCAL, "tcp:0:interface=192.0.2.1"))
        # What Twisted opens once for all ports is open after the first time.
        for _ in range(2):
            before = openDescriptors()
            self.assertRaises(ListenError, master.bind)
            self.reactor.settle()
        self.assertEqual(openDescriptors(), before)
        self.assertEqual(master.status().listeners, ())

    def test_turns(self) -> None:
        """
        When there is always somebody waiting at every listener, each of them
        is served.
        """
        self.make(workers=1, listen=(LOCAL, LOCAL, LOCAL), credit=2)
        self.master.bind()
        self.master.share()
        self.master.start()
        for listener in self.master._listeners.named:
            for _ in range(12):
                client = socket.create_connection(listener.address, 10)
                self.addCleanup(client.close)
        worker = self.ready()
        for _ in range(6):
            worker.acknowledge()
            self.reactor.settle()
        self.assertEqual(set(worker.listeners.values()), {0, 1, 2})


@implementer(IScheduler)
class Scheduler:
    """
    A policy whose ways a test sets.
    """

    def __init__(self) -> None:
        self.answer: Any = None

    def choose(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """Answer."""
        chosen: ILoad = self.answer(loads, peer)
        return chosen


class PolicyTests(ClusterTestCase):
    """
    A policy that fails must not cost a client its connection.
    """

    def setUp(self) -> None:
        super().setUp()
        self.policy = Scheduler()
        self.scheduler = self.policy

    def test_asked(self) -> None:
        """
        The policy gets the loads and the client's address, and decides.
        """
        asked: list[tuple[list[int], Peer]] = []

        def last(loads: Sequence[ILoad], peer: Peer) -> ILoad:
            asked.append(([load.slot for load in loads], peer))
            return loads[-1]

        self.policy.answer = last
        self.run_(workers=3)
        (client,) = self.clients(1)
        self.reactor.settle()
        self.assertEqual(asked, [([0, 1, 2], client.getsockname())])
        self.assertEqual(self.worker(2).received, 1)

    def test_raises(self) -> None:
        """
        If it raises, the slots take turns, and the log has why.
        """

        def broken(loads: Sequence[ILoad], peer: Peer) -> ILoad:
            raise RuntimeError("it broke")

        self.policy.answer = broken
        self.run_(workers=2)
        self.clients(4)
        self.reactor.settle()
        self.assertEqual([self.worker(slot).received for slot in range(2)], [2, 2])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)

    def test_nonsense(self) -> None:
        """
        The same if it answers with what it was not given.
        """
        lines = Lines(self)
        answers: list[Any] = [None, 3, "slot 0", []]
        for nonsense in answers:
            self.policy.answer = lambda loads, peer, nonsense=nonsense: nonsense
            self.setUpMaster()
            self.clients(2)
            self.reactor.settle()
            self.assertEqual([self.worker(slot).received for slot in range(2)], [1, 1])
            self.stop()
        self.assertEqual(len(lines.containing("which it was not given")), 8)

    def setUpMaster(self) -> None:
        """
        A fresh one.
        """
        super().setUp()
        self.run_(workers=2)


class StopTests(ClusterTestCase):
    """
    The end of a cluster.
    """

    def test_order(self) -> None:
        """
        It accepts who has connected, closes the port, and lets the workers
        drain; nothing is lost.
        """
        self.run_(workers=1)
        clients = self.clients(3)
        address = self.master._listeners.named[0].address
        done = self.master.shutDown(False, "a test says so")
        self.reactor.settle()
        worker = self.worker()
        self.assertEqual(worker.received, 3)
        self.assertEqual(worker.told, ["Drain"])
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address)
        self.assertNoResult(done)
        worker.acknowledge()
        for number, held in list(worker.sockets.items()):
            held.sendall(b"bye")
            worker.close(number)
        worker.drained()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual([client.recv(9) for client in clients], [b"bye"] * 3)
        self.assertEqual(self.status().account, Account(3, 3, 0, 0))
        self.assertIn(ClusterStopping(1000.0, "a test says so"), self.events)
        self.assertTrue(self.spawner.stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_waiting(self) -> None:
        """
        More clients than there is credit for are handed off all the same
        before the workers are told to drain.
        """
        self.run_(workers=1, credit=2)
        self.clients(5)
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        worker = self.worker()
        self.assertEqual(worker.told, [])
        for _ in range(3):
            worker.acknowledge()
            self.reactor.settle()
        self.assertEqual((worker.received, worker.told), (5, ["Drain"]))
        self.assertNoResult(done)

    def test_waitingForNobody(self) -> None:
        """
        Who can't be handed to anybody is shed, and that is said.
        """
        self.begin(workers=1)
        (client,) = self.clients(1)
        self.worker()
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(client.recv(1), b"")
        (shed,) = [event for event in self.events if isinstance(event, ConnectionsShed)]
        self.assertEqual((shed.count, shed.reason), (1, "the master is stopping"))
        self.assertEqual(self.status().account, Account(1, 0, 1, 0))

    def test_stuckWorker(self) -> None:
        """
        A worker that is stuck does not hold up a stop for longer than a drain
        and a stop may take, even if clients wait for it.
        """
        self.run_(workers=1, credit=1, drainTimeout=3, stopTimeout=2, hungTimeout=0)
        self.worker().obedient = False
        self.clients(3)
        self.reactor.settle()
        done = self.master.shutDown(False, "a test")
        self.reactor.elapse(9, 0.25)
        self.successResultOf(done)
        self.assertEqual(self.spawner.processes[0].signals, [signal.SIGKILL])

    def test_now(self) -> None:
        """
        A second stop cuts the drain short.
        """
        self.run_(workers=2)
        for slot in range(2):
            self.worker(slot).obedient = False
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.assertNoResult(done)
        again = self.master.shutDown(True, "a second one")
        self.reactor.settle()
        self.successResultOf(done)
        self.successResultOf(again)
        self.assertEqual(
            [process.signals for process in self.spawner.processes], [[signal.SIGKILL]] * 2
        )
        stops = [event for event in self.events if isinstance(event, ClusterStopping)]
        self.assertEqual(len(stops), 1)
        exits = [e for e in self.events if isinstance(e, WorkerChanged) and e.exit is not None]
        self.assertEqual([event.meant for event in exits], [True, True])

    def test_nowAtOnce(self) -> None:
        """
        A stop without a drain kills, and what waits is shed.
        """
        self.run_(workers=1)
        done = self.master.shutDown(True, "a test")
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.spawner.latest().signals, [signal.SIGKILL])

    def test_twice(self) -> None:
        """
        Whoever asks for a stop hears of its end, also after it.
        """
        self.run_(workers=1)
        results = [self.master.shutDown(False, "a test") for _ in range(2)]
        self.reactor.settle()
        results.append(self.master.shutDown(False, "late"))
        for done in results:
            self.successResultOf(done)

    def test_fromSubscriber(self) -> None:
        """
        A subscriber that stops the cluster as it hears that it stops does no
        harm.
        """
        self.run_(workers=1)
        results: list[Deferred[None]] = []

        def stopToo(event: Event) -> None:
            if isinstance(event, ClusterStopping):
                results.append(self.master.shutDown(False, "me too"))

        self.master.events.subscribe(stopToo)
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.successResultOf(done)
        (result,) = results
        self.successResultOf(result)

    def test_tool(self) -> None:
        """
        A tool's stop ends the process by way of C{onStop}.
        """
        self.run_(workers=1)
        stopped: list[bool] = []
        self.master.onStop = lambda: stopped.append(True)
        done = self.master.stop()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(stopped, [True])

    def test_neverStarted(self) -> None:
        """
        What was only bound is closed.
        """
        self.make()
        self.master.bind()
        done = self.master.shutDown(False, "a test")
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.spawner.processes, [])


class BootFailureTests(ClusterTestCase):
    """
    Apps that can't be run.
    """

    def setUp(self) -> None:
        super().setUp()
        self.fatal: list[OperatorError] = []

    def test_wrongName(self) -> None:
        """
        If no worker was ever Ready and the name of the app is wrong, there is
        no use in going on.
        """
        self.begin(workers=1)
        self.master.onFatal = self.fatal.append
        self.worker().bootFailed("app a:b: there is no module 'a'", fault="operator")
        self.reactor.settle()
        self.assertEqual(
            [str(error) for error in self.fatal],
            ["can't start: app a:b: there is no module 'a'; check --app and the current directory"],
        )

    def test_remedy(self) -> None:
        """
        A reason that says what to do, or what can't be done, is told as it is.
        """
        for reason, expected in (
            ("there is no file a.tac", "can't start: there is no file a.tac; check --app and"),
            ("app web: no option -x; see x", "can't start: app web: no option -x; see x"),
            ("can't listen on :1: in use; stop it", "can't listen on :1: in use; stop it"),
        ):
            self.begin(workers=1)
            self.master.onFatal = self.fatal.append
            self.worker().bootFailed(reason, fault="operator")
            self.reactor.settle()
            self.assertTrue(str(self.fatal[-1]).startswith(expected), str(self.fatal[-1]))

    def test_app(self) -> None:
        """
        If the app is at fault it may come to work: the slot tries again.
        """
        self.begin(workers=1)
        self.master.onFatal = self.fatal.append
        self.worker().bootFailed("app a:b fails to load: KeyError: 'DATABASE'")
        self.reactor.settle()
        self.assertEqual(self.fatal, [])
        self.assertEqual(self.states(), [(0, 1, "starting")])

    def test_laterWrongName(self) -> None:
        """
        Once a worker has been Ready, a name that is wrong now only fails the
        reload.
        """
        self.run_(workers=1)
        self.master.onFatal = self.fatal.append
        done = self.master.reload()
        self.worker().bootFailed("app a:b: there is no module 'a'", fault="operator")
        self.reactor.settle()
        self.failureResultOf(done)
        self.assertEqual(self.fatal, [])
        self.assertEqual(self.states(), [(0, 1, "ready")])


class BroadcastTests(ClusterTestCase):
    """
    Messages to all workers.
    """

    def test_sent(self) -> None:
        """
        All Ready workers get it, and nobody else.
        """
        self.run_(workers=2)
        self.master.scale(3)
        starting = self.worker(2)
        self.assertEqual(self.master.broadcast("h\u00e9llo"), 2)
        self.reactor.settle()
        self.assertEqual([self.worker(slot).messages for slot in range(2)], [["h\u00e9llo"]] * 2)
        self.assertEqual(starting.messages, [])

    def test_limit(self) -> None:
        """
        As much as AMP takes is sent, more is refused, in bytes of UTF-8.
        """
        self.run_(workers=1)
        self.assertEqual(self.master.broadcast("x" * MAX_VALUE), 1)
        self.reactor.settle()
        self.assertEqual(self.worker().messages, ["x" * MAX_VALUE])
        error = self.assertRaises(OperatorError, self.master.broadcast, "\u00e9" * 40_000)
        self.assertEqual(
            str(error),
            f"can't broadcast: the text has more than {MAX_VALUE} bytes; send a shorter one",
        )

    def test_notText(self) -> None:
        """
        What can't be sent as UTF-8 is refused like that too.
        """
        self.run_(workers=1)
        self.assertRaises(OperatorError, self.master.broadcast, "\udcff")

    def test_notReading(self) -> None:
        """
        A worker that has long stopped reading costs bounded memory and does
        not count.
        """
        self.run_(workers=2)
        self.worker(0).transport.stopReading()
        text = "x" * 60_000
        counts = []
        for _ in range(100):
            counts.append(self.master.broadcast(text))
            self.reactor.settle()
        self.assertEqual((counts[0], counts[-1]), (2, 1))
        self.assertEqual(len(self.worker(1).messages), 100)


class TouchTests(ClusterTestCase):
    """
    A file whose touch reloads.
    """

    def touch(self, at: float) -> None:
        """
        Touch it.
        """
        with open(self.path, "a", encoding="ascii"):
            os.utime(self.path, (at, at))

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "touched")

    def test_reloads(self) -> None:
        """
        A change of its modification time reloads once; the file may also
        appear only later, or go.
        """
        self.run_(workers=1, reloadOnTouch=self.path)
        for generation, at in ((2, 1000.0), (3, 500.0)):
            self.touch(at)
            self.reactor.advance(INTERVAL)
            self.readyAll()
            self.assertEqual(self.states(), [(0, generation, "ready")])
        self.wait(3 * INTERVAL)
        os.remove(self.path)
        self.wait(3 * INTERVAL)
        self.assertEqual(len(self.spawner.processes), 3)

    def test_before(self) -> None:
        """
        What was touched before the start does not count, nor after the stop.
        """
        self.touch(1000)
        self.run_(workers=1, reloadOnTouch=self.path)
        self.wait(2 * INTERVAL)
        self.assertEqual(len(self.spawner.processes), 1)
        self.master.shutDown(False, "a test")
        self.touch(2000)
        self.wait(2 * INTERVAL)
        self.assertEqual(len(self.spawner.processes), 1)


class SubscriberTests(ClusterTestCase):
    """
    Whoever feeds on events can't hurt the cluster.
    """

    def test_raises(self) -> None:
        """
        With a subscriber that raises at everything, all goes on.
        """

        def broken(event: Event) -> None:
            raise RuntimeError("it broke")

        self.make(workers=2)
        self.master.events.subscribe(broken)
        self.master.bind()
        self.master.share()
        self.master.start()
        self.readyAll()
        self.spawner.latest(0).die()
        self.readyAll()
        done = self.master.reload()
        self.readyAll()
        self.readyAll()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.readyCount(), 2)
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        self.stop()
        self.flushLoggedErrors(RuntimeError)

    def test_asks(self) -> None:
        """
        A subscriber may ask for the status and for changes at any moment.
        """
        seen: list[int] = []

        def curious(event: Event) -> None:
            seen.append(len(self.master.status().workers))
            if isinstance(event, WorkerChanged) and event.after is State.READY and event.slot == 0:
                self.master.scale(3)

        self.make(workers=2)
        self.master.events.subscribe(curious)
        self.master.bind()
        self.master.share()
        self.master.start()
        self.readyAll()
        self.readyAll()
        self.assertEqual(self.readyCount(), 3)
        self.assertIn(3, seen)
