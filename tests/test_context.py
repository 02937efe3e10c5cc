"""
Tests for L{twisted_cluster.context}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster
from twisted_cluster import context
from twisted_cluster.context import Context, Role
from twisted_cluster.errors import AppError, CallFailed, LeaseTimedOut
from twisted_cluster.testing import pretendWorker
from twisted_cluster.wire.messages import MASTER


class ContextTests(SynchronousTestCase):
    """
    One file can hold what runs in the master and what runs in the workers.
    """

    def test_outside(self) -> None:
        """
        A process in which no cluster runs is no worker.
        """
        here = twisted_cluster.current()
        self.assertEqual((here.isMaster, here.isWorker), (True, False))
        self.assertEqual((here.slot, here.generation), (None, None))

    def test_worker(self) -> None:
        """
        A worker knows its slot and generation.
        """
        here = Context()
        here.enter(Role.WORKER, 0, 1)
        self.assertEqual((here.isMaster, here.isWorker), (False, True))
        self.assertEqual((here.slot, here.generation), (0, 1))
        self.assertEqual(repr(here), "<worker slot=0 generation=1>")

    def test_template(self) -> None:
        """
        While the app is imported for its workers, it is not in the master,
        and in no slot.
        """
        here = Context()
        here.enter(Role.TEMPLATE, None, 3)
        self.assertEqual((here.isMaster, here.isWorker, here.slot), (False, True, None))
        here.enter(Role.WORKER, 2, 3)
        self.assertEqual(here.slot, 2)

    def test_messages(self) -> None:
        """
        Handlers are kept in order, and can be registered by decoration.
        """
        here = Context()

        @here.onMessage
        def first(text: str) -> None:
            """Take a message."""

        def second(text: str) -> None:
            """Take another one."""

        self.assertIs(here.onMessage(second), second)
        self.assertEqual(here.messageHandlers, (first, second))

    def test_pretend(self) -> None:
        """
        A test can pretend to be a worker; after it, all is as it was, for
        whoever kept the context too.
        """
        kept = twisted_cluster.current()
        before = kept.messageHandlers
        cleanUps: list[tuple[object, ...]] = []
        here = pretendWorker(lambda *call: cleanUps.append(call), slot=2, generation=5)
        self.assertIs(here, kept)
        self.assertEqual((context.current().slot, context.current().generation), (2, 5))
        here.onMessage(print)
        ((restore, *arguments),) = cleanUps
        restore(*arguments)  # type: ignore[operator]
        self.assertTrue(kept.isMaster)
        self.assertEqual(kept.messageHandlers, before)


class SayingTests(SynchronousTestCase):
    """
    What an app says when its test pretends to be a worker.
    """

    def setUp(self) -> None:
        self.here = pretendWorker(self.addCleanup, slot=1)

    def test_sent(self) -> None:
        """
        Messages are recorded as they would arrive.
        """
        self.successResultOf(self.here.send(2, "topic", (1, 2)))
        self.successResultOf(self.here.send(Role.MASTER, "topic", b"bytes"))
        self.assertEqual(
            self.here.messenger.sent, [(2, "topic", [1, 2]), (MASTER, "topic", b"bytes")]
        )

    def test_topics(self) -> None:
        """
        A handler that could never be called is refused.
        """
        for topic in ("", "twisted_cluster.state"):
            self.assertRaises(AppError, self.here.handle, topic)
        self.assertEqual(self.here.handlers, {})

    def test_answers(self) -> None:
        """
        Calls are answered as the test says, or not at all.
        """
        self.here.messenger.answers = {"good": 7, "bad": CallFailed("call", "a test says so")}
        self.assertEqual(self.successResultOf(self.here.call(2, "good")), 7)
        self.failureResultOf(self.here.call(2, "bad"), CallFailed)
        self.assertNoResult(self.here.call(2, "never"))
        self.assertEqual(len(self.here.messenger.sent), 3)

    def test_refused(self) -> None:
        """
        What can't be sent can't be sent here either.
        """
        for done in (self.here.send(2, "topic", {1}), self.here.call(2, "", 1)):
            self.failureResultOf(done, AppError)
        self.assertEqual(self.here.messenger.sent, [])


class SharingTests(SynchronousTestCase):
    """
    What an app shares when its test pretends to be a worker.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.here = pretendWorker(self.addCleanup, clock=self.clock)

    def test_state(self) -> None:
        """
        The state is genuine, and is forgotten with the test.
        """
        seen: list[object] = []
        self.here.state.watch("n", lambda key, value: seen.append(value))
        self.successResultOf(self.here.state.increment("n"))
        self.successResultOf(self.here.state.delete("n"))
        self.assertEqual(seen, [1, twisted_cluster.MISSING])
        other = pretendWorker(self.addCleanup)
        self.assertEqual(other.state.version, 0)

    def test_cache(self) -> None:
        """
        So is the cache, whose time is that of the test.
        """
        self.successResultOf(self.here.cache.set("a", 1, ttl=10.0))
        self.assertEqual(self.successResultOf(self.here.cache.get("a")), 1)
        self.clock.advance(10.0)
        self.assertIsNone(self.successResultOf(self.here.cache.get("a")))

    def test_leases(self) -> None:
        """
        So are leases.
        """
        first = self.successResultOf(self.here.lease("job"))
        waiting = self.here.lease("job", timeout=5.0)
        self.assertNoResult(waiting)
        self.clock.advance(5.0)
        self.failureResultOf(waiting, LeaseTimedOut)
        first.release()
        self.successResultOf(self.here.lease("job"))
