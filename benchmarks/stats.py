"""
What is made of samples.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def median(samples: Sequence[float]) -> float:
    """
    The median.

    @raise ValueError: if there is no sample.
    """
    if not samples:
        raise ValueError("no samples")
    return statistics.median(samples)


def percentile(samples: Sequence[float], percent: float) -> float:
    """
    The smallest sample that at least C{percent} per cent of all are not above.

    @raise ValueError: if there is no sample.
    """
    if not samples:
        raise ValueError("no samples")
    rank = math.ceil(len(samples) * percent / 100)
    return sorted(samples)[max(rank, 1) - 1]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """
    The median of the ratios of samples taken side by side: what slows the
    machine down for a while slows both sides of a pair.

    @raise ValueError: if the samples do not come in pairs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} samples can't be paired with {len(theirs)}")
    return median([a / b for a, b in zip(ours, theirs)])


def alternate(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """
    Run all contenders in turn, C{rounds} times.

    @return: The samples of each contender.
    """
    samples: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            samples[name].append(run())
    return samples
