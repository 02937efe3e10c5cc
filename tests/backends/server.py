"""
A Redis server of a test's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.integration.harness import PATIENCE, requireTool
from twisted_cluster.backends.replies import Reader
from twisted_cluster.stateurl import StateUrl, parseStateUrl

reactor: Any = _reactor


def freePort() -> int:
    """
    A port that is free now, and is not given out again soon.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(check: Callable[[], Any], what: str = "") -> Any:
    """
    Wait until C{check} returns something true.
    """
    end = reactor.seconds() + PATIENCE
    while not (found := check()):
        if reactor.seconds() > end:
            raise AssertionError(f"waited in vain for {what or check}")
        await deferLater(reactor, 0.01)
    return found


class _Process(ProcessProtocol):
    """
    The process of a server.
    """

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.output = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class RedisServer:
    """
    A redis-server on a port and a UNIX socket of its own.

    @ivar directory: Where it saves its data, and has its socket.
    """

    def __init__(self, test: TestCase) -> None:
        self._program = requireTool("redis-server", "redis-server")
        self.directory = tempfile.mkdtemp(prefix="redis-")
        self.port = freePort()
        self._process: _Process | None = None
        self._options: tuple[str, ...] = ()
        test.addCleanup(self._cleanUp)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return os.path.join(self.directory, "redis.sock")

    def text(self, name: str = "test", options: str = "") -> str:
        """
        The URL of the server, as an operator writes it.
        """
        return f"redis://127.0.0.1:{self.port}/0?name={name}{options}"

    def url(self, name: str = "test") -> StateUrl:
        """
        The same, read.
        """
        return parseStateUrl(self.text(name))

    async def start(self, *options: str) -> None:
        """
        Start it, with the data that it saved last, if any.
        """
        self._options = options or self._options
        self._process = process = _Process()
        arguments = [self._program, "--port", str(self.port), "--dir", self.directory]
        arguments += ["--bind", "127.0.0.1", "--unixsocket", self.socket, "--save", ""]
        arguments += self._options
        reactor.spawnProcess(process, arguments[0], arguments, env=dict(os.environ))
        await until(lambda: b"Ready to accept" in process.output or process.ended.called)
        if process.ended.called:
            raise AssertionError(process.output.decode())

    def signal(self, name: str) -> None:
        """
        Send it a signal, C{STOP} or C{CONT} for instance.
        """
        if self._process is not None and self._process.transport.pid:
            os.kill(self._process.transport.pid, getattr(signal, "SIG" + name))

    async def kill(self) -> None:
        """
        Kill it, and wait until it is gone.
        """
        process, self._process = self._process, None
        if process is not None and not process.ended.called:
            os.kill(process.transport.pid, signal.SIGKILL)
            await process.ended

    def command(self, *arguments: str | int | bytes) -> Any:
        """
        Have it carry out a command.
        """
        parts = [one if isinstance(one, bytes) else str(one).encode() for one in arguments]
        words = [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
        reader = Reader(AssertionError)
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(words))
            while not (replies := reader.feed(connection.recv(65536))):
                pass
        if isinstance(replies[0], AssertionError):
            raise replies[0]
        return replies[0]

    async def _cleanUp(self) -> None:
        await self.kill()
        shutil.rmtree(self.directory)
