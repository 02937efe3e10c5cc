"""
The template: a process that imports the app once and forks workers from it.

It runs no reactor and no thread.  An app whose import leaves something behind
that does not survive a fork is reported as unfit, and the master spawns its
workers as fresh interpreters instead.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted_cluster import context, kernel
from twisted_cluster.errors import AppLoadError, PeerError
from twisted_cluster.sources import PROGRAMS
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import MAX_DESCRIPTORS, parseBox
from twisted_cluster.wire.preamble import Preamble
from twisted_cluster.worker import entry, intercept, log, programs

_READ_SIZE = 16_384


def runTemplate(control: socket.socket, plan: Preamble) -> int:
    """
    Import the app, then fork a worker for each request, until the master is
    gone or needs this template no more.  Runs in the template.

    @return: The exit code.  In a forked worker it is the worker's.
    """
    gc.disable()
    # The master says when to end, also if somebody signals all of its group.
    signal.signal(signal.SIGTERM, entry.leaveToMaster)
    context.current().enter(context.Role.TEMPLATE, None, plan.generation)
    kernel.nameProcess(f"template {plan.generation}")
    if plan.source.kind not in PROGRAMS:
        log.begin(plan.logTimes)
    entry.installReactor(plan)
    template = Template(control, plan)
    template.load()
    worker = template.run()
    return 0 if worker is None else worker()


_FOR_ALL = (
    "twisted_cluster.worker.session",
    "twisted.internet.default",
    "twisted.internet.endpoints",
    "twisted.internet.epollreactor" if hasattr(select, "epoll") else "twisted.internet.pollreactor",
    "twisted.internet.selectreactor",
)
_FOR_WEB = ("twisted.web.server", "twisted.web.wsgi")


def _importRest() -> None:
    """
    Import what each worker is going to need and would otherwise import by
    itself, after the fork; all but the reactor.
    """
    web = _FOR_WEB if "twisted.web.resource" in sys.modules else ()
    for name in (*_FOR_ALL, *web):
        importlib.import_module(name)


def obstacle() -> str | None:
    """
    What in this process would not survive a fork, in words; L{None} if
    nothing.
    """
    names = [thread.name for thread in threading.enumerate() if thread.ident != _MAIN]
    if names:
        return f"importing it starts a thread ({', '.join(names)})"
    if os.path.isdir("/proc/self/task") and len(os.listdir("/proc/self/task")) > 1:
        return "importing it starts a thread outside of Python"
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    return None if reactor is None else _reactorObstacle(reactor)


_MAIN = threading.main_thread().ident


def _reactorObstacle(reactor: Any) -> str | None:
    kind = type(reactor)
    name = f"{kind.__module__}.{kind.__name__}"
    if name not in _FORKABLE:
        return f"importing it installs a reactor that can't be forked ({name})"
    internal = set(reactor._internalReaders)
    others = [one for one in [*reactor.getReaders(), *reactor.getWriters()] if one not in internal]
    if others:
        return f"importing it makes the reactor watch {others[0]!r}"
    return None


_FORKABLE = frozenset(
    {
        "twisted.internet.epollreactor.EPollReactor",
        "twisted.internet.pollreactor.PollReactor",
        "twisted.internet.selectreactor.SelectReactor",
    }
)


def refreshReactor() -> None:
    """
    Give a reactor that was installed before the fork descriptors of its own.
    Runs in a forked worker.
    """
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is None:
        return
    waker = reactor.waker
    poller = getattr(reactor, "_poller", None)
    if isinstance(poller, select.epoll):
        # An epoll descriptor is one and the same on both sides of a fork.
        poller.close()
        reactor._poller = select.epoll(1024)
        reactor._poller.register(waker.fileno(), select.EPOLLIN)
    reactor.removeReader(waker)
    reactor._internalReaders.discard(waker)
    waker.connectionLost(None)
    reactor.waker = None
    reactor.installWaker()


class Template:
    """
    Forks workers on request and reports how they end.

    @ivar children: Forked workers that live, by their pidfd.
    """

    def __init__(self, control: socket.socket, plan: Preamble) -> None:
        self._control = control
        self._plan = plan
        self._groups: deque[list[int]] = deque()
        self._rest = b""
        self._finishing = False
        self._poll = select.poll()
        self.children: dict[int, int] = {}
        self.interception = intercept.Interception()
        self.found: Any = None
        self.failure: AppLoadError | None = None

    def load(self) -> None:
        """
        Import the app, and tell the master what came of it.
        """
        why = None
        try:
            # For all workers at once: each would copy what it changes.
            self.interception.install()
            self.found = programs.preload(self._plan.source)
        except AppLoadError as error:
            self.failure = error
        except intercept.PortOpened as opened:
            why = str(opened)
        _importRest()
        why = why or obstacle()
        if why is not None and self.failure is None:
            self._send(commands.encode(commands.Unfit, reason=why))
            return
        # What is there now stays as it is: a collector that touches it would
        # copy its pages in each worker, and one that frees some of it would
        # leave holes for each worker to fill with copies.
        gc.freeze()
        self._send(commands.encode(commands.Loaded, failed=self.failure is not None))

    def run(self) -> Callable[[], int] | None:
        """
        Serve requests.

        @return: In the template L{None}, when all is done; in a forked worker
            what to call.
        """
        self._poll.register(self._control, select.POLLIN)
        while self.children or not self._finishing:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                    continue
                worker = self._readControl()
                if worker is not None:
                    return worker
        return None

    def _send(self, data: bytes) -> None:
        try:
            self._control.sendall(data)
        except OSError:
            self._finishing = True

    def _readControl(self) -> Callable[[], int] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, _READ_SIZE, MAX_DESCRIPTORS)
        if descriptors:
            self._groups.append(descriptors)
        if not data:
            # The master is gone; what it has forked sees to itself.
            self.children.clear()
            self._finishing = True
            return None
        self._rest += data
        return self._takeBoxes()

    def _takeBoxes(self) -> Callable[[], int] | None:
        while True:
            box, end = parseBox(self._rest, 0)
            if box is None:
                return None
            self._rest = self._rest[end:]
            if box[b"_command"] == commands.Finish.commandName:
                self._finishing = True
                continue
            worker = self._fork(int(box[b"request"]), self._groups.popleft())
            if worker is not None:
                return worker

    def _fork(self, request: int, descriptors: list[int]) -> Callable[[], int] | None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            self._send(commands.encode(commands.NotForked, request=request, reason=str(error)))
        else:
            if pid == 0:
                return self._becomeWorker(descriptors)
            pidfd = os.pidfd_open(pid)
            self.children[pidfd] = pid
            self._poll.register(pidfd, select.POLLIN)
            self._send(commands.encode(commands.Forked, request=request, pid=pid))
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def _reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._send(commands.encode(commands.ChildExited, pid=pid, status=status))

    def _becomeWorker(self, descriptors: list[int]) -> Callable[[], int]:
        """
        From here on this is a worker.
        """
        self._control.close()
        for pidfd in self.children:
            os.close(pidfd)
        gc.enable()
        channel, *outputs = descriptors
        for target, output in zip((2, 1), reversed(outputs)):
            os.dup2(output, target)
            os.close(output)
        return lambda: runForked(
            socket.socket(fileno=channel), self.interception, self.found, self.failure
        )


def runForked(
    channel: socket.socket,
    interception: intercept.Interception,
    found: Any,
    failure: AppLoadError | None,
) -> int:
    """
    Serve the app that the template has imported.  Runs in a forked worker.

    @return: The exit code.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel.set_inheritable(False)
    try:
        plan, interception.binder = entry.receive(channel)
    except (OSError, PeerError):
        return entry.NO_MASTER
    context.current().enter(context.Role.WORKER, plan.slot, plan.generation)
    kernel.nameProcess(f"worker {plan.slot}.{plan.generation}")
    log.resume(plan.logTimes)
    if failure is not None:
        return entry.refuse(channel, failure)
    _reseed()
    refreshReactor()
    return entry.work(channel, plan, interception, found)


def _reseed() -> None:
    """
    Python re-seeds its own generator after a fork; numpy does not.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        numpy.random.seed()
