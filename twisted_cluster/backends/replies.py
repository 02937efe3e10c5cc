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

_MISSING, _BEGUN = object(), object()

_STRANGE = "a reply that is not Redis's"


class Reader:
    """
    Cuts a stream of bytes into replies.  Strings are C{bytes}, absent ones
    L{None}, arrays lists.  Bytes are looked at once however they arrive.
    """

    def __init__(self, makeError: Callable[[str], Any]) -> None:
        """
        @param makeError: Makes the reply that stands for an error.
        """
        self._makeError = makeError
        self._data = bytearray()
        self._at = 0
        self._length: int | None = None
        self._arrays: list[tuple[int, list[Any]]] = []

    def feed(self, data: bytes) -> list[Any]:
        """
        Add to the stream.

        @return: The replies that are complete with it.
        @raise PeerError: if this is no Redis.
        """
        self._data += data
        replies = []
        while (item := self._item()) is not _MISSING:
            reply = self._placed(item)
            if reply is not _MISSING:
                replies.append(reply)
        del self._data[: self._at]
        self._at = 0
        return replies

    def _placed(self, item: Any) -> Any:
        """
        Put an item where it belongs.

        @return: The reply that is complete with it, if any.
        """
        while self._arrays:
            wanted, items = self._arrays[-1]
            if item is not _BEGUN:
                items.append(item)
            if len(items) < wanted:
                return _MISSING
            self._arrays.pop()
            item = items
        return item

    def _item(self) -> Any:
        """
        The next item that is no array, or C{_BEGUN} for the beginning of one.
        """
        if self._length is not None:
            return self._string(self._length)
        end = self._data.find(b"\r\n", self._at, self._at + MAX_LINE)
        if end < 0:
            if len(self._data) - self._at > MAX_LINE:
                raise PeerError(_STRANGE)
            return _MISSING
        kind, line = self._data[self._at : self._at + 1], self._data[self._at + 1 : end]
        self._at = end + 2
        if kind == b"$":
            length = _number(line)
            return None if length < 0 else self._string(length)
        if kind == b"*":
            return self._begin(_number(line))
        if kind == b":":
            return _number(line)
        if kind == b"+":
            return bytes(line)
        if kind == b"-":
            return self._makeError(line.decode("utf-8", "replace"))
        raise PeerError(_STRANGE)

    def _string(self, length: int) -> Any:
        start, end = self._at, self._at + length
        if end + 2 > len(self._data):
            self._length = length
            return _MISSING
        self._length = None
        self._at = end + 2
        with memoryview(self._data) as view:
            return bytes(view[start:end])

    def _begin(self, length: int) -> Any:
        if length < 0:
            return None
        self._arrays.append((length, []))
        return _BEGUN


def _number(line: bytes | bytearray) -> int:
    try:
        return int(line)
    except ValueError:
        raise PeerError(_STRANGE) from None
