"""
Which process of the cluster the calling code runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MessageHandler = Callable[[str], object]


@dataclass(frozen=True)
class Context:
    """
    The place of this process in the cluster.

    @ivar slot: The slot this worker serves, or L{None} outside of a worker.
    @ivar generation: The generation of this worker, or L{None} outside of a
        worker.
    """

    slot: int | None = None
    generation: int | None = None
    _handlers: list[MessageHandler] = field(default_factory=list, repr=False, compare=False)

    @property
    def isWorker(self) -> bool:
        """Whether this process is a worker of a cluster."""
        return self.slot is not None

    @property
    def isMaster(self) -> bool:
        """
        Whether this process is not a worker: the master of a cluster, or a
        process in which no cluster runs yet.
        """
        return self.slot is None

    def onMessage(self, handler: MessageHandler) -> MessageHandler:
        """
        Have C{handler} called in this worker with the text of each broadcast.
        Usable as a decorator.  Outside of a worker it is never called.
        """
        self._handlers.append(handler)
        return handler

    @property
    def messageHandlers(self) -> tuple[MessageHandler, ...]:
        """What L{onMessage} has registered, in order."""
        return tuple(self._handlers)


_current = Context()


def current() -> Context:
    """
    The place of the calling process in the cluster.  Any process.
    """
    return _current


def enter(context: Context) -> None:
    """
    Declare what L{current} answers from now on.  Called once, by the worker's
    entry point, before the app is imported.
    """
    global _current
    _current = context
