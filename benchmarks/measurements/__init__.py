"""
One module for each measurement.  Each has a C{measure} that takes a L{Plan}
and returns a L{benchmarks.report.Result}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """
    How much of everything.

    @ivar quick: Whether the figures need only show that all works.
    @ivar say: Takes a line on how far it is.
    """

    quick: bool
    say: Callable[[str], None]

    def pick(self, full: int, quick: int) -> int:
        """
        One of two amounts.
        """
        return quick if self.quick else full
