"""
Tests for L{twisted_cluster.wire.state}.
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
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
states = st.dictionaries(st.text(max_size=8), values, max_size=6)


class StateTests(SynchronousTestCase):
    """
    What the protocol of a connection takes along.
    """

    @given(states)
    def test_roundTrip(self, carried: dict[str, state.Value]) -> None:
        """
        What was put in comes out, type for type; and no state is empty, which
        stands for none at all.
        """
        data = state.encode(carried)
        self.assertTrue(data)
        self.assertEqual(state.decode(data), carried)

    def test_refused(self) -> None:
        """
        What can't be carried is the app's fault, and said to be.
        """
        wrong: list[Any] = [{"a": []}, {"a": {}}, {"a": object()}, [], None, {"a": {"b": 1}}]
        for carried in wrong:
            error = self.assertRaises(AppError, state.encode, carried)
            self.assertIn("the state of a connection can't be carried", str(error))

    def test_tooLarge(self) -> None:
        """
        So is what is too large.
        """
        error = self.assertRaises(AppError, state.encode, {"a": "x" * state.MAX_STATE})
        self.assertIn(f"bytes, over {state.MAX_STATE}", str(error))

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """
        Whatever bytes come instead are the peer's fault.
        """
        try:
            decoded = state.decode(data)
        except PeerError:
            return
        self.assertIsInstance(decoded, dict)

    def test_nonsense(self) -> None:
        """
        So is JSON of another shape.
        """
        for text in ("[]", "3", "null", '{"a": []}', '{"a": {}}', '{"a": {"bytes": "%"}}'):
            self.assertRaises(PeerError, state.decode, text.encode("ascii"))
