"""
Tests for L{twisted_cluster.wire.values}.
"""

from __future__ import annotations

import contextlib
from enum import IntEnum
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError, PeerError
from twisted_cluster.wire.values import decode, encode

_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    _LEAVES | _TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner),
    max_leaves=20,
)


class _Color(IntEnum):
    RED = 1
    BLUE = 2


class ValueTests(SynchronousTestCase):
    """
    What goes in comes out.
    """

    @given(JSON)
    def test_json(self, value: Any) -> None:
        """
        Whatever JSON can express arrives as it was.
        """
        self.assertEqual(decode(encode(value)), value)

    @given(st.binary())
    def test_bytes(self, value: bytes) -> None:
        """
        So do bytes, which come as bytes however they were held.
        """
        for held in (value, bytearray(value), memoryview(value)):
            arrived = decode(encode(held))
            self.assertEqual(arrived, value)
            self.assertIs(type(arrived), bytes)

    def test_tags(self) -> None:
        """
        The first byte says what follows: integers are written so that a
        server of another kind can count with them.
        """
        self.assertEqual(encode(b"\0x"), b"b\0x")
        self.assertEqual(encode(-12), b"i-12")
        self.assertEqual(encode({"b": [1], "a": "ü"}), 'j{"a":"ü","b":[1]}'.encode())
        self.assertEqual(encode(True), b"jtrue")

    def test_canonical(self) -> None:
        """
        Equal dicts have equal bytes, in whatever order they were filled.
        """
        self.assertEqual(encode({"a": 1, "b": 2}), encode({"b": 2, "a": 1}))

    def test_enum(self) -> None:
        """
        A number with a name arrives as the number.
        """
        self.assertEqual(decode(encode(_Color.BLUE)), 2)


class RefusedTests(SynchronousTestCase):
    """
    What can't be sent is refused with a text for the author of the app, and
    what makes no sense when it has come.
    """

    def refused(self, value: Any) -> str:
        """
        Why C{value} can't be sent.
        """
        return str(self.assertRaises(AppError, encode, value))

    def test_types(self) -> None:
        """
        The text names the type.
        """
        self.assertIn("can't send a set: ", self.refused({1}))
        self.assertIn("can't send a object: ", self.refused(object()))
        self.assertIn("can't send a list: ", self.refused([{1}]))

    def test_keys(self) -> None:
        """
        Keys that would arrive as texts are refused, however deep they are.
        """
        self.assertIn("its key 1 is no text", self.refused({1: "one"}))
        self.assertIn("its key None is no text", self.refused([({"a": {None: 1}},)]))

    def test_numbers(self) -> None:
        """
        So are numbers that JSON does not have, and those with too many digits
        to be read.
        """
        for value in (float("nan"), [float("inf")], 10**5000):
            self.refused(value)

    def test_circle(self) -> None:
        """
        So is what contains itself.
        """
        circle: list[Any] = []
        circle.append(circle)
        self.refused(circle)

    def test_surrogates(self) -> None:
        """
        So is text that is none.
        """
        self.refused("\ud800")

    def test_garbage(self) -> None:
        """
        Bytes that no value has are the fault of whoever sent them.
        """
        deep = b"j" + b"[" * 200_000
        for data in (b"", b"x", b"i", b"i1.5", b"j", b"j{", b"j\xff", b"i" + b"9" * 5000, deep):
            self.assertRaises(PeerError, decode, data)

    @given(st.binary())
    def test_anyBytes(self, data: bytes) -> None:
        """
        No bytes whatever raise anything else.
        """
        with contextlib.suppress(PeerError):
            decode(data)
