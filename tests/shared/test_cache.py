"""
Tests for L{twisted_cluster.shared.cache}, by way of master and workers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.shared.case import SharedTestCase
from twisted_cluster.errors import AppError, StateUnavailable
from twisted_cluster.shared.commons import Commons


class CacheTests(SharedTestCase):
    """
    What apps do with the cache.
    """

    def test_getAndSet(self) -> None:
        """
        What one worker has cached, all find.
        """
        self.done(self.one.cache.set("a", {"b": [1, b"x".hex()]}))
        for cache in (self.one.cache, self.two.cache, self.master.commons.cache):
            self.assertEqual(self.done(cache.get("a")), {"b": [1, "78"]})
        self.assertEqual(self.done(self.one.cache.get("x", "default")), "default")
        self.assertIsNone(self.done(self.one.cache.get("x")))

    def test_none(self) -> None:
        """
        L{None} is a value like any other.
        """
        self.done(self.one.cache.set("a", None))
        self.assertIsNone(self.done(self.two.cache.get("a", "default")))

    def test_ttl(self) -> None:
        """
        It holds a value for as long as is said.
        """
        self.done(self.one.cache.set("a", 1, ttl=10))
        self.wait(9.9)
        self.assertEqual(self.done(self.two.cache.get("a")), 1)
        self.wait(0.1)
        self.assertIsNone(self.done(self.two.cache.get("a")))

    def test_delete(self) -> None:
        """
        Whether there was something is told.
        """
        self.done(self.one.cache.set("a", 1))
        self.assertIs(self.done(self.two.cache.delete("a")), True)
        self.assertIs(self.done(self.one.cache.delete("a")), False)

    def test_increment(self) -> None:
        """
        A counter of all workers, with a ttl from its first increment on.
        """
        for cache in (self.one.cache, self.two.cache, self.master.commons.cache):
            cache.increment("n", 2, ttl=60.0)
        self.assertEqual(self.done(self.one.cache.increment("n", -1)), 5)
        self.assertEqual(self.done(self.one.cache.get("n")), 5)
        self.wait(60.0)
        self.assertEqual(self.done(self.one.cache.increment("n")), 1)

    def test_refused(self) -> None:
        """
        What can't be is refused with a reason.
        """
        cache = self.one.cache
        self.done(cache.set("text", "x"))
        wrong: list[tuple[Deferred[Any], str]] = [
            (cache.get(""), "can't use the key ''"),
            (cache.set("k" * 1025, 1), "it has 1025 bytes"),
            (cache.set("a", {1}), "can't send a set"),
            (cache.set("a", 1, ttl=0), "can't cache 'a' for 0 seconds; give more than 0"),
            (cache.set("a", bytes(1 << 24)), "more than the 16777216 that it may have"),
            (cache.set("a", bytes(1 << 20)), "give the master a larger --cache-size"),
            (cache.increment("text"), "can't increment 'text': it holds no integer"),
            (cache.increment("n", ttl=-1), "can't cache 'n' for -1 seconds"),
            (cache.getOrCompute("a", dict, ttl=-1), "can't cache 'a' for -1 seconds"),
        ]
        for deferred, text in wrong:
            self.assertIn(text, self.failed(deferred, AppError))
        self.assertEqual(self.done(cache.get("text")), "x")

    def test_largeAnswerWhileFull(self) -> None:
        """
        A large answer for which there is no room is not kept; the worker is
        told so when there is.
        """
        self.done(self.one.cache.set("a", bytes(500_000)))
        self.fabric.full = {"one"}
        large, small = self.one.cache.get("a"), self.one.cache.get("b")
        self.wait(1.0)
        self.fabric.full.clear()
        self.wait(0.25)
        self.assertIn("too much waits for this worker", self.failed(large, StateUnavailable))
        self.assertIsNone(self.successResultOf(small))

    def test_notAttached(self) -> None:
        """
        Without a master there is no cache.
        """
        cache = Commons().cache
        for deferred in (
            cache.get("a"),
            cache.set("a", 1),
            cache.delete("a"),
            cache.increment("a"),
            cache.getOrCompute("a", dict),
        ):
            self.failed(deferred, StateUnavailable)


class ComputeTests(SharedTestCase):
    """
    One computes, all others wait.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pending: list[Deferred[Any]] = []

    def compute(self) -> Deferred[Any]:
        """
        What takes its time.
        """
        pending: Deferred[Any] = Deferred()
        self.pending.append(pending)
        return pending

    def ask(self, count: int = 2) -> list[Deferred[Any]]:
        """
        So many requests in each worker, and in the master.
        """
        caches = (self.one.cache, self.two.cache, self.master.commons.cache)
        asked = [
            cache.getOrCompute("a", self.compute, ttl=60.0)
            for cache in caches
            for _ in range(count)
        ]
        self.settle()
        return asked

    def test_once(self) -> None:
        """
        However many ask, it is computed once.
        """
        asked = self.ask()
        self.assertEqual(len(self.pending), 1)
        for one in asked:
            self.assertNoResult(one)
        self.pending[0].callback({"n": (1, 2)})
        self.settle()
        self.assertEqual([self.successResultOf(one) for one in asked], [{"n": [1, 2]}] * 6)
        self.assertEqual(len(self.pending), 1)
        self.assertEqual(self.done(self.one.cache.get("a")), {"n": [1, 2]})
        self.wait(60.0)
        self.assertIsNone(self.done(self.one.cache.get("a")))

    def test_found(self) -> None:
        """
        What is there is not computed, nor is it changed.
        """
        self.done(self.one.cache.set("a", 5))
        self.assertEqual([self.successResultOf(one) for one in self.ask()], [5] * 6)
        self.assertEqual(self.pending, [])

    def test_kinds(self) -> None:
        """
        What computes may be a plain function or a coroutine.
        """

        async def slow() -> str:
            await self.one.cache.set("other", 1)
            return "slow"

        self.assertEqual(self.done(self.one.cache.getOrCompute("a", lambda: "plain")), "plain")
        self.assertEqual(self.done(self.one.cache.getOrCompute("b", slow)), "slow")

    def test_failure(self) -> None:
        """
        If it fails, its own caller is told, and the next one computes.
        """
        asked = self.ask()
        for number in range(5):
            self.pending[number].errback(KeyError(str(number)))
            self.settle()
        self.pending[5].callback("value")
        self.settle()
        results = [self.results(one) for one in asked]
        self.assertEqual(sorted(results), ["'0'", "'1'", "'2'", "'3'", "'4'", "value"])

    def results(self, deferred: Deferred[Any]) -> str:
        """
        What came of it, as text.
        """
        found: list[str] = []
        deferred.addCallbacks(
            lambda value: found.append(value), lambda failure: found.append(str(failure.value))
        )
        return found[0]

    def test_notToBeSent(self) -> None:
        """
        What can't be cached is a failure as well.
        """
        failed = self.one.cache.getOrCompute("a", lambda: {1})
        self.assertIn("can't send a set", self.failed(failed, AppError))
        self.assertEqual(self.done(self.two.cache.getOrCompute("a", lambda: 1)), 1)

    def test_death(self) -> None:
        """
        If the process that computes dies, another one computes.
        """
        first = self.one.cache.getOrCompute("a", self.compute)
        self.settle()
        others = [self.two.cache.getOrCompute("a", self.compute) for _ in range(2)]
        self.settle()
        self.assertEqual(len(self.pending), 1)
        self.kill(self.one)
        self.settle()
        self.assertEqual(len(self.pending), 2)
        self.pending[1].callback("second")
        self.settle()
        self.assertEqual([self.successResultOf(one) for one in others], ["second"] * 2)
        self.pending[0].callback("first")
        self.failureResultOf(first, StateUnavailable)

    def test_cancelled(self) -> None:
        """
        Who cancels what it computes lets the next one compute; who only waits
        disturbs nobody.
        """
        first, second, third = (self.one.cache.getOrCompute("a", self.compute) for _ in range(3))
        self.settle()
        second.cancel()
        self.failed(second, CancelledError)
        self.assertNoResult(third)
        first.cancel()
        self.failed(first, CancelledError)
        self.assertEqual(len(self.pending), 2)
        self.pending[1].callback("value")
        self.assertEqual(self.done(third), "value")

    def test_ownLease(self) -> None:
        """
        Leases of apps have nothing to do with it, whatever their names.
        """
        for name in ("a", "compute/a"):
            self.done(self.two.leases.lease(name))
        self.assertEqual(self.done(self.one.cache.getOrCompute("a", lambda: 1)), 1)
