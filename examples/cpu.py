"""
Counts to a million for each request, in pure Python: work that keeps one core
busy, and that a second process can share.

From this directory, on two processes::

    twistd -n cluster --app cpu:resource --listen tcp:8080 --workers 2

As one plain process, on a port of your choice::

    python cpu.py 8080
"""

import sys

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

MILLION = 1_000_000


class Count(Resource):
    """
    Answers when it has counted to a million.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Count."""
        for _ in range(MILLION):
            pass
        return b"counted to a million\n"


resource = Count()


def main(port: int) -> None:
    """
    Serve in this process alone.
    """
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    listening = serverFromString(reactor, f"tcp:{port}:backlog=1024").listen(Site(resource))
    listening.addErrback(lambda failure: sys.exit(failure.getErrorMessage()))
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
