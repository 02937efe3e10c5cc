"""
The app and, for C{--service}, what the master does at its hooks: it gives each
connection to the last worker that can take it.
"""

from hello import resource

from twisted_cluster.service import ClusterService


class Cluster(ClusterService):
    def workerReady(self, worker):
        print(f"hook: slot {worker.slot} is ready")

    def workerExited(self, worker, exit, meant):
        print(f"hook: slot {worker.slot} ended: {exit}, meant: {meant}")

    def chooseSlot(self, loads, peer):
        return loads[-1]


__all__ = ["Cluster", "resource"]
