"""
How the servers under measurement are started.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.process import ROOT, MeasurementError, Server, environment, freePort

OURS = "twisted_cluster"
PLAIN = "plain twistd"
NODE = "Node.js cluster"


def _twistd() -> str:
    return str(Path(sys.executable).parent / "twistd")


@functools.cache
def knows(word: str) -> bool:
    """
    Whether the cluster command has an option or a policy of this name.
    """
    shown = subprocess.run(
        [_twistd(), "cluster", "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    return word in shown.stdout


def ours(workers: int, *options: str, app: str = "hello", name: str = OURS) -> Server:
    """
    The cluster.
    """
    port = freePort()
    arguments = [_twistd(), "-n", "--pidfile=", "cluster", "--no-admin"]
    arguments += [f"--app=benchmarks.apps.{app}:resource", f"--workers={workers}"]
    arguments += [f"--listen=tcp:{port}:interface=127.0.0.1", *options]
    ready = r"pid (\d+)\] ready"
    return Server(name, arguments, port, workers, ready, signal.SIGHUP)


def plain(app: str = "hello", resource: str = "Hello") -> Server:
    """
    The same site in one process of stock Twisted, with the accept queue that
    the cluster has: its own default overflows under 200 connections.
    """
    port = freePort()
    arguments = [_twistd(), "-n", "--pidfile=", "web"]
    arguments += [f"--listen=tcp:{port}:interface=127.0.0.1:backlog=1024"]
    arguments += [f"--class=benchmarks.apps.{app}.{resource}"]
    return Server(PLAIN, arguments, port)


def node(workers: int, script: str = "node_cluster.js") -> Server:
    """
    Node's cluster module with round-robin scheduling.

    @param script: What is run, of those in C{benchmarks/peers}.
    """
    port = freePort()
    return Server(
        NODE,
        [tool("node"), str(ROOT / "benchmarks" / "peers" / script), str(port), str(workers)],
        port,
        workers,
        r"listening (\d+)",
        signal.SIGUSR2,
    )


def gunicorn(workers: int) -> Server:
    """
    gunicorn with threads, which keeps connections alive.
    """
    port = freePort()
    arguments = [sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--threads=50"]
    arguments += [f"--workers={workers}", f"--bind=127.0.0.1:{port}", "--keep-alive=30"]
    arguments += ["benchmarks.apps.wsgi:application"]
    ready = r"Booting worker with pid: (\d+)"
    return Server("gunicorn gthread", arguments, port, workers, ready, signal.SIGHUP)


def uvicorn(workers: int) -> Server:
    """
    uvicorn with worker processes.
    """
    port = freePort()
    arguments = [sys.executable, "-m", "uvicorn", f"--workers={workers}", f"--port={port}"]
    arguments += ["--timeout-keep-alive=30", "--no-access-log", "benchmarks.apps.asgi:application"]
    ready = r"Started server process \[(\d+)\]"
    return Server("uvicorn", arguments, port, workers, ready, signal.SIGHUP)


def isInstalled(package: str) -> bool:
    """
    Whether a peer from PyPI is there.
    """
    return importlib.util.find_spec(package) is not None


_PACKAGES = {"ab": "apache2-utils", "wrk": "wrk", "node": "nodejs"}


def tool(name: str) -> str:
    """
    The path of a program.

    @raise MeasurementError: if it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise MeasurementError(f"{name} is not installed; install the package {_PACKAGES[name]}")
    return path
