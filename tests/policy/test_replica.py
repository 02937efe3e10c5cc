"""
Tests for L{twisted_cluster.policy.replica} and
L{twisted_cluster.policy.counters}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError
from twisted_cluster.interfaces import MAX_INTEGER, Change, Snapshot, Write
from twisted_cluster.policy.counters import increased, numberIn
from twisted_cluster.policy.replica import Applied, Gap, Replica, Stale, decide, weight

keys = st.sampled_from(["a", "b", "c", "d"])
values = st.sampled_from([b"jnull", b"j1.5", b"bx", b"i1", b"i-7"])
items = st.dictionaries(keys, values)
targets = st.dictionaries(keys, st.none() | values)
writes = st.builds(
    Write,
    id=st.just("w"),
    sets=targets,
    expects=st.just({}) | targets,
    increments=st.just({}) | st.dictionaries(keys, st.integers(-3, 3)),
)


def sized(replica: Replica) -> int:
    """
    What the size of a replica has to be.
    """
    return sum(weight(key, value) for key, value in replica.items.items())


def tried(replica: Replica, write: Write) -> Change | None:
    """
    The step that a write takes, if it takes one.
    """
    try:
        return decide(replica, write)
    except AppError:
        return None


class ReplicaTests(SynchronousTestCase):
    """
    How a replica goes ahead.
    """

    def setUp(self) -> None:
        self.replica = Replica(Snapshot("one", 5, {"a": b"i1", "b": b"bx"}))

    def test_beginning(self) -> None:
        """
        A replica begins with nothing, or with a snapshot.
        """
        empty = Replica()
        self.assertEqual((empty.epoch, empty.version, dict(empty.items)), ("", 0, {}))
        snapshot = self.replica.snapshot()
        self.assertEqual((snapshot.epoch, snapshot.version), ("one", 5))
        self.assertEqual(dict(snapshot.items), {"a": b"i1", "b": b"bx"})

    def test_apply(self) -> None:
        """
        The next step sets and deletes, and tells which keys differ.
        """
        change = Change(6, {"a": None, "b": b"bx", "c": b"j{}"})
        self.assertEqual(self.replica.apply(change), Applied(("a", "c")))
        self.assertEqual(dict(self.replica.items), {"b": b"bx", "c": b"j{}"})
        self.assertEqual(self.replica.version, 6)

    def test_gap(self) -> None:
        """
        A step too far does nothing.
        """
        self.assertEqual(self.replica.apply(Change(7, {"a": None})), Gap(6))
        self.assertEqual((self.replica.version, self.replica.items["a"]), (5, b"i1"))

    def test_stale(self) -> None:
        """
        Nor does one that was taken before.
        """
        self.assertEqual(self.replica.apply(Change(5, {"a": None})), Stale())
        self.assertEqual((self.replica.version, self.replica.items["a"]), (5, b"i1"))

    def test_reset(self) -> None:
        """
        A snapshot may lead anywhere, back too, and tells which keys differ.
        """
        applied = self.replica.reset(Snapshot("two", 2, {"b": b"by", "c": b"i3"}))
        self.assertEqual(set(applied.keys), {"a", "b", "c"})
        self.assertEqual((self.replica.epoch, self.replica.version), ("two", 2))
        self.assertEqual(dict(self.replica.items), {"b": b"by", "c": b"i3"})

    def test_readOnly(self) -> None:
        """
        Whoever has the items can't change them.
        """
        living: Any = self.replica.items
        with self.assertRaises(TypeError):
            living["a"] = b"i2"

    @given(items, st.lists(st.one_of(targets, items.map(lambda found: ("reset", found)))))
    def test_followers(self, first: dict[str, bytes], steps: list[Any]) -> None:
        """
        A replica that takes all steps equals what the steps say, whatever they
        are, and knows its size; the keys told are just those that differ.
        """
        replica, expected = Replica(Snapshot("e", 0, first)), dict(first)
        for step in steps:
            before = dict(expected)
            if isinstance(step, tuple):
                expected = dict(step[1])
                applied: Any = replica.reset(Snapshot("e", replica.version + 3, step[1]))
            else:
                expected.update(step)
                expected = {key: value for key, value in expected.items() if value is not None}
                applied = replica.apply(Change(replica.version + 1, step))
            every = before.keys() | expected.keys()
            different = {key for key in every if before.get(key) != expected.get(key)}
            self.assertEqual(set(applied.keys), different)
            self.assertEqual(len(applied.keys), len(different))
            self.assertEqual(dict(replica.items), expected)
            self.assertEqual(replica.size, sized(replica))


class DecideTests(SynchronousTestCase):
    """
    What a write does.
    """

    def setUp(self) -> None:
        self.replica = Replica(Snapshot("one", 5, {"a": b"i1", "b": b"bx"}))

    def test_sets(self) -> None:
        """
        Only what differs is touched.
        """
        write = Write("w", sets={"a": b"i1", "b": None, "c": b"by", "d": None})
        self.assertEqual(decide(self.replica, write), Change(6, {"b": None, "c": b"by"}))

    def test_expects(self) -> None:
        """
        Nothing is done unless all holds that is expected.
        """
        for expects, holds in (
            ({"a": b"i1"}, True),
            ({"a": b"i1", "b": b"bx", "c": None}, True),
            ({"a": b"i2"}, False),
            ({"a": None}, False),
            ({"c": b"bx"}, False),
            ({"a": b"i1", "b": None}, False),
        ):
            write = Write("w", sets={"c": b"by"}, expects=expects)
            wanted = Change(6, {"c": b"by"}) if holds else None
            self.assertEqual(decide(self.replica, write), wanted, expects)

    def test_increments(self) -> None:
        """
        What is absent counts as 0.
        """
        write = Write("w", increments={"a": 41, "c": -1})
        self.assertEqual(decide(self.replica, write), Change(6, {"a": b"i42", "c": b"i-1"}))

    def test_nothing(self) -> None:
        """
        A write without an effect is a step that touches nothing.
        """
        self.assertEqual(decide(self.replica, Write("w", increments={"a": 0})), Change(6, {}))

    def test_refused(self) -> None:
        """
        What can't be incremented is refused, and so is what would be both set
        and incremented.
        """
        with self.assertRaisesRegex(AppError, "can't increment 'b': it holds no integer"):
            decide(self.replica, Write("w", increments={"b": 1}))
        with self.assertRaisesRegex(AppError, "can't increment 'a': the same write sets it"):
            decide(self.replica, Write("w", sets={"a": b"i1"}, increments={"a": 1}))

    def test_size(self) -> None:
        """
        The state can't grow beyond its limit, but shrink where it is beyond.
        """
        size = self.replica.size + weight("c", b"by")
        self.assertIsNotNone(decide(self.replica, Write("w", sets={"c": b"by"}), limit=size))
        with self.assertRaisesRegex(AppError, f"it would have {size} bytes, more than the"):
            decide(self.replica, Write("w", sets={"c": b"by"}), limit=size - 1)
        self.assertIsNotNone(decide(self.replica, Write("w", sets={"b": None}), limit=0))

    @given(items, st.lists(writes))
    def test_followed(self, first: dict[str, bytes], given: list[Write]) -> None:
        """
        What is decided can always be applied by whoever has the same replica.
        """
        replica = Replica(Snapshot("e", 0, first))
        follower = Replica(Snapshot("e", 0, first))
        for write in given:
            change = tried(replica, write)
            if change is not None:
                replica.apply(change)
                self.assertIsInstance(follower.apply(change), Applied)
                for key, value in write.sets.items():
                    self.assertEqual(follower.items.get(key), value)
        self.assertEqual(dict(follower.items), dict(replica.items))


class CounterTests(SynchronousTestCase):
    """
    Sums of encoded integers.
    """

    def test_limits(self) -> None:
        """
        64 bits, in both directions.
        """
        self.assertEqual(increased("k", None, MAX_INTEGER), b"i9223372036854775807")
        self.assertEqual(increased("k", b"i-1", -MAX_INTEGER), b"i-9223372036854775808")
        for start, by in ((MAX_INTEGER, 1), (-MAX_INTEGER - 1, -1)):
            with self.assertRaisesRegex(AppError, "takes more than 64 bits"):
                increased("k", b"i%d" % start, by)

    @given(st.integers(-(2**62), 2**62 - 1), st.integers(-(2**62), 2**62))
    def test_sum(self, start: int, by: int) -> None:
        """
        The sum is that of the numbers.
        """
        self.assertEqual(numberIn("k", increased("k", b"i%d" % start, by)), start + by)
