"""
Clients that keep account: what was answered, and how everything else failed.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    ProcessExitedAlready,
)
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from tests.integration.harness import PATIENCE, reactor, requireTool, spawn, within

# One request.


class Exchange(Protocol):
    """
    One connection on which a test sends and reads what it likes.

    @ivar received: All that has come.
    @ivar made: Fires with this when the connection is there.
    @ivar ended: Fires with why the connection ended, an exception.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.made: Deferred[Exchange] = Deferred()
        self.ended: Deferred[Exception] = Deferred()
        self._wanted: list[tuple[re.Pattern[bytes], Deferred[bytes]]] = []

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for wanted, done in tuple(self._wanted):
            if wanted.search(self.received):
                self._wanted.remove((wanted, done))
                done.callback(self.received)

    def connectionLost(self, reason: Any = None) -> None:
        wanted, self._wanted = self._wanted, []
        for _, done in wanted:
            done.errback(reason)
        self.ended.callback(reason.value)

    def send(self, data: bytes) -> None:
        """
        Send C{data}.
        """
        self.transport.write(data)

    def until(self, wanted: bytes) -> Deferred[bytes]:
        """
        Await C{wanted} among what comes.
        """
        return self.matching(re.compile(re.escape(wanted)))

    def matching(self, wanted: re.Pattern[bytes]) -> Deferred[bytes]:
        """
        Await that what has come matches C{wanted}.
        """
        done: Deferred[bytes] = Deferred()
        self._wanted.append((wanted, done))
        self.dataReceived(b"")
        return within(
            PATIENCE, f"{wanted.pattern!r} from the server", done, lambda: repr(self.received)
        )

    def end(self) -> Deferred[bytes]:
        """
        Await the end of the connection.

        @return: A Deferred that fires with all that came, or fails if the
            connection was not closed in an orderly way.
        """

        def ended(reason: Exception) -> bytes:
            if not isinstance(reason, ConnectionDone):
                raise AssertionError(f"{reason!r} after {self.received!r}")
            return self.received

        done = self.ended.addCallback(ended)
        return within(PATIENCE, "the end of a connection", done, lambda: repr(self.received))


class _OneExchange(ClientFactory):
    noisy = False

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def buildProtocol(self, address: IAddress | None) -> Exchange:
        return self._exchange

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._exchange.made.errback(reason)


def connect(port: int | str, contextFactory: Any = None) -> Deferred[Exchange]:
    """
    Connect to a local port or path, with TLS if there is a C{contextFactory}.
    """
    exchange = Exchange()
    factory = _OneExchange(exchange)
    if isinstance(port, str):
        reactor.connectUNIX(port, factory)
    elif contextFactory is not None:
        reactor.connectSSL("127.0.0.1", port, factory, contextFactory)
    else:
        reactor.connectTCP("127.0.0.1", port, factory)
    return exchange.made


def request(path: str = "/") -> bytes:
    """
    A request after whose answer the connection ends.
    """
    return f"GET {path} HTTP/1.0\r\n\r\n".encode("ascii")


def body(response: bytes) -> bytes:
    """
    What a successful response says.
    """
    head, _, said = response.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise AssertionError(f"no success: {response!r}")
    return said


async def get(port: int | str, path: str = "/", contextFactory: Any = None) -> bytes:
    """
    The body of the answer to one request.
    """
    exchange = await connect(port, contextFactory)
    exchange.send(request(path))
    return body(await exchange.end())


async def who(port: int | str) -> tuple[int, int, int]:
    """
    Slot, generation and process id of the worker that answers, for the app
    C{hello}.
    """
    slot, generation, pid = (await get(port, "/who")).split()
    return int(slot), int(generation), int(pid)


# Many requests: own clients.


class Load:
    """
    Clients that send one HTTP/1.1 request after the other, each on a
    connection that it keeps for as long as the server lets it.

    @ivar counts: What became of the requests: C{success} or a way to fail.
        C{announced} counts connections that ended as the server had said.
    """

    def __init__(self, port: int, clients: int, data: bytes, answer: bytes) -> None:
        self.port = port
        self.data = data
        self.answer = answer
        self.counts: Counter[str] = Counter()
        self.stopping = False
        self._ends = [Deferred[None]() for _ in range(clients)]
        self._waiters: list[tuple[int, Deferred[None]]] = []

    def start(self) -> Load:
        """
        Set the clients off.
        """
        for end in self._ends:
            self.connect(end)
        return self

    def connect(self, end: Deferred[None]) -> None:
        """
        One client connects, or is at its end.
        """
        if self.stopping:
            end.callback(None)
        else:
            reactor.connectTCP("127.0.0.1", self.port, _LoadFactory(self, end))

    def count(self, what: str) -> None:
        """
        Something became of a request.
        """
        self.counts[what] += 1
        for waiter in tuple(self._waiters):
            if self.counts["success"] >= waiter[0]:
                self._waiters.remove(waiter)
                waiter[1].callback(None)

    def more(self, successes: int) -> Deferred[None]:
        """
        Await so many further successes.
        """
        done: Deferred[None] = Deferred()
        self._waiters.append((self.counts["success"] + successes, done))
        what = f"{successes} further successes"
        return within(PATIENCE, what, done, lambda: str(self.counts))

    def stop(self) -> Deferred[Counter[str]]:
        """
        Let each client finish its request.
        """
        self.stopping = True
        done = gatherResults(self._ends).addCallback(lambda _: self.counts)
        return within(PATIENCE, "the end of all clients", done, lambda: str(self.counts))


class _LoadFactory(ClientFactory):
    noisy = False

    def __init__(self, load: Load, end: Deferred[None]) -> None:
        self.load = load
        self.end = end

    def buildProtocol(self, address: IAddress | None) -> _LoadProtocol:
        return _LoadProtocol(self.load, self.end)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.load.count("refused" if reason.check(ConnectionRefusedError) else "unreachable")
        reactor.callLater(0.01, self.load.connect, self.end)


class _LoadProtocol(Protocol):
    transport: Any

    def __init__(self, load: Load, end: Deferred[None]) -> None:
        self._load = load
        self._end = end
        self._received = b""
        self._lastOne = False
        self._busy = False
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._next()

    def _next(self) -> None:
        if self._load.stopping:
            self._lastOne = True
            self.transport.loseConnection()
            return
        self._busy = True
        self._received = b""
        self._timer = reactor.callLater(PATIENCE / 2, self._late)
        self.transport.write(self._load.data)

    def _late(self) -> None:
        self._load.count("timeout")
        self._busy = False
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, mark, said = self._received.partition(b"\r\n\r\n")
        if not mark:
            return
        length = re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)
        if length is None or len(said) < int(length[1]):
            return
        self._answered(head, said)

    def _answered(self, head: bytes, said: bytes) -> None:
        self._busy = False
        self._cancel()
        right = head.startswith(b"HTTP/1.1 200 ") and said == self._load.answer
        self._load.count("success" if right else "wrong")
        if re.search(rb"\r\nConnection: close", head, re.IGNORECASE):
            self._lastOne = True
        else:
            self._next()

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def connectionLost(self, reason: Any = None) -> None:
        self._cancel()
        if self._busy:
            # A client may repeat a request on a connection that was closed
            # before a byte of the answer, but this one is strict.
            self._load.count("reset" if reason.check(ConnectionLost) else "closed")
        elif self._lastOne and not self._load.stopping:
            self._load.count("announced")
        self._load.connect(self._end)


# Many requests: ab.


class Ab:
    """
    ApacheBench, run until told to stop or until it has sent enough.

    @ivar report: What it printed, by the words before the colon.
    """

    def __init__(self, port: int, *options: str, concurrency: int = 200) -> None:
        path = requireTool("ab", "apache2-utils")
        numbers = () if "-n" in options else ("-t", "120", "-n", "1000000")
        self._process = spawn(
            [
                *(path, "-r", "-q", "-c", str(concurrency), *numbers, *options),
                f"http://127.0.0.1:{port}/",
            ]
        )

    async def finished(self) -> AbReport:
        """
        Await its end.
        """
        done = self._process.done
        finished = await within(PATIENCE, "the end of ab", done, lambda: self._process.written)
        return AbReport(finished.out + finished.err)

    async def stop(self) -> AbReport:
        """
        Have it stop.
        """
        transport: Any = self._process.transport
        with suppress(ProcessExitedAlready):
            transport.signalProcess(signal.SIGINT)
        return await self.finished()


class AbReport:
    """
    What ab counted.

    @ivar complete: The requests that came to an end.
    @ivar failed: Those that did not get a right answer, by kind.
    """

    _KINDS = ("Connect", "Receive", "Length", "Exceptions")

    def __init__(self, text: str) -> None:
        self.text = text
        complete = re.search(r"Complete requests:\s+(\d+)", text)
        if complete is None:
            raise AssertionError(f"no report of ab: {text}")
        self.complete = int(complete[1])
        self.failed = {
            kind: int(found[1])
            for kind in self._KINDS
            if (found := re.search(rf"\b{kind}: (\d+)", text)) and int(found[1])
        }
        for kind in ("Non-2xx responses", "Write errors"):
            found = re.search(rf"{kind}:\s+(\d+)", text)
            if found and int(found[1]):
                self.failed[kind] = int(found[1])

    @property
    def lost(self) -> int:
        """
        How many requests got no answer.  One that was reset counts as Receive
        and again as Length.
        """
        return max(self.failed.values(), default=0)
