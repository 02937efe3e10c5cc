"""
twistd's and twist's own options, and the ways to give the cluster's.
"""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys

from twisted.trial.unittest import SkipTest

from tests.integration import processes
from tests.integration.clients import get, who
from tests.integration.harness import LOCAL, ClusterTestCase, endOf

OPENED = """
mkdir -p "$1/kept" && mount --bind "$2" "$1/kept" && mount -t tmpfs -o mode=755 none "$3" &&
mkdir -p "$2" && mount --bind "$1/kept" "$2" && shift 3 && exec "$@"
"""
"""Runs a command that sees only the directory C{$2} in C{$3}, which it makes
open to everyone; C{$1} is for its own use."""


def closedTo(path: str) -> str | None:
    """
    The first directory on the way to C{path} that other users may not enter.
    """
    parents = path.split(os.sep)
    ways = [os.sep.join(parents[:end]) or os.sep for end in range(1, len(parents) + 1)]
    return next((way for way in ways if not os.stat(way).st_mode & stat.S_IXOTH), None)


def withOpenPython(scratch: str) -> tuple[str, ...]:
    """
    A command before a command that any user may go on running with this
    Python, even if it is installed in the home directory of root.
    """
    prefix = os.path.realpath(sys.base_prefix)
    closed = closedTo(prefix)
    if closed is None:
        return ()
    wrapper = ("unshare", "--mount", "sh", "-c", OPENED, "sh", scratch, prefix, closed)
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
        raise SkipTest(f"open {closed} to other users: they can't run this Python")
    return wrapper


class TwistdTests(ClusterTestCase):
    """
    The cluster under twistd and twist.
    """

    async def test_twist(self) -> None:
        """
        C{twist cluster} serves, with the workers' output in the same log.
        """
        cluster = await self.cluster("hello:resource", command="twist")
        self.assertEqual({(await who(cluster.port))[0] for _ in range(4)}, {0, 1})
        self.assertEqual(len(cluster.matching("GET /who")), 4)
        await cluster.stop()

    async def test_reactors(self) -> None:
        """
        The reactor chosen for the master is the workers' too.
        """
        for name in ("asyncio", "poll", "select"):
            cluster = await self.cluster("hello:resource", workers=1, before=("--reactor", name))
            self.assertTrue(cluster.matching(f"reactor class: .*{name}reactor"))
            self.assertEqual(await get(cluster.port), b"hello\n")
            cluster.signal(signal.SIGHUP)
            await cluster.allReady(1, 2)
            await cluster.stop()

    async def test_daemon(self) -> None:
        """
        As a daemon, the master writes its pidfile and its log file, in which
        the workers' lines are too; SIGTERM to the pid in the file ends all.
        """
        log, pidfile, sock = (self.path(name) for name in ("log", "pid", "http.sock"))
        cluster = self.launch(
            *("--app", "hello:resource", "--listen", f"unix:{sock}", "--workers", "2"),
            before=("--pidfile", pidfile, "--logfile", log, "--rundir", self.directory),
            command="twistd-daemon",
        )
        ended = await cluster.isExit()
        self.assertEqual((ended.code, ended.signal), (0, None), cluster.tail())
        self.assertEqual({(await who(sock))[0] for _ in range(4)}, {0, 1})
        with open(pidfile) as file:
            pid = int(file.read())
        with open(log) as file:
            text = file.read()
        for slot in (0, 1):
            self.assertRegex(text, rf"\[slot {slot} generation 1 pid \d+\] ready")
            self.assertRegex(text, rf"\[slot {slot} generation 1 pid \S+\].* Starting factory")
        os.kill(pid, signal.SIGTERM)
        await endOf(pid)
        processes.reapOrphan(pid)
        self.assertFalse(os.path.exists(pidfile))
        self.assertFalse(os.path.exists(sock))

    async def test_user(self) -> None:
        """
        Started as root with C{--uid}, the master binds as root, and then it
        and the workers are that user.
        """
        if os.getuid() != 0:
            raise SkipTest("run this as root: it gives up privileges")
        nobody = pwd.getpwnam("nobody")
        os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
        cluster = await self.cluster(
            "hello:resource",
            listen=(LOCAL, "tcp:843:interface=127.0.0.1"),
            before=("--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid)),
            wrapper=withOpenPython(self.path("scratch")),
        )
        self.assertEqual(await get(843), b"hello\n")
        for pid in (cluster.pid, *cluster.ready().values()):
            self.assertEqual(os.stat(f"/proc/{pid}").st_uid, nobody.pw_uid)
        cluster.signal(signal.SIGHUP)
        await cluster.allReady(2, 2)
        self.assertEqual(await get(cluster.port), b"hello\n")
        await cluster.stop()

    async def test_configFile(self) -> None:
        """
        A TOML file can say everything, and the command line wins.
        """
        if sys.version_info < (3, 11):
            raise SkipTest("use Python 3.11 or later: it reads TOML")
        path = self.write(
            "cluster.toml",
            f'[cluster]\napp = "nonsense:number"\nlisten = ["{LOCAL}"]\nworkers = 1\n'
            'policy = "least-connections"\nadmin = "other.sock"\n',
        )
        cluster = self.launch("--config", path, "--app", "hello:resource", "--workers", "2")
        await cluster.allReady(2)
        self.assertEqual(await get(cluster.port), b"hello\n")
        self.assertTrue(os.path.exists(self.path("other.sock")))
        finished = await cluster.ctl("--admin", "other.sock", "status", "--json")
        self.assertIn('"least-connections"', finished.out)
