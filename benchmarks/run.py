"""
Runs the measurements, prints what they found, and writes it to
C{benchmarks/results}, to the page on performance and to the README.

    python benchmarks/run.py [--quick] [--only NAME]...
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

if not __package__:
    # Run by path: the modules beside this one are benchmarks.X all the same.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import machine, report
from benchmarks.measurements import Plan
from benchmarks.process import ROOT, MeasurementError, machineSeconds

NAMES = ("cpu", "handoff", "keepalive", "respawn", "idle", "reload", "scale", "broadcast")
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def parseArguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    The command line.
    """
    parser = argparse.ArgumentParser(description="Measure the cluster beside its peers.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run everything for a moment only, and publish nothing",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        metavar="NAME",
        help=f"run this measurement; repeat it for more ({', '.join(NAMES)})",
    )
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """
    Tell how far things are.
    """
    print(f"  {line}", file=sys.stderr, flush=True)


def measurement(name: str) -> Callable[[Plan], report.Result]:
    """
    The function that makes the measurement C{name}.
    """
    found: Callable[[Plan], report.Result] = import_module(
        f"benchmarks.measurements.{name}"
    ).measure
    return found


def busyWarning(cpus: float) -> str | None:
    """
    What to say if other processes use so many CPUs already.
    """
    if cpus < 0.1:
        return None
    return (
        f"warning: other processes use {cpus:.1f} CPUs; rates and times will be off,"
        " CPU times per request hold"
    )


def cpusInUse(seconds: float = 2.0) -> float:
    """
    How many CPUs are in use now, when nothing is measured yet.
    """
    before = machineSeconds()
    time.sleep(seconds)
    return (machineSeconds() - before) / seconds


def runOne(name: str, plan: Plan) -> report.Result | None:
    """
    Run one measurement and print what it found.

    @return: The result, or L{None} if there is none.
    """
    began = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        result = measurement(name)(plan)
    except MeasurementError as error:
        print(f"can't measure {name}: {error}", file=sys.stderr)
        return None
    print(f"\n{result.title} ({time.monotonic() - began:.0f} s)\n")
    print(report.textTable(result.columns, result.rows))
    if result.goals:
        print()
        print(report.textTable(report.GOAL_COLUMNS, report.goalRows([result])))
    print(flush=True)
    return result


def store(result: report.Result, described: Mapping[str, str]) -> None:
    """
    Keep a result, with the machine it is from.
    """
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": dict(described), "result": report.toJson(result)}
    (RESULTS / f"{result.name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def stored(described: Mapping[str, str]) -> dict[str, report.Result]:
    """
    The results kept from this machine in its present state, in the order of
    L{NAMES}.
    """
    results: dict[str, report.Result] = {}
    for name in NAMES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["machine"] == dict(described):
                results[name] = report.fromJson(content["result"])
    return results


def publish(results: Mapping[str, report.Result], described: Mapping[str, str]) -> str:
    """
    Write the page, the chart and the block of the README.

    @return: What was done, or why it was not.
    """
    missing = [name for name in NAMES if name not in results]
    if missing:
        return f"nothing published: no results of {', '.join(missing)} from this machine yet"
    line = machine.oneLine(dict(described))
    page = report.page(list(results.values()), line)
    (DOCS / "_generated_performance.rst").write_text(page, encoding="utf-8")
    charts = [chart for result in results.values() for chart in result.charts]
    (DOCS / "performance.svg").write_text(report.svg(charts), encoding="utf-8")
    if not README.exists():
        return "docs written; there is no README.md"
    text = README.read_text(encoding="utf-8")
    try:
        text = report.replaceBlock(text, report.readmeBlock(results, line))
    except ValueError as error:
        return f"docs written, README.md not: {error}"
    README.write_text(text, encoding="utf-8")
    return "docs and README.md written"


def main(arguments: Sequence[str]) -> int:
    """
    @return: 0 if all measurements could be made, whatever they found; else 1.
    """
    options = parseArguments(arguments)
    # Servers are ended where their blocks are left, so leave them properly.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    plan = Plan(options.quick, say)
    described = machine.describe()
    print(f"Measured on {machine.oneLine(described)}.", flush=True)
    warning = busyWarning(cpusInUse())
    if warning is not None:
        print(warning, file=sys.stderr)
    failed = False
    for name in NAMES:
        if options.only and name not in options.only:
            continue
        result = runOne(name, plan)
        failed |= result is None
        if result is not None and not options.quick:
            store(result, described)
    if not options.quick:
        print(publish(stored(described), described), file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
