"""
Which process of the cluster the calling code runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

MessageHandler = Callable[[str], object]


class Role(Enum):
    """
    What a process is in the cluster.
    """

    MASTER = "master"
    TEMPLATE = "template"
    WORKER = "worker"


class Context:
    """
    The place of this process in the cluster.  There is one for the whole life
    of a process, so that app code may keep it.

    @ivar role: What this process is.
    @ivar slot: The slot this worker serves; L{None} outside of a worker, and
        in a template as long as the app is being imported for all slots.
    @ivar generation: The generation of this worker or template; L{None}
        outside of both.
    @ivar sharing: Whether a port that is opened right now is to be shared by
        all workers, whatever its number and the time.
    """

    def __init__(self) -> None:
        self.role = Role.MASTER
        self.slot: int | None = None
        self.generation: int | None = None
        self.sharing = False
        self._handlers: list[MessageHandler] = []

    def __repr__(self) -> str:
        return f"<{self.role.value} slot={self.slot} generation={self.generation}>"

    @property
    def isWorker(self) -> bool:
        """
        Whether this process is a worker of a cluster, or is importing the app
        for its workers.
        """
        return self.role is not Role.MASTER

    @property
    def isMaster(self) -> bool:
        """
        Whether this process is not a worker: the master of a cluster, or a
        process in which no cluster runs yet.
        """
        return self.role is Role.MASTER

    def onMessage(self, handler: MessageHandler) -> MessageHandler:
        """
        Have C{handler} called in each worker with the text of each broadcast.
        Usable as a decorator.  Outside of a worker it is never called.
        """
        self._handlers.append(handler)
        return handler

    @property
    def messageHandlers(self) -> tuple[MessageHandler, ...]:
        """What L{onMessage} has registered, in order."""
        return tuple(self._handlers)

    def enter(self, role: Role, slot: int | None, generation: int) -> None:
        """
        Declare what this process is.  Called by entry points, before the app
        is imported and, in a process forked from a template, once more.
        """
        self.role = role
        self.slot = slot
        self.generation = generation


_current = Context()


def current() -> Context:
    """
    The place of the calling process in the cluster.  Any process.
    """
    return _current
