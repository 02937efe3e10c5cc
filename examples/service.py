"""
A cluster of one's own: it sends each client address to the same slot, counts
crashes, and says what a reload does.

From this directory::

    twistd -n cluster --app hello:resource --listen tcp:8080 --service service:Sticky

What a subclass overrides runs in the master, so keep it short, and keep the
app out of it.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted_cluster.events import ExitStatus, ReloadStepped
from twisted_cluster.interfaces import ILoad, Peer, WorkerStatus
from twisted_cluster.service import ClusterService

AFFORDABLE = 8
"""By how many connections a slot may lead before its clients are sent elsewhere."""


class Sticky(ClusterService):
    """
    Keeps a client address with one slot, as long as that slot keeps up.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.crashes: Counter[int] = Counter()

    def workerReady(self, worker: WorkerStatus) -> None:
        """A worker takes connections from now on."""
        self.log.info("slot {slot} is served by {pid}", slot=worker.slot, pid=worker.pid)

    def workerExited(self, worker: WorkerStatus, exit: ExitStatus, meant: bool) -> None:
        """A worker is gone; its replacement is already on the way."""
        if not meant:
            self.crashes[worker.slot] += 1
            self.log.error(
                "crash {n} of slot {slot}: {exit}",
                n=self.crashes[worker.slot],
                slot=worker.slot,
                exit=exit,
            )

    def reloadStep(self, step: ReloadStepped) -> None:
        """A reload has got one step further."""
        where = "all slots" if step.slot is None else f"slot {step.slot}"
        self.log.info("{where}: {phase}", where=where, phase=step.phase.value)

    def chooseSlot(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """The slot of this address, unless it is far busier than another."""
        address = str(peer[0]) if peer else ""
        chosen = loads[zlib.crc32(address.encode()) % len(loads)]
        idlest = min(loads, key=lambda load: int(load.connections))
        if chosen.connections - idlest.connections > AFFORDABLE:
            return idlest
        return chosen
