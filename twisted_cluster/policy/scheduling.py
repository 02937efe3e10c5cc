"""
The scheduling policies that come with the package.

C{choose} runs in the master once per connection, which is why it is kept
short; the cost of everything else in a handoff is shared by a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from random import Random
from types import MappingProxyType

from zope.interface import implementer

from twisted_cluster.interfaces import ILoad, IScheduler, Peer


@implementer(IScheduler)
class RoundRobin:
    """
    The slots take turns.  Workers that come, go or run out of credit do not
    disturb the order: next is the lowest slot above the last one chosen.
    """

    def __init__(self) -> None:
        self._last = -1

    def choose(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """
        The load that follows the last one chosen.
        """
        last = self._last
        for load in loads:
            if load.slot > last:
                break
        else:
            load = loads[0]
        self._last = load.slot
        return load


@implementer(IScheduler)
class LeastConnections:
    """
    The worker with the fewest connections is next.

    Among equals one is drawn: the lowest slot would otherwise get every
    connection of a server whose connections are short.

    @param random: Draws among equals.
    """

    def __init__(self, random: Random) -> None:
        self._draw = random.choice

    def choose(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """
        One of the loads with the fewest connections.
        """
        fewest = min(map(_connections, loads))
        equals = [load for load in loads if load.connections == fewest]
        return equals[0] if len(equals) == 1 else self._draw(equals)


_connections = attrgetter("connections")


def _makeRoundRobin(random: Random) -> IScheduler:
    return RoundRobin()


BUILT_IN: Mapping[str, Callable[[Random], IScheduler]] = MappingProxyType(
    {"round-robin": _makeRoundRobin, "least-connections": LeastConnections}
)
"""The policies of this package by name, the default one first."""
