"""
Says hello, and which process says so.

From this directory, on four processes::

    twistd -n cluster --app hello:resource --listen tcp:8080 --workers 4

The same resource in one plain Twisted process::

    twistd -n web --listen tcp:8080 --class hello.Hello
"""

import os

from twisted.web.resource import Resource
from twisted.web.server import Request

import twisted_cluster


class Hello(Resource):
    """
    One line of text for any path.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Say it."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return f"hello from {_whereabouts()}, pid {os.getpid()}\n".encode()


def _whereabouts() -> str:
    here = twisted_cluster.current()
    if here.isWorker:
        return f"slot {here.slot}, generation {here.generation}"
    return "outside of a cluster"


resource = Hello()
