"""
The socket-passing cluster server for Twisted.

One master process accepts connections and hands the sockets to worker
processes, which run the app.  The app asks where it runs with L{current}::

    import twisted_cluster

    if twisted_cluster.current().isWorker:
        print("slot", twisted_cluster.current().slot)

Importing this package imports neither Twisted nor a reactor.
"""

from twisted_cluster.context import Context, current
from twisted_cluster.missing import MISSING

__version__ = "0.1.0"

__all__ = ["MISSING", "Context", "__version__", "current"]
