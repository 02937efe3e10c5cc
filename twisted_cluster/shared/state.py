"""
The state as apps see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from twisted_cluster.errors import AppError
from twisted_cluster.interfaces import MAX_INTEGER, Change, Snapshot, Write, Written
from twisted_cluster.missing import MISSING
from twisted_cluster.policy.replica import Applied, Gap, Replica
from twisted_cluster.shared.desk import IDesk, Names
from twisted_cluster.wire import values
from twisted_cluster.wire.sharing import checkKey, checkValue

Watcher = Callable[[str, Any], object]
"""Called with a key and its new value, or L{MISSING}."""

ANY = "*"
"""What a watched key ends with if all keys that begin so are meant."""


class State(Mapping[str, Any]):
    """
    A mapping that is the same in all processes of the cluster.

    To read costs nothing but to decode the value, and waits for nobody.
    Writes are carried out in one order for the whole cluster; the Deferred of
    each fires when this process has what was written.  Its methods may fail
    with L{AppError} and L{twisted_cluster.errors.StateUnavailable}.

    Keys are texts of 1 to 1024 bytes; values are what JSON knows, or bytes.
    """

    log = Logger()

    def __init__(self, desk: IDesk) -> None:
        """
        @param desk: Carries writes out.
        """
        self.desk = desk
        self._replica = Replica()
        self._watchers = _Watchers()
        self._names = Names()

    # Reading.

    @property
    def version(self) -> int:
        """
        How many steps the state has taken.
        """
        return self._replica.version

    def __getitem__(self, key: str) -> Any:
        return values.decode(self._replica.items[key])

    def __contains__(self, key: object) -> bool:
        return key in self._replica.items

    def __iter__(self) -> Iterator[str]:
        return iter(self._replica.items)

    def __len__(self) -> int:
        return len(self._replica.items)

    def __repr__(self) -> str:
        return f"<State version={self.version} keys={len(self)}>"

    # Writing.

    def set(self, key: str, value: Any) -> Deferred[None]:
        """
        Have C{key} hold C{value}.

        @return: A Deferred that fires when this process has it.
        """
        return self.update({key: value})

    def delete(self, key: str) -> Deferred[None]:
        """
        Have C{key} be absent.
        """
        return self.update({key: MISSING})

    def update(self, items: Mapping[str, Any]) -> Deferred[None]:
        """
        Have several keys hold other values, in one step: nobody ever sees some
        of them without the others.

        @param items: The values by key; L{MISSING} deletes.
        """
        return self._write(lambda: {"sets": _encodeItems(items)}).addCallback(lambda _: None)

    def compareAndSet(self, key: str, expected: Any, value: Any) -> Deferred[bool]:
        """
        Have C{key} hold C{value} if it holds C{expected} when the write is
        carried out.  Values are equal if their JSON is.

        @param expected: L{MISSING} if the key is to be absent.
        @param value: L{MISSING} to delete.
        @return: A Deferred of whether it did.
        """
        done = self._write(
            lambda: {"sets": _encodeItems({key: value}), "expects": _encodeItems({key: expected})}
        )
        return done.addCallback(lambda written: written.applied)

    def increment(self, key: str, by: int = 1) -> Deferred[int]:
        """
        Add C{by} to the integer that C{key} holds; an absent one counts as 0.

        @return: A Deferred of the sum.
        """

        def sum(written: Written) -> int:
            total: int = values.decode(written.items[key] or b"")
            return total

        return self._write(lambda: {"increments": _checkIncrement(key, by)}).addCallback(sum)

    def _write(self, make: Callable[[], dict[str, Any]]) -> Deferred[Written]:
        return maybeDeferred(lambda: self.desk.write(Write(self._names.next(), **make())))

    # Watching.

    def watch(self, key: str, watcher: Watcher) -> Callable[[], None]:
        """
        Have C{watcher} called with the key and the new value whenever the
        value of C{key} changes; L{MISSING} is the value of a deleted key.  If
        C{key} ends with C{*}, all keys are meant that begin with what is
        before it.

        @return: A callable that ends the watch; to call it again is harmless.
        """
        return self._watchers.add(key, watcher)

    # What the cluster tells.

    def apply(self, change: Change) -> bool:
        """
        Take one step.

        @return: Whether it could be taken; if not, a snapshot is needed.
        """
        applied = self._replica.apply(change)
        if isinstance(applied, Applied):
            self._tell(applied)
        return not isinstance(applied, Gap)

    def reset(self, snapshot: Snapshot) -> None:
        """
        Go on from a snapshot.
        """
        self._tell(self._replica.reset(snapshot))

    def snapshot(self) -> Snapshot:
        """
        The state as it is here.  C{items} is the living mapping.
        """
        return self._replica.snapshot()

    def _tell(self, applied: Applied) -> None:
        for key in applied.keys:
            for watcher in self._watchers.of(key):
                try:
                    watcher(key, self.get(key, MISSING))
                except Exception:
                    self.log.failure("a watcher of {key!r} failed", key=key)


class _Watchers:
    """
    Who watches what.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[object, Watcher]] = {}
        self._prefixes: dict[object, tuple[str, Watcher]] = {}

    def add(self, key: str, watcher: Watcher) -> Callable[[], None]:
        """
        See L{State.watch}.
        """
        watch = object()
        if key.endswith(ANY):
            self._prefixes[watch] = (key[: -len(ANY)], watcher)
            return lambda: self._removePrefix(watch)
        self._exact.setdefault(key, {})[watch] = watcher
        return lambda: self._removeExact(key, watch)

    def of(self, key: str) -> list[Watcher]:
        """
        Those who are to be told of C{key}.
        """
        found = list(self._exact.get(key, {}).values())
        found += [one for prefix, one in self._prefixes.values() if key.startswith(prefix)]
        return found

    def _removePrefix(self, watch: object) -> None:
        self._prefixes.pop(watch, None)

    def _removeExact(self, key: str, watch: object) -> None:
        watches = self._exact.get(key, {})
        watches.pop(watch, None)
        if not watches:
            self._exact.pop(key, None)


def _encodeItems(items: Mapping[str, Any]) -> dict[str, bytes | None]:
    """
    @raise AppError: if a key or a value is not allowed.
    """
    encoded: dict[str, bytes | None] = {}
    for key, value in items.items():
        checkKey(key)
        encoded[key] = None if value is MISSING else values.encode(value)
        checkValue(key, encoded[key] or b"")
    return encoded


def _checkIncrement(key: str, by: int) -> dict[str, int]:
    """
    @raise AppError: if C{by} is no integer of 64 bits.
    """
    checkKey(key)
    checkStep(key, by)
    return {key: by}


def checkStep(key: str, by: object) -> None:
    """
    @raise AppError: if C{by} can't be added to anything.
    """
    if not isinstance(by, int) or not -MAX_INTEGER <= by <= MAX_INTEGER:
        raise AppError(f"can't increment {key!r}: {by!r} is no integer of 64 bits; give one")
