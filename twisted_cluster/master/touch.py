"""
Notices that a file has been touched.  Runs in the master.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

INTERVAL = 1.0
"""Seconds between two looks."""


class TouchWatch:
    """
    Calls C{onTouch} when the modification time of a file changes, or the file
    appears.
    """

    def __init__(self, clock: Any, path: str, onTouch: Callable[[], object]) -> None:
        self._path = path
        self._onTouch = onTouch
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._last = self._modified()

    def start(self) -> None:
        """
        Begin to look.
        """
        self._last = self._modified()
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._loop.running:
            self._loop.stop()

    def _modified(self) -> int | None:
        try:
            return os.stat(self._path).st_mtime_ns
        except OSError:
            return None

    def _look(self) -> None:
        modified = self._modified()
        if modified is not None and modified != self._last:
            self._onTouch()
        self._last = modified
