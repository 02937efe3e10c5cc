"""
Tests for L{twisted_cluster.ops.report}.
"""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.ops.fakes import FakeCluster
from twisted_cluster.events import State
from twisted_cluster.interfaces import RollingStatus, WorkerStatus
from twisted_cluster.ops.report import age, plural, report, table, visible


class ReportTests(SynchronousTestCase):
    """
    The whole report.
    """

    def test_report(self) -> None:
        """
        Every process is there, those of old generations included, and so are
        the listeners, the account and the replacement under way.
        """
        cluster = FakeCluster()
        cluster.workers = (
            WorkerStatus(0, 1, 5000, State.DRAINING, 3, 1990.0, 0, "replaced"),
            WorkerStatus(0, 2, 5002, State.READY, 0, 1995.0),
            WorkerStatus(1, 1, None, State.BACKOFF, 0, 1999.0, 12, "exit code 1"),
        )
        status = replace(cluster.status(), rolling=RollingStatus(2, 1, 2))
        self.assertEqual(
            report(status.asDict(), 2000.0),
            dedent("""\
                twisted_cluster 0.1.0, master pid 4711, up 18m20s
                app hello:resource, generation 1, 2 workers wanted
                policy round-robin, spawner template
                replacing workers by generation 2: 1 of 2 slots done

                SLOT  GENERATION   PID  STATE     SINCE  CONNECTIONS  RESTARTS  REASON
                   0           1  5000  draining    10s            3         0  replaced
                   0           2  5002  ready        5s            0         0
                   1           1     -  backoff      1s            0        12  exit code 1

                LISTENER  ADDRESS       STATE      ACCEPTED
                tcp:8080  0.0.0.0:8080  accepting        10

                sockets: 10 accepted = 7 acked + 1 shed + 2 in flight
            """),
        )

    def test_shared(self) -> None:
        """
        It says where the state is, and whether it can be used.
        """
        memory = {"kind": "memory", "up": True, "keys": 1, "bytes": 20, "hosts": []}
        redis = {**memory, "server": "Redis at h:1", "hosts": ["web1 (pid 7)", "web2 (pid 8)"]}
        for shared, line in (
            (memory, "state in memory: 1 key, 20 bytes"),
            (redis, "state in Redis at h:1: 1 key, 20 bytes; hosts: web1 (pid 7), web2 (pid 8)"),
            (
                {**redis, "up": False, "reason": "the connection was lost"},
                "state in Redis at h:1, which can't be used: the connection was lost",
            ),
        ):
            status = replace(FakeCluster().status(), shared=shared)
            self.assertIn(f"\n{line}\n", report(status.asDict(), 2000.0))

    def test_dropped(self) -> None:
        """
        Messages that a worker did not get are told of, and only then.
        """
        status = FakeCluster().status()
        self.assertNotIn("dropped", report(status.asDict(), 0.0))
        told = report(replace(status, dropped=2).asDict(), 0.0)
        self.assertIn("\n2 messages dropped: a worker did not read\n", told)

    def test_controlCharacters(self) -> None:
        """
        Nothing that an app says can do anything to the terminal.
        """
        cluster = FakeCluster(1)
        cluster.workers = (replace(cluster.workers[0], reason="\x1b[2Jgone\n\x07"),)
        text = report(cluster.status().asDict(), 2000.0)
        self.assertNotIn("\x1b", text)
        self.assertIn("\N{REPLACEMENT CHARACTER}[2Jgone", text)
        self.assertTrue(all(line.isprintable() for line in text.split("\n")))


class PartTests(SynchronousTestCase):
    """
    What it is made of.
    """

    def test_age(self) -> None:
        """
        An age has its two largest units; a clock that was set back makes none
        negative.
        """
        ages = {
            -5: "0s",
            0.9: "0s",
            59: "59s",
            60: "1m00s",
            187: "3m07s",
            3600: "1h00m",
            86_399: "23h59m",
            86_400: "1d00h",
            100 * 86_400 + 7200: "100d02h",
        }
        self.assertEqual({seconds: age(seconds) for seconds in ages}, ages)

    @given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
    def test_aligned(self, rows: list[tuple[str, str]]) -> None:
        """
        Whatever is in the cells, there is one line for each row, and the
        second column begins at the same place everywhere.
        """
        lines = table(("name", "pid"), rows).split("\n")
        self.assertEqual(len(lines), len(rows) + 1)
        start = 2 + max(4, *(len(first) for first, _ in rows), 0)
        for (_, second), line in zip(rows, lines[1:]):
            self.assertEqual(line[start:].strip(), visible(second).strip())

    @given(st.text())
    def test_visible(self, text: str) -> None:
        """
        What is left is printable, as long as before, and unchanged if it was
        printable already.
        """
        shown = visible(text)
        self.assertTrue(shown.isprintable())
        self.assertEqual(len(shown), len(text))
        self.assertEqual(visible(shown), shown)

    def test_plural(self) -> None:
        """
        One is singular, all else is plural.
        """
        self.assertEqual(
            [plural(n, "worker") for n in (0, 1, 2)], ["0 workers", "1 worker", "2 workers"]
        )
