"""
A notice board: what is pinned up at one worker is read at all of them.

From this directory::

    twistd -n cluster --app messages:board --service messages:Keeper --listen tcp:8080 --workers 4

Then::

    curl -d 'tea at four' http://localhost:8080
    curl http://localhost:8080

The master keeps the notes and tells all workers of each. A worker that starts
later asks for them. They end with the master: what is to outlive it belongs
into the state, or a database.
"""

from typing import Any

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster
from twisted_cluster.context import Role
from twisted_cluster.errors import CallFailed
from twisted_cluster.interfaces import Message
from twisted_cluster.service import ClusterService

KEPT = 100
"""How many notes there may be; the oldest ones go."""

LONGEST = 1000
"""The most characters of a note."""


class Keeper(ClusterService):
    """
    Runs in the master.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.notes: list[str] = []
        self.handle("pin")(self.pin)
        self.handle("notes")(lambda message: self.notes)

    def pin(self, message: Message) -> int:
        """
        Keep a note, and tell all workers.

        @return: To how many it goes.
        """
        self.notes = [*self.notes, message.value][-KEPT:]
        return self.tell("pinned", self.notes)


class Board(Resource):
    """
    Runs in each worker.

    @ivar notes: What this worker knows; L{None} until it has asked or heard.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.here = twisted_cluster.current()
        self.notes: list[str] | None = None
        self.here.handle("pinned")(self.pinned)

    def pinned(self, message: Message) -> None:
        """The master tells what there is now."""
        self.notes = message.value

    def render_GET(self, request: Any) -> int:
        """All notes."""
        return self._answer(request, self.read())

    def render_POST(self, request: Any) -> int:
        """Pin one up."""
        text = request.content.read(4 * LONGEST).decode("utf-8", "replace")
        return self._answer(request, self.pin(text[:LONGEST]))

    async def read(self) -> str:
        """The notes, a line each."""
        if self.notes is None:
            self.notes = await self.here.call(Role.MASTER, "notes", timeout=5)
        return "".join(f"{note}\n" for note in self.notes)

    async def pin(self, text: str) -> str:
        """
        Have the master keep a note.  When it answers, what it has told all
        workers is here already: messages of one process keep their order.
        """
        count = await self.here.call(Role.MASTER, "pin", text, timeout=5)
        return f"pinned at slot {self.here.slot}, {count} workers are told\n"

    def _answer(self, request: Any, saying: Any) -> int:
        done = ensureDeferred(saying)
        # A client that has gone wants no answer.
        request.notifyFinish().addErrback(lambda _: done.cancel())
        done.addErrback(self._unavailable, request)
        done.addCallback(lambda text: request.write(text.encode("utf-8")))
        done.addCallback(lambda _: request.finish())
        done.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _unavailable(self, failure: Failure, request: Any) -> str:
        failure.trap(CallFailed)
        request.setResponseCode(503)
        return f"{failure.value}\n"

    def _failed(self, failure: Failure, request: Any) -> None:
        if not failure.check(CancelledError):
            request.processingFailed(failure)


board = Board()
