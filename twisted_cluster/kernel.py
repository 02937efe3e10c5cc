"""
What the kernel knows of connections and processes.  Master and worker.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import termios

_TCP_INFO = struct.Struct("=B127xQ8xI52xQ")
"""Of C{struct tcp_info}: the state, bytes received (offset 128), bytes written
and not sent yet (offset 144), bytes sent (offset 200)."""

_ESTABLISHED = 1
_CLOSE_WAIT = 8


Progress = tuple[int, int]
"""How many bytes have been read from a connection, and written to it."""

NO_PROGRESS: Progress = (0, 0)


def isUntouched(descriptor: int, since: Progress | None = NO_PROGRESS) -> bool | None:
    """
    Whether no process has read from or written to the connection
    C{descriptor} since it had got as far as C{since}, so that another one can
    serve it from there.

    @return: L{None} if the kernel can't tell, which it can for TCP on Linux
        alone.
    """
    if since is None:
        return None
    try:
        now = progress(descriptor)
    except OSError:
        return False
    return None if now is None else now == since


def progress(descriptor: int) -> Progress | None:
    """
    How far a connection has got, or L{None} if the kernel can't tell.

    @raise OSError: if it is not a connection, or not one that can go on.
    """
    connection = socket.socket(fileno=descriptor)
    try:
        if not tellsTouch(connection.family):
            return None
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    finally:
        connection.detach()
    if len(info) < _TCP_INFO.size:
        return None
    state, received, unsent, sent = _TCP_INFO.unpack(info)
    if state not in (_ESTABLISHED, _CLOSE_WAIT):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    endOfStream = 1 if state == _CLOSE_WAIT else 0
    return received - endOfStream - unreadBytes(descriptor), sent + unsent


def tellsTouch(family: int) -> bool:
    """
    Whether L{isUntouched} works for connections of an address family here.
    """
    return sys.platform.startswith("linux") and family in (socket.AF_INET, socket.AF_INET6)


def unreadBytes(descriptor: int) -> int:
    """
    How many bytes wait in the kernel to be read from C{descriptor}.

    @raise OSError: if it is no stream socket.
    """
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


_TICKS = os.sysconf("SC_CLK_TCK")


def processUsage(pid: int) -> tuple[float, bool] | None:
    """
    The CPU seconds that a process has used, and whether it runs or wants to;
    L{None} where C{/proc} does not tell.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0] == b"R"


def nameProcess(name: str) -> None:
    """
    Have C{top} and C{ps -o comm} show this process as C{name}, of which the
    kernel keeps 15 characters.  Without C{/proc} nothing happens.
    """
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:
        return


def isOpen(descriptor: int) -> bool:
    """
    Whether this process has a descriptor of that number.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def isListening(descriptor: int) -> bool:
    """
    Whether a descriptor is an open socket that listens for connections.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        found = socket.socket(fileno=descriptor)
        try:
            return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        finally:
            found.detach()
    except OSError:
        return False


def listeningDescriptors() -> frozenset[int]:
    """
    The descriptors of this process that listen for connections.  Called early
    enough, those that it has inherited.
    """
    return frozenset(filter(isListening, map(int, os.listdir("/dev/fd"))))
