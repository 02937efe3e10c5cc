"""
How a worker begins.

The order matters.  The app is imported before a reactor is, unless the master
names one, so that an app which installs a reactor of its own can.
"""

from __future__ import annotations

import faulthandler
import signal
import socket
import sys
from typing import Any

from twisted_cluster import context, kernel
from twisted_cluster.errors import AppLoadError, PeerError
from twisted_cluster.wire import preamble
from twisted_cluster.wire.preamble import CHANNEL_DESCRIPTOR, Preamble

NO_MASTER = 2
"""The exit code of a worker that there is no master for."""

_MASTERS_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def begin() -> tuple[socket.socket, Preamble] | int:
    """
    Set up a fresh process.  Runs in a worker that was executed, and in a
    template.

    @return: The channel and what came over it, or an exit code if there is no
        master at the other end.
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
        plan = preamble.read(channel)
    except (OSError, PeerError, ValueError) as error:
        sys.stderr.write(f"can't work: {error}; workers are started by the master\n")
        return NO_MASTER
    sys.path[:] = plan.path
    return channel, plan


def leaveToMaster(number: int, frame: Any) -> None:
    """Do nothing."""


def runWorker(channel: socket.socket, plan: Preamble) -> int:
    """
    Load the app and serve.  Runs in a worker that was executed.

    @return: The exit code.
    """
    from twisted_cluster.worker import loader, log

    context.current().enter(context.Role.WORKER, plan.slot, plan.generation)
    kernel.nameProcess(f"worker {plan.slot}.{plan.generation}")
    log.begin(plan.logTimes)
    installReactor(plan)
    try:
        found = loader.find(plan.app)
    except AppLoadError as error:
        return refuse(channel, error)
    return serve(channel, plan, found)


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
    channel.sendall(encodeBootFailed(error))
    channel.close()
    return 1


def serve(channel: socket.socket, plan: Preamble, found: Any) -> int:
    """
    Serve the app C{found} until the master, or its end, says to stop.

    @return: The exit code.
    """
    from twisted.internet import reactor

    from twisted_cluster.wire.channel import ChannelTransport
    from twisted_cluster.worker.session import WorkerSession

    running: Any = reactor
    session = WorkerSession(running, plan)
    codes: list[int] = []

    def exit(code: int) -> None:
        codes.append(code)
        if running.running:
            running.stop()

    session.onExit = exit
    ChannelTransport(channel, session, running)
    running.callWhenRunning(
        signal.signal,
        signal.SIGTERM,
        lambda number, frame: running.callFromThread(session.leave),
    )
    running.callWhenRunning(session.begin, found)
    running.run()
    return codes[0] if codes else 0
