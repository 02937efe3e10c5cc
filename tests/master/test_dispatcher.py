"""
Tests for L{twisted_cluster.master.dispatcher}.

Invariant 1, which they try to break: a socket has exactly one owner, and
C{accepted == acked + shed + in flight} at every moment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.errors import PeerError
from twisted_cluster.interfaces import Account, ILoad, Peer
from twisted_cluster.master.dispatcher import (
    MAX_ABANDONED,
    MAX_ATTEMPTS,
    Connection,
    Dispatcher,
    Recipient,
)

CREDIT = 4


class Worker:
    """
    The worker's end: what it was sent, and what it has said of it.

    @ivar sent: The descriptors it was sent; their index is their number.
    @ivar held: The numbers it has neither touched nor refused.
    @ivar refused: How many it has refused.
    """

    def __init__(
        self,
        slot: int,
        credit: int = CREDIT,
        generation: int = 1,
        listeners: Collection[int] = (0,),
    ) -> None:
        self.recipient = Recipient(slot, self, credit, generation, listeners)
        self.scheduled = False
        self.paused = False
        self.lost = False
        self.sent: list[int] = []
        self.held: set[int] = set()
        self.handoffs: list[int] = []
        self.received = 0
        self.closed = 0
        self.refused = 0
        self.givenBack = 0
        self.states: list[bytes] = []

    @property
    def served(self) -> int:
        """
        How many connections it serves, and has neither reported to be over nor
        given back.
        """
        over = max(self.closed, self.givenBack)
        return len(self.sent) - self.refused - len(self.held) - over

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
        assert len(states) == len(descriptors)
        self.states.extend(states)
        self.sendHandoff(first, listeners, descriptors)

    def sendHandoff(self, first: int, listeners: Sequence[int], descriptors: Sequence[int]) -> None:
        """
        Take sockets.
        """
        assert first == len(self.sent) and len(listeners) == len(descriptors)
        assert self.recipient.listeners.issuperset(listeners), "it does not listen there"
        self.held.update(range(first, first + len(descriptors)))
        self.sent.extend(descriptors)
        self.handoffs.append(len(descriptors))


class Bench:
    """
    A dispatcher with descriptors that are mere numbers.
    """

    def __init__(self) -> None:
        self.dispatcher = Dispatcher(self.choose, self.untouched, self.shed, self.close)
        self.pick = 0
        self.submitted = 0
        self.made = 0
        self.returned = 0
        self.closed: list[int] = []
        self.sheds: list[tuple[int, str]] = []
        self.verdicts: dict[int, bool | None] = {}
        self.offered: list[list[Recipient]] = []
        self.roomMade = 0
        self.placed = 0
        self.dispatcher.onCapacity = self.onCapacity
        self.dispatcher.onPlaced = self.onPlaced

    def choose(self, loads: Sequence[Recipient], peer: Peer) -> Recipient:
        """As C{pick} says."""
        self.offered.append(list(loads))
        return loads[self.pick % len(loads)]

    def untouched(self, descriptor: int, progress: object) -> bool | None:
        """As C{verdicts} says; untouched unless told otherwise."""
        return self.verdicts.get(descriptor, True)

    def shed(self, count: int, reason: str) -> None:
        """Remember."""
        self.sheds.append((count, reason))

    def close(self, descriptor: int) -> None:
        """Remember."""
        self.closed.append(descriptor)

    def onCapacity(self) -> None:
        """Remember."""
        self.roomMade += 1

    def onPlaced(self) -> None:
        """Remember."""
        self.placed += 1

    def accept(self, count: int = 1, listener: int = 0) -> None:
        """Submit connections in one turn of the reactor."""
        for _ in range(count):
            self.dispatcher.submit(Connection(self.descriptor(), listener, ("::1", 1)))
            self.submitted += 1
        self.dispatcher.flush()

    def descriptor(self) -> int:
        """A number that there was not before."""
        self.made += 1
        return self.made - 1

    def giveBack(
        self, worker: Worker, count: int = 1, state: bytes | None = None, listener: int = 0
    ) -> list[int]:
        """Have a worker give connections back."""
        connections = [
            Connection(self.descriptor(), listener, (), state, (10, 20)) for _ in range(count)
        ]
        self.returned += count
        self.dispatcher.giveBack(worker.recipient, connections)
        return [connection.descriptor for connection in connections]


class DispatcherMachine(RuleBasedStateMachine):
    """
    Workers come, go, acknowledge, refuse, pause and die in any order, while
    connections come in through a kernel's queue or past it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.dispatcher = self.bench.dispatcher
        self.dispatcher.onCapacity = self.onCapacity
        self.workers: list[Worker] = []
        self.queue = 0
        self.room = 0
        self.bench.choose = self.choose  # type: ignore[method-assign]
        self.dispatcher._choose = self.choose

    def choose(self, loads: Sequence[Recipient], peer: Peer) -> Recipient:
        """
        Only who is scheduled, not paused and has credit is offered, by
        ascending slot.
        """
        byRecipient = {worker.recipient: worker for worker in self.workers}
        for load in loads:
            worker = byRecipient[load]
            assert worker.scheduled and not worker.paused and not worker.lost
            assert 0 < load.credit <= CREDIT
        assert [load.slot for load in loads] == sorted(load.slot for load in loads)
        self.bench.pick += 1
        return loads[self.bench.pick % len(loads)]

    def onCapacity(self) -> None:
        """
        What the listener does.
        """
        assert self.dispatcher.capacity > 0
        self.acceptQueued()

    def acceptQueued(self) -> None:
        """
        Accept from the kernel's queue as far as there is capacity.
        """
        count = max(0, min(self.queue, self.dispatcher.capacity))
        self.queue -= count
        self.bench.accept(count)

    def alive(self) -> list[Worker]:
        """Workers that have not been lost."""
        return [worker for worker in self.workers if not worker.lost]

    @initialize()
    def first(self) -> None:
        """Begin with one worker."""
        self.join(CREDIT)

    @rule(credit=st.integers(1, CREDIT), generation=st.integers(1, 2))
    def join(self, credit: int, generation: int = 1) -> None:
        """A worker becomes Ready."""
        if len(self.alive()) >= 4:
            return
        worker = Worker(len(self.workers), credit, generation)
        worker.scheduled = True
        self.workers.append(worker)
        self.dispatcher.schedule(worker.recipient)

    @rule(count=st.integers(1, 12))
    def connect(self, count: int) -> None:
        """Clients come."""
        self.queue += count
        if self.dispatcher.capacity > 0:
            self.acceptQueued()

    @rule(count=st.integers(1, 6))
    def force(self, count: int) -> None:
        """A listener that closes submits all there is, room or no room."""
        self.bench.accept(count)

    @rule(data=st.data())
    @precondition(lambda self: self.alive())
    def acknowledge(self, data: st.DataObject) -> None:
        """A worker reports."""
        worker = data.draw(st.sampled_from(self.alive()))
        worker.received = data.draw(st.integers(worker.received, len(worker.sent)))
        touched = data.draw(st.sets(st.sampled_from(sorted(worker.held) or [-1]))) - {-1}
        most = max(worker.closed, worker.received - worker.refused - len(worker.held))
        worker.held -= touched
        worker.closed = data.draw(st.integers(worker.closed, most))
        self.dispatcher.acknowledge(worker.recipient, worker.received, worker.closed, touched)

    @rule(data=st.data())
    @precondition(lambda self: any(worker.held for worker in self.alive()))
    def refuse(self, data: st.DataObject) -> None:
        """A worker refuses some of what it holds."""
        worker = data.draw(st.sampled_from([one for one in self.alive() if one.held]))
        room = len(worker.sent) - worker.closed - worker.refused
        numbers = data.draw(st.sets(st.sampled_from(sorted(worker.held)), max_size=room))
        worker.held -= numbers
        worker.refused += len(numbers)
        self.dispatcher.refuse(worker.recipient, sorted(numbers))

    @rule(data=st.data())
    @precondition(lambda self: self.alive())
    def throttle(self, data: st.DataObject) -> None:
        """A worker runs short of descriptors, or has some again."""
        worker = data.draw(st.sampled_from(self.alive()))
        worker.paused = not worker.paused
        self.dispatcher.throttle(worker.recipient, worker.paused)

    @rule(data=st.data(), state=st.sampled_from([None, b"{}"]))
    @precondition(lambda self: any(worker.served > 0 for worker in self.alive()))
    def giveBack(self, data: st.DataObject, state: bytes | None) -> None:
        """A worker gives idle connections back, and closes its own copies."""
        worker = data.draw(st.sampled_from([one for one in self.alive() if one.served > 0]))
        count = data.draw(st.integers(1, worker.served))
        worker.givenBack = max(worker.closed, worker.givenBack) + count
        self.bench.giveBack(worker, count, state)

    @rule(data=st.data())
    @precondition(lambda self: any(worker.scheduled for worker in self.alive()))
    def unschedule(self, data: st.DataObject) -> None:
        """A worker is to drain."""
        worker = data.draw(st.sampled_from([one for one in self.alive() if one.scheduled]))
        self.dispatcher.unschedule(worker.recipient)
        worker.scheduled = False

    @rule(data=st.data())
    @precondition(lambda self: self.alive())
    def lose(self, data: st.DataObject) -> None:
        """A worker dies."""
        worker = data.draw(st.sampled_from(self.alive()))
        holds = sorted(worker.held)
        verdicts = {one: data.draw(st.sampled_from([True, False, None])) for one in holds}
        self.bench.verdicts = {worker.sent[one]: verdicts[one] for one in holds}
        before = len(self.bench.closed) - sum(count for count, _ in self.bench.sheds)
        self.dispatcher.lost(worker.recipient)
        worker.lost, worker.scheduled = True, False
        dead = sum(
            1
            for one in holds
            if verdicts[one] is False or (verdicts[one] is None and one < worker.received)
        )
        after = len(self.bench.closed) - sum(count for count, _ in self.bench.sheds)
        assert after - before == dead, "those it had begun to serve, and only those, died with it"

    @rule()
    def releaseHeld(self) -> None:
        """The master is out of descriptors."""
        self.dispatcher.releaseHeld()
        for worker in self.alive():
            worker.held = {one for one in worker.held if one >= worker.received}

    @rule()
    def shedWaiting(self) -> None:
        """The master stops."""
        self.dispatcher.shedWaiting("stopping")
        assert self.dispatcher.waiting == 0

    @rule()
    def allReport(self) -> None:
        """When all workers report all, nothing is left waiting."""
        for _ in range(200):
            behind = [one for one in self.alive() if one.received < len(one.sent)]
            if not behind:
                break
            for worker in behind:
                worker.received = len(worker.sent)
                touched, worker.held = worker.held, set()
                self.dispatcher.acknowledge(
                    worker.recipient, worker.received, worker.closed, touched
                )
        else:
            raise AssertionError("it never ends")
        scheduled = [one for one in self.alive() if one.scheduled]
        if scheduled and not any(one.paused for one in scheduled):
            self.assertNothingStarves()

    def assertNothingStarves(self) -> None:
        """
        When all has arrived, nothing waits.
        """
        assert self.dispatcher.waiting == 0, "something starves"

    @invariant()
    def accountBalances(self) -> None:
        """Nothing is lost, nothing is counted twice."""
        bench = self.bench
        shed = sum(count for count, _ in bench.sheds)
        assert len(set(bench.closed)) == len(bench.closed), "a descriptor was closed twice"
        assert self.dispatcher.account() == Account(
            accepted=bench.submitted,
            acked=len(bench.closed) - shed - bench.returned,
            shed=shed,
            inFlight=bench.made - len(bench.closed),
        )

    @invariant()
    def oneOwner(self) -> None:
        """Each descriptor that is open waits or is held by one worker."""
        held = [worker.sent[number] for worker in self.alive() for number in worker.held]
        assert len(set(held)) == len(held)
        assert not set(held) & set(self.bench.closed)
        assert len(held) + self.dispatcher.waiting == self.dispatcher.account().inFlight

    @invariant()
    def creditHolds(self) -> None:
        """No worker has more unreceived sockets than its credit."""
        for worker in self.alive():
            assert len(worker.sent) - worker.received <= worker.recipient.limit
            assert all(count <= worker.recipient.limit for count in worker.handoffs)
            assert 0 <= worker.recipient.credit <= worker.recipient.limit

    @invariant()
    def connectionsCounted(self) -> None:
        """What was sent, less what was refused or is over."""
        for worker in self.alive():
            expected = len(worker.sent) - worker.refused - worker.closed
            assert worker.recipient.connections == expected >= 0

    @invariant()
    def capacityIsRight(self) -> None:
        """The running count equals one from scratch, and nobody queues in vain."""
        room = sum(
            worker.recipient.credit
            for worker in self.alive()
            if worker.scheduled and not worker.paused
        )
        waiting = self.dispatcher.waiting - len(self.dispatcher._returned)
        assert self.dispatcher.capacity == room - waiting
        assert self.dispatcher.capacity <= 0 or not self.queue, "the listener was not woken"


LISTENERS = range(3)


class ListenersMachine(DispatcherMachine):
    """
    The same with workers that don't all listen on the same, and change their
    minds, and with listeners that are closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queues = dict.fromkeys(LISTENERS, 0)

    def onCapacity(self) -> None:
        """
        What the listeners do.
        """
        self.acceptQueued()

    def acceptQueued(self) -> None:
        """
        Accept from the kernel's queues as far as there is capacity.
        """
        for listener in self.queues:
            count = max(0, min(self.queues[listener], self.dispatcher.capacityOf(listener)))
            self.queues[listener] -= count
            self.bench.accept(count, listener)

    @rule(
        credit=st.integers(1, CREDIT),
        generation=st.integers(1, 2),
        listeners=st.sets(st.sampled_from(LISTENERS)),
    )
    def join(self, credit: int, generation: int = 1, listeners: Collection[int] = (0, 1)) -> None:
        """A worker becomes Ready."""
        if len(self.alive()) >= 4:
            return
        wanted = self.queues.keys() & listeners
        worker = Worker(len(self.workers), credit, generation, wanted)
        worker.scheduled = True
        self.workers.append(worker)
        self.dispatcher.schedule(worker.recipient)

    @rule(data=st.data(), listeners=st.sets(st.sampled_from(LISTENERS)))
    @precondition(lambda self: self.alive())
    def listen(self, data: st.DataObject, listeners: set[int]) -> None:
        """The app in a worker listens somewhere else, whether it drains or not."""
        worker = data.draw(st.sampled_from(self.alive()))
        self.dispatcher.listen(worker.recipient, self.queues.keys() & listeners)

    @rule(listener=st.sampled_from(LISTENERS))
    def abandon(self, listener: int) -> None:
        """A listener that nobody wants any more is closed, once and for all."""
        if self.queues.pop(listener, None) is None:
            return
        for worker in self.alive():
            self.dispatcher.listen(worker.recipient, worker.recipient.listeners - {listener})
        self.dispatcher.abandon(listener, "closed")
        self.forcedOn(listener, 2)

    def forcedOn(self, listener: int, count: int) -> None:
        """
        Submit what the kernel had taken in; of what is closed nothing waits.
        """
        before = sum(number for number, _ in self.bench.sheds)
        self.bench.accept(count, listener)
        after = sum(number for number, _ in self.bench.sheds)
        assert after - before == (0 if listener in self.queues else count)

    @rule(count=st.integers(1, 12), listener=st.sampled_from(LISTENERS))
    def connect(self, count: int, listener: int = 0) -> None:
        """Clients come."""
        if listener in self.queues:
            self.queues[listener] += count
            self.acceptQueued()

    @rule(count=st.integers(1, 6), listener=st.sampled_from(LISTENERS))
    def force(self, count: int, listener: int = 0) -> None:
        """A listener that closes submits all there is, room or no room."""
        self.forcedOn(listener, count)

    @rule(
        data=st.data(),
        state=st.sampled_from([None, b"{}"]),
        listener=st.sampled_from(LISTENERS),
    )
    @precondition(lambda self: any(worker.served > 0 for worker in self.alive()))
    def giveBack(self, data: st.DataObject, state: bytes | None, listener: int = 0) -> None:
        """A worker gives back what others can go on with."""
        worker = data.draw(st.sampled_from([one for one in self.alive() if one.served > 0]))
        if self.dispatcher.serves(listener):
            count = data.draw(st.integers(1, worker.served))
            worker.givenBack = max(worker.closed, worker.givenBack) + count
            self.bench.giveBack(worker, count, state, listener)

    def assertNothingStarves(self) -> None:
        """
        When all has arrived, what waits has nobody who could take it.
        """
        scheduled = [one.recipient for one in self.alive() if one.scheduled]
        newest = max((one.generation for one in scheduled), default=0)
        latest = [one for one in scheduled if one.generation == newest]
        for waiting, takers in (
            (self.dispatcher._waiting, scheduled),
            (self.dispatcher._returned, latest),
        ):
            for connection in waiting:
                assert connection.listener in self.queues, "it waits for what is closed"
                assert not any(connection.listener in one.listeners for one in takers), "starves"

    @invariant()
    def capacityIsRight(self) -> None:
        """
        Nobody queues in vain, in the kernel or here, while there is a worker
        that could take it.
        """
        for worker in self.alive():
            able = worker.scheduled and not worker.paused and worker.recipient.credit > 0
            for listener in worker.recipient.listeners if able else ():
                assert not self.queues[listener], "the listener was not woken"
                waiting = [one.listener for one in self.dispatcher._waiting]
                assert listener not in waiting, "it could be given away"

    @invariant()
    def knowsWhoServes(self) -> None:
        """What can be given back is what a worker of the newest generation listens on."""
        scheduled = [one for one in self.alive() if one.scheduled]
        newest = max((one.recipient.generation for one in scheduled), default=0)
        for listener in LISTENERS:
            expected = any(
                listener in one.recipient.listeners
                for one in scheduled
                if one.recipient.generation == newest and not one.paused
            )
            assert self.dispatcher.serves(listener) == expected


class StatefulTests(SynchronousTestCase):
    """
    The account under whatever may happen.
    """

    def test_anything(self) -> None:
        """
        No order of events breaks an invariant of L{DispatcherMachine}.
        """
        run_state_machine_as_test(
            DispatcherMachine, settings=settings(max_examples=120, stateful_step_count=50)
        )

    def test_anyListeners(self) -> None:
        """
        Nor one of L{ListenersMachine}.
        """
        run_state_machine_as_test(
            ListenersMachine, settings=settings(max_examples=120, stateful_step_count=50)
        )


class DispatcherTests(SynchronousTestCase):
    """
    Single steps.
    """

    def setUp(self) -> None:
        self.bench = Bench()
        self.dispatcher = self.bench.dispatcher

    def worker(self, slot: int = 0, credit: int = CREDIT) -> Worker:
        """
        A scheduled worker.
        """
        worker = Worker(slot, credit)
        self.dispatcher.schedule(worker.recipient)
        return worker

    def test_interface(self) -> None:
        """
        A recipient is what a policy may choose.
        """
        verifyObject(ILoad, Worker(0).recipient)

    def test_batch(self) -> None:
        """
        What is accepted in one turn reaches a worker as one handoff.
        """
        worker = self.worker()
        self.bench.accept(3)
        self.assertEqual((worker.handoffs, worker.sent), ([3], [0, 1, 2]))

    def test_ackClocked(self) -> None:
        """
        A worker that has not yet reported the last handoff gets no other one,
        even if that was a small one: an idle worker could take them.
        """
        worker, other = self.worker(0), self.worker(1)
        self.bench.accept(1)
        self.bench.accept(1)
        self.assertEqual((worker.handoffs, other.handoffs), ([1], [1]))
        self.assertEqual(self.dispatcher.capacity, 0)
        self.bench.accept(1)
        self.assertEqual(self.dispatcher.waiting, 1)
        self.dispatcher.acknowledge(other.recipient, 1, 0, [])
        self.assertEqual((worker.handoffs, other.handoffs), ([1], [1, 1]))

    def test_waits(self) -> None:
        """
        Without a worker connections wait, and are sent when there is one, in
        order; C{onPlaced} tells of it.
        """
        self.bench.accept(3)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.capacity), (3, -3))
        self.assertEqual(self.bench.placed, 0)
        worker = self.worker()
        self.assertEqual(worker.sent, [0, 1, 2])
        self.assertEqual((self.dispatcher.waiting, self.bench.placed), (0, 1))

    def test_redispatch(self) -> None:
        """
        What a dead worker had not touched goes to another one, what it had
        begun to serve died with it.
        """
        worker, other = self.worker(0), self.worker(1, 2)
        self.dispatcher.throttle(other.recipient, True)
        self.bench.accept(4)
        self.bench.verdicts = {1: False, 2: False}
        self.dispatcher.throttle(other.recipient, False)
        self.dispatcher.lost(worker.recipient)
        self.assertEqual((other.sent, self.bench.closed), ([0, 3], [1, 2]))

    def test_redispatchUnknown(self) -> None:
        """
        Where the kernel can't tell, what had arrived counts as touched, what
        had not goes to another worker.
        """
        worker = self.worker()
        self.bench.accept(3)
        self.dispatcher.acknowledge(worker.recipient, 1, 0, [])
        self.bench.verdicts = {0: None, 1: None, 2: None}
        self.dispatcher.lost(worker.recipient)
        other = self.worker(1)
        self.assertEqual((other.sent, self.bench.closed), ([1, 2], [0]))

    def test_lostBeforeFlush(self) -> None:
        """
        Neither is what a worker was about to be sent when it died lost.
        """
        worker = self.worker()
        self.dispatcher.submit(Connection(self.bench.descriptor(), 0, ()))
        self.dispatcher.lost(worker.recipient)
        self.assertEqual(self.dispatcher.waiting, 1)
        other = self.worker(1)
        self.assertEqual(other.sent, [0])

    def test_lostTwice(self) -> None:
        """
        A second loss of the same worker changes nothing.
        """
        worker = self.worker()
        self.bench.accept(2)
        self.dispatcher.lost(worker.recipient)
        self.dispatcher.lost(worker.recipient)
        self.assertEqual(self.dispatcher.waiting, 2)

    def test_worn(self) -> None:
        """
        A connection that has cost many workers their life is shed, and said to
        be.
        """
        worker = self.worker()
        self.bench.accept(1)
        for slot in range(1, MAX_ATTEMPTS + 1):
            self.assertEqual(self.bench.sheds, [])
            self.dispatcher.lost(worker.recipient)
            worker = self.worker(slot)
        self.assertEqual(worker.sent, [])
        self.assertEqual(self.bench.sheds, [(1, "10 workers were lost over it")])
        self.assertEqual(self.bench.closed, [0])
        self.assertEqual(self.dispatcher.account(), Account(1, 0, 1, 0))

    def test_paused(self) -> None:
        """
        A paused worker gets nothing, and what waited when it wants some again.
        """
        worker = self.worker()
        self.dispatcher.throttle(worker.recipient, True)
        self.bench.accept(2)
        self.assertEqual(worker.sent, [])
        self.dispatcher.throttle(worker.recipient, False)
        self.assertEqual(worker.sent, [0, 1])

    def test_unscheduled(self) -> None:
        """
        Invariant 3: after L{Dispatcher.unschedule} nothing is sent; what was
        collected before is sent by it.
        """
        worker = self.worker()
        self.dispatcher.submit(Connection(0, 0, ()))
        self.dispatcher.unschedule(worker.recipient)
        self.assertEqual(worker.sent, [0])
        self.dispatcher.acknowledge(worker.recipient, 1, 0, [0])
        self.bench.accept(1)
        self.assertEqual(worker.sent, [0])
        self.assertEqual(self.dispatcher.waiting, 1)

    def test_listensLate(self) -> None:
        """
        When a worker that is scheduled begins to listen somewhere, the
        listeners are told, even if there is no more credit than before.
        """
        worker = self.worker()
        self.dispatcher.listen(worker.recipient, ())
        self.assertEqual(self.dispatcher.capacityOf(0), 0)
        before = self.bench.roomMade
        self.dispatcher.listen(worker.recipient, (0,))
        self.assertEqual(self.dispatcher.capacityOf(0), CREDIT)
        self.assertEqual(self.bench.roomMade, before + 1)

    def test_nobodyListens(self) -> None:
        """
        What comes from a listener that no worker listens on waits.
        """
        worker = self.worker()
        self.dispatcher.listen(worker.recipient, ())
        self.bench.accept(1)
        self.assertEqual((worker.sent, self.dispatcher.waiting), ([], 1))
        self.dispatcher.listen(worker.recipient, (0,))
        self.assertEqual(worker.sent, [0])

    def test_abandoned(self) -> None:
        """
        Of a listener that is no more nothing waits: neither what waited
        before, nor what a worker gives back or the kernel gives out later.
        """
        worker = self.worker()
        self.bench.accept(1)
        self.dispatcher.listen(worker.recipient, ())
        self.bench.accept(1)
        self.dispatcher.abandon(0, "closed")
        self.assertEqual(self.bench.closed, [1])
        self.dispatcher.refuse(worker.recipient, [0])
        self.assertEqual(self.bench.closed, [1, 0])
        self.bench.accept(1)
        self.assertEqual(self.bench.closed, [1, 0, 2])
        self.assertEqual(self.bench.sheds, [(1, "closed")] * 3)
        self.assertEqual(self.dispatcher.account(), Account(3, 0, 3, 0))

    def test_capacityOf(self) -> None:
        """
        A listener may count on the credit of those who listen there, less what
        waits for the same ones.
        """
        both, one = Worker(0, 4, listeners=(0, 1)), Worker(1, 3, listeners=(1,))
        for worker in (both, one):
            self.dispatcher.schedule(worker.recipient)
        capacities = [self.dispatcher.capacityOf(listener) for listener in range(3)]
        self.assertEqual(capacities, [4, 7, 0])
        self.bench.accept(5, 2)
        capacities = [self.dispatcher.capacityOf(listener) for listener in range(3)]
        self.assertEqual((capacities, self.dispatcher.waiting), ([4, 7, 0], 5))
        self.bench.accept(6, 0)
        capacities = [self.dispatcher.capacityOf(listener) for listener in range(3)]
        self.assertEqual((capacities, self.dispatcher.waiting), ([0, 3, 0], 7))
        self.assertEqual((both.sent, one.sent), ([5, 6, 7, 8], []))

    def test_waitsForOthers(self) -> None:
        """
        What waits for a worker that is yet to come keeps nobody else waiting.
        """
        dead = Worker(0, listeners=(1,))
        self.dispatcher.schedule(dead.recipient)
        self.bench.accept(CREDIT, 1)
        self.dispatcher.lost(dead.recipient)
        worker = self.worker(1)
        self.assertEqual((self.dispatcher.capacityOf(0), self.dispatcher.capacity), (4, 4))
        self.bench.accept(2)
        self.assertEqual((worker.sent, self.dispatcher.waiting), ([4, 5], 4))
        successor = Worker(0, listeners=(1,))
        self.dispatcher.schedule(successor.recipient)
        self.assertEqual((successor.sent, self.dispatcher.waiting), ([0, 1, 2, 3], 0))
        self.assertEqual(self.dispatcher.account(), Account(6, 0, 0, 6))

    def test_onlySome(self) -> None:
        """
        What waits is given to those who can take it, in order, and to nobody
        else.
        """
        for listener in (0, 1, 2, 1):
            self.bench.accept(1, listener)
        worker = Worker(0, listeners=(1,))
        self.dispatcher.schedule(worker.recipient)
        self.assertEqual((worker.sent, self.dispatcher.waiting), ([1, 3], 2))
        self.dispatcher.listen(worker.recipient, (0, 1))
        self.assertEqual((worker.sent, self.dispatcher.waiting), ([1, 3], 2))
        self.dispatcher.acknowledge(worker.recipient, 2, 0, [])
        self.assertEqual((worker.sent, self.dispatcher.waiting), ([1, 3, 0], 1))

    def test_serves(self) -> None:
        """
        What can be given back depends on the newest generation alone.
        """
        old, new = Worker(0, generation=1, listeners=(0, 1)), Worker(1, generation=2)
        for worker in (old, new):
            self.dispatcher.schedule(worker.recipient)
        self.assertEqual([self.dispatcher.serves(listener) for listener in (0, 1)], [True, False])
        self.dispatcher.throttle(new.recipient, True)
        self.assertFalse(self.dispatcher.serves(0))
        self.dispatcher.lost(new.recipient)
        self.assertEqual([self.dispatcher.serves(listener) for listener in (0, 1)], [True, True])

    def test_abandonedReturned(self) -> None:
        """
        Neither does what is given back wait for a listener that is no more.
        """
        worker = self.worker()
        self.served(worker, 2)
        self.dispatcher.throttle(worker.recipient, True)
        self.bench.giveBack(worker)
        self.dispatcher.abandon(0, "closed")
        self.assertEqual(self.bench.closed, [0, 1, 2])
        self.dispatcher.throttle(worker.recipient, False)
        self.bench.giveBack(worker)
        self.assertEqual(self.bench.closed, [0, 1, 2, 3])
        self.assertEqual(self.dispatcher.account(), Account(2, 0, 2, 0))

    def served(self, worker: Worker, count: int) -> None:
        """
        Have a worker serve connections.
        """
        self.bench.accept(count)
        worker.held.clear()
        sent = len(worker.sent)
        self.dispatcher.acknowledge(worker.recipient, sent, 0, range(sent - count, sent))

    def test_givenBack(self) -> None:
        """
        A connection that is given back is in flight again, and goes to the
        newest generation alone, with what its protocol carries.
        """
        old = self.worker()
        self.served(old, 2)
        self.bench.giveBack(old, 1, b"state")
        self.assertEqual(self.dispatcher.account(), Account(2, 1, 0, 1))
        self.assertEqual((old.sent[2:], old.states), ([2], [b"state"]))
        self.dispatcher.acknowledge(old.recipient, 3, 1, [2])
        new = Worker(1, CREDIT, 2)
        self.dispatcher.schedule(new.recipient)
        self.bench.giveBack(old, 1, None)
        self.assertEqual((new.sent, new.states), ([3], []))
        self.assertEqual(self.dispatcher.account(), Account(2, 1, 0, 1))

    def test_givenBackShared(self) -> None:
        """
        What is given back is shared among the workers of the new generation.
        """
        old = self.worker()
        self.served(old, 4)
        self.dispatcher.unschedule(old.recipient)
        new = [self.worker(1), self.worker(2)]
        self.bench.giveBack(old, 4)
        self.assertEqual([len(one.sent) for one in new], [2, 2])

    def test_givenBackWaits(self) -> None:
        """
        Without a worker of the newest generation with credit it waits; it
        does not count against what the listeners may accept.
        """
        old = self.worker()
        self.served(old, 1)
        new = Worker(1, CREDIT, 2)
        self.dispatcher.schedule(new.recipient)
        self.dispatcher.throttle(new.recipient, True)
        self.bench.giveBack(old, 1)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.capacity), (1, CREDIT))
        self.dispatcher.throttle(new.recipient, False)
        self.assertEqual(new.sent, [1])

    def test_abandonedMany(self) -> None:
        """
        An app that opens and closes ports for ever does not make the master
        grow.
        """
        for listener in range(MAX_ABANDONED + 10):
            self.dispatcher.abandon(listener, "it is closed")
        self.assertEqual(len(self.dispatcher._abandoned), MAX_ABANDONED)

    def test_givenBackUnscheduled(self) -> None:
        """
        When the worker that it waits for gets no more connections, it goes to
        one of the generation before.
        """
        old = self.worker()
        self.served(old, 1)
        kept = self.worker(1)
        new = Worker(2, CREDIT, 2)
        self.dispatcher.schedule(new.recipient)
        self.dispatcher.unschedule(old.recipient)
        new.recipient.credit = 0
        self.bench.giveBack(old, 1)
        self.assertEqual(self.dispatcher.waiting, 1)
        self.dispatcher.unschedule(new.recipient)
        self.assertEqual((self.dispatcher.waiting, len(kept.sent)), (0, 1))

    def test_givenBackLost(self) -> None:
        """
        The worker that was to go on with a connection dies: it goes to
        another one, with its state, unless it had been touched since.
        """
        old = self.worker()
        self.served(old, 2)
        self.dispatcher.unschedule(old.recipient)
        new = self.worker(1)
        given = self.bench.giveBack(old, 2, b"state")
        self.bench.verdicts = {given[0]: False}
        self.dispatcher.lost(new.recipient)
        last = self.worker(2)
        self.assertEqual((last.sent, last.states), ([given[1]], [b"state"]))
        self.assertEqual(self.dispatcher.account(), Account(2, 1, 0, 1))

    def test_releaseHeld(self) -> None:
        """
        When descriptors run out, copies of what has arrived are given up, and
        no others.
        """
        worker = self.worker()
        self.bench.accept(3)
        self.dispatcher.acknowledge(worker.recipient, 2, 0, [0])
        self.assertEqual(self.dispatcher.releaseHeld(), 1)
        self.assertEqual(self.bench.closed, [0, 1])
        self.assertEqual(self.dispatcher.account(), Account(3, 2, 0, 1))

    def test_shedWaiting(self) -> None:
        """
        What waits can be shed, with a reason.
        """
        self.bench.accept(2)
        self.assertEqual(self.dispatcher.shedWaiting("because"), 2)
        self.assertEqual(self.bench.sheds, [(2, "because")])
        self.assertEqual(self.dispatcher.capacity, 0)
        self.assertEqual(self.dispatcher.shedWaiting("because"), 0)
        self.assertEqual(len(self.bench.sheds), 1)


class LyingWorkerTests(SynchronousTestCase):
    """
    What a worker says that can't be is its fault, and does not disturb the
    account.
    """

    def setUp(self) -> None:
        self.bench = Bench()
        self.dispatcher = self.bench.dispatcher
        self.liar = Worker(0)
        self.dispatcher.schedule(self.liar.recipient)
        self.bench.accept(3)
        self.dispatcher.acknowledge(self.liar.recipient, 2, 1, [0])

    def assertLie(self, call: Any, *arguments: Any) -> None:
        """
        It is a lie; when the liar has been dropped for it, everything is
        accounted for.
        """
        self.assertRaises(PeerError, call, self.liar.recipient, *arguments)
        self.assertGreaterEqual(self.liar.recipient.connections, 0)
        account = self.dispatcher.account()
        self.assertEqual(account.accepted, account.acked + account.shed + account.inFlight)
        self.assertEqual(account.inFlight, self.bench.made - len(self.bench.closed))
        self.dispatcher.lost(self.liar.recipient)
        honest = Worker(1)
        self.dispatcher.schedule(honest.recipient)
        everywhere = sorted(self.bench.closed + honest.sent)
        self.assertEqual(everywhere, list(range(self.bench.made)))

    def test_receivedTooMuch(self) -> None:
        """More has arrived than was sent."""
        self.assertLie(self.dispatcher.acknowledge, 4, 1, [])

    def test_receivedBackwards(self) -> None:
        """Less has arrived than before."""
        self.assertLie(self.dispatcher.acknowledge, 1, 1, [])

    def test_closedTooMuch(self) -> None:
        """More connections are over than have arrived."""
        self.assertLie(self.dispatcher.acknowledge, 2, 3, [])

    def test_closedBackwards(self) -> None:
        """Fewer connections are over than before."""
        self.assertLie(self.dispatcher.acknowledge, 2, 0, [])

    def test_closedNegative(self) -> None:
        """A number below nought."""
        self.assertLie(self.dispatcher.acknowledge, 2, -1, [])

    def test_touchedUnknown(self) -> None:
        """A socket that it was never sent."""
        self.assertLie(self.dispatcher.acknowledge, 3, 1, [1, 99])

    def test_touchedTwice(self) -> None:
        """A socket that it has acknowledged already."""
        self.assertLie(self.dispatcher.acknowledge, 3, 1, [0])

    def test_refusedUnknown(self) -> None:
        """It refuses a socket that it was never sent, after one that it was."""
        self.assertLie(self.dispatcher.refuse, [1, 99])

    def test_refusedTwice(self) -> None:
        """It refuses one socket twice in a breath."""
        self.assertLie(self.dispatcher.refuse, [1, 1])

    def test_refusedAfterTouch(self) -> None:
        """It refuses what it has begun to serve."""
        self.assertLie(self.dispatcher.refuse, [0])

    def test_refusedAndClosed(self) -> None:
        """What it has refused can't be over too."""
        self.dispatcher.refuse(self.liar.recipient, [1, 2])
        self.assertLie(self.dispatcher.acknowledge, 3, 3, [])

    def test_closedAndRefused(self) -> None:
        """What is over can't be refused too."""
        self.dispatcher.acknowledge(self.liar.recipient, 3, 3, [])
        self.assertLie(self.dispatcher.refuse, [1, 2])

    def test_givenBackTooMuch(self) -> None:
        """It gives back more than it serves; what it sent is closed."""
        given = [Connection(self.bench.descriptor(), 0, (), None, (1, 1)) for _ in range(2)]
        self.assertLie(self.dispatcher.giveBack, given)
        self.assertEqual([one.descriptor in self.bench.closed for one in given], [True, True])
