"""
Tests for L{twisted_cluster.wire.sharing}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError, PeerError
from twisted_cluster.interfaces import (
    MAX_KEY,
    MAX_SHARED_VALUE,
    MAX_STATE,
    Change,
    Snapshot,
    Write,
    Written,
)
from twisted_cluster.policy.replica import weight
from twisted_cluster.wire import sharing
from twisted_cluster.wire.parts import MAX_MESSAGE
from twisted_cluster.wire.records import pack
from twisted_cluster.wire.sharing import Answer, Ask, Operation, Outcome

keys = st.text("abä/", min_size=1, max_size=5)
values = st.binary(max_size=8)
numbers = st.integers(0, 2**62)
targets = st.dictionaries(keys, st.none() | values, max_size=4)
changes = st.lists(st.builds(Change, numbers, targets), max_size=4)
writes = st.builds(
    Write, st.text("w", min_size=1), targets, targets, st.dictionaries(keys, numbers, max_size=3)
)
answers = st.builds(
    Answer, numbers, st.sampled_from(Outcome), st.lists(st.none() | values | numbers, max_size=3)
)

DECODERS: tuple[Callable[[bytes], Any], ...] = (
    sharing.decodeSnapshot,
    sharing.decodeChanges,
    sharing.decodeAsk,
    sharing.decodeAnswers,
    sharing.decodeLease,
)


class SharingTests(SynchronousTestCase):
    """
    What is said about state, cache and leases.
    """

    @given(st.builds(Snapshot, st.text("e"), numbers, st.dictionaries(keys, values)))
    def test_snapshots(self, snapshot: Snapshot) -> None:
        """
        A snapshot arrives as it was.
        """
        self.assertEqual(sharing.decodeSnapshot(sharing.encodeSnapshot(snapshot)), snapshot)

    @given(changes)
    def test_changes(self, given: list[Change]) -> None:
        """
        So do changes, in order.
        """
        self.assertEqual(sharing.decodeChanges(sharing.encodeChanges(given)), given)

    @given(writes)
    def test_writes(self, write: Write) -> None:
        """
        So do writes, as parts of a question.
        """
        ask = Ask(7, Operation.WRITE, sharing.writeFields(write))
        found = sharing.decodeAsk(sharing.encodeAsk(ask))
        self.assertEqual((found.number, found.operation), (7, Operation.WRITE))
        self.assertEqual(sharing.writeFrom(found.fields), write)

    @given(st.builds(Written, st.booleans(), numbers, targets))
    def test_written(self, written: Written) -> None:
        """
        And what became of them.
        """
        self.assertEqual(sharing.writtenFrom(sharing.writtenFields(written)), written)

    @given(st.lists(answers, max_size=4))
    def test_answers(self, given: list[Answer]) -> None:
        """
        Answers arrive as they were, in order.
        """
        self.assertEqual(sharing.decodeAnswers(sharing.encodeAnswers(given)), given)

    def test_leases(self) -> None:
        """
        A lease is spoken of by what its owner calls it.
        """
        for detail in ("name", 42):
            found = sharing.decodeLease(sharing.encodeLease("owner", detail))
            self.assertEqual(found, ("owner", detail))

    @given(st.lists(st.none() | st.integers(-2, 3) | st.text("e", max_size=2) | values))
    def test_garbage(self, fields: list[Any]) -> None:
        """
        Whatever a peer says is understood or refused.
        """
        for decode in DECODERS:
            try:
                decode(pack(fields))
            except PeerError:
                continue
        for understand in (sharing.writeFrom, sharing.writtenFrom):
            try:
                understand(fields)
            except (PeerError, AppError):
                continue

    def test_refused(self) -> None:
        """
        What lacks something, or has something else in its place, is refused.
        """
        cases: tuple[tuple[Callable[[bytes], Any], list[Any]], ...] = (
            (sharing.decodeSnapshot, ["epoch"]),
            (sharing.decodeSnapshot, ["epoch", 1, "key"]),
            (sharing.decodeSnapshot, ["epoch", 1, b"key", b"value"]),
            (sharing.decodeChanges, [1]),
            (sharing.decodeChanges, [1, 2, "key", b"value"]),
            (sharing.decodeChanges, [1, -1]),
            (sharing.decodeChanges, ["1", 0]),
            (sharing.decodeAsk, [1]),
            (sharing.decodeAsk, [1, "steal"]),
            (sharing.decodeAnswers, [1, "done", 3, b""]),
            (sharing.decodeAnswers, [1, "perhaps", 0]),
            (sharing.decodeLease, ["owner"]),
            (sharing.decodeLease, ["owner", "name", "more"]),
            (sharing.decodeLease, [1, "name"]),
        )
        for decode, fields in cases:
            with self.assertRaises(PeerError, msg=f"{decode.__name__} {fields}"):
                decode(pack(fields))

    def test_limits(self) -> None:
        """
        A write of what is not allowed is refused in the master as well.
        """
        for write in (
            Write("w", {"": b"i1"}),
            Write("w", {"k" * (MAX_KEY + 1): b"i1"}),
            Write("w", {"k": bytes(MAX_SHARED_VALUE + 1)}),
            Write("w", {}, {"": None}),
            Write("w", {}, {}, {"": 1}),
        ):
            self.assertRaises(AppError, sharing.writeFrom, sharing.writeFields(write))

    @given(st.dictionaries(keys, values))
    def test_snapshotFits(self, items: dict[str, bytes]) -> None:
        """
        A state that is not too large is one message.
        """
        counted = sum(weight(key, value) for key, value in items.items())
        size = len(sharing.encodeSnapshot(Snapshot("e" * 32, 2**62, items)))
        self.assertLessEqual(size, counted + 64)
        self.assertLess(MAX_STATE + 64, MAX_MESSAGE)
