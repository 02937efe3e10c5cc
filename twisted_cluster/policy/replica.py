"""
The state as one process has it: a version, and the items of that version.

It goes ahead by one L{Change} at a time.  Whoever misses one can't go on from
there and needs a L{Snapshot}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from twisted_cluster.errors import AppError
from twisted_cluster.interfaces import ITEM_OVERHEAD, MAX_STATE, Change, Snapshot, Write
from twisted_cluster.policy.counters import increased


@dataclass(frozen=True)
class Applied:
    """
    The replica has gone ahead.

    @ivar keys: The keys that are different now.
    """

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """
    Steps are missing before this one; nothing was done.

    @ivar expected: The version that would have been the next.
    """

    expected: int


@dataclass(frozen=True)
class Stale:
    """
    The replica has been past this step already; nothing was done.
    """


class Replica:
    """
    The state in one process.  It begins with nothing, at version 0 of no
    epoch.

    @ivar epoch: Whose versions these are.
    @ivar version: How far it has got.
    @ivar items: The encoded values by key; to be read only.
    @ivar size: The bytes that all items count for.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.epoch = ""
        self.version = 0
        self.size = 0
        self._items: dict[str, bytes] = {}
        self.items: Mapping[str, bytes] = MappingProxyType(self._items)
        if snapshot is not None:
            self.reset(snapshot)

    def apply(self, change: Change) -> Applied | Gap | Stale:
        """
        Go one step ahead, if this is the next one.
        """
        if change.version <= self.version:
            return Stale()
        if change.version > self.version + 1:
            return Gap(self.version + 1)
        keys = tuple(key for key, value in change.items.items() if self._put(key, value))
        self.version = change.version
        return Applied(keys)

    def reset(self, snapshot: Snapshot) -> Applied:
        """
        Go on from a snapshot, wherever it leads.
        """
        gone: dict[str, bytes | None] = dict.fromkeys(self._items.keys() - snapshot.items.keys())
        target = {**gone, **snapshot.items}
        keys = tuple(key for key, value in target.items() if self._put(key, value))
        self.epoch = snapshot.epoch
        self.version = snapshot.version
        return Applied(keys)

    def snapshot(self) -> Snapshot:
        """
        The replica now.  C{items} is the living mapping.
        """
        return Snapshot(self.epoch, self.version, self.items)

    def _put(self, key: str, value: bytes | None) -> bool:
        """
        Have C{key} hold C{value}.

        @return: Whether it held something else.
        """
        before = self._items.get(key)
        if before == value:
            return False
        if before is not None:
            self.size -= weight(key, before)
        if value is None:
            del self._items[key]
        else:
            self._items[key] = value
            self.size += weight(key, value)
        return True


def weight(key: str, value: bytes | None) -> int:
    """
    The bytes that an item counts for; 0 for one that is absent.
    """
    return 0 if value is None else ITEM_OVERHEAD + len(key.encode("utf-8")) + len(value)


def decide(replica: Replica, write: Write, limit: int = MAX_STATE) -> Change | None:
    """
    The step that a write takes.

    @param limit: The most bytes that the items may have.
    @return: The step, which touches nothing if the write changes no value;
        L{None} if something that it expects does not hold.
    @raise AppError: if it asks for what can't be.
    """
    items = replica.items
    if any(items.get(key) != value for key, value in write.expects.items()):
        return None
    wanted: dict[str, bytes | None] = dict(write.sets)
    for key, by in write.increments.items():
        if key in wanted:
            raise AppError(f"can't increment {key!r}: the same write sets it; do one of both")
        wanted[key] = increased(key, items.get(key), by)
    touched = {key: value for key, value in wanted.items() if items.get(key) != value}
    _checkSize(replica, touched, limit)
    return Change(replica.version + 1, touched)


def _checkSize(replica: Replica, touched: Mapping[str, bytes | None], limit: int) -> None:
    """
    @raise AppError: if the state would be too large, and larger than it is.
    """
    growth = sum(
        weight(key, value) - weight(key, replica.items.get(key)) for key, value in touched.items()
    )
    if growth > 0 and replica.size + growth > limit:
        raise AppError(
            f"can't write the state: it would have {replica.size + growth} bytes, more than the "
            f"{limit} that it may have; delete what is not needed"
        )
