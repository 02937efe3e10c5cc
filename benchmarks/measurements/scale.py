"""
Many connections: thousands of idle ones across a reload, and a hundred
thousand short ones in a row.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import MeasurementError, Server, memory
from benchmarks.report import Goal, Headline, Result, number

WORKERS = 4
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

_AT_A_TIME = 100


@dataclass(frozen=True)
class Idle:
    """
    Of a cluster with many idle connections.  Memory in MB.

    @ivar connections: How many there were.
    @ivar empty: Private memory of the master before the first one.
    @ivar full: The same with all of them open.
    @ivar after: The same after the reloads.
    @ivar share: Per cent of one CPU that the master used meanwhile.
    @ivar seconds: How long each reload took.
    @ivar closed: Connections that the server closed.
    @ivar answered: Connections that were answered after the reloads.
    """

    connections: int
    empty: float
    full: float
    after: float
    share: float
    seconds: list[float]
    closed: int
    answered: int


@dataclass(frozen=True)
class Growth:
    """
    Of all processes of a cluster, from before to after many short connections:
    memory in MB, and descriptors.
    """

    connections: int
    memory: float
    descriptors: int


def measure(plan: Plan) -> Result:
    """
    One cluster for the idle connections, another one for the short ones.
    """
    with servers.ours(WORKERS) as server:
        plan.say("idle connections across reloads")
        idle = _idle(server, _most(plan.pick(10_000, 500)), plan.pick(10, 2), plan.pick(2, 1))
    with servers.ours(WORKERS) as server:
        plan.say("short connections in a row")
        growth = _growth(server, plan.pick(100_000, 2_000))
    return result(idle, growth)


def _most(wanted: int) -> int:
    """
    As many as the limit of descriptors of this process allows, up to
    C{wanted}.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, hard - 200)


def _idle(server: Server, count: int, seconds: int, reloads: int) -> Idle:
    empty = memory(server.pid)["private"]
    clients = _connect(server.port, count)
    try:
        server.settle()
        full = memory(server.pid)["private"]
        before, _ = server.cpu()
        time.sleep(seconds)
        after, _ = server.cpu()
        took = [_reload(server) for _ in range(reloads)]
        closed = _closed(clients)
        answered = sum(_isAnswered(client) for client in clients) if not closed else 0
        server.settle()
        return Idle(
            count,
            empty,
            full,
            memory(server.pid)["private"],
            (after - before) / seconds * 100,
            took,
            closed,
            answered,
        )
    finally:
        for client in clients:
            client.close()


def _connect(port: int, count: int) -> list[socket.socket]:
    """
    Connections that have been answered once.
    """
    clients: list[socket.socket] = []
    while len(clients) < count:
        batch = []
        for _ in range(min(_AT_A_TIME, count - len(clients))):
            client = socket.create_connection(("127.0.0.1", port), 30)
            client.sendall(REQUEST)
            batch.append(client)
        for client in batch:
            client.recv(4096)
        clients += batch
    return clients


def _reload(server: Server) -> float:
    took = server.reload(60)
    if took is None:
        raise MeasurementError("a reload with idle connections was not over after 60 s")
    return took


def _closed(clients: list[socket.socket]) -> int:
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLIN | select.POLLHUP | select.POLLERR)
    return len(poll.poll(0))


def _isAnswered(client: socket.socket) -> bool:
    client.sendall(REQUEST)
    return client.recv(4096).startswith(b"HTTP/1.1 200")


def _growth(server: Server, count: int) -> Growth:
    load.abCount(server.port, max(count // 20, 1_000), 100)
    server.settle()
    before = _sizes(server)
    load.abCount(server.port, count, 100)
    server.settle()
    after = _sizes(server)
    return Growth(count, after[0] - before[0], after[1] - before[1])


def _sizes(server: Server) -> tuple[float, int]:
    """
    The private memory in MB, and the descriptors, of master and workers.
    """
    pids = [server.pid, *server.workers()]
    descriptors = sum(len(os.listdir(Path("/proc", str(pid), "fd"))) for pid in pids)
    return sum(memory(pid)["private"] for pid in pids), descriptors


def result(idle: Idle, growth: Growth) -> Result:
    """
    The table and goals of both.
    """
    slowest = max(idle.seconds)
    return Result(
        name="scale",
        title="Many connections",
        how=(
            f"{idle.connections} idle keep-alive connections over {WORKERS} workers, across"
            f" {len(idle.seconds)} reloads; then {growth.connections} connections of one request"
            " each, at 100 at a time, with memory and descriptors of master and workers compared"
            " before and after."
        ),
        columns=("", "Figure"),
        rows=(
            ("Private memory of the master without a connection, MB", number(idle.empty)),
            (f"The same with {idle.connections} idle ones, MB", number(idle.full)),
            ("The same after the reloads, MB", number(idle.after)),
            ("CPU of the master meanwhile, % of one", number(idle.share)),
            ("Slowest reload, s", number(slowest)),
            ("Connections closed by the reloads", str(idle.closed)),
            ("Connections answered afterwards", str(idle.answered)),
            (f"Memory grown by {growth.connections} short connections, MB", number(growth.memory)),
            ("Descriptors grown by them", str(growth.descriptors)),
        ),
        goals=(
            Goal("Memory of the master per idle connection, kB", _perConnection(idle), 0.1),
            Goal("Idle master with connections, % of one CPU", idle.share, 0.1),
            Goal("Idle connections closed by reloads", idle.closed, 0),
            Goal("Idle connections not answered after reloads", _unanswered(idle), 0),
            Goal("Descriptors grown by short connections", growth.descriptors, 0),
        ),
        headlines=(
            Headline(f"Reload with {idle.connections} idle connections", f"{slowest:.1f} s", "—"),
        ),
        samples={"idle": list(idle.seconds)},
    )


def _perConnection(idle: Idle) -> float:
    return max(0.0, idle.full - idle.empty) * 1000 / idle.connections


def _unanswered(idle: Idle) -> int:
    return idle.connections - idle.answered
