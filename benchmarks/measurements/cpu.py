"""
An app that only computes: whether two workers behind one port do the work of
two processes on two ports.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import asdict

from benchmarks import load, servers
from benchmarks.load import AbReport
from benchmarks.measurements import Plan
from benchmarks.process import MeasurementError, Server
from benchmarks.report import Chart, Goal, Result
from benchmarks.stats import alternate, median, ratio

CONCURRENCY = 200
ONE = "one plain process"
TWO = "two plain processes, two ports"
OURS = f"{servers.OURS}, two workers, one port"


def measure(plan: Plan) -> Result:
    """
    The three in turn.
    """
    seconds, rounds = plan.pick(10, 2), plan.pick(3, 1)
    with ExitStack() as running:
        plains = [running.enter_context(servers.plain("cpu", "Counter")) for _ in range(2)]
        cluster = running.enter_context(servers.ours(2, app="cpu"))
        contenders = {
            ONE: functools.partial(_rate, plan, plains[:1], seconds),
            TWO: functools.partial(_rate, plan, plains, seconds),
            OURS: functools.partial(_rate, plan, [cluster], seconds),
        }
        samples = alternate(rounds, contenders)
    return result(samples, seconds)


def _rate(plan: Plan, targets: list[Server], seconds: int) -> list[AbReport]:
    """
    Load all of C{targets} at once, each with its share.
    """
    plan.say(" and ".join(server.name for server in targets))
    with ExitStack() as running:
        loads = [
            running.enter_context(load.abFor(one.port, seconds, CONCURRENCY // len(targets)))
            for one in targets
        ]
        reports = [load.parseAb(one.finish(seconds + 90)) for one in loads]
    for one, found in zip(targets, reports):
        if found.lost or not found.document:
            raise MeasurementError(f"{one.name} lost requests: {found}")
        # What ab no longer waits for is still being computed.
        one.settle()
    return reports


def _rates(samples: list[list[AbReport]]) -> list[float]:
    return [sum(report.rate for report in reports) for reports in samples]


def result(samples: dict[str, list[list[AbReport]]], seconds: int) -> Result:
    """
    The table, goal and chart of C{samples}.
    """
    combined = _rates(samples[TWO])
    rates = {name: median(_rates(taken)) for name, taken in samples.items()}
    return Result(
        name="cpu",
        title="An app that only computes",
        how=(
            f"A twisted.web server that counts to 1,000,000 for each request, under"
            f" `ab -c{CONCURRENCY} -t{seconds}` (two ports: half of the load each, at the same"
            f" time). Medians of {len(combined)} rounds taken in turn; the share is the median of"
            " the ratios within each round."
        ),
        columns=("", "Requests/s", "Share of two plain processes"),
        rows=tuple(
            (name, f"{rates[name]:.1f}", f"{ratio(_rates(taken), combined):.3f}")
            for name, taken in samples.items()
        ),
        goals=(
            Goal(
                "Rate of two workers by that of two plain processes",
                ratio(_rates(samples[OURS]), combined),
                0.95,
                atMost=False,
            ),
        ),
        charts=(
            Chart(
                "Requests/s of an app that only computes (more is better)",
                tuple((_short(name), value) for name, value in rates.items()),
            ),
        ),
        samples={
            name: [[asdict(report) for report in reports] for reports in taken]
            for name, taken in samples.items()
        },
    )


def _short(name: str) -> str:
    return f"{servers.OURS}, two workers" if name == OURS else name.partition(",")[0]
