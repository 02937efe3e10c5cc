"""
Makes worker processes by forking templates, one template for each generation.
Runs in the master.

A template that dies is replaced when the next worker is due; the workers that
it forked live on.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.events import ExitStatus
from twisted_cluster.interfaces import (
    HelperStatus,
    IWorkerObserver,
    IWorkerProcess,
    IWorkerSpawner,
)
from twisted_cluster.master.spawn import (
    ExecSpawner,
    LineRelay,
    exitStatusOf,
    workerArguments,
)
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import Channel, ChannelTransport, closeDescriptors
from twisted_cluster.wire.preamble import CHANNEL_DESCRIPTOR, Preamble, encode

RENEWAL_DELAY = 1.0
"""Seconds after which a template that has died is replaced, unless a worker is
due before."""


def available() -> bool:
    """
    Whether this system has what templates need.
    """
    return hasattr(os, "pidfd_open") and hasattr(os, "fork")


class ITemplateWatch(Protocol):
    """
    Who keeps an eye on templates from outside of the master.
    """

    def watch(self, pid: int) -> None:
        """A template has been started."""

    def forget(self, pid: int) -> None:
        """A template has been reaped."""


class _Pipe(FileDescriptor):
    """
    The reading end of what a forked worker writes.
    """

    def __init__(self, reactor: Any, descriptor: int, relay: LineRelay) -> None:
        super().__init__(reactor)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._relay = relay
        self.connected = True
        self.startReading()

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def doRead(self) -> Any:
        """Read once."""
        try:
            data = os.read(self._descriptor, 65_536)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self._relay.feed(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Nobody can write to it any more."""
        super().connectionLost(reason)
        os.close(self._descriptor)
        self._relay.finish()


class _Exit(FileDescriptor):
    """
    A pidfd: it becomes readable when its process ends.
    """

    def __init__(self, reactor: Any, pidfd: int, onExit: Callable[[], object]) -> None:
        super().__init__(reactor)
        self._pidfd = pidfd
        self._onExit = onExit

    def fileno(self) -> int:
        """The descriptor."""
        return self._pidfd

    def doRead(self) -> None:
        """The process has ended."""
        self._onExit()

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Let go of the process."""
        self.stopReading()
        os.close(self._pidfd)


@implementer(IWorkerProcess)
class ForkedProcess:
    """
    A worker that a template forks, or is asked to fork.
    """

    def __init__(self, reactor: Any, template: Template, observer: IWorkerObserver) -> None:
        self._reactor = reactor
        self._template = template
        self._observer = observer
        self._exit: _Exit | None = None
        self._substitute: IWorkerProcess | None = None
        self._over = False
        self._due: int | None = None
        self.pid: int | None = None

    def forked(self, pid: int) -> None:
        """
        The process exists.
        """
        self.pid = pid
        try:
            self._exit = _Exit(self._reactor, os.pidfd_open(pid), self._vanished)
        except ProcessLookupError:
            # Its end has been seen by the template, which is about to say so.
            self._exit = None
        self._observer.started(pid)
        if self._due is not None:
            self.signal(self._due)

    def signal(self, number: int) -> None:
        """
        Send a signal.  As long as the process waits for the import of the
        app, it is the import that the signal is meant for.
        """
        if self._substitute is not None:
            self._substitute.signal(number)
        elif self._exit is not None:
            self._exit.signal(number)
        elif self.pid is None and not self._over and not self._template.signalImport(number):
            # It is being forked right now.
            self._due = number

    def replaceBy(
        self, spawner: IWorkerSpawner, slot: int, generation: int, channel: socket.socket
    ) -> None:
        """
        The template can't fork it: have C{spawner} make it instead.
        """
        self._substitute = spawner.spawn(slot, generation, channel, self._observer)
        self._over = True
        if self._due is not None:
            self._substitute.signal(self._due)

    def orphaned(self) -> None:
        """
        The template is gone; watch the process itself.
        """
        if self._exit is not None:
            self._exit.startReading()
        else:
            self._vanished()

    def exited(self, status: ExitStatus) -> None:
        """
        The process is gone.
        """
        if self._over:
            return
        self._over = True
        if self._exit is not None:
            self._exit.close()
            self._exit = None
        self._observer.exited(status)

    def _vanished(self) -> None:
        self.exited(ExitStatus())


class _TemplateSession(Channel):
    """
    The master's end of the channel to a template.
    """

    def __init__(self, template: Template) -> None:
        super().__init__()
        self._template = template

    @property
    def name(self) -> str:
        """The template at the other end."""
        return self._template.name

    @commands.Loaded.responder
    def _loaded(self, failed: bool) -> dict[str, Any]:
        self._template.loaded(failed)
        return {}

    @commands.Unfit.responder
    def _unfit(self, reason: str) -> dict[str, Any]:
        self._template.unfit(reason)
        return {}

    @commands.Forked.responder
    def _forked(self, request: int, pid: int) -> dict[str, Any]:
        self._template.forked(request, pid)
        return {}

    @commands.NotForked.responder
    def _notForked(self, request: int, reason: str) -> dict[str, Any]:
        self._template.notForked(request, reason)
        return {}

    @commands.ChildExited.responder
    def _childExited(self, pid: int, status: int) -> dict[str, Any]:
        self._template.childExited(pid, status)
        return {}


class Template(ProcessProtocol):
    """
    One template process, as the master holds it.

    @ivar generation: Its generation.
    @ivar usable: Whether it can be asked for more workers.
    """

    log = Logger()
    transport: IProcessTransport | None

    def __init__(self, spawner: TemplateSpawner, generation: int) -> None:
        self._spawner = spawner
        self.generation = generation
        self.usable = True
        self._isLoaded = False
        self._requests: dict[int, tuple[ForkedProcess, int, socket.socket]] = {}
        self._waiting: dict[int, list[int]] = {}
        self._children: dict[int, ForkedProcess] = {}
        self._count = 0
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._pid

    @property
    def name(self) -> str:
        """What log lines call it."""
        return f"template generation {self.generation} pid {self._pid or '-'}"

    def start(self, reactor: Any, preamble: Preamble) -> None:
        """
        Execute the process and tell it what to import.

        @raise OSError: if it can't be executed.
        """
        ours, theirs = socket.socketpair()
        try:
            self._execute(reactor, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.sendall(encode(preamble))
        self._session = _TemplateSession(self)
        self._channel = ChannelTransport(ours, self._session, reactor)

    def _execute(self, reactor: Any, channel: socket.socket) -> None:
        with open(os.devnull, "rb") as nothing:
            reactor.spawnProcess(
                self,
                self._spawner.executable,
                workerArguments(generation=self.generation),
                env=self._spawner.environment,
                childFDs={
                    0: nothing.fileno(),
                    1: "r" if self._spawner.relayOutput else 1,
                    2: "r",
                    CHANNEL_DESCRIPTOR: channel.fileno(),
                },
            )

    def fork(
        self, process: ForkedProcess, slot: int, channel: socket.socket, outputs: list[int]
    ) -> None:
        """
        Have a worker forked, as soon as the app is imported.

        @param outputs: The writing ends of its pipes; taken.
        """
        request = self._count
        self._count += 1
        self._requests[request] = (process, slot, channel)
        self._waiting[request] = outputs
        if self._isLoaded:
            self._ask(request)

    def _ask(self, request: int) -> None:
        _, _, channel = self._requests[request]
        box = commands.encode(commands.Fork, request=request)
        self._channel.writeWithDescriptors(box, [channel.fileno(), *self._waiting[request]])

    def _release(self, request: int) -> tuple[ForkedProcess, int, socket.socket]:
        """
        Close the master's copies of what a request carried.
        """
        for output in self._waiting.pop(request):
            os.close(output)
        return self._requests.pop(request)

    def signalImport(self, number: int) -> bool:
        """
        Signal the template, if it is still importing the app.

        @return: Whether it is.
        """
        if self._isLoaded or self.transport is None:
            return False
        self.transport.signalProcess(number)
        return True

    def finish(self) -> None:
        """
        Ask for no more; the process ends with its last worker.
        """
        if self.usable:
            self.usable = False
            self._session.callRemote(commands.Finish)

    # What it reports.

    def loaded(self, failed: bool) -> None:
        """
        The import is over.  After a failure each worker reports it, and the
        next one is tried with a new import.
        """
        self._isLoaded = True
        if not failed:
            self.log.info("[{name}] has imported the app", name=self.name)
        for request in tuple(self._requests):
            self._ask(request)
        if failed:
            self.finish()

    def unfit(self, reason: str) -> None:
        """
        The app can't be forked.
        """
        requests = [self._release(request) for request in tuple(self._requests)]
        self._spawner.fallBack(reason)
        for process, slot, channel in requests:
            self._spawner.executeFor(process, slot, self.generation, channel)
        self.finish()

    def forked(self, request: int, pid: int) -> None:
        """A worker exists."""
        process, _, channel = self._release(request)
        channel.close()
        self._children[pid] = process
        process.forked(pid)

    def notForked(self, request: int, reason: str) -> None:
        """A worker can't be forked."""
        process, _, channel = self._release(request)
        channel.close()
        process.exited(ExitStatus(failure=reason))

    def childExited(self, pid: int, status: int) -> None:
        """A worker is gone."""
        process = self._children.pop(pid, None)
        if process is not None:
            process.exited(exitStatusOf(status))

    # ProcessProtocol.

    def connectionMade(self) -> None:
        """The process exists."""
        assert self.transport is not None
        self._pid = pid = self.transport.pid
        self._relay = LineRelay(self.output)
        self._spawner.watch.watch(pid)

    def output(self, line: str) -> None:
        """It wrote a line."""
        self.log.info("[{name}] {line}", name=self.name, line=line)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It wrote something."""
        self._relay.feed(data)

    def processEnded(self, reason: Failure) -> None:
        """Nobody can write to its pipes any more."""
        self._relay.finish()

    def processExited(self, reason: Failure) -> None:
        """
        It is gone.  Those that it had not forked yet have failed; the others
        live on.
        """
        wanted, self.usable = self.usable and self._isLoaded, False
        self._spawner.templateEnded(self)
        if self._pid is not None:
            self._spawner.watch.forget(self._pid)
        self._channel.drainAndLose()
        value: Any = reason.value
        status = exitStatusOf(value.status)
        requests = [self._release(request) for request in tuple(self._requests)]
        if requests or self._children:
            self.log.error("[{name}] {status}", name=self.name, status=status)
        for process, _, channel in requests:
            channel.close()
            process.exited(status)
        children, self._children = self._children, {}
        for process in children.values():
            process.orphaned()
        if wanted:
            self._spawner.templateLost(self)


@implementer(IWorkerSpawner)
class TemplateSpawner:
    """
    Forks workers from templates, or executes them where an app does not allow
    it.

    @ivar fallback: What executes workers; the settings are its own.
    @ivar watch: Is told of the template processes.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        fallback: ExecSpawner,
        watch: ITemplateWatch,
        preamble: Callable[[int], Preamble],
    ) -> None:
        """
        @param preamble: Makes what a template is told, from its generation.
        """
        self._reactor = reactor
        self.fallback = fallback
        self.watch = watch
        self._preamble = preamble
        self._templates: dict[int, Template] = {}
        self._alive: list[Template] = []
        self._reason = ""
        self.relayOutput = fallback.relayOutput
        self.environment = fallback.environment
        self.executable = fallback.executable

    @property
    def kind(self) -> str:
        """How it makes workers at the moment."""
        return f"exec ({self._reason})" if self._reason else "template"

    def spawn(
        self, slot: int, generation: int, channel: socket.socket, observer: IWorkerObserver
    ) -> Any:
        """
        See L{IWorkerSpawner.spawn}.
        """
        template = self._templates.get(generation)
        if template is None or not template.usable:
            # A new generation may be forkable although the last one was not.
            if self._reason and template is not None:
                return self.fallback.spawn(slot, generation, channel, observer)
            template = None
        try:
            outputs = self._pipes(observer)
            template = template or self._begin(generation)
        except OSError as error:
            self.log.error("there is no template: {error}", error=error)
            return self.fallback.spawn(slot, generation, channel, observer)
        process = ForkedProcess(self._reactor, template, observer)
        template.fork(process, slot, channel, outputs)
        return process

    def helpers(self) -> tuple[HelperStatus, ...]:
        """
        See L{IWorkerSpawner.helpers}.
        """
        return tuple(HelperStatus("template", one.pid, one.generation) for one in self._alive)

    def templateEnded(self, template: Template) -> None:
        """
        Its process is gone.
        """
        if template in self._alive:
            self._alive.remove(template)

    def keep(self, generations: Iterable[int]) -> None:
        """
        See L{IWorkerSpawner.keep}.
        """
        needed = set(generations)
        for generation in [one for one in self._templates if one not in needed]:
            self._templates.pop(generation).finish()

    def stop(self) -> None:
        """
        See L{IWorkerSpawner.stop}.
        """
        self.keep(())

    def templateLost(self, template: Template) -> None:
        """
        One that was still needed is gone.  Have another one ready before the
        next worker is due.
        """
        self._reactor.callLater(RENEWAL_DELAY, self._renew, template)

    def _renew(self, template: Template) -> None:
        if self._templates.get(template.generation) is not template:
            return
        try:
            self._begin(template.generation)
        except OSError as error:
            self.log.error("there is no template: {error}", error=error)

    def fallBack(self, reason: str) -> None:
        """
        The app can't be forked; execute its workers from now on.
        """
        self._reason = reason
        self.log.warn(
            "the app can't be preloaded: {reason}; its workers are started one by one",
            reason=reason,
        )

    def executeFor(
        self, process: ForkedProcess, slot: int, generation: int, channel: socket.socket
    ) -> None:
        """
        Execute the worker that a template was to fork.
        """
        process.replaceBy(self.fallback, slot, generation, channel)

    def _begin(self, generation: int) -> Template:
        self._reason = ""
        template = Template(self, generation)
        template.start(self._reactor, self._preamble(generation))
        self._templates[generation] = template
        self._alive.append(template)
        return template

    def _pipes(self, observer: IWorkerObserver) -> list[int]:
        """
        Pipes for standard output, if it is relayed, and standard error.

        @return: Their writing ends.
        @raise OSError: if there are no descriptors for them.
        """
        writers: list[int] = []
        for _ in range(2 if self.relayOutput else 1):
            try:
                reader, writer = os.pipe()
            except OSError:
                closeDescriptors(writers)
                raise
            _Pipe(self._reactor, reader, LineRelay(observer.output))
            writers.append(writer)
        return writers
