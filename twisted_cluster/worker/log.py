"""
The log of a worker: lines on standard output, which is the master's own or
leads into the master's log.  Runs in the worker.
"""

from __future__ import annotations

import os
import sys

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    formatTime,
    globalLogBeginner,
    eventAsText,
)

from twisted_cluster.wire.preamble import Preamble


def begin(plan: Preamble) -> None:
    """
    Send all logging of this process, and what it prints, to standard output,
    each line with the worker that it comes from.
    """
    origin = f"slot {plan.slot} generation {plan.generation} pid {os.getpid()}"

    def withOrigin(event: LogEvent) -> str | None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=True)
        if not text:
            return None
        start = f"{formatTime(event.get('log_time'))} [{origin}] " if plan.logTimes else ""
        if "\n" in text:
            return "".join(f"{start}{line}\n" for line in text.splitlines())
        return f"{start}{text}\n"

    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stdout, withOrigin)])
