"""
Tests for L{twisted_cluster.shared.state}, by way of master and workers.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.shared.case import SharedTestCase
from twisted_cluster.errors import AppError, StateUnavailable
from twisted_cluster.interfaces import MAX_KEY, MAX_SHARED_VALUE
from twisted_cluster.missing import MISSING, Missing
from twisted_cluster.shared.commons import Commons
from twisted_cluster.wire import sharing


class StateTests(SharedTestCase):
    """
    What apps do with the state.
    """

    def test_set(self) -> None:
        """
        What one worker sets, all have; whoever has set it has it when told so.
        """
        self.done(self.one.state.set("a", {"b": [1, None, "c"]}))
        for state in (self.one.state, self.two.state, self.master.commons.state):
            self.assertEqual(state["a"], {"b": [1, None, "c"]})
            self.assertEqual(state.version, 1)

    def test_ownWrites(self) -> None:
        """
        When a write is done, its writer reads what it wrote, and has heard of
        it as a watcher, though others may not have yet.
        """
        seen: list[Any] = []
        self.one.state.watch("n", lambda key, value: seen.append(value))
        for _ in range(20):
            done = self.one.state.increment("n")
            done.addCallback(
                lambda total: seen.append((total, self.one.state["n"], self.one.state.version))
            )
        self.settle()
        told = [entry for entry in seen if isinstance(entry, tuple)]
        self.assertEqual([total for total, _, _ in told], list(range(1, 21)))
        for total, read, version in told:
            self.assertGreaterEqual(read, total)
            self.assertGreaterEqual(version, total)
            self.assertLess(seen.index(total), seen.index((total, read, version)))

    def test_mapping(self) -> None:
        """
        It reads as any mapping does.
        """
        self.done(self.one.state.update({"a": 1, "b": b"\0bytes", "c": None}))
        state = self.two.state
        self.assertEqual(dict(state), {"a": 1, "b": b"\0bytes", "c": None})
        self.assertEqual((sorted(state), len(state)), (["a", "b", "c"], 3))
        self.assertEqual((state.get("a"), state.get("x"), state.get("x", 5)), (1, None, 5))
        self.assertIn("c", state)
        self.assertNotIn("x", state)
        with self.assertRaises(KeyError):
            state["x"]
        self.assertEqual(repr(state), "<State version=1 keys=3>")

    def test_delete(self) -> None:
        """
        What is deleted is absent everywhere; what was absent is nothing to
        delete.
        """
        self.done(self.one.state.set("a", 1))
        self.done(self.two.state.delete("a"))
        self.done(self.two.state.delete("b"))
        self.assertEqual((dict(self.one.state), self.one.state.version), ({}, 2))

    def test_atomicUpdate(self) -> None:
        """
        An update is one step, to watchers too.
        """
        self.done(self.one.state.set("c", 0))
        seen: list[dict[str, Any]] = []
        self.two.state.watch("*", lambda key, value: seen.append(dict(self.two.state)))
        self.done(self.one.state.update({"a": 1, "b": 2, "c": MISSING}))
        self.assertEqual(seen, [{"a": 1, "b": 2}] * 3)
        self.assertEqual(self.two.state.version, 2)

    def test_compareAndSet(self) -> None:
        """
        Of several who expect the same, one has its way.
        """
        claims = [
            one.state.compareAndSet("leader", MISSING, name)
            for one, name in ((self.one, "one"), (self.two, "two"))
        ]
        self.settle()
        self.assertEqual([self.successResultOf(claim) for claim in claims], [True, False])
        self.assertEqual(self.two.state["leader"], "one")
        self.assertFalse(self.done(self.two.state.compareAndSet("leader", "two", "x")))
        self.assertTrue(self.done(self.two.state.compareAndSet("leader", "one", "x")))
        self.assertTrue(self.done(self.one.state.compareAndSet("leader", "x", MISSING)))
        self.assertNotIn("leader", self.two.state)

    def test_increment(self) -> None:
        """
        Every increment counts, whoever makes it.
        """
        sums = [
            one.increment("n", by)
            for _ in range(50)
            for one, by in ((self.one.state, 1), (self.two.state, 3))
        ]
        sums.append(self.master.commons.state.increment("n"))
        self.settle()
        self.assertEqual(len({self.successResultOf(one) for one in sums}), len(sums))
        self.assertEqual(self.one.state["n"], 201)
        self.assertEqual(self.done(self.one.state.increment("n", 0)), 201)

    def test_refused(self) -> None:
        """
        What can't be written is refused with a reason, and changes nothing.
        """
        self.done(self.one.state.set("text", "x"))
        state = self.one.state
        wrong: list[tuple[Deferred[Any], str]] = [
            (state.increment("text"), "can't increment 'text': it holds no integer; set it to"),
            (state.increment("n", 1 << 64), "can't increment 'n': 18446744073709551616 is no"),
            (state.increment("n", 1.5), "can't increment 'n': 1.5 is no integer"),  # type: ignore
            (state.set("", 1), "can't use the key '': it has 0 bytes; take 1 to 1024"),
            (state.set("k" * (MAX_KEY + 1), 1), "it has 1025 bytes"),
            (state.set("\ud800", 1), "take valid Unicode"),
            (state.set("a", {1, 2}), "can't send a set"),
            (state.set("a", bytes(MAX_SHARED_VALUE)), "more than the 16777216 that it may have"),
            (state.update({"b": 1, "": 2}), "can't use the key ''"),
        ]
        for deferred, text in wrong:
            self.assertIn(text, self.failed(deferred, AppError))
        self.assertEqual(dict(self.two.state), {"text": "x"})

    def test_copies(self) -> None:
        """
        Whoever changes what was read changes nothing that others read.
        """
        self.done(self.one.state.set("a", [1]))
        self.one.state["a"].append(2)
        self.assertEqual(self.one.state["a"], [1])

    def test_watch(self) -> None:
        """
        A watcher is told of its key, or of all that begin so, until it stops.
        """
        seen: list[tuple[str, Any]] = []
        stops = [
            self.one.state.watch(key, lambda key, value: seen.append((key, value)))
            for key in ("user/1", "user/*")
        ]
        self.done(self.two.state.update({"user/1": "a", "user/2": "b", "other": "c"}))
        self.assertEqual(sorted(seen), [("user/1", "a"), ("user/1", "a"), ("user/2", "b")])
        seen.clear()
        stops[0]()
        stops[0]()
        self.done(self.two.state.update({"user/1": MISSING, "user/2": "b"}))
        self.assertEqual(seen, [("user/1", MISSING)])
        stops[1]()
        self.done(self.two.state.set("user/3", 1))
        self.assertEqual(len(seen), 1)

    def test_failingWatcher(self) -> None:
        """
        A watcher that fails is told of in the log, and disturbs nobody.
        """
        seen: list[Any] = []
        self.one.state.watch("a", lambda key, value: 1 / 0)
        self.one.state.watch("a", lambda key, value: seen.append(value))
        self.done(self.two.state.set("a", 1))
        self.assertEqual(seen, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_watcherThatWrites(self) -> None:
        """
        Watchers may write, those in the master too; the order of steps is the
        same for all.
        """
        orders: dict[str, list[Any]] = {"one": [], "two": [], "master": []}
        for name, state in (
            ("one", self.one.state),
            ("two", self.two.state),
            ("master", self.master.commons.state),
        ):
            state.watch("*", partial(_note, orders[name]))
        self.master.commons.state.watch(
            "a", lambda key, value: self.master.commons.state.set("b", value)
        )
        self.one.state.watch("b", lambda key, value: self.one.state.set("c", value))
        self.done(self.two.state.set("a", 1))
        self.assertEqual(orders["one"], [("a", 1), ("b", 1), ("c", 1)])
        self.assertEqual(orders["two"], orders["one"])
        self.assertEqual(sorted(orders["master"]), orders["one"])

    def test_watchBefore(self) -> None:
        """
        Whoever watches before the state is there hears of what it begins with.
        """
        self.done(self.one.state.set("a", 1))
        three = self.join("three")
        seen: list[tuple[str, Any]] = []
        three.state.watch("*", lambda key, value: seen.append((key, value)))
        self.settle()
        self.assertEqual(seen, [("a", 1)])

    def test_notAttached(self) -> None:
        """
        Without a master nothing can be written, and what is read is empty.
        """
        commons = Commons()
        self.assertEqual(dict(commons.state), {})
        text = self.failed(commons.state.set("a", 1), StateUnavailable)
        self.assertIn("can't write the state: this process has no master that runs; ", text)

    def test_missing(self) -> None:
        """
        C{MISSING} is false, there is but one, and it says what it is.
        """
        self.assertFalse(MISSING)
        self.assertEqual(repr(MISSING), "MISSING")
        self.assertIs(Missing("missing"), MISSING)
        self.assertIs(pickle.loads(pickle.dumps(MISSING)), MISSING)


class SpreadTests(SharedTestCase):
    """
    How it comes to the workers.
    """

    def topics(self, worker: str) -> list[str]:
        """
        What a worker was sent.
        """
        return [topic for name, topic, _ in self.fabric.sent if name == worker]

    def test_snapshotFirst(self) -> None:
        """
        A worker has begun when it has the snapshot, which comes before all
        else.
        """
        self.done(self.one.state.set("a", 1))
        three = self.join("three")
        self.one.state.set("a", 2)
        self.assertNoResult(three.session.begun)
        self.settle()
        self.successResultOf(three.session.begun)
        self.assertEqual(three.state["a"], 2)
        self.assertEqual(self.topics("three")[0], sharing.SNAPSHOT)

    def test_oneMessage(self) -> None:
        """
        What comes in one turn is one message for each worker.
        """
        self.fabric.sent.clear()
        for number in range(10):
            self.master.commons.state.set(f"k{number}", number)
        self.settle()
        self.assertEqual(self.topics("one"), [sharing.CHANGES])
        self.assertEqual(len(self.two.state), 10)

    def test_largeChanges(self) -> None:
        """
        Large ones do not wait for each other.
        """
        self.fabric.sent.clear()
        for number in range(4):
            self.master.commons.state.set(f"k{number}", bytes(700_000))
        self.settle()
        self.assertEqual(self.topics("one"), [sharing.CHANGES] * 2)
        self.assertEqual(self.one.state.version, 4)

    def test_behind(self) -> None:
        """
        A worker for which too much waits is told no steps; it gets a snapshot
        when there is room, and is told nothing about what it has not got.
        """
        self.fabric.full = {"one"}
        mine = self.one.state.increment("n")
        self.done(self.two.state.set("a", 1))
        self.done(self.two.state.set("b", 2))
        self.wait(1.0)
        self.assertEqual(dict(self.one.state), {})
        self.assertNoResult(mine)
        self.fabric.full.clear()
        self.fabric.sent.clear()
        self.wait(0.25)
        self.assertEqual(dict(self.one.state), {"a": 1, "b": 2, "n": 1})
        self.assertEqual(self.successResultOf(mine), 1)
        self.assertEqual(self.topics("one"), [sharing.SNAPSHOT, sharing.ANSWERS])
        self.done(self.two.state.set("c", 3))
        self.assertEqual(self.topics("one")[2:], [sharing.CHANGES])

    def test_deadWhileBehind(self) -> None:
        """
        Nobody goes on trying to reach a worker that is gone.
        """
        self.fabric.full = {"one"}
        self.done(self.two.state.set("a", 1))
        self.kill(self.one)
        self.wait(0.25)
        self.wait(5.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_masterGone(self) -> None:
        """
        When the channel is lost, what was asked fails, and what is read goes
        on.
        """
        self.done(self.one.state.set("a", 1))
        asked = self.one.state.set("a", 2)
        self.kill(self.one)
        self.failureResultOf(asked, StateUnavailable)
        self.assertIn(
            "the master is gone", self.failed(self.one.state.set("a", 3), StateUnavailable)
        )
        self.assertEqual(self.one.state["a"], 1)

    def test_fullTowardsMaster(self) -> None:
        """
        What can't be asked fails, and is not done later.
        """
        self.fabric.full = {"master"}
        failed = self.failed(self.one.state.set("a", 1), StateUnavailable)
        self.assertIn("can't ask the master: ", failed)
        self.fabric.full.clear()
        self.wait(1.0)
        self.assertEqual(dict(self.two.state), {})

    def test_cancelled(self) -> None:
        """
        Who does not wait for a write any more has written all the same.
        """
        asked = self.one.state.set("a", 1)
        asked.cancel()
        self.settle()
        self.assertEqual(self.one.state["a"], 1)
        self.failureResultOf(asked)

    def test_stopped(self) -> None:
        """
        Once the master has stopped, nothing of it is left.
        """
        self.done(self.one.leases.lease("x"))
        self.successResultOf(self.master.stop())
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LateTests(SharedTestCase):
    """
    A backend that takes its time.
    """

    def begin(self) -> None:
        """
        Do not start yet.
        """

    def test_joinedBefore(self) -> None:
        """
        Workers that come before there is a state have it when it comes.
        """
        one = self.join("one")
        self.settle()
        self.assertNoResult(one.session.begun)
        self.successResultOf(self.master.start())
        self.settle()
        self.successResultOf(one.session.begun)


class OrderTests(SharedTestCase):
    """
    Any order of events.
    """

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_agreement(self, data: st.DataObject) -> None:
        """
        Whatever workers do, whenever they come, go, or do not read: in the end
        all have the same, every acknowledged increment counted once, and each
        of them saw versions go up only.
        """
        self.setUp()
        versions: dict[str, list[int]] = {}
        acknowledged: list[int] = []
        names = iter(f"w{number}" for number in range(1000))

        def join() -> None:
            name = next(names)
            worker = self.join(name)
            versions[name] = []
            worker.state.watch("*", lambda *_: versions[name].append(worker.state.version))

        for _ in range(data.draw(st.integers(5, 40))):
            name = data.draw(st.sampled_from(sorted(self.fabric.workers)))
            worker = self.fabric.workers[name]
            action = data.draw(
                st.sampled_from(["write", "deliver", "join", "kill", "full", "turn"])
            )
            if action == "write":
                worker.state.increment("n").addCallbacks(acknowledged.append, lambda _: None)
            elif action == "deliver":
                self.fabric.deliver()
            elif action == "join":
                join()
            elif action == "kill" and len(self.fabric.workers) > 1:
                self.kill(worker)
            elif action == "full":
                self.fabric.full ^= {name}
            else:
                self.clock.advance(0)
        self.fabric.full.clear()
        self.settle()
        self.wait(0.25)
        master = self.master.commons.state
        for worker in self.fabric.workers.values():
            self.assertEqual(dict(worker.state), dict(master))
            self.assertEqual(worker.state.version, master.version)
        self.assertEqual(len(set(acknowledged)), len(acknowledged))
        self.assertLessEqual(len(acknowledged), master.get("n", 0))
        for seen in versions.values():
            self.assertEqual(seen, sorted(seen))
        self.assertIsInstance(self.clock, Clock)


def _note(order: list[Any], key: str, value: Any) -> None:
    order.append((key, value))
