"""
The processes under measurement: their life, CPU time and memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent


class MeasurementError(Exception):
    """
    A measurement can't be made, or its figures would mean nothing.
    """


def environment() -> dict[str, str]:
    """
    The environment of all processes under measurement: they import this
    package and the one beside it.
    """
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def freePort() -> int:
    """
    A TCP port that nobody uses.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str, timeout: float, interval: float = 0.02) -> None:
    """
    Wait until C{condition} holds.

    @raise MeasurementError: if it does not within C{timeout} seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"{what}: not within {timeout:g} s")
        time.sleep(interval)


def cpuSeconds(pid: int) -> float:
    """
    The CPU time that a process has used, in all of its threads, by its own
    clock: nanoseconds instead of the ticks of C{/proc/PID/stat}.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def machineSeconds() -> float:
    """
    The CPU time that all processes together have used since the machine was
    started.
    """
    line = Path("/proc/stat").read_text().split("\n", 1)[0]
    return parseMachineSeconds(line, os.sysconf("SC_CLK_TCK"))


def parseMachineSeconds(line: str, ticks: int) -> float:
    """
    The same from the first line of C{/proc/stat}.
    """
    user, nice, system, _, _, interrupts, softInterrupts, *_ = map(int, line.split()[1:])
    return (user + nice + system + interrupts + softInterrupts) / ticks


def isAlive(pid: int) -> bool:
    """
    Whether there is such a process, and it is not a zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def memory(pid: int) -> dict[str, float]:
    """
    The private memory and the proportional share of all memory of a process,
    in MB (10**6 bytes).
    """
    return parseMemory(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parseMemory(rollup: str) -> dict[str, float]:
    """
    The same from the text of C{smaps_rollup}.
    """
    sizes = {
        name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", rollup, re.MULTILINE)
    }
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"private": private * 1024 / 1e6, "pss": sizes["Pss"] * 1024 / 1e6}


class Server:
    """
    A server process with all that it starts, from C{with} to the end of the
    block.

    @ivar name: What tables call it.
    @ivar port: Where it listens on 127.0.0.1.
    @ivar pid: Of the process that was started: the master, or the only one.
    @ivar started: When it was started, on the clock of C{time.monotonic}.
    @ivar directory: Its working directory, which is gone when it is.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        port: int,
        workers: int = 0,
        ready: str = "",
        reloadSignal: int | None = None,
        patience: float = 3.0,
    ) -> None:
        """
        @param workers: How many worker processes it is to have.
        @param ready: A regular expression that finds the pid of a worker in
            the line that tells that it is ready.
        @param reloadSignal: What makes it replace its workers.
        @param patience: Seconds that it may take to end before it is killed.
        """
        self.name = name
        self.port = port
        self._arguments = list(arguments)
        self._count = workers
        self._ready = re.compile(ready.encode("ascii"))
        self._reloadSignal = reloadSignal
        self._patience = patience
        self._announced: list[int] = []
        self._rest = b""

    def __enter__(self) -> Server:
        self._directory = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.directory = Path(self._directory.name)
        log = self.directory / "log"
        self.started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=environment(),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._log = log.open("rb")
        try:
            until(self._isUp, f"{self.name} starts", 120, 0.005)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def workers(self) -> list[int]:
        """
        The pids of the workers that are ready and alive; without workers, the
        pid of the server itself.
        """
        if not self._count:
            return [self.pid]
        self._readLog()
        return [pid for pid in self._announced if isAlive(pid)]

    def cpu(self) -> tuple[float, list[float]]:
        """
        The CPU seconds used so far by the first process and by each worker.
        """
        return cpuSeconds(self.pid), [cpuSeconds(pid) for pid in self.workers()]

    def cpuOfAll(self) -> float:
        """
        The sum of L{cpu}.
        """
        first, workers = self.cpu()
        return first + sum(workers) if self._count else first

    def reload(self, timeout: float) -> float | None:
        """
        Have it replace its workers; wait until all old ones are gone and as
        many new ones are there.

        @return: How many seconds it took, or L{None} if it was not over after
            C{timeout}.
        """
        if self._reloadSignal is None:
            raise MeasurementError(f"{self.name} has no reload")
        before = set(self.workers())
        began = time.monotonic()
        os.kill(self.pid, self._reloadSignal)

        def replaced() -> bool:
            now = set(self.workers())
            return not before & now and len(now) >= self._count

        while not replaced():
            if time.monotonic() - began > timeout:
                return None
            time.sleep(0.02)
        return time.monotonic() - began

    def settle(self, timeout: float = 30) -> None:
        """
        Wait until it has worked off what an ended load left behind.
        """

        def idle() -> bool:
            before = self.cpuOfAll()
            time.sleep(0.2)
            return self.cpuOfAll() - before < 0.01

        until(idle, f"{self.name} comes to rest", timeout)

    def _isUp(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            output = self._log.read().decode("utf-8", "replace")
            raise MeasurementError(f"{self.name} does not start:\n{output[-2000:]}")
        if self._count and len(self.workers()) < self._count:
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def _readLog(self) -> None:
        *lines, self._rest = (self._rest + self._log.read()).split(b"\n")
        for line in lines:
            found = self._ready.search(line)
            if found:
                self._announced.append(int(found.group(1)))

    def _end(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGTERM)
            self._process.wait(self._patience)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            pass
        finally:
            # Whoever is left of its group is not needed any more.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(10)
            self._log.close()
            self._directory.cleanup()
