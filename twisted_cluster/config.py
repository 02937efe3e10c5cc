"""
One frozen configuration, validated where it is made.

The command line, the config file and code that embeds the cluster all end in
a L{ClusterConfig}; nothing downstream checks a value again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterConfig:
    """
    Everything the master needs to know.  Times are in seconds.

    @ivar app: What the workers run, C{module:attr}.
    @ivar listen: Endpoint strings, one listener each.
    @ivar workers: How many slots there are.
    @ivar policy: The name of a scheduling policy, or C{module:Class}.
    @ivar admin: The path of the admin socket, or L{None} for no admin socket.
    @ivar generationTimeout: How long a worker may take from spawn to Ready.
    @ivar drainTimeout: How long a worker may take to drain.
    @ivar drainGrace: How long a draining worker leaves an idle keep-alive
        connection open.
    @ivar stopTimeout: How long a worker may take from being told to stop to
        its exit, before it is killed.
    @ivar hungTimeout: How long a worker's reactor may be silent before its
        stacks are dumped and it is killed; 0 for no limit.
    @ivar heartbeat: How often a worker tells that its reactor runs.
    @ivar credit: How many sockets a worker may hold unacknowledged; 1 to 250.
    @ivar reloadParallel: How many slots a reload replaces at a time.
    @ivar reloadOnTouch: A file whose change of modification time reloads, or
        L{None}.
    @ivar restartIntensity: A slot fails after this many crashes within
        C{restartPeriod}.
    @ivar restartPeriod: See C{restartIntensity}.
    @ivar backoffBase: The delay before the second restart in a row.
    @ivar backoffCap: The longest delay before a restart.
    @ivar reactor: The name of the reactor the workers install, or L{None} for
        the default one.
    """

    app: str
    listen: tuple[str, ...] = ()
    workers: int = 1
    policy: str = "round-robin"
    admin: str | None = "twisted-cluster.sock"
    generationTimeout: float = 60.0
    drainTimeout: float = 30.0
    drainGrace: float = 1.0
    stopTimeout: float = 5.0
    hungTimeout: float = 30.0
    heartbeat: float = 2.0
    credit: int = 64
    reloadParallel: int = 1
    reloadOnTouch: str | None = None
    restartIntensity: int = 10
    restartPeriod: float = 60.0
    backoffBase: float = 0.1
    backoffCap: float = 30.0
    reactor: str | None = None
