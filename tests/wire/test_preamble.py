"""
Tests for L{twisted_cluster.wire.preamble}.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import socketPair
from twisted_cluster.errors import PeerError
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.wire import preamble
from twisted_cluster.wire.commands import PROTOCOL_VERSION
from twisted_cluster.wire.preamble import ListenerPlan, Preamble

PLAN = Preamble(
    slot=3,
    generation=7,
    source=Source(SourceKind.APP, "hello:resource"),
    path=("/srv/app", "/usr/lib"),
    listeners=(
        ListenerPlan("tcp:0", int(socket.AF_INET), ("127.0.0.1", 8080)),
        ListenerPlan("tcp6:0", int(socket.AF_INET6), ("::1", 8080, 0, 0)),
        ListenerPlan("unix:s", int(socket.AF_UNIX), "/run/s"),
    ),
    heartbeat=2.0,
    credit=16,
    drainGrace=1.0,
    drainTimeout=30.0,
)

texts = st.text(st.characters(codec="utf-8"))
times = st.floats(0, 1e9, allow_nan=False)
plans = st.builds(
    Preamble,
    slot=st.integers(0),
    generation=st.integers(0),
    source=st.builds(Source, st.sampled_from(SourceKind), texts, st.lists(texts).map(tuple)),
    path=st.lists(texts).map(tuple),
    listeners=st.lists(
        st.builds(
            ListenerPlan,
            name=texts,
            family=st.integers(0, 100),
            address=texts | st.tuples(texts, st.integers(0, 65_535)),
        )
    ).map(tuple),
    heartbeat=times,
    credit=st.integers(1, 250),
    drainGrace=times,
    drainTimeout=times,
    reactor=st.none() | texts,
    logTimes=st.booleans(),
    inherited=st.lists(st.integers(0)).map(tuple),
    protocol=st.just(PROTOCOL_VERSION),
)


class PreambleTests(SynchronousTestCase):
    """
    What a worker is told before it imports the app.
    """

    def sent(self, data: bytes, end: bool = False) -> socket.socket:
        """
        A channel over which C{data} has come, and perhaps its end.
        """
        ours, theirs = socketPair(self)
        theirs.settimeout(10)
        ours.sendall(data)
        if end:
            ours.shutdown(socket.SHUT_WR)
        return theirs

    @given(plans)
    def test_roundTrip(self, plan: Preamble) -> None:
        """
        What the master encodes is what the worker reads.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(preamble.encode(plan))
            self.assertEqual(preamble.read(theirs), plan)

    def test_notOneByteMore(self) -> None:
        """
        What follows the preamble is left for AMP.
        """
        channel = self.sent(preamble.encode(PLAN) + b"rest")
        self.assertEqual(preamble.read(channel), PLAN)
        self.assertEqual(channel.recv(100), b"rest")

    def test_undecodablePath(self) -> None:
        """
        A module path that is not UTF-8 arrives as it was.
        """
        plan = replace(PLAN, path=("/srv/\udcff",))
        self.assertEqual(preamble.read(self.sent(preamble.encode(plan))), plan)

    def test_masterGone(self) -> None:
        """
        At whatever byte the master dies, the worker says what happened.
        """
        whole = preamble.encode(PLAN)
        for count in (0, 3, 4, 5, len(whole) - 1):
            channel = self.sent(whole[:count], end=True)
            error = self.assertRaises(PeerError, preamble.read, channel)
            self.assertEqual(str(error), "the master closed the channel before it said what to run")

    def test_otherVersion(self) -> None:
        """
        A master of another version is refused, and both versions are named.
        """
        channel = self.sent(preamble.encode(replace(PLAN, protocol=99)))
        error = self.assertRaises(PeerError, preamble.read, channel)
        self.assertEqual(
            str(error), f"the master speaks protocol 99, this worker {PROTOCOL_VERSION}"
        )

    def test_tooLong(self) -> None:
        """
        No memory is taken for what can't be a preamble.
        """
        channel = self.sent(struct.pack("!I", preamble.MAX_PREAMBLE + 1))
        error = self.assertRaises(PeerError, preamble.read, channel)
        self.assertEqual(str(error), f"a preamble of {preamble.MAX_PREAMBLE + 1} bytes")

    def test_notJSON(self) -> None:
        """
        Whatever else sits at the other end, it is the peer's fault.
        """
        for body in (b"\xff\xfe", b"hello", b""):
            channel = self.sent(struct.pack("!I", len(body)) + body)
            self.assertRaises(PeerError, preamble.read, channel)

    def test_otherJSON(self) -> None:
        """
        JSON of any other shape is refused likewise.
        """
        whole = {"protocol": PROTOCOL_VERSION}
        empty = {**whole, "path": [], "listeners": [1]}
        values: list[object] = [[], "text", 3, None, {}, whole, empty]
        for value in values:
            body = json.dumps(value).encode("ascii")
            channel = self.sent(struct.pack("!I", len(body)) + body)
            self.assertRaises(PeerError, preamble.read, channel)
