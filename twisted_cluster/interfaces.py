"""
The interfaces between the rooms of the package, and those an app or a plug-in
may provide.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

from twisted_cluster.events import ExitStatus, HostStepped, ListenerState, State

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

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
    @ivar shared: What the backend of state, cache and leases says of itself,
        and the hosts that share it.
    @ivar dropped: How many messages were dropped since a worker did not read.
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
    shared: Mapping[str, Any] = field(default_factory=dict)
    dropped: int = 0

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

    def reloadAll(tell: Callable[[HostStepped], object]) -> Any:
        """
        Have the masters of all hosts reload, one after another.

        @param tell: Called with each step.
        @return: A Deferred that fires with the number of hosts, or fails at
            the first that fails, with L{twisted_cluster.errors.ReloadFailed}
            or L{twisted_cluster.errors.ReloadRefused}.
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


# What is shared.  All values are as L{twisted_cluster.wire.values} encodes
# them, so that a backend neither reads nor understands them.

RESERVED = "twisted_cluster."
"""What the package's own topics and leases begin with; apps may use none."""

MAX_KEY = 1024
"""The longest key of the state or the cache, and the longest name of a lease,
in bytes of UTF-8."""

MAX_SHARED_VALUE = 16 << 20
"""The most bytes that one encoded value of the state or the cache may have."""

ITEM_OVERHEAD = 16
"""Bytes that an item of the state counts for beside its key and value."""

MAX_STATE = 255 << 20
"""The most bytes that the items of the state may have together, so that all of
it is one message."""

MAX_INTEGER = (1 << 63) - 1
"""The largest sum of an increment; the smallest is one below its negative."""


@dataclass(frozen=True)
class Message:
    """
    What a process of the cluster has said.

    @ivar topic: What it is about.
    @ivar value: Bytes, or what JSON can express.
    @ivar sender: The slot that it comes from; L{None} for the master.
    @ivar worker: In the master, the identity of the worker process that it
        comes from; it can be compared and hashed.
    """

    topic: str
    value: Any
    sender: int | None
    worker: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Change:
    """
    One step of the state.

    @ivar version: The version after it; that before it was one less.
    @ivar items: The keys that it touches, with their new values; L{None}
        stands for a key that is no more.
    """

    version: int
    items: Mapping[str, bytes | None]


@dataclass(frozen=True)
class Snapshot:
    """
    The whole state at one moment.

    @ivar epoch: Another one whenever versions begin anew.
    """

    epoch: str
    version: int
    items: Mapping[str, bytes]


@dataclass(frozen=True)
class Write:
    """
    A step of the state that somebody asks for: all of it happens, or nothing.
    A key may be in C{sets} or in C{increments}, not in both.

    @ivar id: A unique name.  The same write repeated takes effect once.
    @ivar sets: New values; L{None} deletes.
    @ivar expects: What must hold for it to happen; L{None} stands for a key
        that is absent.
    @ivar increments: What to add to integers.  An absent key counts as 0.
    """

    id: str
    sets: Mapping[str, bytes | None] = field(default_factory=dict)
    expects: Mapping[str, bytes | None] = field(default_factory=dict)
    increments: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """
    What became of a write.

    @ivar applied: Whether all that it expected held.
    @ivar version: The version of the state that the answer speaks of.
    @ivar items: At least the keys of its C{increments}, as they are in that
        version, if it was applied.
    """

    applied: bool
    version: int
    items: Mapping[str, bytes | None]


class IBackendListener(Interface):
    """
    Who hears what happens in a backend.  Lives in the master.  Nothing is
    called before C{start} of the backend is, nor after C{stop} is.
    """

    def changed(change: Change) -> None:
        """
        The state went one step ahead, after the snapshot and all the steps
        that were told before.
        """

    def resynced(snapshot: Snapshot) -> None:
        """
        Steps were missed, or versions begin anew; this is the state now.
        """

    def leaseFreed(name: str) -> None:
        """
        A lease may be had: whoever waits for it should try now.  It may come
        when it is not so, and it may be missing if a holder expires.
        """

    def published(topic: str, data: bytes) -> None:
        """
        A master of this cluster, perhaps this one, published C{data}.
        """

    def availability(up: bool, reason: str) -> None:
        """
        The backend can be reached again, or can't be.

        @param reason: Why, in words.
        """


class IStateBackend(Interface):
    """
    Holds state, cache and leases.  Lives in the master.

    Each Deferred may fail with L{twisted_cluster.errors.StateUnavailable},
    and with L{twisted_cluster.errors.AppError} if what is asked for is
    refused: an increment of what is no integer, or beyond 64 bits, or one
    value too many.
    """

    def start(listener: IBackendListener) -> Deferred[None]:
        """
        Begin.

        @return: A Deferred that fires when the snapshot is there.
        """

    def stop() -> Deferred[None]:
        """
        End; what still waits fails with C{StateUnavailable}.
        """

    def snapshot() -> Snapshot:
        """
        The state as it has been told to the listener.  The caller must not
        keep it: C{items} may be the living mapping.
        """

    def write(write: Write) -> Deferred[Written]:
        """
        Carry out a write.  The listener has been told of it before the
        Deferred fires.  One that changes no value takes no step.
        """

    def cacheGet(key: str) -> Deferred[bytes | None]:
        """
        What the cache holds for C{key}; L{None} if nothing.
        """

    def cacheSet(key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """
        Have the cache hold C{value}.

        @param ttl: For how many seconds; L{None}: until it is pushed out.
        """

    def cacheDelete(key: str) -> Deferred[bool]:
        """
        Have the cache hold nothing for C{key}.

        @return: A Deferred of whether it held something.
        """

    def cacheIncrement(key: str, by: int, ttl: float | None) -> Deferred[int]:
        """
        Add to an integer.  An absent key counts as 0.

        @param ttl: Seconds for which the cache holds the key if it was absent.
            A key that was there keeps its own.
        @return: A Deferred of the sum.
        """

    def acquire(name: str, owner: str, seconds: float) -> Deferred[int | None]:
        """
        Get a lease if nobody has it.

        @param owner: Unique to this request, which may be repeated: whoever
            has it already gets its token again.
        @param seconds: How long it lasts unless it is renewed.
        @return: A Deferred of the fencing token, larger than all that were
            given out for C{name} before; L{None} if somebody else has it.
        """

    def renew(name: str, owner: str, seconds: float) -> Deferred[bool]:
        """
        Have a lease for C{seconds} from now on.

        @return: A Deferred of whether C{owner} still had it.
        """

    def release(name: str, owner: str) -> Deferred[bool]:
        """
        Give up a lease.  The listeners of all masters hear C{leaseFreed}.

        @return: A Deferred of whether C{owner} still had it.
        """

    def publish(topic: str, data: bytes) -> Deferred[None]:
        """
        Have the listeners of all masters hear C{published}, this one too.
        """

    def describe() -> dict[str, Any]:
        """
        What status shows of it, fit for JSON: at least C{kind} and C{up}.
        """
