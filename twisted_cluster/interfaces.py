"""
The interfaces between the rooms of the package, and those an app or a plug-in
may provide.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from zope.interface import Attribute, Interface

from twisted_cluster.events import ExitStatus, ListenerState, State

Peer = tuple[Any, ...]
"""The address of a client as accept(2) gave it; empty for a UNIX socket."""


class ILoad(Interface):
    """
    What a policy may know of a worker that can take a connection now.
    """

    slot = Attribute("int: the slot of the worker.")
    connections = Attribute("int: connections dispatched to it and not yet closed.")


class IScheduler(Interface):
    """
    A policy: which worker gets a connection.  It runs in the master, for each
    connection, and must neither block nor keep a reference to the loads.
    """

    def choose(loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """
        Choose one of C{loads}.

        @param loads: The workers that are scheduled and have credit, by
            ascending slot; never empty.
        @param peer: The address of the client.
        """


class ISchedulerMaker(Interface):
    """
    A plug-in that adds a policy.  An instance that also provides
    L{twisted.plugin.IPlugin}, in a module of the C{twisted.plugins} package,
    is found by the name it has.
    """

    name = Attribute("str: what C{--policy} calls it.")
    description = Attribute("str: what it does, in one line.")

    def make(random: Random) -> IScheduler:
        """
        Make a policy for one cluster.

        @param random: The source of whatever randomness it needs.
        """


class IWorkerObserver(Interface):
    """
    Whoever asked for a worker process hears of its fate here.
    """

    def started(pid: int) -> None:
        """
        The process exists.  Called at most once, before C{exited}; possibly
        before C{spawn} returns.
        """

    def output(line: str) -> None:
        """
        The process wrote a line to its standard output or error.  Its last
        lines may come after C{exited}.
        """

    def exited(status: ExitStatus) -> None:
        """
        The process is gone and reaped, or could not be started.  Called
        exactly once, and never before C{spawn} has returned.
        """


class IWorkerProcess(Interface):
    """
    A worker process, as the master holds it.
    """

    pid = Attribute("int or None: the process id, None before it is started.")

    def signal(number: int) -> None:
        """
        Send a signal.  Nothing happens if the process is gone or has not been
        started yet.
        """


class IWorkerSpawner(Interface):
    """
    Makes worker processes.
    """

    kind = Attribute("str: how it makes them, one word for status and logs.")

    def spawn(
        slot: int, generation: int, channel: socket.socket, observer: IWorkerObserver
    ) -> IWorkerProcess:
        """
        Start a process that speaks the worker's side of the protocol over
        C{channel}.  The spawner takes C{channel} and closes the master's copy
        when the process has its own.
        """

    def helpers() -> Any:
        """
        The processes beside the workers that it needs to make them.

        @return: A sequence of L{HelperStatus}.
        """

    def keep(generations: Iterable[int]) -> None:
        """
        Give up whatever the spawner holds for other generations than these.
        """

    def stop() -> None:
        """
        Give up whatever the spawner holds; no C{spawn} follows.
        """


@dataclass(frozen=True)
class HelperStatus:
    """
    A process of the cluster that is neither its master nor a worker.

    @ivar kind: C{sentinel} or C{template}.
    @ivar generation: Of a template.
    """

    kind: str
    pid: int | None
    generation: int | None = None


@dataclass(frozen=True)
class Account:
    """
    What became of the accepted connections:
    C{accepted == acked + shed + inFlight}, always.
    """

    accepted: int = 0
    acked: int = 0
    shed: int = 0
    inFlight: int = 0


@dataclass(frozen=True)
class WorkerStatus:
    """
    One worker at one moment.

    @ivar connections: Connections dispatched to it and not yet closed.
    @ivar since: Seconds since the epoch at which it entered C{state}.
    @ivar restarts: How often the slot was restarted after a crash.
    @ivar reason: Why it is in this state; may be empty.
    """

    slot: int
    generation: int
    pid: int | None
    state: State
    connections: int
    since: float
    restarts: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ListenerStatus:
    """
    One listener at one moment.

    @ivar name: The endpoint string that it was made from.
    @ivar address: Where it is bound, C{host:port} or a path.
    """

    name: str
    address: str
    state: ListenerState
    accepted: int


@dataclass(frozen=True)
class RollingStatus:
    """
    The replacement under way.
    """

    generation: int
    done: int
    total: int


@dataclass(frozen=True)
class ClusterStatus:
    """
    The whole cluster at one moment.

    @ivar generation: The generation that a worker spawned now would have.
    @ivar wanted: How many slots there are to be.
    @ivar since: Seconds since the epoch at which the master started.
    @ivar workers: Every worker, by slot and generation, draining ones of old
        generations included.
    @ivar helpers: Every other process beside the master.
    """

    version: str
    pid: int
    app: str
    policy: str
    spawner: str
    generation: int
    wanted: int
    since: float
    account: Account
    listeners: tuple[ListenerStatus, ...]
    workers: tuple[WorkerStatus, ...]
    rolling: RollingStatus | None = None
    helpers: tuple[HelperStatus, ...] = ()

    def asDict(self) -> dict[str, Any]:
        """
        The same as plain dicts, lists, strings and numbers, fit for JSON.
        """
        return asdict(
            self,
            dict_factory=lambda pairs: {
                name: value.value if isinstance(value, (State, ListenerState)) else value
                for name, value in pairs
            },
        )


class ICluster(Interface):
    """
    A running cluster, as operators' tools see it.  Lives in the master.  A
    refusal is an L{twisted_cluster.errors.OperatorError} in the Deferred.
    """

    events = Attribute("L{twisted_cluster.events.EventStream}: everything that happens.")

    def status() -> ClusterStatus:
        """
        The cluster now.
        """

    def reload() -> Any:
        """
        Replace all workers by new ones of the next generation.

        @return: A Deferred that fires with the new generation when the last
            slot has been replaced, or fails with
            L{twisted_cluster.errors.ReloadFailed} or
            L{twisted_cluster.errors.ReloadRefused}.
        """

    def restart(slot: int) -> Any:
        """
        Replace the worker of one slot, or revive a failed slot.

        @return: A Deferred like that of L{reload}; fails with
            L{twisted_cluster.errors.NoSuchSlot} if there is no such slot.
        """

    def scale(wanted: int) -> Any:
        """
        Have C{wanted} slots.

        @return: A Deferred that fires with C{wanted} when the new workers are
            Ready or the surplus ones have exited.
        """

    def broadcast(text: str) -> int:
        """
        Send C{text} to all Ready workers.

        @return: How many workers it was sent to.
        """

    def stop(now: bool = False) -> Any:
        """
        Stop the whole process: stop accepting, drain, exit.

        @param now: Do not drain.
        @return: A Deferred that fires when no worker is left.
        """


class IDrainable(Interface):
    """
    A protocol of an app that can end its connection in good order when its
    worker is replaced.  Runs in the worker.
    """

    def drain() -> None:
        """
        Finish what is under way and take no more work; close the connection
        when done.
        """

    def isIdle() -> bool:
        """
        Whether the connection can be closed now without loss.  While it is
        not, it stays open until the drain timeout.
        """


class IMigratable(Interface):
    """
    A protocol of an app whose connections can go on in another worker when
    theirs is replaced: same TCP connection, next protocol instance.  It must
    sit directly on a TCP or UNIX connection.  Runs in the worker.

    The old instance ends with C{connectionLost} and the reason
    L{twisted_cluster.errors.ConnectionMigrated}.
    """

    def isIdle() -> bool:
        """
        Whether nothing is under way and no received byte is kept back.
        """

    def migrationState() -> Any:
        """
        What the next instance needs to know.

        @return: A small dict of C{str}, C{bytes}, C{int}, C{float}, C{bool}
            and L{None} values by name.
        """

    def resume(state: Any) -> None:
        """
        Go on with a connection.  Called on a fresh instance, with its
        transport in place, instead of C{connectionMade}.

        @param state: What C{migrationState} gave.
        """
