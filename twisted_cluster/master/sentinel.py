"""
The master's side of the sentinel.

Invariant 5: no worker outlives its master unnoticed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import twisted_cluster

SCRIPT = os.path.join(os.path.dirname(twisted_cluster.__file__), "sentinel.py")
RESTART_DELAY = 1.0


class _Connection(ProcessProtocol):
    transport: IProcessTransport | None

    def __init__(self, sentinel: Sentinel) -> None:
        self._sentinel = sentinel

    def errReceived(self, data: bytes) -> None:
        """Whatever it says there is a fault of its own."""
        self._sentinel.log.error("sentinel: {text}", text=data.decode("utf-8", "replace"))

    def processExited(self, reason: Failure) -> None:
        """It is gone."""
        self._sentinel.exited(reason)


class Sentinel:
    """
    Keeps a sentinel process running and tells it which workers there are.

    On systems without pidfd_open(2) there is none; there a worker stuck in C
    code can outlive a killed master.
    """

    log = Logger()

    def __init__(self, reactor: Any, drainTimeout: float) -> None:
        self._reactor = reactor
        self._drainTimeout = drainTimeout
        self._workers: set[int] = set()
        self._connection: _Connection | None = None
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The process id of the sentinel, while it runs."""
        if self._connection is None or self._connection.transport is None:
            return None
        pid: int | None = self._connection.transport.pid
        return pid

    def start(self) -> None:
        """
        Start the process.  If that fails it is tried again; the cluster can
        do without it until then.
        """
        if self._stopped or not hasattr(os, "pidfd_open"):
            return
        try:
            self._connection = self._execute()
        except OSError as error:
            self.log.error("there is no sentinel: {error}; trying again", error=error)
            self._reactor.callLater(RESTART_DELAY, self.start)
            return
        self.log.info("the sentinel is pid {pid}", pid=self.pid)
        for pid in self._workers:
            self._tell("+", pid)

    def _execute(self) -> _Connection:
        connection = _Connection(self)
        arguments = [sys.executable, "-I", "-S", SCRIPT, str(self._drainTimeout)]
        self._reactor.spawnProcess(
            connection, sys.executable, arguments, env={}, childFDs={0: "w", 2: "r"}
        )
        return connection

    def stop(self) -> None:
        """
        Let the process go; it exits by itself.
        """
        self._stopped = True
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.closeStdin()

    def watch(self, pid: int) -> None:
        """
        A worker has been started.
        """
        self._workers.add(pid)
        self._tell("+", pid)

    def forget(self, pid: int) -> None:
        """
        A worker has been reaped.
        """
        self._workers.discard(pid)
        self._tell("-", pid)

    def exited(self, reason: Failure) -> None:
        """
        The process is gone; without need, there is another soon.
        """
        self._connection = None
        if not self._stopped:
            self.log.warn("the sentinel is gone and is replaced: {why}", why=reason.value)
            self._reactor.callLater(RESTART_DELAY, self.start)

    def _tell(self, sign: str, pid: int) -> None:
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.write(f"{sign}{pid}\n".encode("ascii"))
