"""
Binds the admin socket where nobody else can reach it, takes the place of a
dead master, and refuses to take that of a live one.  Runs in the master.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import AdminError
from twisted_cluster.kinds import SOCKET_PATH_BYTES, shown

BACKLOG = 50

_MODE = 0o600
_ELSEWHERE = "give another path with --admin"
_NOBODY = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK, errno.ENOTDIR})


def resolve(path: str) -> str:
    """
    C{path} as an absolute path.

    @raise AdminError: if it can't be that of a socket.
    """
    absolute = os.path.abspath(path)
    length = len(os.fsencode(absolute))
    if not path or "\0" in path:
        raise _refusal(shown(path), "that is no path", _ELSEWHERE)
    if length > SOCKET_PATH_BYTES:
        raise _refusal(
            absolute,
            f"its path has {length} bytes, and that of a UNIX socket at most {SOCKET_PATH_BYTES}",
            "give a shorter path with --admin",
        )
    return absolute


def _refusal(path: str, cause: str, remedy: str) -> AdminError:
    return AdminError(f"listen on admin socket {path}", cause, remedy)


class AdminPort(unix.Port):
    """
    A UNIX socket with a lock beside it that holds the process id, which from
    its first moment on is for its owner alone.
    """

    log = Logger("twisted_cluster")

    def startListening(self) -> None:
        """
        Bind.  Twisted sets the mode after bind(2), when others may have
        connected already; the umask is there before.
        """
        previous = os.umask(0o777 & ~_MODE)
        try:
            super().startListening()
        except BaseException:
            self._unlock()
            raise
        finally:
            os.umask(previous)

    def giveTo(self, uid: int, gid: int) -> None:
        """
        Change the owner of the socket, and of its lock: in a directory like
        /tmp only the owner of a file can remove it.

        @raise OSError: if that can't be done.
        """
        os.lchown(self._bindPath, uid, gid)
        os.lchown(self._bindPath + b".lock", uid, gid)

    def connectionLost(self, reason: Failure) -> None:
        """
        Remove what can be removed, then close.  A process that has dropped its
        privileges since may not be able to; the next master copes.
        """
        try:
            self._remove()
        except OSError as error:
            self.log.warn(
                "can't remove admin socket {path}: {cause}; the next master replaces it",
                path=os.fsdecode(self._bindPath),
                cause=error.strerror,
            )
        tcp.Port.connectionLost(self, reason)

    def _remove(self) -> None:
        """
        Remove socket and lock, unless they have become those of another
        master.
        """
        if _lockHolder(self._bindPath) == os.getpid():
            with suppress(FileNotFoundError):
                os.unlink(self._bindPath)
            self._unlock()

    def _unlock(self) -> None:
        if self.lockFile is not None and self.lockFile.locked:
            self.lockFile.unlock()


def listen(reactor: Any, factory: Factory, path: str, owner: tuple[int, int] | None) -> AdminPort:
    """
    Listen on C{path}, with mode 0600.

    @param owner: The user and group to give the socket to.
    @raise AdminError: if that can't be done.
    """
    try:
        port = _bindAnyway(reactor, factory, os.fsencode(path))
    except (CannotListenError, OSError) as error:
        raise _explained(path, error) from None
    if owner is not None:
        _giveTo(port, path, owner)
    return port


def _bindAnyway(reactor: Any, factory: Factory, name: bytes) -> AdminPort:
    try:
        return _bind(reactor, factory, name)
    except (CannotListenError, OSError):
        if not _removeDead(name):
            raise
    return _bind(reactor, factory, name)


def _bind(reactor: Any, factory: Factory, name: bytes) -> AdminPort:
    port = AdminPort(name, factory, BACKLOG, _MODE, reactor, wantPID=True)
    port.startListening()
    return port


def _giveTo(port: AdminPort, path: str, owner: tuple[int, int]) -> None:
    try:
        port.giveTo(*owner)
    except OSError as error:
        port.connectionLost(Failure(error))
        raise AdminError(
            f"give admin socket {path} to user {owner[0]} and group {owner[1]}",
            error.strerror or str(error),
            "start as root",
        ) from None


def _removeDead(name: bytes) -> bool:
    """
    Remove the socket and the lock that a dead master has left behind.

    Twisted goes by whether the process that the lock names exists, which after
    a restart of the system or of a container may be quite another one; what
    counts is whether anybody listens.

    @return: Whether there was anything to remove.
    @raise OSError: if that can't be removed.
    """
    if _isListening(name):
        return False
    removed = False
    for left, isOne in ((name, stat.S_ISSOCK), (name + b".lock", stat.S_ISLNK)):
        if os.path.lexists(left) and isOne(os.lstat(left).st_mode):
            os.unlink(left)
            removed = True
    return removed


def _isListening(name: bytes) -> bool:
    """
    Whether somebody listens; yes if there is any doubt.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(name) not in _NOBODY


def _lockHolder(name: bytes) -> int | None:
    try:
        return int(os.readlink(name + b".lock"))
    except (OSError, ValueError):
        return None


def _explained(path: str, error: Exception) -> AdminError:
    name = os.fsencode(path)
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return _refusal(path, f"there is no directory {directory}", f"create it, or {_ELSEWHERE}")
    if _isListening(name):
        holder = _lockHolder(name)
        user = "another process" if holder is None else f"another master (pid {holder})"
        return _refusal(path, f"{user} is using it", f"stop that one, or {_ELSEWHERE}")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return _refusal(path, "there is a file which is not a socket", f"move it, or {_ELSEWHERE}")
    cause = getattr(error, "socketError", error)
    reason = cause.strerror if isinstance(cause, OSError) else str(cause)
    return _refusal(path, str(reason), f"let this user write to {directory}, or {_ELSEWHERE}")
