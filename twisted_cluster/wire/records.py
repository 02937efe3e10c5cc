"""
Sequences of plain fields as bytes, for what master and workers say about what
they share.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from twisted_cluster.errors import PeerError

Field = bytes | str | int | float | None

_NONE, _BYTES, _TEXT, _INTEGER, _FLOAT = b"nbsif"
_LENGTH = struct.Struct("!BI")
_NUMBER = struct.Struct("!Bq")
_REAL = struct.Struct("!Bd")

OVERHEAD = _LENGTH.size
"""Bytes that a field takes beside its own."""


def pack(fields: Iterable[Field]) -> bytes:
    """
    The bytes that stand for C{fields}.

    @raise OverflowError: if an integer takes more than 64 bits.
    """
    parts: list[bytes] = []
    for field in fields:
        if isinstance(field, bytes):
            parts += (_LENGTH.pack(_BYTES, len(field)), field)
        elif isinstance(field, str):
            text = field.encode("utf-8")
            parts += (_LENGTH.pack(_TEXT, len(text)), text)
        elif field is None:
            parts.append(b"n")
        elif isinstance(field, int):
            parts.append(_packNumber(field))
        else:
            parts.append(_REAL.pack(_FLOAT, field))
    return b"".join(parts)


def _packNumber(number: int) -> bytes:
    try:
        return _NUMBER.pack(_INTEGER, number)
    except struct.error:
        raise OverflowError(f"{number} takes more than 64 bits") from None


def unpack(data: bytes) -> list[Any]:
    """
    The inverse of L{pack}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    fields: list[Field] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag = data[position]
            if tag in (_BYTES, _TEXT):
                _, length = _LENGTH.unpack_from(data, position)
                start = position + _LENGTH.size
                position = start + length
                if position > end:
                    raise PeerError("a record that ends too early")
                body = data[start:position]
                fields.append(body if tag == _BYTES else body.decode("utf-8"))
            elif tag == _NONE:
                fields.append(None)
                position += 1
            else:
                form = {_INTEGER: _NUMBER, _FLOAT: _REAL}[tag]
                fields.append(form.unpack_from(data, position)[1])
                position += form.size
    except (KeyError, UnicodeDecodeError, struct.error) as error:
        raise PeerError(f"a record that makes no sense: {error}") from error
    return fields
