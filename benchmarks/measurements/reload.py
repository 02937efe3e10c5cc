"""
What clients notice of rolling reloads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import Server
from benchmarks.report import Chart, Goal, Headline, Result, number
from benchmarks.stats import median

WORKERS = 2
CLIENTS = 100
PATIENCE = 15.0
"""Seconds that a reload may take before it counts as unfinished."""


@dataclass(frozen=True)
class Toll:
    """
    Of some reloads under load.

    @ivar served: Requests of C{ab} that were answered.
    @ivar lost: Those that were not.
    @ivar answered: Requests on keep-alive connections that were answered.
    @ivar broken: Those that were not, because their connection broke, and
        attempts to connect that were refused.
    @ivar closed: Keep-alive connections that the server closed in good order.
    @ivar seconds: How long each reload took.
    @ivar unfinished: How many reloads were still not over when patience was.
    """

    served: int
    lost: int
    answered: int
    broken: int
    closed: int
    seconds: list[float]
    unfinished: int


def measure(plan: Plan) -> Result:
    """
    The cluster beside its peers, in turn.
    """
    reloads, rounds = plan.pick(2, 1), plan.pick(2, 1)
    kinds: list[Callable[[], Server]] = [
        lambda: servers.ours(WORKERS),
        lambda: servers.node(WORKERS),
    ]
    if servers.isInstalled("gunicorn"):
        kinds.append(lambda: servers.gunicorn(WORKERS))
    if servers.isInstalled("uvicorn"):
        kinds.append(lambda: servers.uvicorn(WORKERS))
    samples: dict[str, list[Toll]] = {}
    for _ in range(rounds):
        for make in kinds:
            with make() as server:
                plan.say(f"{server.name}, {reloads} reloads under load, twice")
                samples.setdefault(server.name, []).append(toll(server, reloads))
    return result(samples, reloads)


def toll(server: Server, reloads: int) -> Toll:
    """
    Reload under C{ab}, then under keep-alive connections.
    """
    seconds: list[float | None] = []
    with ExitStack() as running:
        short = running.enter_context(load.abFor(server.port, 10 * PATIENCE, CLIENTS))
        seconds += _reloadAll(server, reloads)
        first = load.parseAb(short.interrupt())
    with ExitStack() as running:
        kept = running.enter_context(load.keepAlive(server.port, CLIENTS))
        seconds += _reloadAll(server, reloads)
        counts = load.parseKeepAlive(kept.interrupt())
    return Toll(
        first.complete,
        first.lost,
        counts["answered"],
        counts["lost"] + counts["refused"],
        counts["closed"] + counts["announced"],
        [one for one in seconds if one is not None],
        seconds.count(None),
    )


def _reloadAll(server: Server, reloads: int) -> list[float | None]:
    """
    @return: How long each took; L{None} ends the list if it was not over in
        time: its workers wait for connections that clients keep busy.
    """
    seconds: list[float | None] = []
    for _ in range(reloads):
        time.sleep(1)
        seconds.append(server.reload(PATIENCE))
        if seconds[-1] is None:
            break
    time.sleep(1)
    return seconds


def result(samples: dict[str, list[Toll]], reloads: int) -> Result:
    """
    The table, goals and chart of C{samples}.
    """
    ours, node = samples[servers.OURS], samples[servers.NODE]
    each = f"{reloads} reloads"
    return Result(
        name="reload",
        title="Rolling reloads under load",
        how=(
            f"{WORKERS} workers of the hello app, {each} under `ab -c{CLIENTS}` without"
            f" keep-alive, then {each} under {CLIENTS} keep-alive connections, half of which ask"
            f" without a pause and half of which pause {0.2:g} s. Totals of {len(ours)} rounds"
            " taken in turn. Broken: a request without an answer, or a refused connection. Closed:"
            " ended by the server between requests, so that the client has to connect anew."
            f" Unfinished: old workers were still there after {PATIENCE:g} s, and no further reload"
            " was asked for under that load."
        ),
        columns=(
            "",
            "Requests",
            "Lost",
            "Keep-alive requests",
            "Broken",
            "Closed",
            "Unfinished reloads",
            "Seconds per reload",
        ),
        rows=tuple((name, *_cells(tolls)) for name, tolls in samples.items()),
        goals=(
            Goal("Reloads unfinished", _total(ours, "unfinished"), 0),
            Goal("Requests lost by reloads", _total(ours, "lost"), 0),
            Goal("Keep-alive connections broken by reloads", _total(ours, "broken"), 0),
            Goal("Keep-alive connections closed by reloads", _total(ours, "closed"), 0),
        ),
        charts=(
            Chart(
                "Keep-alive connections broken or closed by reloads (less is better)",
                tuple(
                    (name, float(_total(tolls, "broken") + _total(tolls, "closed")))
                    for name, tolls in samples.items()
                ),
            ),
        ),
        headlines=tuple(
            Headline(what, f"{_total(ours, field):,}", f"{_total(node, field):,}")
            for what, field in (
                ("Requests lost by reloads", "lost"),
                ("Keep-alive connections broken by reloads", "broken"),
                ("Keep-alive connections closed by reloads", "closed"),
            )
        ),
        samples={name: [asdict(one) for one in tolls] for name, tolls in samples.items()},
    )


def _total(tolls: list[Toll], field: str) -> int:
    return sum(getattr(one, field) for one in tolls)


def _cells(tolls: list[Toll]) -> list[str]:
    fields = ("served", "lost", "answered", "broken", "closed", "unfinished")
    seconds = median([second for one in tolls for second in one.seconds])
    return [f"{_total(tolls, field):,}" for field in fields] + [number(seconds)]
