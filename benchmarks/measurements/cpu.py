"""
An app that only computes: whether two workers behind one port do the work of
two processes on two ports.
"""

from __future__ import annotations

import functools
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import MeasurementError, Server, machineSeconds
from benchmarks.report import Chart, Goal, Result, number
from benchmarks.stats import alternate, median, ratio

CONCURRENCY = 200
ONE = "one plain process"
TWO = "two plain processes, two ports"
OURS = f"{servers.OURS}, two workers, one port"


@dataclass(frozen=True)
class Sample:
    """
    @ivar rate: Requests per second, on all ports together.
    @ivar perCpu: Requests per second of the servers' CPU time.
    @ivar used: How many CPUs the servers had, on average.
    @ivar others: How many CPUs anything else had, clients included.
    """

    rate: float
    perCpu: float
    used: float
    others: float


def measure(plan: Plan) -> Result:
    """
    The three in turn.
    """
    seconds, rounds = plan.pick(10, 4), plan.pick(3, 1)
    with ExitStack() as running:
        plains = [running.enter_context(servers.plain("cpu", "Counter")) for _ in range(2)]
        cluster = running.enter_context(servers.ours(2, app="cpu"))
        contenders = {
            ONE: functools.partial(_sample, plan, plains[:1], seconds),
            TWO: functools.partial(_sample, plan, plains, seconds),
            OURS: functools.partial(_sample, plan, [cluster], seconds),
        }
        samples = alternate(rounds, contenders)
    return result(samples, seconds)


def _sample(plan: Plan, targets: list[Server], seconds: int) -> Sample:
    """
    Load all of C{targets} at once, each with its share.
    """
    plan.say(" and ".join(server.name for server in targets))
    began, everything, before = time.monotonic(), machineSeconds(), _cpu(targets)
    with ExitStack() as running:
        loads = [
            running.enter_context(load.abFor(one.port, seconds, CONCURRENCY // len(targets)))
            for one in targets
        ]
        reports = [load.parseAb(one.finish(seconds + 90)) for one in loads]
    took, used = time.monotonic() - began, _cpu(targets) - before
    others = machineSeconds() - everything - used
    for one, found in zip(targets, reports):
        if found.lost or not found.document:
            raise MeasurementError(f"{one.name} lost requests: {found}")
        # What ab no longer waits for is still being computed.
        one.settle()
    rate = sum(found.rate for found in reports)
    return Sample(rate, rate * took / used, used / took, others / took)


def _cpu(targets: list[Server]) -> float:
    return sum(server.cpuOfAll() for server in targets)


def _rates(taken: list[Sample]) -> list[float]:
    return [sample.rate for sample in taken]


def result(samples: dict[str, list[Sample]], seconds: int) -> Result:
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
            " the ratios within each round. Other load is what anything but the servers used, the"
            " clients included: where it is much above zero, processes that have nothing to do with"
            " this took part, and requests per CPU second are the better figure."
        ),
        columns=(
            "",
            "Requests/s",
            "Share of two plain processes",
            "Requests per CPU second",
            "Other load, CPUs",
        ),
        rows=tuple(
            (
                name,
                number(rates[name]),
                f"{ratio(_rates(taken), combined):.3f}",
                number(median([sample.perCpu for sample in taken])),
                f"{median([sample.others for sample in taken]):.2f}",
            )
            for name, taken in samples.items()
        ),
        goals=(
            Goal(
                "Rate of two workers by that of two plain processes",
                ratio(_rates(samples[OURS]), combined),
                0.95,
                atMost=False,
            ),
            Goal(
                "The same of requests per CPU second",
                ratio(
                    [sample.perCpu for sample in samples[OURS]],
                    [sample.perCpu for sample in samples[TWO]],
                ),
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
        samples={name: [asdict(sample) for sample in taken] for name, taken in samples.items()},
    )


def _short(name: str) -> str:
    return f"{servers.OURS}, two workers" if name == OURS else name.partition(",")[0]
