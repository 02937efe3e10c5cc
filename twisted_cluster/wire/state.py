"""
What the protocol of a migrating connection takes along: a small dict of plain
values, as bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from twisted_cluster.errors import AppError, PeerError

Value = str | bytes | int | float | bool | None

MAX_STATE = 2048
"""The bytes that the state of one connection may have."""

_BYTES = "bytes"


def encode(state: Mapping[str, Value]) -> bytes:
    """
    The bytes that stand for C{state}; never empty.

    @raise AppError: if it has anything but plain values, or is too large.
    """
    try:
        data = json.dumps({name: _plain(value) for name, value in state.items()}).encode("ascii")
    except (AttributeError, TypeError, ValueError) as error:
        raise AppError(f"the state of a connection can't be carried: {error}") from error
    if len(data) > MAX_STATE:
        raise AppError(f"the state of a connection has {len(data)} bytes, over {MAX_STATE}")
    return data


def decode(data: bytes) -> dict[str, Value]:
    """
    The inverse of L{encode}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    try:
        return {name: _value(plain) for name, plain in json.loads(data).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PeerError(f"the state of a connection makes no sense: {error}") from error


def _plain(value: Value) -> object:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode("ascii")}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} is none of str, bytes, int, float, bool and None")


def _value(plain: object) -> Value:
    if isinstance(plain, dict):
        return base64.b64decode(plain[_BYTES], validate=True)
    if plain is None or isinstance(plain, (str, int, float)):
        return plain
    raise TypeError(f"a {type(plain).__name__}")
