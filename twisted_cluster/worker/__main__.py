"""
The entry point of a worker process: C{python -m twisted_cluster.worker}.

The order matters.  The app is imported before a reactor is, unless the master
names one, so that an app which installs a reactor of its own can.
"""

from __future__ import annotations

import argparse
import faulthandler
import signal
import socket
import sys
from typing import Any

from twisted_cluster import context
from twisted_cluster.errors import AppLoadError, PeerError
from twisted_cluster.wire import preamble
from twisted_cluster.wire.preamble import Preamble

CHANNEL_DESCRIPTOR = 3

_MASTERS_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(arguments: list[str]) -> int:
    """
    Run one worker.

    @return: The exit code: 0 after an orderly end, 1 if the app can't be run,
        2 if there is no master to work for.
    """
    parser = argparse.ArgumentParser(prog="python -m twisted_cluster.worker")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--generation", type=int, required=True)
    parser.parse_args(arguments)
    # SIGABRT, which the master sends to a worker that hangs, dumps the stacks
    # of all threads even if the interpreter never gets to run again.
    faulthandler.enable(all_threads=True)
    for number in _MASTERS_SIGNALS:
        # These reach the whole foreground process group, but the master
        # decides.  A handler, unlike SIG_IGN, is not inherited by children.
        signal.signal(number, _leaveToMaster)
    try:
        channel = socket.socket(fileno=CHANNEL_DESCRIPTOR)
        channel.set_inheritable(False)
        plan = preamble.read(channel)
    except (OSError, PeerError, ValueError) as error:
        sys.stderr.write(f"can't work: {error}; workers are started by the master\n")
        return 2
    return run(channel, plan)


def _leaveToMaster(number: int, frame: Any) -> None:
    """Do nothing."""


def run(channel: socket.socket, plan: Preamble) -> int:
    """
    Load the app and serve.

    @return: The exit code.
    """
    sys.path[:] = plan.path
    context.enter(context.Context(plan.slot, plan.generation))
    if plan.reactor is not None:
        from twisted.application.reactors import installReactor

        installReactor(plan.reactor)
    from twisted_cluster.worker import loader, log

    log.begin(plan)
    try:
        found = loader.find(plan.app)
    except AppLoadError as error:
        return _refuse(channel, error)
    return _serve(channel, plan, found)


def _refuse(channel: socket.socket, error: AppLoadError) -> int:
    from twisted_cluster.worker.session import encodeBootFailed

    sys.stderr.write(f"{error}\n{error.traceback}")
    channel.sendall(encodeBootFailed(error))
    channel.close()
    return 1


def _serve(channel: socket.socket, plan: Preamble, found: Any) -> int:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
