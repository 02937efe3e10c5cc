"""
The status of a cluster as text for people.  Pure; runs in ctl.

It takes what L{twisted_cluster.interfaces.ClusterStatus.asDict} gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))

_WORKER_COLUMNS = (
    "slot",
    "generation",
    "pid",
    "state",
    "since",
    "connections",
    "restarts",
    "reason",
)
_LISTENER_COLUMNS = ("listener", "address", "state", "accepted")
_NUMBERS = frozenset({"slot", "generation", "pid", "since", "connections", "restarts", "accepted"})


def report(status: dict[str, Any], now: float) -> str:
    """
    The whole status.

    @param now: Seconds since the epoch.
    """
    blocks = [
        _head(status, now),
        table(_WORKER_COLUMNS, [_workerRow(worker, now) for worker in status["workers"]]),
        table(_LISTENER_COLUMNS, [_listenerRow(listener) for listener in status["listeners"]]),
        _account(status["account"]),
    ]
    return "\n\n".join(blocks) + "\n"


def age(seconds: float) -> str:
    """
    A time span in its two largest units: C{45s}, C{3m07s}, C{2d05h}.
    """
    left = max(0, int(seconds))
    for (size, unit), (smaller, nextUnit) in pairwise(_UNITS):
        if left >= size:
            return f"{left // size}{unit}{left % size // smaller:02d}{nextUnit}"
    return f"{left}s"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Aligned columns under their names, numbers to the right.
    """
    cells = [[name.upper() for name in columns], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def visible(text: str, keep: str = "") -> str:
    """
    C{text} without characters that would do something to a terminal.

    @param keep: Such characters to leave in.
    """
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def plural(count: int, noun: str) -> str:
    """
    C{1 worker}, C{2 workers}.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _head(status: dict[str, Any], now: float) -> str:
    lines = [
        f"twisted_cluster {status['version']}, master pid {status['pid']},"
        f" up {age(now - status['since'])}",
        f"app {status['app']}, generation {status['generation']},"
        f" {plural(status['wanted'], 'worker')} wanted",
        f"policy {status['policy']}, spawner {status['spawner']}",
    ]
    if status["helpers"]:
        lines.append("beside the workers: " + ", ".join(map(_helper, status["helpers"])))
    if status.get("shared"):
        lines.append(_shared(status["shared"]))
    if status.get("dropped"):
        lines.append(f"{plural(status['dropped'], 'message')} dropped: a worker did not read")
    rolling = status["rolling"]
    if rolling is not None:
        lines.append(
            f"replacing workers by generation {rolling['generation']}:"
            f" {rolling['done']} of {plural(rolling['total'], 'slot')} done"
        )
    return "\n".join(visible(line) for line in lines)


def _shared(shared: dict[str, Any]) -> str:
    where = shared.get("server", "memory")
    if not shared["up"]:
        return f"state in {where}, which can't be used: {shared.get('reason', '')}"
    text = f"state in {where}: {plural(shared['keys'], 'key')}, {plural(shared['bytes'], 'byte')}"
    if shared["hosts"]:
        text += f"; hosts: {', '.join(shared['hosts'])}"
    return text


def _helper(helper: dict[str, Any]) -> str:
    pid = "-" if helper["pid"] is None else helper["pid"]
    if helper["generation"] is None:
        return f"{helper['kind']} pid {pid}"
    return f"{helper['kind']} of generation {helper['generation']} pid {pid}"


def _workerRow(worker: dict[str, Any], now: float) -> list[str]:
    return [
        str(worker["slot"]),
        str(worker["generation"]),
        "-" if worker["pid"] is None else str(worker["pid"]),
        worker["state"],
        age(now - worker["since"]),
        str(worker["connections"]),
        str(worker["restarts"]),
        worker["reason"],
    ]


def _listenerRow(listener: dict[str, Any]) -> list[str]:
    return [
        listener["name"],
        listener["address"],
        listener["state"],
        str(listener["accepted"]),
    ]


def _account(account: dict[str, Any]) -> str:
    return (
        f"sockets: {account['accepted']} accepted = {account['acked']} acked"
        f" + {account['shed']} shed + {account['inFlight']} in flight"
    )
