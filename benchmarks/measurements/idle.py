"""
What a cluster costs that does nothing.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks import servers
from benchmarks.measurements import Plan
from benchmarks.process import Server
from benchmarks.report import Goal, Headline, Result, number

WORKERS = 4

Shares = tuple[float, float]


def measure(plan: Plan) -> Result:
    """
    Both at the same time.
    """
    seconds = plan.pick(20, 3)
    with ExitStack() as running:
        clusters = [
            running.enter_context(one) for one in (servers.ours(WORKERS), servers.node(WORKERS))
        ]
        for one in clusters:
            one.settle()
        plan.say(f"{seconds} s of doing nothing")
        before = [one.cpu() for one in clusters]
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        shares = {
            one.name: _shares(one, master, workers, took)
            for one, (master, workers) in zip(clusters, before)
        }
    return result(shares, seconds)


def _shares(server: Server, master: float, workers: list[float], took: float) -> Shares:
    """
    The per cent of one CPU that the master and the busiest worker used.
    """
    masterAfter, workersAfter = server.cpu()
    busiest = max(after - before for before, after in zip(workers, workersAfter))
    return (masterAfter - master) / took * 100, busiest / took * 100


def result(shares: dict[str, Shares], seconds: int) -> Result:
    """
    The table and goals of C{shares}.
    """
    master, worker = shares[servers.OURS]
    return Result(
        name="idle",
        title="An idle cluster",
        how=(
            f"{WORKERS} workers of the hello app without a connection for {seconds} s, heartbeats"
            " on, both at the same time; per cent of one CPU by the processes' own clocks."
        ),
        columns=("", "Master, %", "Busiest worker, %"),
        rows=tuple((name, *map(number, both)) for name, both in shares.items()),
        goals=(
            Goal("Idle master, % of one CPU", master, 0.1),
            Goal("Idle worker, % of one CPU", worker, 0.1),
        ),
        headlines=(
            Headline(
                "Idle master, share of one CPU",
                f"{number(master)} %",
                f"{number(shares[servers.NODE][0])} %",
            ),
        ),
        samples={name: list(both) for name, both in shares.items()},
    )
