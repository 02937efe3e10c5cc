"""
What a Redis server says, as it comes over the network (RESP 2).

The client library's own reader takes a turn of the reactor for each string,
which a busy feed can't afford.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted_cluster.errors import PeerError

MAX_LINE = 65_536
"""The bytes that a reply without a length may have."""

_MISSING = object()


class Reader:
    """
    Cuts a stream of bytes into replies.  Strings are C{bytes}, absent ones
    L{None}, arrays lists.
    """

    def __init__(self, makeError: Callable[[str], Any]) -> None:
        """
        @param makeError: Makes the reply that stands for an error.
        """
        self._makeError = makeError
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> list[Any]:
        """
        Add to the stream.

        @return: The replies that are complete with it.
        @raise PeerError: if this is no Redis.
        """
        self._data += data
        replies = []
        while (reply := self._next()) is not _MISSING:
            replies.append(reply)
        return replies

    def _next(self) -> Any:
        """
        The next reply.  The stream goes on behind it only if it is complete.
        """
        start = self._at
        reply = self._reply()
        if reply is _MISSING:
            # What was read is dropped here, once for all replies of a turn.
            del self._data[:start]
            self._at = 0
        return reply

    def _reply(self) -> Any:
        end = self._data.find(b"\r\n", self._at, self._at + MAX_LINE)
        if end < 0:
            if len(self._data) - self._at > MAX_LINE:
                raise PeerError("a reply that is not Redis's")
            return _MISSING
        kind, line = self._data[self._at], bytes(self._data[self._at + 1 : end])
        self._at = end + 2
        if kind == ord("$"):
            return self._string(_number(line))
        if kind == ord("*"):
            return self._array(_number(line))
        if kind == ord(":"):
            return _number(line)
        if kind == ord("+"):
            return line
        if kind == ord("-"):
            return self._makeError(line.decode("utf-8", "replace"))
        raise PeerError("a reply that is not Redis's")

    def _string(self, length: int) -> Any:
        if length < 0:
            return None
        start, end = self._at, self._at + length
        if end + 2 > len(self._data):
            return _MISSING
        self._at = end + 2
        with memoryview(self._data) as view:
            return bytes(view[start:end])

    def _array(self, length: int) -> Any:
        if length < 0:
            return None
        items = []
        for _ in range(length):
            item = self._reply()
            if item is _MISSING:
                return _MISSING
            items.append(item)
        return items


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise PeerError("a reply that is not Redis's") from None
