"""
Tests for L{twisted_cluster.wire.records}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import PeerError
from twisted_cluster.wire.records import Field, pack, unpack

fields = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)


class RecordTests(SynchronousTestCase):
    """
    Fields as bytes.
    """

    @given(st.lists(fields))
    def test_inverse(self, given: list[Field]) -> None:
        """
        What is packed is unpacked, with its types.
        """
        found = unpack(pack(given))
        self.assertEqual(found, given)
        self.assertEqual([type(one) for one in found], [type(one) for one in given])

    def test_tooLarge(self) -> None:
        """
        Integers of more than 64 bits are refused.
        """
        for number in (2**63, -(2**63) - 1):
            self.assertRaises(OverflowError, pack, [number])

    @given(st.lists(fields, min_size=1), st.data())
    def test_cut(self, given: list[Field], data: st.DataObject) -> None:
        """
        A record that was cut is refused, or has fewer fields; no field of it is
        another one.
        """
        packed = pack(given)
        cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
        try:
            found = unpack(cut)
        except PeerError:
            return
        self.assertEqual(found, given[: len(found)])
        self.assertLess(len(found), len(given))

    @given(st.binary(max_size=40))
    def test_anything(self, data: bytes) -> None:
        """
        Whatever comes, it is unpacked or refused.
        """
        try:
            unpack(data)
        except PeerError as error:
            self.assertIn("a record that", str(error))
