"""
The value of what is not there.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Missing(Enum):
    """
    The type of L{MISSING}.
    """

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""
Stands for the value of a key that is absent from the state: what a watcher of a
deleted key is told, what C{compareAndSet} may expect, and what a write may set.
L{None} is a value like any other.
"""
