"""
Values as bytes: what apps send each other, and what state and cache hold.

The first byte says what follows: C{b} the bytes themselves, C{i} a decimal
integer, C{j} anything else that JSON has.  Equal values have equal bytes.
Usable in any process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted_cluster.errors import AppError, PeerError

_encodeText = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def encode(value: Any) -> bytes:
    """
    The bytes that stand for C{value}: bytes, or what JSON can express.

    @raise AppError: if it is neither.
    """
    return b"".join(encodeApart(value))


def encodeApart(value: Any) -> tuple[bytes, bytes]:
    """
    The same in two pieces, the first byte and the rest, so that what is large
    need not be copied.

    @raise AppError: as L{encode}.
    """
    kind = type(value)
    if kind is bytes:
        return b"b", value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"b", bytes(value)
    try:
        if kind is int:
            return b"i", b"%d" % value
        _checkKeys(value)
        return b"j", _encodeText(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise AppError(
            f"can't send a {kind.__name__}: {error}; send bytes, or what JSON can express"
        ) from error


def decode(data: bytes) -> Any:
    """
    The inverse of L{encode}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    tag = data[:1]
    try:
        if tag == b"b":
            return data[1:]
        if tag == b"i":
            return int(data[1:])
        if tag == b"j":
            return json.loads(data[1:].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"a value that makes no sense: {error}") from error
    raise PeerError(f"a value that begins with {tag!r}")


def decodeParts(parts: Sequence[bytes]) -> Any:
    """
    The same of what has come in parts.  Bytes are copied only once.

    @raise PeerError: as L{decode}.
    """
    if len(parts) > 1 and parts[0][:1] == b"b":
        return b"".join((parts[0][1:], *parts[1:]))
    return decode(parts[0] if len(parts) == 1 else b"".join(parts))


def _checkKeys(value: Any) -> None:
    """
    JSON would make text of keys that are none, and the other end would not
    find them.

    @raise TypeError: if there is one.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"its key {key!r} is no text")
            _checkKeys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _checkKeys(item)
