"""
Tests for L{twisted_cluster.policy.scheduling}.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from twisted_cluster.interfaces import ILoad, IScheduler
from twisted_cluster.policy.scheduling import BUILT_IN, LeastConnections, RoundRobin

PEER = ("127.0.0.1", 50000)


@implementer(ILoad)
@dataclass
class Load:
    """
    A worker that can take a connection.
    """

    slot: int
    connections: int = 0


def loadsOf(*slots: int) -> list[Load]:
    """
    Idle workers in C{slots}.
    """
    return [Load(slot) for slot in slots]


slotSets = st.sets(st.integers(0, 6), min_size=1).map(sorted)
loadLists = st.lists(st.integers(0, 5), min_size=1, max_size=8).map(
    lambda counts: [Load(slot, connections) for slot, connections in enumerate(counts)]
)


class BuiltInTests(SynchronousTestCase):
    """
    The policies as the rest of the package finds them.
    """

    def test_names(self) -> None:
        """
        The default policy comes first.
        """
        self.assertEqual(list(BUILT_IN), ["round-robin", "least-connections"])

    def test_interfaces(self) -> None:
        """
        Each built-in policy is what it says it is, and so is a L{Load}.
        """
        for name, make in BUILT_IN.items():
            self.assertTrue(verifyObject(IScheduler, make(Random(1))), name)
        self.assertTrue(verifyClass(IScheduler, RoundRobin))
        self.assertTrue(verifyClass(IScheduler, LeastConnections))
        self.assertTrue(verifyObject(ILoad, Load(0)))

    def test_madeAnew(self) -> None:
        """
        Two clusters in one process do not take turns with each other.
        """
        for make in BUILT_IN.values():
            self.assertIsNot(make(Random(1)), make(Random(1)))
        one, other = (BUILT_IN["round-robin"](Random(1)) for _ in range(2))
        one.choose(loadsOf(0, 1), PEER)
        self.assertEqual(other.choose(loadsOf(0, 1), PEER).slot, 0)

    @given(st.sampled_from(sorted(BUILT_IN)), loadLists, st.integers())
    def test_choosesOneOfTheLoads(self, name: str, loads: list[Load], seed: int) -> None:
        """
        What is chosen is the very object that was offered, and the offer is
        not changed.
        """
        before = [(load.slot, load.connections) for load in loads]
        chosen = BUILT_IN[name](Random(seed)).choose(loads, PEER)
        self.assertTrue(any(chosen is load for load in loads))
        self.assertEqual([(load.slot, load.connections) for load in loads], before)

    @given(st.sampled_from(sorted(BUILT_IN)), st.integers(1, 8), st.integers(0, 100))
    def test_connectionsThatStayAreEven(self, name: str, workers: int, connections: int) -> None:
        """
        Connections that are never closed end up evenly spread.
        """
        scheduler, loads = BUILT_IN[name](Random(7)), loadsOf(*range(workers))
        for _ in range(connections):
            chosen = scheduler.choose(loads, PEER)
            loads[chosen.slot].connections += 1
        counts = [load.connections for load in loads]
        self.assertLessEqual(max(counts) - min(counts), 1)


class RoundRobinTests(SynchronousTestCase):
    """
    Tests for L{RoundRobin}.
    """

    def choices(self, *offers: tuple[int, ...]) -> list[int]:
        """
        The slots that one policy chooses from C{offers}, in turn.
        """
        scheduler = RoundRobin()
        return [scheduler.choose(loadsOf(*slots), PEER).slot for slots in offers]

    def test_turns(self) -> None:
        """
        Each slot has its turn, the lowest one first.
        """
        self.assertEqual(self.choices(*[(0, 1, 2)] * 7), [0, 1, 2, 0, 1, 2, 0])

    def test_onlyOne(self) -> None:
        """
        A single worker has every turn.
        """
        self.assertEqual(self.choices((3,), (3,), (3,)), [3, 3, 3])

    def test_withoutCredit(self) -> None:
        """
        A slot that has no credit misses its turn; the order stays.
        """
        self.assertEqual(self.choices((0, 1, 2), (0, 2), (0, 1, 2), (0, 1, 2)), [0, 2, 0, 1])

    def test_chosenOneVanishes(self) -> None:
        """
        The turn goes on from a slot that is gone.
        """
        self.assertEqual(self.choices((0, 1, 2), (0, 1, 2), (0, 2), (0, 2)), [0, 1, 2, 0])

    def test_blindToConnections(self) -> None:
        """
        The number of connections makes no difference.
        """
        self.assertEqual(RoundRobin().choose([Load(0, 1000), Load(1, 0)], PEER).slot, 0)

    @given(st.lists(slotSets, max_size=40))
    def test_nobodyIsPassedOver(self, offers: list[list[int]]) -> None:
        """
        No slot has two turns while another is offered all the time between
        them and has none.
        """
        choices = self.choices(*map(tuple, offers))
        for first, slot in enumerate(choices):
            rest = choices[first + 1 :]
            if slot not in rest:
                continue
            again = first + 1 + rest.index(slot)
            steady = set.intersection(*map(set, offers[first : again + 1]))
            self.assertLessEqual(steady, set(choices[first : again + 1]))


class LeastConnectionsTests(SynchronousTestCase):
    """
    Tests for L{LeastConnections}.
    """

    def test_fewest(self) -> None:
        """
        The worker with the fewest connections is chosen.
        """
        loads = [Load(0, 3), Load(1, 1), Load(2, 2)]
        self.assertIs(LeastConnections(Random(1)).choose(loads, PEER), loads[1])

    @given(loadLists, st.integers())
    def test_neverMoreThanAnother(self, loads: list[Load], seed: int) -> None:
        """
        No worker has fewer connections than the chosen one.
        """
        chosen = LeastConnections(Random(seed)).choose(loads, PEER)
        self.assertEqual(chosen.connections, min(load.connections for load in loads))

    def test_tiesAreDrawn(self) -> None:
        """
        Among equals all are chosen about equally often, so that connections
        which are closed at once do not all go to the lowest slot.
        """
        scheduler = LeastConnections(Random(1))
        loads = [Load(0), Load(1), Load(2, 1), Load(3)]
        counts = Counter(scheduler.choose(loads, PEER).slot for _ in range(3000))
        self.assertEqual(set(counts), {0, 1, 3})
        self.assertTrue(all(800 < number < 1200 for number in counts.values()), counts)

    def test_drawnFromItsOwnSource(self) -> None:
        """
        The same seed gives the same choices.
        """
        loads = loadsOf(*range(8))
        one, other = (LeastConnections(Random(5)) for _ in range(2))
        self.assertEqual(
            [one.choose(loads, PEER).slot for _ in range(50)],
            [other.choose(loads, PEER).slot for _ in range(50)],
        )
