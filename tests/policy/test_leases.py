"""
Tests for L{twisted_cluster.policy.leases}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.leases import GiveBack, Lines, Step, Table, Try


class TableTests(SynchronousTestCase):
    """
    The leases that are held.
    """

    def setUp(self) -> None:
        self.table = Table(lastToken=7)

    def test_oneHolder(self) -> None:
        """
        Whoever comes second gets nothing, until the first one releases it;
        tokens grow.
        """
        self.assertEqual(self.table.acquire("n", "a", 3.0, 0.0), 8)
        self.assertIsNone(self.table.acquire("n", "b", 3.0, 1.0))
        self.assertEqual(self.table.acquire("m", "b", 3.0, 1.0), 9)
        self.assertTrue(self.table.release("n", "a"))
        self.assertEqual(self.table.acquire("n", "b", 3.0, 1.0), 10)

    def test_repeated(self) -> None:
        """
        A request that is repeated has the same answer.
        """
        self.table.acquire("n", "a", 3.0, 0.0)
        self.assertEqual(self.table.acquire("n", "a", 3.0, 2.0), 8)
        self.assertIsNone(self.table.acquire("n", "b", 3.0, 4.0))

    def test_expiry(self) -> None:
        """
        One that is not renewed can be had by others when its time is over,
        and then is lost to the first holder.
        """
        self.table.acquire("n", "a", 3.0, 0.0)
        self.assertTrue(self.table.renew("n", "a", 3.0, 2.0))
        self.assertIsNone(self.table.acquire("n", "b", 3.0, 4.9))
        self.assertEqual(self.table.acquire("n", "b", 3.0, 5.0), 9)
        self.assertFalse(self.table.renew("n", "a", 3.0, 5.0))
        self.assertFalse(self.table.release("n", "a"))
        self.assertEqual(len(self.table), 1)

    def test_renewedLate(self) -> None:
        """
        One whose time is over can be renewed if nobody wanted it.
        """
        self.table.acquire("n", "a", 3.0, 0.0)
        self.assertTrue(self.table.renew("n", "a", 3.0, 9.0))
        self.assertIsNone(self.table.acquire("n", "b", 3.0, 11.0))

    def test_nobodys(self) -> None:
        """
        What nobody holds can be neither renewed nor released.
        """
        self.assertFalse(self.table.renew("n", "a", 3.0, 0.0))
        self.assertFalse(self.table.release("n", "a"))


class LinesTests(SynchronousTestCase):
    """
    Who is next within one master.
    """

    def setUp(self) -> None:
        self.lines = Lines()

    def test_first(self) -> None:
        """
        The first asks the backend, the second waits for the first.
        """
        self.assertEqual(self.lines.ask("n", "a"), (Try("n", "a"),))
        self.assertEqual(self.lines.ask("n", "b"), ())
        self.assertEqual(self.lines.answered("n", "a", True), ())
        self.assertEqual(list(self.lines.holders()), [("n", "a")])
        self.assertEqual(self.lines.end("n", "a"), (GiveBack("n", "a"), Try("n", "b")))
        self.assertEqual(list(self.lines.holders()), [])

    def test_leftInLine(self) -> None:
        """
        Who leaves from the middle of the line is not asked for any more.
        """
        for owner in "abc":
            self.lines.ask("n", owner)
        self.lines.answered("n", "a", True)
        self.assertEqual(self.lines.end("n", "b"), ())
        self.assertEqual(self.lines.end("n", "a"), (GiveBack("n", "a"), Try("n", "c")))

    def test_leftWhileTrying(self) -> None:
        """
        If who left gets the lease all the same, it is given back first.
        """
        self.lines.ask("n", "a")
        self.lines.ask("n", "b")
        self.assertEqual(self.lines.end("n", "a"), ())
        self.assertEqual(self.lines.end("n", "a"), ())
        self.assertEqual(self.lines.answered("n", "a", True), (GiveBack("n", "a"), Try("n", "b")))

    def test_leftWhileTryingInVain(self) -> None:
        """
        If it does not, the next one tries.
        """
        self.lines.ask("n", "a")
        self.lines.ask("n", "b")
        self.lines.end("n", "a")
        self.assertEqual(self.lines.answered("n", "a", False), (Try("n", "b"),))

    def test_blocked(self) -> None:
        """
        Who did not get it tries again when it may be free, and only then.
        """
        self.lines.ask("n", "a")
        self.assertEqual(self.lines.retry("n"), ())
        self.lines.answered("n", "a", False)
        self.assertEqual(list(self.lines.blocked()), ["n"])
        self.assertEqual(self.lines.retry("n"), (Try("n", "a"),))
        self.assertEqual(self.lines.retry("n"), ())
        self.assertEqual(self.lines.retry("other"), ())

    def test_leftWhileBlocked(self) -> None:
        """
        There is nothing to give back then.
        """
        self.lines.ask("n", "a")
        self.lines.ask("n", "b")
        self.lines.answered("n", "a", False)
        self.assertEqual(self.lines.end("n", "a"), (Try("n", "b"),))

    def test_forgotten(self) -> None:
        """
        Nothing is kept of a lease that nobody wants, and its end may be told
        more than once.
        """
        self.lines.ask("n", "a")
        self.lines.answered("n", "a", True)
        self.assertEqual(len(self.lines), 1)
        self.assertEqual(self.lines.end("n", "a"), (GiveBack("n", "a"),))
        self.assertEqual(self.lines.end("n", "a"), ())
        self.assertEqual(len(self.lines), 0)
        self.assertEqual(list(self.lines.blocked()), [])


class LeaseMachine(RuleBasedStateMachine):
    """
    Two masters and one backend, whose answers are late.
    """

    names = st.sampled_from("mn")
    hosts = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.hosts_ = [Lines(), Lines()]
        self.pending: deque[tuple[int, Step]] = deque()
        self.asked: dict[tuple[int, str], deque[str]] = {}
        self.count = 0

    def take(self, host: int, steps: Iterable[Step]) -> None:
        """Have steps wait for the backend, which takes them in order."""
        self.pending.extend((host, step) for step in steps)

    @rule(host=hosts, name=names)
    def ask(self, host: int, name: str) -> None:
        """Somebody wants a lease."""
        self.count += 1
        owner = f"o{self.count}"
        self.asked.setdefault((host, name), deque()).append(owner)
        self.take(host, self.hosts_[host].ask(name, owner))

    @precondition(lambda self: any(self.asked.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Somebody does not want one any more, or has died."""
        host, name = data.draw(st.sampled_from([key for key, line in self.asked.items() if line]))
        owner = data.draw(st.sampled_from(list(self.asked[host, name])))
        self.asked[host, name].remove(owner)
        self.take(host, self.hosts_[host].end(name, owner))

    @precondition(lambda self: self.pending)
    @rule()
    def answer(self) -> None:
        """The backend takes the next step."""
        host, step = self.pending.popleft()
        if isinstance(step, GiveBack):
            assert self.table.release(step.name, step.owner)
            for number, lines in enumerate(self.hosts_):
                self.take(number, lines.retry(step.name))
            return
        got = self.table.acquire(step.name, step.owner, 9e9, 0.0) is not None
        self.take(host, self.hosts_[host].answered(step.name, step.owner, got))
        if not got:
            # What another host gave back meanwhile is noticed by asking again.
            self.take(host, self.hosts_[host].retry(step.name))

    @invariant()
    def oneHolder(self) -> None:
        """No lease has two holders, and the first in each line is it."""
        holders = [(name, owner) for lines in self.hosts_ for name, owner in lines.holders()]
        assert len({name for name, _ in holders}) == len(holders)
        for host, lines in enumerate(self.hosts_):
            for name, owner in lines.holders():
                assert self.asked[host, name][0] == owner

    def teardown(self) -> None:
        """Everybody who waits gets it in the end, in order."""
        for _ in range(10_000):
            for _ in range(len(self.pending)):
                self.answer()
            held = [(host, *one) for host in (0, 1) for one in self.hosts_[host].holders()]
            for host, name, owner in held:
                assert self.asked[host, name].popleft() == owner
                self.take(host, self.hosts_[host].end(name, owner))
            if not any(self.asked.values()) and not self.pending:
                break
        assert not any(self.asked.values())
        assert len(self.table) == 0
        assert not any(len(lines) for lines in self.hosts_)


class MachineTests(SynchronousTestCase):
    """
    Any order of events.
    """

    def test_anyOrder(self) -> None:
        """
        What holds for the machine holds whatever happens to it.
        """
        run_state_machine_as_test(LeaseMachine, settings=settings(max_examples=50, deadline=None))
