"""
What F{/proc} knows of processes, and the end of a process as an event.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed

_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


def adoptOrphans(adopt: bool) -> None:
    """
    Have descendants whose parent dies become children of this process, so
    that none of them can get lost.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _fields(pid: int) -> list[bytes]:
    """
    The fields of C{/proc/PID/stat} from the state on; empty if there is no
    such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """
    The letter that ps(1) shows; empty if there is no such process.
    """
    fields = _fields(pid)
    return fields[0].decode("ascii") if fields else ""


def cpuSeconds(pid: int) -> float:
    """
    The CPU time that a process has used.
    """
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def commandLine(pid: int) -> str:
    """
    The arguments of a process, and what state it is in.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            words = line.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        words = []
    return f"{pid} [{state(pid)}] {b' '.join(words).decode('utf-8', 'replace')}"


def childrenOf(pid: int) -> list[int]:
    """
    The children of a process, zombies included.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [other for other in pids if (fields := _fields(other)) and int(fields[1]) == pid]


def descendantsOf(pid: int) -> list[int]:
    """
    The children of a process, and theirs, and so on.
    """
    found = childrenOf(pid)
    for child in found:
        found += descendantsOf(child)
    return found


def zombiesOf(pid: int) -> list[int]:
    """
    The children of a process that have ended and that it has not reaped.
    """
    return [child for child in childrenOf(pid) if state(child) == "Z"]


def openDescriptors(pid: int) -> list[str]:
    """
    What each open descriptor of a process leads to.
    """
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


class _End(FileDescriptor):
    """
    A pidfd: readable when its process has ended.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        super().__init__(reactor)
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._descriptor = descriptor
        self.startReading()

    def fileno(self) -> int:
        return self._descriptor

    def _cancelled(self, done: Deferred[None]) -> None:
        self._close()

    def doRead(self) -> None:
        self._close()
        self.done.callback(None)

    def _close(self) -> None:
        self.stopReading()
        os.close(self._descriptor)


def endOf(reactor: Any, pid: int) -> Deferred[None]:
    """
    A Deferred that fires when a process has ended, reaped or not.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return succeed(None)
    return _End(reactor, descriptor).done


def reapOrphan(pid: int) -> None:
    """
    Reap a process if it is a child of this one and has ended.
    """
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def serversEnd(server: int, client: int) -> str:
    """
    What descriptors of the server's end of a TCP connection lead to, in
    whichever processes they are.

    @param server: The number of the server's port.
    @param client: That of the client's.
    """
    ends = (f"{server:04X}", f"{client:04X}")
    # While other connections come and go, a reader of the table may miss some.
    for _ in range(100):
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        for row in rows:
            if (row[1].rpartition(":")[2], row[2].rpartition(":")[2]) == ends:
                return f"socket:[{row[9]}]"
    raise LookupError(f"no connection from port {client} to {server}")


def holds(pid: int, opened: str) -> bool:
    """
    Whether a process has a descriptor that leads to C{opened}.
    """
    try:
        return opened in openDescriptors(pid)
    except FileNotFoundError:
        return False
