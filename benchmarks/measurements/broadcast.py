"""
What it takes to tell all workers something, and what clients notice of it.
"""

from __future__ import annotations

import functools
import json
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import servers
from benchmarks.measurements import Plan
from benchmarks.process import MeasurementError, Server
from benchmarks.report import Chart, Goal, Headline, Result, number
from benchmarks.stats import alternate, median, percentile, ratio

WORKERS = 8
RATE = 2000
"""Broadcasts per second that clients are to notice nothing of."""

LARGE = 50_000_000
"""Bytes of a large message."""

KEYS, SIZE = 1000, 10_000
"""Of the state: how many keys, and the characters that each of them holds."""

INTERVAL = 0.005
"""Seconds between one message and the next, when nothing else goes on."""

PATIENCE = 120.0
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(frozen=True)
class Sample:
    """
    One round.

    @ivar perCpu: Broadcasts per second of the master's CPU time.
    @ivar rate: Broadcasts per second.
    @ivar told: Microseconds from each broadcast to each of its handlers.
    @ivar called: Microseconds that each call took.
    @ivar state: Seconds until all workers had the state.
    @ivar stateCpu: Seconds of the master's CPU time for it.
    @ivar quiet: Milliseconds from connecting to the answer, for each
        connection while nothing else went on.
    @ivar steady: The same under broadcasts at a steady rate.
    @ivar large: The same while a large message went to all workers.
    """

    perCpu: float
    rate: float
    told: list[float]
    called: list[float]
    state: float
    stateCpu: float
    quiet: list[float]
    steady: list[float]
    large: list[float]


@dataclass(frozen=True)
class Amounts:
    """
    Of what is done in each round.

    @ivar count: Broadcasts in a loop.
    @ivar messages: Single messages.
    @ivar connections: Connections when nothing goes on: about as many as there
        are meanwhile under load.
    @ivar seconds: How long broadcasts come at a steady rate.
    """

    count: int
    messages: int
    connections: int
    seconds: float


class Control:
    """
    A connection to the control socket of a server.
    """

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(directory / "control"))
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def start(self, do: str, **arguments: float) -> None:
        """
        Have a command carried out.
        """
        self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")

    @property
    def answered(self) -> bool:
        """Whether it has been."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def finish(self) -> Any:
        """
        Wait for its answer.
        """
        return parseAnswer(self._lines.readline())

    def do(self, do: str, **arguments: float) -> Any:
        """
        Both.
        """
        self.start(do, **arguments)
        return self.finish()


def parseAnswer(line: bytes) -> Any:
    """
    Read what a server answers to a command.

    @raise MeasurementError: if it failed.
    """
    try:
        answer = json.loads(line)
    except ValueError:
        raise MeasurementError(f"a server gave no answer: {line!r}") from None
    if isinstance(answer, dict) and "error" in answer:
        raise MeasurementError(f"a server failed:\n{answer['error']}")
    return answer


def checkBlocks(answer: Mapping[str, Any], expected: int) -> None:
    """
    Every worker must have got every broadcast.

    @raise MeasurementError: if it has not.
    """
    if answer["blocks"] != [expected] * WORKERS:
        raise MeasurementError(f"{expected} broadcasts were sent, got: {answer['blocks']}")


def measure(plan: Plan) -> Result:
    """
    Beside Node, in turn.
    """
    rounds = plan.pick(3, 1)
    amounts = Amounts(
        plan.pick(20_000, 1000), plan.pick(200, 20), plan.pick(400, 50), plan.pick(10, 2) / 10
    )
    with ExitStack() as running:
        contenders: dict[str, Callable[[], Sample]] = {}
        options = ("--service=benchmarks.apps.broadcast:Broadcaster",)
        ours = servers.ours(WORKERS, *options, app="broadcast")
        for server in (ours, servers.node(WORKERS, "node_broadcast.js")):
            running.enter_context(server)
            control = running.enter_context(Control(server.directory))
            # Interpreters that compile what runs often have done so by then.
            checkBlocks(control.do("rate", count=amounts.count // 4), amounts.count // 4)
            contenders[server.name] = functools.partial(_sample, plan, server, control, amounts)
        samples = alternate(rounds, contenders)
    return result(samples, amounts)


def _sample(plan: Plan, server: Server, control: Control, amounts: Amounts) -> Sample:
    plan.say(f"{server.name}, {WORKERS} workers")
    loop = control.do("rate", count=amounts.count)
    checkBlocks(loop, amounts.count)
    single = {"count": amounts.messages, "interval": INTERVAL}
    told, called = control.do("stamps", **single), control.do("calls", **single)
    state = control.do("state", keys=KEYS, size=SIZE, mark=time.monotonic_ns() // 1_000_000)
    if state["sizes"] != [KEYS * SIZE] * WORKERS:
        raise MeasurementError(f"workers have states of {state['sizes']} characters")
    server.settle()
    quiet = [connect(server.port) for _ in range(amounts.connections)]
    control.start("steady", rate=RATE, seconds=amounts.seconds)
    steady, answer = _connectMeanwhile(server.port, control)
    checkBlocks(answer, answer["told"])
    control.start("large", size=LARGE)
    large, answer = _connectMeanwhile(server.port, control)
    checkBlocks(answer, 1)
    return Sample(
        amounts.count / loop["cpu"],
        amounts.count / loop["seconds"],
        [delay / 1e3 for delay in told],
        [delay / 1e3 for delay in called],
        state["seconds"],
        state["cpu"],
        quiet,
        steady,
        large,
    )


def connect(port: int) -> float:
    """
    Ask on a connection of its own.

    @return: How many milliseconds it took from connecting to the end of the
        answer.
    """
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(_REQUEST)
        answer = b"".join(iter(functools.partial(connection.recv, 4096), b""))
    took = time.monotonic() - began
    if not answer.endswith(b"hello\n"):
        raise MeasurementError(f"an answer that is none: {answer!r}")
    # No more often than a client somewhere else would.
    time.sleep(0.001)
    return took * 1000


def _connectMeanwhile(port: int, control: Control) -> tuple[list[float], Any]:
    """
    Ask again and again until a command has been carried out.
    """
    samples = [connect(port)]
    while not control.answered:
        samples.append(connect(port))
    return samples, control.finish()


Samples = Mapping[str, Sequence[Sample]]


def result(samples: Samples, amounts: Amounts) -> Result:
    """
    The table, goals and chart of C{samples}.
    """
    rates = {name: median(_each(taken, "perCpu")) for name, taken in samples.items()}
    return Result(
        name="broadcast",
        title="Messages to all workers",
        how=_how(amounts, len(samples[servers.OURS])),
        columns=("", *samples),
        rows=tuple(
            (what, *(number(figure(taken)) for taken in samples.values()))
            for what, figure in _figures().items()
        ),
        goals=tuple(_goals(samples)),
        charts=(
            Chart(
                f"Broadcasts of 1 kB to {WORKERS} workers per CPU second of the master"
                " (more is better)",
                tuple(rates.items()),
            ),
        ),
        headlines=(
            Headline(
                f"Broadcasts of 1 kB to {WORKERS} workers per CPU second of the master",
                number(rates[servers.OURS]),
                number(rates[servers.NODE]),
            ),
        ),
        samples={name: [asdict(one) for one in taken] for name, taken in samples.items()},
    )


def _how(amounts: Amounts, rounds: int) -> str:
    return (
        f"{WORKERS} workers, medians of {rounds} rounds taken in turn; a percentile is the median"
        f" of those of the rounds. {amounts.count:,} broadcasts of an object of 1 kB in a loop,"
        " until every worker has said that it got them all. Latencies are from the send in the"
        f" master to the handler in each worker, and of a call there and back, one every"
        f" {INTERVAL * 1000:g} ms. The state: {KEYS:,} keys of {SIZE / 1000:g} kB, set in one step,"
        " until every worker has read all of it; Node sends it as an object in a message. A fresh"
        " connection: from connecting to the answer of the hello app, one after the other, while"
        f" nothing goes on, while the master broadcasts 1 kB {RATE:,} times per second, and while a"
        f" message of {LARGE / 1e6:g} MB goes to each worker (bytes; a text of that length with"
        " Node, whose messages are JSON). More workers than CPUs: what all of them do at the same"
        " time takes turns."
    )


Figure = Callable[[Sequence[Sample]], float]


def _figures() -> dict[str, Figure]:
    """
    The rows of the table and how each is made.
    """
    figures: dict[str, Figure] = {
        "Broadcasts per CPU second of the master": lambda taken: median(_each(taken, "perCpu")),
        "Broadcasts per second": lambda taken: median(_each(taken, "rate")),
    }
    for what, field in (("Broadcast", "told"), ("Call", "called")):
        for percent in (50, 99):
            figures[f"{what}, p{percent}, µs"] = functools.partial(_typical, field, percent)
    figures["State of 10 MB in all workers, s"] = lambda taken: median(_each(taken, "state"))
    figures["The master's CPU time for it, s"] = lambda taken: median(_each(taken, "stateCpu"))
    for what, field in _LOADS.items():
        for percent in (50, 99):
            label = f"Connection, {what}, p{percent}, ms"
            figures[label] = functools.partial(_typical, field, percent)
    for what, field in list(_LOADS.items())[1:]:
        label = f"Connection, p99, {what}, by that when nothing goes on"
        figures[label] = functools.partial(_slowdown, field)
    return figures


_LOADS = {
    "nothing going on": "quiet",
    "steady broadcasts": "steady",
    "a large message": "large",
}


def _goals(samples: Samples) -> list[Goal]:
    ours, node = samples[servers.OURS], samples[servers.NODE]
    return [
        Goal(
            "Broadcasts per CPU second of the master by those of Node's primary",
            ratio(_each(ours, "perCpu"), _each(node, "perCpu")),
            1.5,
            atMost=False,
        ),
        Goal(
            f"p99 of a fresh connection under {RATE:,} broadcasts per second by that without",
            _slowdown("steady", ours),
            2,
        ),
    ]


def _each(taken: Sequence[Sample], field: str) -> list[float]:
    return [getattr(one, field) for one in taken]


def _percentiles(field: str, percent: int, taken: Sequence[Sample]) -> list[float]:
    return [percentile(getattr(one, field), percent) for one in taken]


def _typical(field: str, percent: int, taken: Sequence[Sample]) -> float:
    return median(_percentiles(field, percent, taken))


def _slowdown(field: str, taken: Sequence[Sample]) -> float:
    """
    The 99th percentile under load by that of the same round without.
    """
    return ratio(_percentiles(field, 99, taken), _percentiles("quiet", 99, taken))
