"""
Reaps processes that are nobody's children.  Runs in the master.

In a container the master is often process 1, to which the kernel gives every
orphan.  Nobody else would wait for them, and zombies would pile up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import Any

from twisted.internet import process
from twisted.internet.task import LoopingCall

INTERVAL = 5.0
"""Seconds between two looks."""

MOST = 1000
"""How many are reaped at one look."""


def firstEnded() -> int | None:
    """
    The process id of a child that has ended and waits to be reaped, if there
    is one.
    """
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def reap(pid: int) -> None:
    """
    Let a child that has ended go.
    """
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


class StrangerReaper:
    """
    Reaps those whom it has seen at two looks in a row: children of this
    process have somebody who waits for them, and are gone by then.
    """

    def __init__(
        self,
        clock: Any,
        ended: Callable[[], int | None] = firstEnded,
        reap: Callable[[int], object] = reap,
        known: Container[int | None] = process.reapProcessHandlers,
    ) -> None:
        """
        @param known: The processes that the reactor waits for.
        """
        self._ended = ended
        self._reap = reap
        self._known = known
        self._suspect: int | None = None
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """
        Begin to look.
        """
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        """
        The kernel names the same one until it is reaped.  Once it is clear
        that there are strangers, all that have ended go at once.
        """
        suspect, self._suspect = self._suspect, self._stranger()
        if suspect is None or suspect != self._suspect:
            return
        for _ in range(MOST):
            if self._suspect is None:
                return
            self._reap(self._suspect)
            self._suspect = self._stranger()

    def _stranger(self) -> int | None:
        pid = self._ended()
        return None if pid in self._known else pid
