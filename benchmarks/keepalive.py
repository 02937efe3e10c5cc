"""
A client that keeps connections open and counts how they end.

    python -m benchmarks.keepalive PORT CONNECTIONS

Half of the connections ask again as soon as they are answered, the others
pause, so that a server that is about to close meets both kinds.  SIGINT ends
it; the counts are printed as JSON:

answered: complete answers.
lost: requests that got none, since the connection broke or stalled.
refused: attempts to connect that failed.
announced: connections that the server closed after C{Connection: close}.
closed: connections that the server closed, without a word, while idle.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import signal
import sys
from collections import Counter

PAUSE = 0.2
"""Seconds between an answer and the next request, on every other connection."""

STALL = 10.0
"""Seconds after which a request without an answer is lost."""

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class Answer:
    """
    One complete answer.

    @ivar size: How many bytes it has.
    @ivar closes: Whether it announces the end of the connection.
    """

    def __init__(self, size: int, closes: bool) -> None:
        self.size = size
        self.closes = closes


def parseAnswer(data: bytes) -> Answer | None:
    """
    Find a complete answer at the beginning of C{data}.

    @raise ValueError: if it has no length, or is no success.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2]
    length = _LENGTH.search(head)
    if length is None or not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"an answer that can't be counted: {head!r}")
    size = end + 4 + int(length.group(1))
    return Answer(size, bool(_CLOSE.search(head))) if len(data) >= size else None


class Connection(asyncio.Protocol):
    """
    One connection.
    """

    def __init__(self, counts: Counter[str], pause: float, ended: asyncio.Future[None]) -> None:
        self._counts = counts
        self._pause = pause
        self.ended = ended
        self._data = b""
        self._asked = False
        self._announced = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = True
        self._transport.write(REQUEST)
        self._timer = asyncio.get_running_loop().call_later(STALL, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._data += data
        answer = parseAnswer(self._data)
        if answer is None:
            return
        self._data = self._data[answer.size :]
        self._asked = False
        self._counts["answered"] += 1
        self._cancel()
        if answer.closes:
            self._announced = True
        elif self._pause:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._ask)
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel()
        how = "lost" if self._asked else "announced" if self._announced else "closed"
        self._counts[how] += 1
        if not self.ended.done():
            self.ended.set_result(None)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _keepOne(port: int, pause: float, counts: Counter[str]) -> None:
    """
    One connection after the other.
    """
    loop = asyncio.get_running_loop()
    while True:
        connection = Connection(counts, pause, loop.create_future())
        try:
            await loop.create_connection(functools.partial(_same, connection), "127.0.0.1", port)
        except OSError:
            counts["refused"] += 1
            await asyncio.sleep(0.05)
        else:
            await connection.ended


def _same(connection: Connection) -> Connection:
    return connection


async def run(port: int, connections: int) -> Counter[str]:
    """
    Keep connections open until SIGINT.
    """
    counts = Counter(dict.fromkeys(("answered", "lost", "refused", "announced", "closed"), 0))
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, over.set)
    tasks = [
        asyncio.ensure_future(_keepOne(port, PAUSE * (number % 2), counts))
        for number in range(connections)
    ]
    await over.wait()
    # What is counted from here on would be this client's own doing.
    final = counts.copy()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return final


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))))
