"""
Makes worker processes by fork and exec of a fresh interpreter.  Runs in the
master.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.events import ExitStatus
from twisted_cluster.interfaces import HelperStatus, IWorkerObserver, IWorkerProcess, IWorkerSpawner
from twisted_cluster.wire.preamble import CHANNEL_DESCRIPTOR

WORKER_MODULE = "twisted_cluster.worker"
MAX_LINE = 16_384
"""Bytes of a worker's output line after which it is cut in two."""


def workerArguments(**numbers: int) -> list[str]:
    """
    The command line of a process that speaks the worker's side.

    @param numbers: Slot and generation, or generation alone for a template.
    """
    return [
        sys.executable,
        # How the master itself was started: -X dev, -W error, -O, ...
        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
        "-m",
        WORKER_MODULE,
        *(part for name, number in numbers.items() for part in (f"--{name}", str(number))),
    ]


def exitStatusOf(status: int) -> ExitStatus:
    """
    What a status from waitpid(2) means.
    """
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status))
    return ExitStatus(code=os.WEXITSTATUS(status))


class LineRelay:
    """
    Cuts a stream of bytes into lines of text.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        """
        @param tell: Called with each line.
        """
        self._tell = tell
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """
        Take bytes; tell each line that is complete.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._rest = rest
        for line in lines:
            self._tell(line.decode("utf-8", "replace"))

    def finish(self) -> None:
        """
        Tell the last line, if it had no end.
        """
        rest, self._rest = self._rest, b""
        if rest:
            self._tell(rest.decode("utf-8", "replace"))


@implementer(IWorkerProcess)
class ExecProcess(ProcessProtocol):
    """
    One worker process and what it writes.
    """

    transport: IProcessTransport | None

    def __init__(self, observer: IWorkerObserver) -> None:
        self._observer = observer
        self._relays = {1: LineRelay(observer.output), 2: LineRelay(observer.output)}
        self.pid: int | None = None

    def connectionMade(self) -> None:
        """The process exists."""
        assert self.transport is not None
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It wrote something."""
        self._relays[childFD].feed(data)

    def processExited(self, reason: Failure) -> None:
        """
        It has been reaped.  Its grandchildren may hold its pipes open, so the
        pipes' end is not waited for: the slot needs its next worker now.
        """
        value: Any = reason.value
        self._observer.exited(exitStatusOf(value.status))

    def processEnded(self, reason: Failure) -> None:
        """Nobody can write to its pipes any more."""
        for relay in self._relays.values():
            relay.finish()

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        if self.transport is None:
            return
        try:
            self.transport.signalProcess(number)
        except ProcessExitedAlready:
            return


@implementer(IWorkerSpawner)
class ExecSpawner:
    """
    Spawns C{python -m twisted_cluster.worker}.

    @ivar relayOutput: Whether the workers' standard output comes through the
        master's log.  If not, they write to the master's own.  Standard error
        always comes through the log: it is rare, and what a crash leaves there
        must not be lost.
    """

    kind = "exec"

    def __init__(
        self, reactor: Any, relayOutput: bool, environment: Mapping[str, str] | None = None
    ) -> None:
        self._reactor = reactor
        self.relayOutput = relayOutput
        self.environment = dict(os.environ if environment is None else environment)
        self.executable = sys.executable

    def spawn(
        self, slot: int, generation: int, channel: socket.socket, observer: IWorkerObserver
    ) -> ExecProcess:
        """
        See L{IWorkerSpawner.spawn}.
        """
        process = ExecProcess(observer)
        try:
            self._exec(process, slot, generation, channel)
        except OSError as error:
            failure = ExitStatus(failure=str(error))
            self._reactor.callLater(0, observer.exited, failure)
        else:
            assert process.pid is not None
            observer.started(process.pid)
        finally:
            channel.close()
        return process

    def _exec(
        self, process: ExecProcess, slot: int, generation: int, channel: socket.socket
    ) -> None:
        with open(os.devnull, "rb") as nothing:
            self._reactor.spawnProcess(
                process,
                self.executable,
                workerArguments(slot=slot, generation=generation),
                env=self.environment,
                childFDs={
                    0: nothing.fileno(),
                    1: "r" if self.relayOutput else 1,
                    2: "r",
                    CHANNEL_DESCRIPTOR: channel.fileno(),
                },
            )

    def helpers(self) -> tuple[HelperStatus, ...]:
        """
        It needs none.
        """
        return ()

    def keep(self, generations: Iterable[int]) -> None:
        """
        There is nothing to give up.
        """

    def stop(self) -> None:
        """
        There is nothing to give up.
        """
