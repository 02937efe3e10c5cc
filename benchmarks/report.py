"""
From results to tables and a chart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

BEGIN = "<!-- benchmark:begin -->"
END = "<!-- benchmark:end -->"


@dataclass(frozen=True)
class Goal:
    """
    A figure and the bound that it is held to.

    @ivar atMost: Whether C{bound} is an upper bound.
    """

    what: str
    value: float
    bound: float
    atMost: bool = True

    @property
    def met(self) -> bool:
        """Whether the figure keeps to the bound."""
        return self.value <= self.bound if self.atMost else self.value >= self.bound

    @property
    def boundText(self) -> str:
        """The bound with its direction."""
        return f"{'≤' if self.atMost else '≥'} {number(self.bound)}"


@dataclass(frozen=True)
class Chart:
    """
    Bars of one unit.

    @ivar bars: Label and length of each.
    """

    title: str
    bars: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Headline:
    """
    A line of the short table.

    @ivar peer: The figure of Node's cluster.
    """

    what: str
    ours: str
    peer: str


@dataclass(frozen=True)
class Result:
    """
    What one measurement found.

    @ivar how: How it was measured; code stands between single backticks.
    @ivar columns: The heads of the table.
    @ivar rows: Its cells.
    @ivar samples: What the figures were made of.
    """

    name: str
    title: str
    how: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    goals: tuple[Goal, ...] = ()
    charts: tuple[Chart, ...] = ()
    headlines: tuple[Headline, ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)


def toJson(result: Result) -> dict[str, Any]:
    """
    A form that JSON can hold.
    """
    return asdict(result)


def fromJson(stored: Mapping[str, Any]) -> Result:
    """
    The inverse of L{toJson}.
    """
    return Result(
        stored["name"],
        stored["title"],
        stored["how"],
        tuple(stored["columns"]),
        tuple(tuple(row) for row in stored["rows"]),
        tuple(Goal(**goal) for goal in stored["goals"]),
        tuple(
            Chart(chart["title"], tuple((label, value) for label, value in chart["bars"]))
            for chart in stored["charts"]
        ),
        tuple(Headline(**line) for line in stored["headlines"]),
        stored["samples"],
    )


def number(value: float) -> str:
    """
    Three significant digits, and no more zeros than needed.
    """
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1g}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def textTable(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table for a terminal.
    """
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def markdownTable(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table for README.md; figures are aligned to the right.
    """
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *rows])


def rstTable(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table for the documentation.
    """
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [columns, *rows]:
        for index, cell in enumerate(row):
            lines.append(f"   {'*' if index == 0 else ' '} - {cell}".rstrip())
    return "\n".join(lines)


def goalRows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """
    All goals, for a table.
    """
    return [
        (goal.what, goal.boundText, number(goal.value), "met" if goal.met else "missed")
        for result in results
        for goal in result.goals
    ]


GOAL_COLUMNS = ("Goal", "Bound", "Measured", "")


def page(results: Sequence[Result], machine: str) -> str:
    """
    The generated part of the page on performance.
    """
    parts = [
        ".. Written by benchmarks/run.py; changes made here are lost.",
        f"Measured on {machine}.",
        ".. image:: performance.svg\n   :alt: The figures below as bars",
        rstTable(GOAL_COLUMNS, goalRows(results)),
    ]
    for result in results:
        parts += [
            f"{result.title}\n{'~' * len(result.title)}",
            re.sub("`([^`]+)`", r"``\1``", result.how),
            rstTable(result.columns, result.rows),
        ]
    return "\n\n".join(parts) + "\n"


def readmeBlock(results: Mapping[str, Result], machine: str) -> str:
    """
    What stands between the marks in README.md.
    """
    cpu = results["cpu"]
    lines = [
        (line.what, line.ours, line.peer)
        for result in results.values()
        for line in result.headlines
    ]
    return "\n\n".join(
        (
            f"{cpu.how.partition('. ')[0]}:",
            markdownTable(cpu.columns, cpu.rows),
            "Beside Node's cluster module, in the same run:",
            markdownTable(("", "twisted_cluster", "Node.js cluster"), lines),
            f"Measured on {machine}. `make bench` repeats it.",
        )
    )


def replaceBlock(text: str, block: str) -> str:
    """
    Put C{block} between the marks in C{text}.

    @raise ValueError: if it does not have exactly one pair of marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"there is no one pair of {BEGIN} and {END}")
    pattern = f"{re.escape(BEGIN)}.*{re.escape(END)}"
    return re.sub(pattern, lambda _: f"{BEGIN}\n{block}\n{END}", text, flags=re.DOTALL)


_WIDTH = 720
_LABEL = 230
_BAR = 18
_LINE = 26
_OURS = "#1f77b4"
_PEERS = "#9aa5b1"


def svg(charts: Sequence[Chart], isOurs: str = "twisted_cluster") -> str:
    """
    The charts one below the other, each with a scale of its own.

    @param isOurs: What the labels of coloured bars begin with.
    """
    body: list[str] = []
    top = 16
    for chart in charts:
        body.append(_text(12, top + 14, chart.title, "bold"))
        top += 28
        longest = max(value for _, value in chart.bars) or 1.0
        for label, value in chart.bars:
            colour = _OURS if label.startswith(isOurs) else _PEERS
            body += _bar(top, label, value, longest, colour)
            top += _LINE
        top += 18
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}"'
    style = 'font-family="sans-serif" font-size="13" role="img"'
    background = f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>'
    return "\n".join(
        [f'{head} viewBox="0 0 {_WIDTH} {top}" {style}>', background, *body, "</svg>\n"]
    )


def _bar(top: int, label: str, value: float, longest: float, colour: str) -> list[str]:
    room = _WIDTH - _LABEL - 90
    width = max(1.0, room * value / longest)
    return [
        _text(12, top + 14, label),
        f'<rect x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
        _text(_LABEL + width + 6, top + 14, number(value)),
    ]


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="#1b1f24" font-weight="{weight}">{escape(text)}</text>'
