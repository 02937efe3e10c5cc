"""
Which hosts there are, and in which order they reload.  Time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXPIRY = 10.0
"""Seconds after its last word at which a host counts as gone."""


@dataclass(frozen=True, order=True)
class Host:
    """
    One master.

    @ivar name: The name of its machine.
    @ivar pid: Its process id there.
    @ivar id: A name that no other master has or had.
    """

    name: str
    pid: int
    id: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Presence:
    """
    The hosts that were heard of lately.
    """

    def __init__(self) -> None:
        self._heard: dict[Host, float] = {}

    def heard(self, host: Host, now: float) -> None:
        """
        It has said something.
        """
        self._heard[host] = now

    def gone(self, host: Host) -> None:
        """
        It has said that it ends.
        """
        self._heard.pop(host, None)

    def hosts(self, now: float) -> tuple[Host, ...]:
        """
        Those that are there, by name.  The others are forgotten.
        """
        late = [host for host, at in self._heard.items() if now - at > EXPIRY]
        for host in late:
            del self._heard[host]
        return tuple(sorted(self._heard))


def order(hosts: Iterable[Host], first: Host) -> tuple[Host, ...]:
    """
    The order in which to reload: C{first} is where somebody looks at it, so
    that what is wrong shows there.
    """
    return (first, *sorted(set(hosts) - {first}))
