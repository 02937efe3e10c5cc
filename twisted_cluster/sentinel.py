"""
The sentinel: a tiny process that outlives a killed master.

A worker whose master is gone drains and exits by itself, unless it is stuck
in code that never returns to its reactor.  The sentinel waits for the master's
end, gives the workers the drain timeout, and kills those that are left.

It is run by path, with the standard library alone::

    python -I -S sentinel.py SECONDS

Standard input says which processes to watch, one line each: C{+PID} or
C{-PID}.  Its end is the master's end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(seconds: float) -> None:
    """
    Watch until standard input ends, then see the workers out.

    @param seconds: How long they may take.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    workers: dict[int, int] = {}
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            _watch(workers, pid)
        elif pid in workers:
            os.close(workers.pop(pid))
    _seeOut(workers, time.monotonic() + seconds)


def _watch(workers: dict[int, int], pid: int) -> None:
    """
    Hold on to the process itself, not to its number, which may be used again.
    """
    try:
        workers[pid] = os.pidfd_open(pid)
    except ProcessLookupError:
        return


def _seeOut(workers: dict[int, int], deadline: float) -> None:
    poll = select.poll()
    for descriptor in workers.values():
        poll.register(descriptor, select.POLLIN)
    left = set(workers.values())
    while left and (remaining := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(remaining * 1000):
            poll.unregister(descriptor)
            left.discard(descriptor)
    for descriptor in left:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main(float(sys.argv[1]))
