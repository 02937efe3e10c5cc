"""
Sums of encoded integers, for state and cache alike.
"""

from __future__ import annotations

from twisted_cluster.errors import AppError
from twisted_cluster.interfaces import MAX_INTEGER

_TAG = b"i"
"""What L{twisted_cluster.wire.values} puts before an integer."""


def increased(key: str, encoded: bytes | None, by: int) -> bytes:
    """
    Add to an encoded integer.

    @param encoded: What C{key} has; L{None} counts as 0.
    @return: The sum, encoded.
    @raise AppError: if C{encoded} is no integer, or the sum takes more than 64
        bits.
    """
    total = numberIn(key, encoded) + by
    if not -MAX_INTEGER - 1 <= total <= MAX_INTEGER:
        raise AppError(f"can't increment {key!r}: {total} takes more than 64 bits; begin anew")
    return _TAG + b"%d" % total


def numberIn(key: str, encoded: bytes | None) -> int:
    """
    The integer that C{key} has.

    @raise AppError: if it is none.
    """
    if encoded is None:
        return 0
    if encoded[:1] != _TAG:
        raise AppError(f"can't increment {key!r}: it holds no integer; set it to one first")
    return int(encoded[1:])
