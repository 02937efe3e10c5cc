"""
Which process is at the other end of a UNIX socket.  Any process.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, NamedTuple

_CREDENTIALS = struct.Struct("3i")


class Credentials(NamedTuple):
    """
    The process that connected, or for the one that connected, the process
    that listens.
    """

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


def credentialsOf(transport: Any) -> Credentials | None:
    """
    Which process is at the other end of C{transport}; L{None} where the
    platform does not tell.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    data = transport.getHandle().getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(data))


def ownUids() -> frozenset[int]:
    """
    Root and the effective user of this process.
    """
    return frozenset({0, os.geteuid()})
