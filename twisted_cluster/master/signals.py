"""
The master's signals.

The handlers only enqueue; what follows happens in the reactor.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

_STOP = (signal.SIGTERM, signal.SIGINT)
_RELOAD = (signal.SIGHUP, signal.SIGUSR2)


class Signals:
    """
    The first SIGTERM or SIGINT stops in the reactor's own way, so that twistd
    goes on to see it; the second stops at once.  SIGHUP and SIGUSR2 reload.
    """

    def __init__(
        self,
        reactor: Any,
        onStopNow: Callable[[str], object],
        onReload: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._onStopNow = onStopNow
        self._onReload = onReload
        self._before: dict[int, Any] = {}
        self._stopping = False

    def install(self) -> None:
        """
        Take over the signals.  The reactor must have installed its own
        handlers already.
        """
        for handler, numbers in ((self._stop, _STOP), (self._reload, _RELOAD)):
            for number in numbers:
                # A signal may come before signal.signal() has returned.
                self._before[number] = signal.getsignal(number)
                signal.signal(number, handler)

    def restore(self) -> None:
        """
        Give the signals back to whom they belonged.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def _stop(self, number: int, frame: Any) -> None:
        if self._stopping:
            name = signal.Signals(number).name
            self._reactor.callFromThread(self._onStopNow, f"a second {name}")
            return
        self._stopping = True
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        else:
            self._reactor.callFromThread(self._reactor.stop)

    def _reload(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._onReload, signal.Signals(number).name)
