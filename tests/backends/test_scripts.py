"""
Tests for L{twisted_cluster.backends.scripts}.  What the scripts do is tested
with the backend.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.backends.scripts import pack, unpack
from twisted_cluster.errors import PeerError


class FieldTests(SynchronousTestCase):
    """
    Fields as bytes.
    """

    @given(some.lists(some.none() | some.binary()))
    def test_roundTrip(self, fields: list[bytes | None]) -> None:
        """
        What was packed is what is unpacked.
        """
        self.assertEqual(unpack(pack(fields)), fields)

    @given(some.binary())
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes are fields or nonsense, and nothing else happens.
        """
        try:
            fields = unpack(data)
        except PeerError:
            return
        self.assertEqual(pack(fields), data)

    def test_cutOff(self) -> None:
        """
        What ends too early is refused.
        """
        for data in (b"\0", b"\0\0\0\2x", b"\xff\xff\xff"):
            self.assertRaises(PeerError, unpack, data)
