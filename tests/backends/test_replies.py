"""
Tests for L{twisted_cluster.backends.replies}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.backends.replies import MAX_LINE, Reader
from twisted_cluster.errors import PeerError

STREAM = (
    b"+OK\r\n-ERR no\r\n:-12\r\n$5\r\na\r\nb\0\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n"
    b"*3\r\n$7\r\nmessage\r\n*1\r\n:1\r\n$-1\r\n"
)
REPLIES = [b"OK", ("ERR no",), -12, b"a\r\nb\0", b"", None, None, [], [b"message", [1], None]]


def reader() -> Reader:
    """
    One that makes tuples of errors.
    """
    return Reader(lambda text: (text,))


class ReaderTests(SynchronousTestCase):
    """
    Replies as bytes.
    """

    def test_all(self) -> None:
        """
        All kinds of replies at once.
        """
        self.assertEqual(reader().feed(STREAM), REPLIES)

    @given(some.lists(some.integers(0, len(STREAM)), max_size=8).map(sorted))
    def test_pieces(self, cuts: list[int]) -> None:
        """
        However they are cut, the replies are the same.
        """
        one, found = reader(), []
        for start, end in zip([0, *cuts], [*cuts, len(STREAM)]):
            found += one.feed(STREAM[start:end])
        self.assertEqual(found, REPLIES)
        self.assertEqual(one.feed(b""), [])

    def test_nonsense(self) -> None:
        """
        What is no Redis is refused.
        """
        for data in (b"HTTP/1.1 200 OK\r\n", b":x\r\n", b"$x\r\n", b"\r\n", bytes(MAX_LINE + 1)):
            self.assertRaises(PeerError, reader().feed, data)

    @given(some.binary())
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes are replies or nonsense, and nothing else happens.
        """
        try:
            found = reader().feed(data)
        except PeerError:
            return
        self.assertIsInstance(found, list)
