"""
Who has a lease, and who is next.

L{Table} is the memory of a backend: the holder of each lease, among all
hosts.  L{Lines} is the order within one master: those who wait for the same
lease stand in line, and only the first of them asks the backend.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum


@dataclass(frozen=True)
class Holding:
    """
    A lease that somebody has.

    @ivar token: The fencing token.
    @ivar expires: When somebody else may have it.
    """

    owner: str
    token: int
    expires: float


class Table:
    """
    The leases that are held.  Time is an argument.
    """

    def __init__(self, lastToken: int = 0) -> None:
        """
        @param lastToken: The tokens that are given out are larger.
        """
        self._token = lastToken
        self._held: dict[str, Holding] = {}

    def __len__(self) -> int:
        return len(self._held)

    def acquire(self, name: str, owner: str, seconds: float, now: float) -> int | None:
        """
        Have C{owner} hold a lease if nobody else does.

        @return: The token; L{None} if somebody else holds it.
        """
        held = self._held.get(name)
        if held is not None and held.owner == owner:
            self._held[name] = replace(held, expires=now + seconds)
            return held.token
        if held is not None and held.expires > now:
            return None
        self._token += 1
        self._held[name] = Holding(owner, self._token, now + seconds)
        return self._token

    def renew(self, name: str, owner: str, seconds: float, now: float) -> bool:
        """
        Have it last for C{seconds} from now on.  One that has expired can be
        renewed as long as nobody else has got it.

        @return: Whether C{owner} holds it.
        """
        held = self._held.get(name)
        if held is None or held.owner != owner:
            return False
        self._held[name] = replace(held, expires=now + seconds)
        return True

    def release(self, name: str, owner: str) -> bool:
        """
        Have nobody hold it.

        @return: Whether C{owner} held it.
        """
        held = self._held.get(name)
        if held is None or held.owner != owner:
            return False
        del self._held[name]
        return True


@dataclass(frozen=True)
class Try:
    """
    The backend is to be asked for a lease.
    """

    name: str
    owner: str


@dataclass(frozen=True)
class GiveBack:
    """
    The backend is to be told that a lease is free.
    """

    name: str
    owner: str


Step = Try | GiveBack


class _Standing(Enum):
    """
    How far the first in a line has got.

    BLOCKED: somebody in another line has the lease.
    TRYING: the backend has been asked.
    LEFT: the backend has been asked, and who wanted it does so no more.
    HOLDING: it has the lease.
    """

    BLOCKED = "blocked"
    TRYING = "trying"
    LEFT = "left"
    HOLDING = "holding"


class _Line:
    """
    Those who want one lease; the first one alone has a standing.
    """

    def __init__(self) -> None:
        self.owners: deque[str] = deque()
        self.standing = _Standing.BLOCKED


class Lines:
    """
    Who waits for which lease within one master.  Each method returns the steps
    to be taken, in order; the answer to each L{Try} is to be told to
    L{answered}.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return sum(len(line.owners) for line in self._lines.values())

    def holders(self) -> Iterator[tuple[str, str]]:
        """
        The name and the owner of each lease that is held.
        """
        for name, line in self._lines.items():
            if line.standing is _Standing.HOLDING:
                yield name, line.owners[0]

    def blocked(self) -> Iterator[str]:
        """
        The names of the leases that somebody in another line has.
        """
        for name, line in self._lines.items():
            if line.standing is _Standing.BLOCKED:
                yield name

    def ask(self, name: str, owner: str) -> tuple[Step, ...]:
        """
        Stand in line.

        @param owner: Unique to this request.
        """
        line = self._lines.setdefault(name, _Line())
        line.owners.append(owner)
        return self._advance(name, line) if len(line.owners) == 1 else ()

    def answered(self, name: str, owner: str, got: bool) -> tuple[Step, ...]:
        """
        The backend has answered.  Then C{owner} holds the lease if C{got},
        unless it has left meanwhile.
        """
        line = self._lines[name]
        if line.standing is _Standing.LEFT:
            steps = self._next(name, line)
            return (GiveBack(name, owner), *steps) if got else steps
        line.standing = _Standing.HOLDING if got else _Standing.BLOCKED
        return ()

    def retry(self, name: str) -> tuple[Step, ...]:
        """
        The lease may be free.
        """
        line = self._lines.get(name)
        if line is None or line.standing is not _Standing.BLOCKED:
            return ()
        return self._advance(name, line)

    def end(self, name: str, owner: str) -> tuple[Step, ...]:
        """
        C{owner} gives up the lease, or its place in the line.
        """
        line = self._lines.get(name)
        if line is None or owner not in line.owners:
            return ()
        if line.owners[0] != owner:
            line.owners.remove(owner)
            return ()
        if line.standing in (_Standing.TRYING, _Standing.LEFT):
            line.standing = _Standing.LEFT
            return ()
        held = line.standing is _Standing.HOLDING
        steps = self._next(name, line)
        return (GiveBack(name, owner), *steps) if held else steps

    def _next(self, name: str, line: _Line) -> tuple[Step, ...]:
        """
        The first one is gone.
        """
        line.owners.popleft()
        if line.owners:
            return self._advance(name, line)
        del self._lines[name]
        return ()

    def _advance(self, name: str, line: _Line) -> tuple[Step, ...]:
        line.standing = _Standing.TRYING
        return (Try(name, line.owners[0]),)
