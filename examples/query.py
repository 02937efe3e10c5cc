"""
One query for all: the master asks the database every ten seconds, and each
worker answers from its own copy of what was found.

From this directory::

    twistd -n cluster --app query:resource --service query:Querying --listen tcp:8080 --workers 4

However many workers there are and however many requests they get, the
database is asked once in ten seconds; a worker that starts has the value
before it gets its first request.
"""

import json
import os
from typing import Any

from twisted.application.internet import TimerService
from twisted.web.resource import Resource
from twisted.web.server import Request

import twisted_cluster
from twisted_cluster.service import ClusterService

INTERVAL = float(os.environ.get("QUERY_INTERVAL", "10"))
"""Seconds between two queries."""


class Querying(ClusterService):
    """
    Runs in the master.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.queries = 0
        TimerService(INTERVAL, self.refresh).setServiceParent(self)

    async def query(self) -> dict[str, int]:
        """
        Stands for a database, which answers a while later in real life.
        """
        self.queries += 1
        return {"price": 100 + self.queries, "queries": self.queries}

    async def refresh(self) -> None:
        """
        Ask, and have all workers know the answer.
        """
        try:
            await self.state.set("answer", await self.query())
        except Exception:
            self.log.failure("the query failed; the workers go on with the last answer")


class Answer(Resource):
    """
    Runs in each worker.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """What the last query found; a look at a dict."""
        here = twisted_cluster.current()
        found = here.state.get("answer")
        return json.dumps({"slot": here.slot, "answer": found}).encode() + b"\n"


resource = Answer()
