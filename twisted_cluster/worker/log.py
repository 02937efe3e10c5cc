"""
The log of a worker: lines on standard output, which is the master's own or
leads into the master's log.  Runs in the worker and in the template.
"""

from __future__ import annotations

import os
import sys

from twisted.logger import FileLogObserver, LogEvent, eventAsText, formatTime, globalLogBeginner

from twisted_cluster import context


class _Format:
    """
    Begins each line with the process that it comes from.
    """

    def __init__(self) -> None:
        self._withTimes = False
        self._origin = ""

    def __call__(self, event: LogEvent) -> str | None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=True)
        if not text:
            return None
        start = f"{formatTime(event.get('log_time'))} {self._origin}" if self._withTimes else ""
        if "\n" in text:
            return "".join(f"{start}{line}\n" for line in text.splitlines())
        return f"{start}{text}\n"

    def describe(self, withTimes: bool) -> None:
        """
        Take note of what this process is.
        """
        here = context.current()
        where = "template" if here.slot is None else f"slot {here.slot}"
        self._origin = f"[{where} generation {here.generation} pid {os.getpid()}] "
        self._withTimes = withTimes


_format = _Format()


def begin(withTimes: bool) -> None:
    """
    Send all logging of this process, and what it prints, to standard output.

    @param withTimes: Whether lines need a time and an origin; they do not
        where the master's log adds its own.
    """
    _format.describe(withTimes)
    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stdout, _format)])


def beginIfNobodyDid(withTimes: bool) -> None:
    """
    The same for a program, which may have a log of its own, and whose printing
    is its own affair.
    """
    _format.describe(withTimes)
    # Twisted keeps what is logged in memory until somebody begins, and tells
    # in no other way whether that has happened.
    if globalLogBeginner._temporaryObserver is not None:
        globalLogBeginner.beginLoggingTo(
            [FileLogObserver(sys.stdout, _format)], redirectStandardIO=False
        )


def resume(withTimes: bool) -> None:
    """
    The same in a process that was forked from one that had begun.
    """
    _format.describe(withTimes)
