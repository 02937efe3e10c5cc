"""
Keep-alive connections, which the master has no part in once they are handed
off: a worker beside a plain process.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks import load, servers
from benchmarks.measurements import Plan
from benchmarks.process import Server, cpuSeconds
from benchmarks.report import Goal, Result, number
from benchmarks.stats import alternate, median, ratio

CONNECTIONS = 50
ONE = f"{servers.OURS}, one worker"


@dataclass(frozen=True)
class Yield:
    """
    @ivar rate: Requests per second.
    @ivar perCpu: Requests per second of the serving process's CPU time.
    """

    rate: float
    perCpu: float


def measure(plan: Plan) -> Result:
    """
    The two in turn.
    """
    seconds, rounds = plan.pick(5, 1), plan.pick(3, 1)
    with ExitStack() as running:
        contenders = {}
        for server in (servers.ours(1, name=ONE), servers.plain()):
            running.enter_context(server)
            load.wrk(server.port, 1, CONNECTIONS)
            contenders[server.name] = functools.partial(_yield, plan, server, seconds)
        samples = alternate(rounds, contenders)
    return result(samples, seconds)


def _yield(plan: Plan, server: Server, seconds: int) -> Yield:
    plan.say(server.name)
    (worker,) = server.workers()
    before = cpuSeconds(worker)
    report = load.wrk(server.port, seconds, CONNECTIONS)
    return Yield(report.rate, report.complete / (cpuSeconds(worker) - before))


def result(samples: dict[str, list[Yield]], seconds: int) -> Result:
    """
    The table and goals of C{samples}.
    """
    ours, plain = samples[ONE], samples[servers.PLAIN]
    return Result(
        name="keepalive",
        title="Requests on keep-alive connections",
        how=(
            f"wrk with {CONNECTIONS} keep-alive connections for {seconds} s, hello app, medians of"
            f" {len(ours)} samples taken in turn. Requests per CPU second are those of the process"
            " that serves: other load on the machine does not move them."
        ),
        columns=("", "Requests/s", "Requests per CPU second"),
        rows=tuple(
            (
                name,
                number(median([one.rate for one in taken])),
                number(median([one.perCpu for one in taken])),
            )
            for name, taken in samples.items()
        ),
        goals=(
            Goal(
                "Requests/s of a worker by those of a plain process, keep-alive",
                ratio([one.rate for one in ours], [one.rate for one in plain]),
                0.98,
                atMost=False,
            ),
            Goal(
                "Requests per CPU second of a worker by those of a plain process, keep-alive",
                ratio([one.perCpu for one in ours], [one.perCpu for one in plain]),
                0.98,
                atMost=False,
            ),
        ),
        samples={name: [asdict(one) for one in taken] for name, taken in samples.items()},
    )
