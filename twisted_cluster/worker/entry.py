"""
How a worker begins.

The order matters.  The app is imported before a reactor is, unless the master
names one, so that an app which installs a reactor of its own can.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection
from typing import Any

from twisted_cluster import context, kernel
from twisted_cluster.errors import AppLoadError, PeerError
from twisted_cluster.sources import PROGRAMS
from twisted_cluster.wire import preamble
from twisted_cluster.wire.preamble import CHANNEL_DESCRIPTOR, Preamble
from twisted_cluster.worker.binder import Binder

NO_MASTER = 2
"""The exit code of a worker that there is no master for."""

_MASTERS_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def begin(isTemplate: bool) -> tuple[socket.socket, Preamble, Binder | None] | int:
    """
    Set up a fresh process.  Runs in a worker that was executed, and in a
    template.

    @return: The channel, what came over it and, in a worker, what it asks for
        ports with; or an exit code if there is no master at the other end.
    """
    # SIGABRT, which the master sends to a worker that hangs, dumps the stacks
    # of all threads even if the interpreter never gets to run again.
    faulthandler.enable(all_threads=True)
    for number in _MASTERS_SIGNALS:
        # These reach the whole foreground process group, but the master
        # decides.  A handler, unlike SIG_IGN, is not inherited by children.
        signal.signal(number, leaveToMaster)
    try:
        channel = socket.socket(fileno=CHANNEL_DESCRIPTOR)
        channel.set_inheritable(False)
        plan, asking = (preamble.read(channel), None) if isTemplate else preamble.receive(channel)
        channel = vacate(channel, plan.inherited)
        binder = None if asking is None else Binder(vacate(asking, plan.inherited))
    except (OSError, PeerError, ValueError) as error:
        sys.stderr.write(f"can't work: {error}; workers are started by the master\n")
        return NO_MASTER
    sys.path[:] = plan.path
    offerDescriptors(plan)
    return channel, plan, binder


def receive(channel: socket.socket) -> tuple[Preamble, Binder]:
    """
    Read what the master says first.  Runs in the worker.

    @raise PeerError: if it makes no sense.
    """
    plan, binding = preamble.receive(channel)
    return plan, Binder(binding)


def vacate(sock: socket.socket, numbers: Collection[int]) -> socket.socket:
    """
    Leave C{numbers}, which an app that has been told so takes for descriptors
    of its own and may close, to nothing of importance.

    @return: C{sock}, under another number if it had one of these.
    """
    for number in numbers:
        if not kernel.isOpen(number):
            _occupy(number)
    if sock.fileno() not in numbers:
        return sock
    moved = sock.dup()
    number = sock.fileno()
    sock.close()
    _occupy(number)
    return moved


def _occupy(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != number:
        os.dup2(nothing, number, inheritable=False)
        os.close(nothing)


def offerDescriptors(plan: Preamble) -> None:
    """
    Have C{systemd:} endpoints find the descriptors of the master's.
    """
    if plan.systemd:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(plan.systemd))
        if any(plan.systemd):
            os.environ["LISTEN_FDNAMES"] = ":".join(plan.systemd)
        # They are read, and removed from the environment, at this import.
        importlib.import_module("twisted.internet.endpoints")


def leaveToMaster(number: int, frame: Any) -> None:
    """Do nothing."""


def runWorker(channel: socket.socket, plan: Preamble, binder: Binder) -> int:
    """
    Load the app and serve.  Runs in a worker that was executed.

    @return: The exit code.
    """
    from twisted_cluster.worker import log

    context.current().enter(context.Role.WORKER, plan.slot, plan.generation)
    kernel.nameProcess(f"worker {plan.slot}.{plan.generation}")
    if plan.source.kind not in PROGRAMS:
        log.begin(plan.logTimes)
    installReactor(plan)
    from twisted_cluster.worker.intercept import Interception

    interception = Interception(binder)
    interception.install()
    return work(channel, plan, interception)


def installReactor(plan: Preamble) -> None:
    """
    Install the reactor that the master names, if it names one.
    """
    if plan.reactor is not None:
        from twisted.application import reactors

        reactors.installReactor(plan.reactor)


def refuse(channel: socket.socket, error: AppLoadError) -> int:
    """
    Tell the master, and the log, why the app can't be run.

    @return: The exit code.
    """
    from twisted_cluster.worker.session import encodeBootFailed

    sys.stderr.write(f"{error}\n{error.traceback}")
    sys.stderr.flush()
    try:
        channel.sendall(encodeBootFailed(error))
    except OSError:
        return NO_MASTER
    channel.close()
    return 1


def work(channel: socket.socket, plan: Preamble, interception: Any, found: Any = None) -> int:
    """
    Load the app, unless it is C{found} already, and serve it until the
    master, or its end, says to stop.

    @param interception: Opens the app's ports.
    @return: The exit code.
    """
    try:
        if plan.source.kind in PROGRAMS:
            return runProgram(channel, plan, interception)
        if found is None:
            from twisted_cluster.worker import programs

            found = programs.load(plan.source)
    except AppLoadError as error:
        return refuse(channel, error)
    from twisted.internet import reactor

    running: Any = reactor
    codes: list[int] = []
    session = attach(running, channel, plan, interception, codes)
    running.callWhenRunning(session.begin, found)
    running.run()
    return codes[0] if codes else 0


def runProgram(channel: socket.socket, plan: Preamble, interception: Any) -> int:
    """
    Run a module or a script, which runs a reactor of its choice; serve from
    then on.

    @return: The exit code.
    @raise AppLoadError: if it ends before it has run a reactor.
    """
    from twisted.internet.base import ReactorBase

    from twisted_cluster.worker import log, programs
    from twisted_cluster.worker.loader import WrongName

    codes: list[int] = []
    original = ReactorBase.startRunning
    attached: list[Any] = []

    def startRunning(reactor: Any, *arguments: Any, **options: Any) -> None:
        if not attached:
            log.beginIfNobodyDid(plan.logTimes)
            attached.append(attach(reactor, channel, plan, interception, codes))
            # After all that the app has asked for to be called then.
            reactor.callWhenRunning(reactor.callLater, 0, attached[0].beginProgram)
        original(reactor, *arguments, **options)

    ReactorBase.startRunning = startRunning  # type: ignore[assignment,method-assign]
    try:
        code = programs.run(plan.source)
    except AppLoadError as error:
        if not attached:
            raise
        sys.stderr.write(f"{error}\n{error.traceback}")
        code = 1
    if not attached:
        # With success it means to, and will the next time too.
        kind = AppLoadError if code else WrongName
        raise kind(
            f"app {plan.source} ended with code {code} before it ran a reactor: it serves nothing"
        )
    return codes[0] if codes else code


def attach(
    running: Any, channel: socket.socket, plan: Preamble, interception: Any, codes: list[int]
) -> Any:
    """
    Have C{running}, a reactor, serve the channel.

    @param codes: Gets the exit code when the session is over, as which the
        reactor is stopped.
    @return: The session.
    """
    from twisted_cluster.wire.channel import ChannelTransport
    from twisted_cluster.worker.session import WorkerSession

    session = WorkerSession(running, plan, interception)

    def exit(code: int) -> None:
        codes.append(code)
        if running.running:
            running.stop()

    session.onExit = exit
    ChannelTransport(channel, session, running)
    running.addSystemEventTrigger("before", "shutdown", session.reactorStops)
    if threading.current_thread() is threading.main_thread():
        # Twisted's own handler, set when the reactor starts, stops at once.
        running.callWhenRunning(
            signal.signal,
            signal.SIGTERM,
            lambda number, frame: running.callFromThread(session.leave),
        )
    return session
