"""
How soon a killed worker is replaced, what another worker costs in memory, and
how long a large cluster takes to start.
"""

from __future__ import annotations

import functools
import http.client
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import MeasurementError, Server, memory, until
from benchmarks.report import Chart, Goal, Headline, Result, number
from benchmarks.stats import alternate, median, ratio

PATIENCE = 0.05
"""Seconds after which a request that was taken by the dying worker is given up
and made anew."""

EXECED = f"{servers.OURS}, --no-preload"

Start = Callable[[int], Server]


@dataclass(frozen=True)
class Found:
    """
    Of one kind of server.

    @ivar respawns: Seconds from each kill to the replacement's first answer.
    @ivar ready: Private memory of each worker that has just become ready, in
        MB.
    @ivar private: The same after some requests.
    @ivar pss: Then, its proportional share of all memory, in MB.
    @ivar startUp: Seconds until many workers were ready.
    """

    respawns: list[float]
    ready: list[float]
    private: list[float]
    pss: list[float]
    startUp: float


def measure(plan: Plan) -> Result:
    """
    The cluster, by fork and by exec if it has both, beside Node.
    """
    kills, few, many = plan.pick(15, 2), plan.pick(8, 2), plan.pick(64, 4)
    starts = _starts()
    respawns = _respawns(plan, starts, kills)
    found: dict[str, Found] = {}
    for name, start in starts.items():
        plan.say(f"{name}, memory of {few} workers, start of {many}")
        found[name] = Found(respawns[name], *_memory(start(few)), _startUp(start(many)))
    return result(found, kills, few, many)


def _starts() -> dict[str, Start]:
    starts: dict[str, Start] = {servers.OURS: servers.ours, servers.NODE: servers.node}
    if servers.knows("preload"):
        starts[EXECED] = lambda workers: servers.ours(workers, "--no-preload", name=EXECED)
    return starts


def _respawns(plan: Plan, starts: dict[str, Start], kills: int) -> dict[str, list[float]]:
    with ExitStack() as running:
        contenders = {}
        for name, start in starts.items():
            server = running.enter_context(start(1))
            contenders[name] = functools.partial(respawn, server)
        plan.say(f"{kills} kills of each of {', '.join(starts)}")
        return alternate(kills, contenders)


def respawn(server: Server) -> float:
    """
    Kill the only worker.

    @return: Seconds until another process has answered a request.
    """
    server.settle()
    (victim,) = server.workers()
    if _askPid(server.port, 2.0) != victim:
        raise MeasurementError(f"{server.name}: somebody else than its worker answers")
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    while time.perf_counter() - began < 30:
        if _askPid(server.port, PATIENCE) not in (None, victim):
            took = time.perf_counter() - began
            until(lambda: len(server.workers()) == 1, f"{server.name} tells of its worker", 10)
            return took
    raise MeasurementError(f"{server.name}: no replacement answered within 30 s")


def _askPid(port: int, timeout: float) -> int | None:
    """
    Ask once who serves.

    @return: The pid, or L{None} if nobody answered.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/pid", headers={"Connection": "close"})
        return int(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        # A refusal comes at once: without this the wait would be spent on
        # trying again, on one of the CPUs that the replacement starts on.
        time.sleep(0.0005)
        return None
    finally:
        connection.close()


def _memory(server: Server) -> tuple[list[float], list[float], list[float]]:
    """
    @return: The private memory of each worker, that after some requests, and
        the proportional share then.
    """
    with server:
        ready = [memory(pid)["private"] for pid in server.workers()]
        load.abCount(server.port, 1000, 20)
        sizes = [memory(pid) for pid in server.workers()]
    return ready, [size["private"] for size in sizes], [size["pss"] for size in sizes]


def _startUp(server: Server) -> float:
    """
    @return: Seconds from the start of the command to the last worker's being
        ready and the port's answering.
    """
    with server:
        return time.monotonic() - server.started


def result(found: dict[str, Found], kills: int, few: int, many: int) -> Result:
    """
    The table, goals and charts of C{found}.
    """
    ours, node = found[servers.OURS], found[servers.NODE]
    return Result(
        name="respawn",
        title="Respawn, memory, start",
        how=(
            f"Respawn: the only worker is killed with SIGKILL; the time until a new process has"
            f" answered a request, median of {kills} kills taken in turn (quickest and slowest in"
            f" brackets). Memory: median of {few} workers of the hello app, from smaps_rollup, when"
            " they have just become ready, and after 1,000 requests to all of them together. Start:"
            f" from the command to {many} workers ready."
        ),
        columns=(
            "",
            "Respawn, ms",
            "Private memory, MB: ready",
            "after requests",
            "PSS, MB",
            f"Start of {many} workers, s",
        ),
        rows=tuple((name, *_cells(one)) for name, one in found.items()),
        goals=(
            Goal("Kill to replacement answering, median, ms", median(ours.respawns) * 1000, 15),
            Goal("The same by that of Node", ratio(ours.respawns, node.respawns), 0.2),
            Goal("Private memory of another worker when ready, MB", median(ours.ready), 4),
            Goal("The same after requests", median(ours.private), 4),
            Goal(f"{many} workers ready, s", ours.startUp, 3),
        ),
        charts=(
            _chart("Kill to replacement answering, ms (less is better)", found, _milliseconds),
            _chart(
                "Private memory of a worker after requests, MB (less is better)", found, _private
            ),
        ),
        headlines=(
            _headline("A killed worker is replaced within", ours, node, _milliseconds, "ms"),
            _headline(
                "Private memory of another worker, after requests", ours, node, _private, "MB"
            ),
            _headline(f"{many} workers ready after", ours, node, lambda one: one.startUp, "s"),
        ),
        samples={name: vars(one) for name, one in found.items()},
    )


def _milliseconds(one: Found) -> float:
    return median(one.respawns) * 1000


def _private(one: Found) -> float:
    return median(one.private)


def _cells(one: Found) -> Sequence[str]:
    low, high = min(one.respawns) * 1000, max(one.respawns) * 1000
    return (
        f"{number(_milliseconds(one))} ({number(low)} to {number(high)})",
        number(median(one.ready)),
        number(_private(one)),
        number(median(one.pss)),
        number(one.startUp),
    )


def _chart(title: str, found: dict[str, Found], figure: Callable[[Found], float]) -> Chart:
    return Chart(title, tuple((name, figure(one)) for name, one in found.items()))


def _headline(
    what: str, ours: Found, node: Found, figure: Callable[[Found], float], unit: str
) -> Headline:
    return Headline(what, f"{number(figure(ours))} {unit}", f"{number(figure(node))} {unit}")
