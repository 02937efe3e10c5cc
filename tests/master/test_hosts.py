"""
Tests for L{twisted_cluster.master.hosts}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.ops.fakes import FakeCluster, InstantCluster
from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.errors import PeerError, ReloadFailed, ReloadRefused, StateUnavailable
from twisted_cluster.events import HostStepped, Phase
from twisted_cluster.master.hosts import (
    ANSWER_TIMEOUT,
    LEASE_TIMEOUT,
    ROLL_CALL,
    TOPIC,
    Hosts,
)
from twisted_cluster.master.leases import SAFE
from twisted_cluster.master.shared import Shared
from twisted_cluster.policy.hosts import EXPIRY, Host


class Posts:
    """
    There are no workers.
    """

    def post(self, worker: Any, topic: str, data: bytes) -> Deferred[None]:
        """Nothing to send it to."""
        return succeed(None)


class HostsTests(SynchronousTestCase):
    """
    Several masters, one backend.

    @ivar hosts: Each host.
    @ivar clusters: The cluster of each, by name.
    @ivar steps: What was told of.
    @ivar deaf: The names of those who hear nothing.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = MemoryBackend(self.clock)
        self.shared = Shared(self.clock, self.backend, Posts())
        self.shared.onPublished = self.published
        self.successResultOf(self.shared.start())
        self.hosts: list[Hosts] = []
        self.clusters: dict[str, FakeCluster] = {}
        self.steps: list[tuple[str, str, int]] = []
        self.deaf: set[str] = set()

    def published(self, topic: str, data: bytes) -> None:
        """
        All hear it.
        """
        self.assertEqual(topic, TOPIC)
        for host in tuple(self.hosts):
            if host.me.name not in self.deaf:
                host.heard(data)

    def add(self, name: str, cluster: FakeCluster, isShared: bool = True) -> Hosts:
        """
        Another host.
        """
        publish: Any = self.backend.publish
        leases = self.shared.commons.leases
        me = Host(name, 7, name * 3)
        hosts = Hosts(self.clock, cluster, publish, leases, me, lambda: 1.0, isShared)
        self.hosts.append(hosts)
        self.clusters[name] = cluster
        hosts.start()
        return hosts

    def begin(self, hosts: Hosts) -> Deferred[int]:
        """
        Have all reload, and let the roll be called.
        """
        done = hosts.reloadAll(self.tell)
        self.clock.advance(ROLL_CALL)
        return done

    def tell(self, step: HostStepped) -> None:
        """
        Remember a step.
        """
        self.steps.append((step.host[:1], step.phase.value, step.done))

    def why(self, done: Deferred[int], kind: type[Exception]) -> str:
        """
        Why it failed.
        """
        return str(self.failureResultOf(done, kind).value)

    def test_oneAfterAnother(self) -> None:
        """
        Each host reloads when the one before has, the one that was asked
        first; each step is told.
        """
        self.add("a", InstantCluster())
        second = FakeCluster()
        asked = self.add("b", second)
        third = InstantCluster()
        self.add("c", third)
        done = self.begin(asked)
        self.assertEqual(second.calls, [("reload",)])
        self.assertEqual(self.clusters["a"].calls, [])
        second.finish()
        self.assertEqual(self.successResultOf(done), 3)
        self.assertEqual(third.calls, [("reload",)])
        each = [
            (host, phase, done + (phase == "done"))
            for done, host in enumerate("bac")
            for phase in ("begun", "replaced", "replaced", "done")
        ]
        self.assertEqual(self.steps, each)

    def test_present(self) -> None:
        """
        Hosts know of each other at once, whoever comes first.
        """
        first = self.add("a", InstantCluster())
        second = self.add("b", InstantCluster())
        for host in (first, second):
            self.assertEqual([one.name for one in host.present()], ["a", "b"])

    def test_again(self) -> None:
        """
        When it has ended another one may begin.
        """
        asked = self.add("a", InstantCluster())
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.begin(asked)), 1)

    def test_memory(self) -> None:
        """
        A master whose state is in its memory knows of no other.
        """
        done = self.add("a", InstantCluster(), False).reloadAll(self.tell)
        self.assertRegex(
            self.why(done, ReloadRefused),
            "^can't reload all hosts: the state is in this master's memory.*;"
            " run the masters with --state redis://",
        )

    def test_stopsAtFirst(self) -> None:
        """
        The first host that fails is the last; the error has its reason, the
        traceback, and how far it got.
        """
        asked = self.add("a", InstantCluster())
        second = FakeCluster()
        self.add("b", second)
        third = InstantCluster()
        self.add("c", third)
        done = self.begin(asked)
        second.abort("slot 0: exit code 1", "Traceback:")
        failure = self.failureResultOf(done, ReloadFailed)
        self.assertEqual(
            str(failure.value), "host b (pid 7): slot 0: exit code 1; 1 of 3 hosts were reloaded"
        )
        self.assertEqual(failure.value.traceback, "Traceback:")
        self.assertEqual(third.calls, [])
        self.assertEqual(self.steps[-1], ("b", "aborted", 1))
        second.reload()

    def test_refused(self) -> None:
        """
        Likewise if a host refuses, or stumbles over a bug.
        """
        second = FakeCluster()
        second.reload()
        asked = self.add("a", InstantCluster())
        self.add("b", second)
        text = self.why(self.begin(asked), ReloadRefused)
        self.assertRegex(
            text,
            "^can't reload all hosts: host b .*: can't reload: a replacement is under way;.*"
            " 1 of 2 hosts were reloaded; see to that host",
        )
        self.patch(second, "reload", lambda: 1 / 0)
        self.assertIn("division by zero", self.why(self.begin(asked), ReloadRefused))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_silent(self) -> None:
        """
        A host that does not begin has failed.
        """
        asked = self.add("a", InstantCluster())
        self.add("b", InstantCluster())
        self.clock.advance(1.0)
        self.deaf.add("b")
        done = self.begin(asked)
        self.clock.advance(ANSWER_TIMEOUT)
        self.assertIn("host b (pid 7) has not begun within 5 s", self.why(done, ReloadRefused))

    def test_dies(self) -> None:
        """
        A host that says nothing any more has failed too, though it had begun.
        """
        asked = self.add("a", InstantCluster())
        second = self.add("b", FakeCluster())
        done = self.begin(asked)
        second._loop.stop()
        self.clock.pump([1.0] * int(EXPIRY + 3))
        self.assertIn("host b (pid 7) has said nothing for 10 s", self.why(done, ReloadRefused))

    def test_stops(self) -> None:
        """
        A host that stops is not waited for; nor is it asked later.
        """
        asked = self.add("a", InstantCluster())
        second = self.add("b", FakeCluster())
        done = self.begin(asked)
        second.stop()
        self.assertIn("host b (pid 7) has stopped", self.why(done, ReloadRefused))
        self.hosts.remove(second)
        self.assertEqual(self.successResultOf(self.begin(asked)), 1)

    def test_askedStops(self) -> None:
        """
        If the master that was asked stops, it says so.
        """
        asked = self.add("a", FakeCluster())
        done = self.begin(asked)
        asked.stop()
        self.assertIn("this master stops", self.why(done, ReloadRefused))

    def test_onlyOne(self) -> None:
        """
        While one reloads all, no other does.
        """
        first, second = self.add("a", FakeCluster()), self.add("b", InstantCluster())
        done = self.begin(first)
        other = second.reloadAll(self.tell)
        self.clock.advance(LEASE_TIMEOUT)
        self.assertIn("somebody else reloads all hosts now", self.why(other, ReloadRefused))
        self.clusters["a"].finish()
        self.successResultOf(done)

    def test_leaseLost(self) -> None:
        """
        If the lease is lost nobody else is told to reload.
        """
        asked = self.add("a", FakeCluster())
        third = InstantCluster()
        self.add("b", third)
        done = self.begin(asked)
        away: Any = lambda *_: fail(StateUnavailable("can't renew the lease: away; wait"))  # noqa: E731
        self.patch(self.backend, "renew", away)
        self.clock.pump([0.5] * int(SAFE / 0.5 + 1))
        self.assertIn("the lease was lost while host a", self.why(done, ReloadRefused))
        self.clusters["a"].finish()
        self.assertEqual(third.calls, [])

    def test_oldToken(self) -> None:
        """
        Who had the lease before can't have anybody reload any more.
        """
        cluster = InstantCluster()
        asked = self.add("a", cluster)
        self.successResultOf(self.begin(asked))
        asked._say("reload", to=asked.me.id, run="x", token=1)
        self.assertEqual(cluster.calls, [("reload",)])

    def test_away(self) -> None:
        """
        Without a backend nothing begins.
        """
        asked = self.add("a", InstantCluster())
        self.successResultOf(self.backend.stop())
        self.assertEqual(
            self.why(asked.reloadAll(self.tell), ReloadRefused),
            "can't reload all hosts: the hosts can't talk to each other;"
            " can't publish: the master is not running; try again when it is",
        )

    def test_nonsense(self) -> None:
        """
        Nonsense is refused.
        """
        hosts = self.add("a", InstantCluster())
        for data in (b"", b"[]", b"{}", b'{"host": 1, "kind": "here"}', b"\xff"):
            self.assertRaises(PeerError, hosts.heard, data)
        self.assertEqual([str(host) for host in hosts.present()], ["a (pid 7)"])

    def test_phases(self) -> None:
        """
        The steps that are told are phases of a reload.
        """
        self.successResultOf(self.begin(self.add("a", InstantCluster())))
        self.assertLessEqual({phase for _, phase, _ in self.steps}, {one.value for one in Phase})
