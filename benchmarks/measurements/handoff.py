"""
What a connection costs the master and the worker, in CPU time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import Server
from benchmarks.report import Chart, Goal, Headline, Result, number
from benchmarks.stats import alternate, median, ratio

CONCURRENCIES = (50, 200)
WORKERS = 2
ONE = f"{servers.OURS}, one worker"
SHARED = f"{servers.OURS}, shared"


@dataclass(frozen=True)
class Cost:
    """
    Of one connection, in microseconds of CPU time.

    @ivar master: In the process that accepts it.
    @ivar worker: In the process that serves it.
    @ivar imbalance: The CPU time of the busiest worker by the mean of all.
    @ivar rate: Connections per second.
    """

    master: float
    worker: float
    imbalance: float
    rate: float


Samples = dict[tuple[int, str], list[Cost]]


def cost(server: Server, requests: int, concurrency: int) -> Cost:
    """
    Serve C{requests} connections and read the processes' clocks before and
    after.
    """
    master, workers = server.cpu()
    report = load.abCount(server.port, requests, concurrency)
    masterAfter, workersAfter = server.cpu()
    spent = [after - before for before, after in zip(workers, workersAfter)]
    return Cost(
        (masterAfter - master) / requests * 1e6,
        sum(spent) / requests * 1e6,
        max(spent) * len(spent) / sum(spent),
        report.rate,
    )


def measure(plan: Plan) -> Result:
    """
    Two workers beside Node; one worker beside one plain process.
    """
    requests, rounds = plan.pick(20_000, 2_000), plan.pick(3, 1)
    clusters = [servers.ours(WORKERS), servers.node(WORKERS)]
    if servers.knows("shared"):
        clusters.append(servers.ours(WORKERS, "--policy=shared", name=SHARED))
    samples = _sample(plan, clusters, requests, rounds)
    samples |= _sample(plan, [servers.ours(1, name=ONE), servers.plain()], requests, rounds)
    return result(samples, requests, rounds)


def _sample(plan: Plan, contenders: Sequence[Server], requests: int, rounds: int) -> Samples:
    samples: Samples = {}
    with ExitStack() as running:
        for server in contenders:
            running.enter_context(server)
            # Interpreters that compile what runs often have done so by then.
            load.abCount(server.port, requests // 2, CONCURRENCIES[0])
        for concurrency in CONCURRENCIES:
            names = " beside ".join(server.name for server in contenders)
            plan.say(f"{names}, {concurrency} at a time")
            runs = {
                server.name: functools.partial(cost, server, requests, concurrency)
                for server in contenders
            }
            for name, costs in alternate(rounds, runs).items():
                samples[concurrency, name] = costs
    return samples


def result(samples: Samples, requests: int, rounds: int) -> Result:
    """
    The table, goals and chart of C{samples}.
    """
    return Result(
        name="handoff",
        title="CPU time per connection",
        how=(
            f"ab, one request per connection, {requests:,} connections per sample, medians of"
            f" {rounds} samples taken in turn. The hello app, {WORKERS} workers, and one worker"
            " beside one process of stock Twisted. CPU time is that of the process's own clock,"
            " in microseconds per connection; imbalance is the CPU time of the busiest worker"
            " divided by the mean."
        ),
        columns=("", "Concurrency", "Master, µs", "Worker, µs", "Imbalance", "Connections/s"),
        rows=tuple(_row(*key, costs) for key, costs in samples.items()),
        goals=tuple(_goals(samples)),
        charts=(_chart(samples),),
        headlines=tuple(
            Headline(
                f"Master's CPU time per connection, {concurrency} at a time",
                f"{number(_master(samples[concurrency, servers.OURS]))} µs",
                f"{number(_master(samples[concurrency, servers.NODE]))} µs",
            )
            for concurrency in CONCURRENCIES
        ),
        samples={
            f"{name}, c={concurrency}": [asdict(one) for one in costs]
            for (concurrency, name), costs in samples.items()
        },
    )


def _master(costs: Sequence[Cost]) -> float:
    return median([one.master for one in costs])


def _row(concurrency: int, name: str, costs: Sequence[Cost]) -> tuple[str, ...]:
    plain = name == servers.PLAIN
    return (
        name,
        str(concurrency),
        "" if plain else number(_master(costs)),
        number(median([one.worker for one in costs])),
        "" if plain else f"{median([one.imbalance for one in costs]):.2f}",
        number(median([one.rate for one in costs])),
    )


def _goals(samples: Samples) -> list[Goal]:
    goals: list[Goal] = []
    for concurrency in CONCURRENCIES:
        ours, node = (
            [one.master for one in samples[concurrency, name]]
            for name in (servers.OURS, servers.NODE)
        )
        what = f"Master's CPU per connection by that of Node's primary, c={concurrency}"
        goals.append(Goal(what, ratio(ours, node), 0.5))
    for concurrency in CONCURRENCIES:
        ours, plain = (
            [one.worker for one in samples[concurrency, name]] for name in (ONE, servers.PLAIN)
        )
        what = f"Worker's CPU per connection by that of a plain process, c={concurrency}"
        goals.append(Goal(what, ratio(ours, plain), 1.1))
    return goals


def _chart(samples: Samples) -> Chart:
    return Chart(
        "CPU time of the master per connection, µs (less is better)",
        tuple(
            (f"{name}, c={concurrency}", _master(costs))
            for (concurrency, name), costs in samples.items()
            if name not in (ONE, servers.PLAIN)
        ),
    )
