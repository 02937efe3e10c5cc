"""
The state that a connection carries from one worker to the next.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError, PeerError
from twisted_cluster.wire import state

values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)


class StateTests(SynchronousTestCase):
    """
    L{state.encode} and L{state.decode}.
    """

    @given(st.dictionaries(st.text(max_size=10), values, max_size=5))
    def test_thereAndBack(self, carried: dict[str, Any]) -> None:
        """
        What goes in comes out, with the same types; it is never empty, for
        empty bytes stand for no state at all.
        """
        data = state.encode(carried)
        self.assertTrue(data)
        found = state.decode(data)
        self.assertEqual(found, carried)
        self.assertEqual(
            {name: type(value) for name, value in found.items()},
            {name: type(value) for name, value in carried.items()},
        )

    def test_unfit(self) -> None:
        """
        Values that are not plain, names that are no text, and what is no
        mapping are refused.
        """
        unfit: tuple[Any, ...] = ({"a": object()}, {"a": ["b"]}, {"a": {"b": "c"}}, None, ["a"])
        for carried in unfit:
            with self.assertRaises(AppError) as raised:
                state.encode(carried)
            self.assertIn("can't be carried", str(raised.exception))

    def test_tooLarge(self) -> None:
        """
        The limit counts what is sent.
        """
        room = state.MAX_STATE - len(state.encode({"a": ""}))
        self.assertEqual(len(state.encode({"a": "x" * room})), state.MAX_STATE)
        self.assertRaises(AppError, state.encode, {"a": "x" * (room + 1)})

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """
        Anything else is the peer's fault, or a dict.
        """
        try:
            self.assertIsInstance(state.decode(data), dict)
        except PeerError:
            return

    def test_garbageInside(self) -> None:
        """
        So are values that were never encoded.
        """
        for data in (b'{"a": []}', b'{"a": {}}', b'{"a": {"bytes": "!"}}', b"[]", b"1", b""):
            self.assertRaises(PeerError, state.decode, data)
