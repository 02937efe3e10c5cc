"""
What several of the tests need.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

_GRAVE = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@implementer(ILogObserver)
class Lines:
    """
    The log lines of a test, from its making on.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self)
        test.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        """
        Keep an event.
        """
        self.events.append(event)

    def all(self) -> list[str]:
        """Every line."""
        return [formatEvent(event) for event in self.events]

    def grave(self) -> list[str]:
        """The lines that warn or tell of an error."""
        return [formatEvent(event) for event in self.events if event.get("log_level") in _GRAVE]

    def containing(self, text: str) -> list[str]:
        """The lines in which C{text} occurs."""
        return [line for line in self.all() if text in line]


def isOpen(descriptor: int) -> bool:
    """
    Whether this process has C{descriptor}.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def closeIfOpen(descriptor: int) -> None:
    """
    Close C{descriptor}, unless that was done.
    """
    if isOpen(descriptor):
        os.close(descriptor)


def openDescriptors() -> set[int]:
    """
    All that this process has, other than what waits for the collector.
    """
    gc.collect()
    return {number for number in range(1024) if isOpen(number)}


def identity(descriptor: int) -> tuple[int, int]:
    """
    What is behind C{descriptor}: the same for each copy of it.
    """
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def socketPair(test: SynchronousTestCase) -> tuple[socket.socket, socket.socket]:
    """
    Two connected sockets that are closed with the test.
    """
    pair = socket.socketpair()
    for one in pair:
        test.addCleanup(one.close)
    return pair


def limitDescriptors(cleanUp: Callable[..., object], room: int) -> None:
    """
    Leave room for just C{room} more descriptors until the test ends.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [os.dup(0) for _ in range(room + 1)]
    for probe in probes:
        os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probes[-1], hard))
    cleanUp(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def noDescriptors() -> Iterator[None]:
    """
    Within it, no descriptor can be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def freePort(kind: int = socket.SOCK_STREAM) -> int:
    """
    A port that nobody used a moment ago.
    """
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


def connections(test: SynchronousTestCase, address: Any, count: int) -> list[socket.socket]:
    """
    Clients connected to C{address}; they are closed with the test.
    """
    family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
    if family == socket.AF_INET and len(address) == 4:
        family = socket.AF_INET6
    clients = []
    for _ in range(count):
        client = socket.socket(family, socket.SOCK_STREAM)
        test.addCleanup(client.close)
        client.settimeout(10)
        client.connect(address)
        clients.append(client)
    return clients
