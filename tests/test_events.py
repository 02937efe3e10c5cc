"""
Tests for L{twisted_cluster.events} and the records of
L{twisted_cluster.interfaces}.
"""

from __future__ import annotations

import json
import signal
from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.events import (
    ALIVE,
    ClusterStopping,
    Event,
    EventStream,
    ExitStatus,
    ListenerState,
    State,
    signalName,
)
from twisted_cluster.interfaces import (
    Account,
    ClusterStatus,
    ListenerStatus,
    RollingStatus,
    WorkerStatus,
)


class ExitStatusTests(SynchronousTestCase):
    """
    How a process ended, in words.
    """

    def test_words(self) -> None:
        """
        Each way to end is called what it is.
        """
        self.assertEqual(str(ExitStatus(code=3)), "exit code 3")
        self.assertEqual(str(ExitStatus(signal=signal.SIGKILL)), "killed by SIGKILL")
        self.assertEqual(str(ExitStatus(failure="no memory")), "not started: no memory")

    def test_signalName(self) -> None:
        """
        A number without a name is told as a number.
        """
        self.assertEqual(signalName(15), "SIGTERM")
        self.assertEqual(signalName(200), "signal 200")

    def test_alive(self) -> None:
        """
        A worker has a process in four of its states.
        """
        self.assertEqual(
            {state.value for state in ALIVE}, {"starting", "ready", "draining", "stopping"}
        )


class EventStreamTests(SynchronousTestCase):
    """
    Each event reaches every subscriber once, whatever the others do.
    """

    def setUp(self) -> None:
        self.failed: list[Event] = []
        self.stream = EventStream(self.failed.append)
        self.event = ClusterStopping(1.0, "a test says so")

    def test_frozen(self) -> None:
        """
        No subscriber can change what the next one gets.
        """
        self.assertRaises(FrozenInstanceError, setattr, self.event, "reason", "another")

    def test_order(self) -> None:
        """
        Subscribers are called in the order of their subscription.
        """
        got: list[tuple[str, Event]] = []
        self.stream.subscribe(lambda event: got.append(("a", event)))
        self.stream.subscribe(lambda event: got.append(("b", event)))
        self.stream.publish(self.event)
        self.assertEqual(got, [("a", self.event), ("b", self.event)])

    def test_raises(self) -> None:
        """
        One that raises is reported, stays subscribed, and hurts nobody.
        """
        got: list[Event] = []

        def broken(event: Event) -> None:
            raise RuntimeError("it broke")

        self.stream.subscribe(broken)
        self.stream.subscribe(got.append)
        self.stream.publish(self.event)
        self.stream.publish(self.event)
        self.assertEqual(got, [self.event] * 2)
        self.assertEqual(self.failed, [self.event] * 2)

    def test_unsubscribe(self) -> None:
        """
        After the end of its subscription one gets nothing; to end it again is
        harmless.
        """
        got: list[Event] = []
        unsubscribe = self.stream.subscribe(got.append)
        unsubscribe()
        unsubscribe()
        self.stream.publish(self.event)
        self.assertEqual(got, [])

    def test_unsubscribeDuring(self) -> None:
        """
        One that ends its subscription at an event keeps it from nobody.
        """
        got: list[Event] = []

        def once(event: Event) -> None:
            unsubscribe()

        unsubscribe = self.stream.subscribe(once)
        self.stream.subscribe(got.append)
        self.stream.publish(self.event)
        self.assertEqual(got, [self.event])

    def test_sameTwice(self) -> None:
        """
        A callable that is subscribed twice gets each event twice, and once
        when one of the subscriptions has ended.
        """
        got: list[Event] = []
        self.stream.subscribe(got.append)
        unsubscribe = self.stream.subscribe(got.append)
        self.stream.publish(self.event)
        unsubscribe()
        unsubscribe()
        self.stream.publish(self.event)
        self.assertEqual(len(got), 3)


class StatusTests(SynchronousTestCase):
    """
    The records of a cluster's status.
    """

    def test_asDict(self) -> None:
        """
        The status of a cluster is plain data: what JSON makes of it comes back
        the same.
        """
        status = ClusterStatus(
            version="1",
            pid=2,
            app="hello:resource",
            policy="round-robin",
            spawner="fake",
            generation=3,
            wanted=1,
            since=4.0,
            account=Account(3, 1, 1, 1),
            listeners=(ListenerStatus("tcp:0", "::1:80", ListenerState.PAUSED, 3),),
            workers=(WorkerStatus(0, 3, None, State.BACKOFF, 0, 5.0, 2, "why"),),
            rolling=RollingStatus(4, 1, 2),
        )
        plain = json.loads(json.dumps(status.asDict()))
        self.assertEqual(plain["listeners"][0]["state"], "paused")
        self.assertEqual(plain["workers"][0]["state"], "backoff")
        self.assertEqual(plain["account"], {"accepted": 3, "acked": 1, "shed": 1, "inFlight": 1})
        self.assertEqual(plain["rolling"], {"generation": 4, "done": 1, "total": 2})
