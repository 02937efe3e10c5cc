"""
Which process of the cluster the calling code runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_cluster.shared.cache import Cache
    from twisted_cluster.shared.commons import Commons
    from twisted_cluster.shared.leases import Lease
    from twisted_cluster.shared.state import State

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
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        self.messenger: Any = None
        self._commons: Commons | None = None
        self._starts: list[Callable[[], object]] = []
        self._drains: list[Callable[[], object]] = []
        self._begun = False

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

    def handle(self, topic: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """
        A decorator: have a function called in this worker with each
        L{Message<twisted_cluster.interfaces.Message>} of C{topic}.  What it
        returns, perhaps as a Deferred or a coroutine, answers a call.

        @raise AppError: if nothing can have that topic.
        """
        from twisted_cluster.interfaces import RESERVED
        from twisted_cluster.wire.messages import checkTopic

        checkTopic(topic, RESERVED)

        def register(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self.handlers[topic] = handler
            return handler

        return register

    def send(self, target: int | Role, topic: str, value: object) -> Deferred[int]:
        """
        Send something to another process.

        @param target: A slot, L{Role.MASTER}, or L{Role.WORKER} for all other
            workers.
        @param value: Bytes, or what JSON can express.
        @return: A Deferred that fires when it has been passed on, with the
            number of processes that it goes to.  It fails with
            L{CallFailed<twisted_cluster.errors.CallFailed>}; with
            L{AppError<twisted_cluster.errors.AppError>} if it can't be sent
            to anybody; with L{ClusterError<twisted_cluster.errors.ClusterError>}
            in a process that is no worker.
        """
        return self._speak("send", target, topic, value)

    def broadcast(self, topic: str, value: object, everywhere: bool = False) -> Deferred[int]:
        """
        Send something to all Ready workers, this one too.

        @param everywhere: To those of all hosts that share the state of this
            one.  Who gets it is not told which worker it is from.
        @return: As L{send}; the number is that of this host.
        """
        return self._speak("send", _EVERYWHERE if everywhere else _ALL, topic, value)

    def call(
        self, target: int | Role, topic: str, value: object = None, timeout: float = 10.0
    ) -> Deferred[Any]:
        """
        Ask another process something.

        @param target: A slot, or L{Role.MASTER}.
        @param timeout: Seconds to wait for the answer.
        @return: A Deferred of the answer.  It fails with
            L{CallFailed<twisted_cluster.errors.CallFailed>} or its subclass
            C{CallTimedOut}, and else as that of L{send}.
        """
        return self._speak("call", target, topic, value, timeout)

    def _speak(self, what: str, target: Any, *arguments: object) -> Deferred[Any]:
        from twisted.internet.defer import fail

        from twisted_cluster.errors import AppError, ClusterError

        if self.messenger is None:
            text = "this process is no worker of a running cluster; do it when the app has been"
            text += " started, and in the master use its ClusterService"
            return fail(ClusterError(f"can't {what}: {text}"))
        if what == "call" and target is Role.WORKER:
            return fail(AppError("can't call all workers: a call has one answer; name a slot"))
        number = _number(target)
        if number is None:
            text = "name a slot, Role.MASTER or Role.WORKER"
            return fail(AppError(f"can't {what} to {target!r}: {text}"))
        answer: Deferred[Any] = getattr(self.messenger, what)(number, *arguments)
        return answer

    @property
    def state(self) -> State:
        """
        The L{State<twisted_cluster.shared.state.State>}: a mapping that all
        workers share.  It is empty as long as the worker has not begun.
        """
        return self.commons.state

    @property
    def cache(self) -> Cache:
        """
        The L{Cache<twisted_cluster.shared.cache.Cache>} that all workers
        share.
        """
        return self.commons.cache

    def lease(self, name: str, timeout: float | None = None) -> Deferred[Lease]:
        """
        Wait to be the only one in the cluster who holds C{name}.

        @param timeout: Seconds to wait at most; L{None}: as long as it takes.
        @return: A Deferred of a L{Lease<twisted_cluster.shared.leases.Lease>}.
            It fails with L{LeaseTimedOut<twisted_cluster.errors.LeaseTimedOut>}
            and L{StateUnavailable<twisted_cluster.errors.StateUnavailable>}.
        """
        return self.commons.leases.lease(name, timeout)

    @property
    def commons(self) -> Commons:
        """What this process shares, made when it is first asked for."""
        if self._commons is None:
            from twisted_cluster.shared.commons import Commons

            self._commons = Commons()
        return self._commons

    @property
    def messageHandlers(self) -> tuple[MessageHandler, ...]:
        """What L{onMessage} has registered, in order."""
        return tuple(self._handlers)

    def onStart(self, call: Callable[[], object]) -> None:
        """
        Have C{call} called when this worker has the state and is about to be
        Ready: at once, if it is already.  Outside of a worker it is never
        called.
        """
        if self._begun:
            call()
        else:
            self._starts.append(call)

    def onDrain(self, call: Callable[[], object]) -> None:
        """
        Have C{call} called when this worker begins to drain: what it holds for
        all of them is better let go then.
        """
        self._drains.append(call)

    def begin(self) -> tuple[Callable[[], object], ...]:
        """
        Declare that this worker has the state.  Called by its session.

        @return: What L{onStart} was given.
        """
        self._begun = True
        starts, self._starts = tuple(self._starts), []
        return starts

    @property
    def drainCalls(self) -> tuple[Callable[[], object], ...]:
        """What L{onDrain} was given, in order."""
        return tuple(self._drains)

    def enter(self, role: Role, slot: int | None, generation: int) -> None:
        """
        Declare what this process is.  Called by entry points, before the app
        is imported and, in a process forked from a template, once more.
        """
        self.role = role
        self.slot = slot
        self.generation = generation


_MASTER = -1
_OTHERS = -2
_ALL = -3
_EVERYWHERE = -4
"""As in L{twisted_cluster.wire.messages}, which is not imported for them."""

_MAX_SLOT = 1 << 31


def _number(target: Any) -> int | None:
    """
    What stands for C{target} in an envelope, if anything does.
    """
    if target is Role.MASTER:
        return _MASTER
    if target is Role.WORKER:
        return _OTHERS
    if target in (_ALL, _EVERYWHERE) or (isinstance(target, int) and 0 <= target < _MAX_SLOT):
        return int(target)
    return None


_current = Context()


def current() -> Context:
    """
    The place of the calling process in the cluster.  Any process.
    """
    return _current
