"""
What master and workers say to each other about state, cache and leases.

A worker asks with L{ASK}; the master answers with L{ANSWERS}, after the
L{CHANGES} that the answer is about.  What a worker was not told step by step it
is told at once, with a L{SNAPSHOT}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted_cluster.errors import AppError, PeerError
from twisted_cluster.interfaces import (
    MAX_KEY,
    MAX_SHARED_VALUE,
    RESERVED,
    Change,
    Snapshot,
    Write,
    Written,
)
from twisted_cluster.wire.records import Field, pack, unpack

SNAPSHOT = RESERVED + "snapshot"
CHANGES = RESERVED + "changes"
ASK = RESERVED + "ask"
ANSWERS = RESERVED + "answers"
LEASE_ASK = RESERVED + "lease.ask"
LEASE_END = RESERVED + "lease.end"
LEASE_GRANTED = RESERVED + "lease.granted"
LEASE_LOST = RESERVED + "lease.lost"

MAX_NAME = MAX_KEY + 64
"""The longest name of a lease, the package's own ones included."""


class Operation(Enum):
    """
    What a worker may ask for.
    """

    WRITE = "write"
    GET = "get"
    SET = "set"
    DELETE = "delete"
    INCREMENT = "increment"


class Outcome(Enum):
    """
    How it ended.

    DONE: well; the answer's fields are the result.
    REFUSED: it can't be done; the first field says why.
    UNAVAILABLE: it can't be done now; the first field says why.
    """

    DONE = "done"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Ask:
    """
    What a worker asks for.

    @ivar number: Which of its questions this is.
    """

    number: int
    operation: Operation
    fields: Sequence[Any]


@dataclass(frozen=True)
class Answer:
    """
    What the master answers.

    @ivar number: That of the question.
    """

    number: int
    outcome: Outcome
    fields: Sequence[Any]


# The state.


def encodeSnapshot(snapshot: Snapshot) -> bytes:
    """
    The data of a L{SNAPSHOT}.
    """
    return pack([snapshot.epoch, snapshot.version, *_flat(snapshot.items)])


def decodeSnapshot(data: bytes) -> Snapshot:
    """
    The inverse of L{encodeSnapshot}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    epoch, version, *items = _fields(data, 2)
    return Snapshot(_text(epoch), _number(version), _items(items))


def encodeChanges(changes: Iterable[Change]) -> bytes:
    """
    The data of L{CHANGES}.
    """
    fields: list[Field] = []
    for change in changes:
        fields += (change.version, len(change.items), *_flat(change.items))
    return pack(fields)


def decodeChanges(data: bytes) -> list[Change]:
    """
    The inverse of L{encodeChanges}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    rest = iter(unpack(data))
    return [Change(_number(version), _items(_take(rest))) for version in rest]


def writeFields(write: Write) -> list[Field]:
    """
    A write as fields of a question.
    """
    return [
        write.id,
        len(write.sets),
        *_flat(write.sets),
        len(write.expects),
        *_flat(write.expects),
        *_flat(write.increments),
    ]


def writeFrom(fields: Sequence[Any]) -> Write:
    """
    The inverse of L{writeFields}.

    @raise PeerError: if C{fields} are nothing that it makes.
    @raise AppError: if a key or a value is not allowed.
    """
    rest = iter(fields)
    name = _text(next(rest, None))
    sets = _items(_take(rest))
    expects = _items(_take(rest))
    increments = {_text(key): _number(by) for key, by in _pairs(list(rest))}
    for key in (*sets, *expects, *increments):
        checkKey(key)
    for key, value in sets.items():
        checkValue(key, value or b"")
    return Write(name, sets, expects, increments)


def writtenFields(written: Written) -> list[Field]:
    """
    What became of a write, as fields of an answer.
    """
    return [int(written.applied), written.version, *_flat(written.items)]


def writtenFrom(fields: Sequence[Any]) -> Written:
    """
    The inverse of L{writtenFields}.

    @raise PeerError: if C{fields} are nothing that it makes.
    """
    if len(fields) < 2:
        raise PeerError("an answer that lacks something")
    return Written(bool(fields[0]), _number(fields[1]), _items(fields[2:]))


def checkKey(key: str) -> None:
    """
    @raise AppError: if C{key} is no key.
    """
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise AppError(f"can't use the key {key!r}: {error}; take valid Unicode") from error
    if not 1 <= length <= MAX_KEY:
        raise AppError(
            f"can't use the key {key[:40]!r}: it has {length} bytes; take 1 to {MAX_KEY}"
        )


def checkValue(key: str, encoded: bytes) -> None:
    """
    @raise AppError: if a value of C{key} is too large.
    """
    if len(encoded) > MAX_SHARED_VALUE:
        raise AppError(
            f"can't set {key!r}: the value has {len(encoded)} bytes, more than the "
            f"{MAX_SHARED_VALUE} that it may have; split it"
        )


# Questions and answers.


def encodeAsk(ask: Ask) -> bytes:
    """
    The data of an L{ASK}.
    """
    return pack([ask.number, ask.operation.value, *ask.fields])


def decodeAsk(data: bytes) -> Ask:
    """
    The inverse of L{encodeAsk}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    number, operation, *fields = _fields(data, 2)
    try:
        return Ask(_number(number), Operation(operation), fields)
    except ValueError as error:
        raise PeerError(str(error)) from error


def encodeAnswers(answers: Iterable[Answer]) -> bytes:
    """
    The data of L{ANSWERS}.
    """
    fields: list[Field] = []
    for answer in answers:
        fields += (answer.number, answer.outcome.value, len(answer.fields), *answer.fields)
    return pack(fields)


def decodeAnswers(data: bytes) -> list[Answer]:
    """
    The inverse of L{encodeAnswers}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    rest = iter(unpack(data))
    answers = []
    for number in rest:
        try:
            outcome = Outcome(next(rest, None))
        except ValueError as error:
            raise PeerError(str(error)) from error
        answers.append(Answer(_number(number), outcome, _take(rest, width=1)))
    return answers


def encodeLease(owner: str, detail: Field) -> bytes:
    """
    The data of what is said about a lease.

    @param detail: The name of the lease, the token, or why it is lost.
    """
    return pack([owner, detail])


def decodeLease(data: bytes) -> tuple[str, Any]:
    """
    The inverse of L{encodeLease}.

    @raise PeerError: if C{data} is nothing that it makes.
    """
    owner, detail = _fields(data, 2, 2)
    return _text(owner), detail


# Fields.


def _flat(items: Mapping[str, Field]) -> Iterator[Field]:
    for key, value in items.items():
        yield key
        yield value


def _fields(data: bytes, least: int, most: int | None = None) -> list[Any]:
    fields = unpack(data)
    if len(fields) < least or (most is not None and len(fields) > most):
        raise PeerError(f"a record of {len(fields)} fields")
    return fields


def _take(fields: Iterator[Any], width: int = 2) -> list[Any]:
    """
    The fields that follow their count.

    @param width: How many fields each of them has.
    """
    count = _number(next(fields, None))
    taken = [field for _, field in zip(range(width * count), fields)]
    if count < 0 or len(taken) != width * count:
        raise PeerError("a record that lacks something")
    return taken


def _pairs(fields: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    if len(fields) % 2:
        raise PeerError("a key without a value")
    return zip(fields[::2], fields[1::2])


def _items(fields: Sequence[Any]) -> dict[str, Any]:
    """
    Encoded values by key.
    """
    items = dict(_pairs(fields))
    for key, value in items.items():
        if not isinstance(key, str) or not (value is None or isinstance(value, bytes)):
            raise PeerError("an item that is none")
    return items


def _text(field: Any) -> str:
    if not isinstance(field, str):
        raise PeerError(f"{field!r} in the place of a text")
    return field


def _number(field: Any) -> int:
    if not isinstance(field, int):
        raise PeerError(f"{field!r} in the place of a number")
    return field
