"""
What is written on a message: of which kind it is, from whom, to whom and about
what.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from twisted_cluster.errors import AppError, PeerError

MAX_TOPIC = 255
"""The most bytes that a topic may have."""

MASTER = -1
"""The master, as sender or target; workers are known by their slots."""

OTHERS = -2
"""All workers but the one that sends."""

ALL = -3
"""All workers."""

EVERYWHERE = -4
"""All workers of all hosts."""

_HEAD = struct.Struct("!BQqqdB")


class Kind(IntEnum):
    """
    MESSAGE: wants no answer from whoever handles it; the master says RESULT,
    with the number of receivers, or FAILURE to a worker that sends one.
    CALL: wants an answer.
    RESULT: the answer.
    FAILURE: why there is none, as text.
    """

    MESSAGE = 0
    CALL = 1
    RESULT = 2
    FAILURE = 3


class Envelope(NamedTuple):
    """
    One message.

    @ivar number: What the sender calls it; an answer has the number of its
        question.
    @ivar sender: A slot, or L{MASTER}.  What a worker writes there is not
        believed.
    @ivar target: A slot, L{MASTER}, L{OTHERS}, L{ALL} or L{EVERYWHERE}.
    @ivar timeout: For how many seconds the sender of a call waits.
    @ivar value: What L{twisted_cluster.wire.values} made of it.
    """

    kind: Kind
    number: int
    sender: int
    target: int
    timeout: float
    topic: str
    value: bytes

    def encode(self) -> bytes:
        """
        The bytes of it all.
        """
        topic = self.topic.encode("utf-8")
        head = _HEAD.pack(
            self.kind, self.number, self.sender, self.target, self.timeout, len(topic)
        )
        return b"".join((head, topic, self.value))


def decode(data: bytes) -> Envelope:
    """
    The inverse of L{Envelope.encode}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    try:
        kind, number, sender, target, timeout, length = _HEAD.unpack_from(data)
        start = _HEAD.size + length
        if start > len(data):
            raise PeerError("a message that ends within its topic")
        if not 0 <= timeout < math.inf:
            raise PeerError(f"a message that waits for {timeout} s")
        topic = data[_HEAD.size : start].decode("utf-8")
        return Envelope(Kind(kind), number, sender, target, timeout, topic, data[start:])
    except (struct.error, ValueError) as error:
        raise PeerError(f"a message that makes no sense: {error}") from error


def whole(parts: Sequence[bytes]) -> Envelope:
    """
    The same of what has come in parts.

    @raise PeerError: as L{decode}.
    """
    head = decode(parts[0])
    return head if len(parts) == 1 else head._replace(value=b"".join((head.value, *parts[1:])))


def checkTimeout(timeout: float) -> None:
    """
    Refuse what nobody can wait for.

    @raise AppError: if it is no number of seconds.
    """
    # An int may be larger than any float, which the envelope has.
    if not isinstance(timeout, (int, float)) or not 0 <= timeout <= sys.float_info.max:
        raise AppError(f"can't wait for {timeout!r} s: give a number of seconds, such as 10")


def checkTopic(topic: str, reserved: str) -> None:
    """
    Refuse what no app may use as a topic.

    @param reserved: How the topics of this package begin.
    @raise AppError: if it is no text, too long, or reserved.
    """
    what = f"can't use the topic {str(topic)[:80]!r}"
    if not isinstance(topic, str) or not topic:
        raise AppError(f"{what}: it is not a text, or empty; give a short name")
    try:
        encoded = topic.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AppError(f"{what}: {error}; give a short name") from error
    if len(encoded) > MAX_TOPIC:
        raise AppError(f"{what}: it has more than {MAX_TOPIC} bytes; give a shorter one")
    if topic.startswith(reserved):
        raise AppError(f"{what}: names that begin with {reserved!r} are taken; choose another one")
