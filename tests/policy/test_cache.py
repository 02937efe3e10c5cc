"""
Tests for L{twisted_cluster.policy.cache}.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError
from twisted_cluster.policy.cache import OVERHEAD, SPARE, Cache

ROOM = 4
"""How many entries of one byte each the caches of these tests hold."""

ENTRY = OVERHEAD + 2


class CacheTests(SynchronousTestCase):
    """
    What a cache holds.
    """

    def setUp(self) -> None:
        self.cache = Cache(ROOM * ENTRY)

    def fill(self) -> None:
        """
        Set as much as it holds.
        """
        for key in "abcd":
            self.cache.set(key, b"x", None, 0.0)

    def test_getAndSet(self) -> None:
        """
        What was set last is got, and counted.
        """
        self.assertIsNone(self.cache.get("a", 0.0))
        self.cache.set("a", b"1", None, 0.0)
        self.cache.set("a", b"2", None, 0.0)
        self.assertEqual(self.cache.get("a", 0.0), b"2")
        self.assertEqual((self.cache.hits, self.cache.misses, len(self.cache)), (1, 1, 1))

    def test_expiry(self) -> None:
        """
        A value is held for as long as its ttl says; another one has its own.
        """
        self.cache.set("a", b"x", 10.0, 5.0)
        self.assertEqual(self.cache.get("a", 14.9), b"x")
        self.assertIsNone(self.cache.get("a", 15.0))
        self.assertEqual(len(self.cache), 0)
        self.cache.set("a", b"x", 10.0, 20.0)
        self.cache.set("a", b"y", None, 21.0)
        self.assertEqual(self.cache.get("a", 99.0), b"y")

    def test_leastRecentlyUsed(self) -> None:
        """
        What has been unused for longest is pushed out.
        """
        self.fill()
        self.cache.get("a", 0.0)
        self.cache.set("e", b"x", None, 0.0)
        self.assertIsNone(self.cache.get("b", 0.0))
        self.assertEqual(self.cache.get("a", 0.0), b"x")
        self.assertEqual(self.cache.evictions, 1)

    def test_expiredFirst(self) -> None:
        """
        What has expired goes before anything that is of use.
        """
        self.fill()
        self.cache.set("d", b"x", 1.0, 0.0)
        self.cache.set("e", b"x", None, 2.0)
        self.assertEqual([self.cache.get(key, 2.0) for key in "abce"], [b"x"] * 4)
        self.assertEqual(self.cache.evictions, 0)

    def test_tooLarge(self) -> None:
        """
        What alone is larger than the cache is refused, and nothing else is
        pushed out; what its key held is no more.
        """
        self.fill()
        with self.assertRaisesRegex(AppError, "can't cache 'a': it takes .* --cache-size"):
            self.cache.set("a", bytes(ROOM * ENTRY), None, 0.0)
        self.assertIsNone(self.cache.get("a", 0.0))
        self.assertEqual(self.cache.get("b", 0.0), b"x")

    def test_delete(self) -> None:
        """
        Whether something was there is told.
        """
        self.cache.set("a", b"x", 1.0, 0.0)
        self.assertTrue(self.cache.delete("a", 0.5))
        self.assertFalse(self.cache.delete("a", 0.5))
        self.cache.set("a", b"x", 1.0, 0.0)
        self.assertFalse(self.cache.delete("a", 1.0))
        self.assertEqual(self.cache.size, 0)

    def test_increment(self) -> None:
        """
        A counter begins at 0, and its ttl with the first increment.
        """
        self.assertEqual(self.cache.increment("a", 5, 10.0, 0.0), 5)
        self.assertEqual(self.cache.increment("a", -2, 10.0, 9.0), 3)
        self.assertEqual(self.cache.increment("a", 1, None, 10.0), 1)
        self.assertEqual(self.cache.increment("a", 1, None, 99.0), 2)

    def test_noInteger(self) -> None:
        """
        What is no integer can't be incremented, and is left as it is.
        """
        self.cache.set("a", b"bx", None, 0.0)
        with self.assertRaises(AppError):
            self.cache.increment("a", 1, None, 0.0)
        self.assertEqual(self.cache.get("a", 0.0), b"bx")

    def test_replacedExpirations(self) -> None:
        """
        An entry that is set over and over does not leave its expirations
        behind.
        """
        for moment in range(1000):
            self.cache.set("a", b"x", 60.0, float(moment))
        self.assertLessEqual(len(self.cache._expirations), SPARE + 3)
        self.assertEqual(self.cache.get("a", 1058.0), b"x")
        self.assertIsNone(self.cache.get("a", 1059.0))


class CacheMachine(RuleBasedStateMachine):
    """
    A cache beside a plain dict that forgets nothing.
    """

    keys = st.sampled_from("abcdefgh")
    ttls = st.none() | st.sampled_from([1.0, 5.0])

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(ROOM * (OVERHEAD + 10))
        self.model: dict[str, tuple[bytes, float | None]] = {}
        self.now = 0.0

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(key=keys, value=st.binary(max_size=9), ttl=ttls)
    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Set, and it is there."""
        self.cache.set(key, value, ttl, self.now)
        self.model[key] = (value, None if ttl is None else self.now + ttl)
        assert self.cache.get(key, self.now) == value

    @rule(key=keys)
    def get(self, key: str) -> None:
        """What is found is what was set, and has not expired."""
        found = self.cache.get(key, self.now)
        if found is not None:
            value, expires = self.model[key]
            assert found == value
            assert expires is None or self.now < expires

    @rule(key=keys)
    def delete(self, key: str) -> None:
        """Delete, and it is not there."""
        self.cache.delete(key, self.now)
        self.model.pop(key, None)
        assert self.cache.get(key, self.now) is None

    @invariant()
    def bounded(self) -> None:
        """It holds as much as it may, and knows how much that is."""
        assert self.cache.size <= self.cache.limit
        assert self.cache.size == sum(one.size for one in self.cache._entries.values())


class MachineTests(SynchronousTestCase):
    """
    Any order of events.
    """

    def test_anyOrder(self) -> None:
        """
        What holds for the machine holds whatever happens to it.
        """
        run_state_machine_as_test(CacheMachine, settings=settings(max_examples=50, deadline=None))
