"""
State, cache and leases of one process.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from twisted_cluster.shared.cache import Cache
from twisted_cluster.shared.desk import IDesk, NoDesk
from twisted_cluster.shared.leases import Leases
from twisted_cluster.shared.state import State

NOT_RUNNING = "this process has no master that runs; do it when the app has been started"


class Commons:
    """
    What a process has in common with all others of its cluster.  It may be
    made before there is anybody to share with: then nothing can be written
    yet, and what is read is empty.

    @ivar state: The L{State}.
    @ivar cache: The L{Cache}.
    @ivar leases: The L{Leases}.
    """

    def __init__(self, desk: IDesk | None = None, clock: IReactorTime | None = None) -> None:
        desk = desk or NoDesk(NOT_RUNNING)
        self.leases = Leases(desk, clock)
        self.state = State(desk)
        self.cache = Cache(desk, self.leases)

    def attach(self, desk: IDesk, clock: IReactorTime | None) -> None:
        """
        Share by way of C{desk} from now on.
        """
        self.state.desk = self.cache.desk = self.leases.desk = desk
        self.leases.clock = clock
