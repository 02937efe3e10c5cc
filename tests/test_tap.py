"""
Tests for L{twisted_cluster.tap}: the options as twistd and twist parse them.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from textwrap import dedent
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.application.twist._options import TwistOptions
from twisted.logger import jsonFileLogObserver, textFileLogObserver
from twisted.plugin import IPlugin, getPlugins
from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import twisted_cluster
from twisted_cluster import cpus
from twisted_cluster.config import OPTIONS, ClusterConfig
from twisted_cluster.errors import ConfigError, ListenError
from twisted_cluster.service import ClusterService
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.tap import Options, adminOwner, makeService, reactorName, workerOutput

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(twisted_cluster.__file__)))
ENOUGH = ["--app", "hello:app", "--listen", "tcp:0"]


class RecordingService(ClusterService):
    """
    Remembers what it was made with.
    """

    made: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made = args, kwargs


class RefusingService(ClusterService):
    """
    Can't be made.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError("serve", "it is closed", "come back tomorrow")


class InDirectory(SynchronousTestCase):
    """
    Works in a directory of its own.
    """

    def setUp(self) -> None:
        # The path of the admin socket has to be a short one.
        self.directory = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "excepthook", sys.excepthook)

    def file(self, name: str, text: str) -> str:
        """
        Have a file in the directory; return its path.
        """
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(dedent(text))
        return path

    def parsed(self, *arguments: str) -> Options:
        """
        Options from C{arguments} and as many others as are required.
        """
        options = Options()
        options.parseOptions([*ENOUGH, *arguments])
        return options

    def config(self, *arguments: str) -> ClusterConfig:
        """
        The configuration that they make.
        """
        return self.parsed(*arguments).clusterConfig

    def refused(self, *arguments: str) -> str:
        """
        What is said to C{arguments}, which lack nothing but are wrong.
        """
        error = self.assertRaises(usage.UsageError, self.parsed, *arguments)
        return str(error)


class OptionsTests(InDirectory):
    """
    Options on the command line.
    """

    def test_defaults(self) -> None:
        """What is not given has the default of the configuration."""
        self.patch(cpus, "usableCpus", lambda: 6)
        self.assertEqual(
            self.config(),
            ClusterConfig(
                "hello:app",
                listen=("tcp:0",),
                workers=6,
                admin=os.path.join(self.directory, "twisted-cluster.sock"),
            ),
        )

    def test_everything(self) -> None:
        """Every option arrives in the configuration."""
        self.assertEqual(
            self.config(
                "--listen=unix:/run/app.sock",
                "--workers=4",
                "--policy=least-connections",
                "--admin=/run/admin.sock",
                "--generation-timeout=1m",
                "--drain-timeout=10s",
                "--drain-grace=250ms",
                "--stop-timeout=3",
                "--hung-timeout=0",
                "--credit=7",
                "--reload-parallel=2",
                "--reload-on-touch=/run/touch",
                "--restart-intensity=5",
                "--restart-period=2m",
                "--state=redis://h:1/2?name=shop",
                "--state-timeout=2s",
                "--cache-size=2M",
            ),
            ClusterConfig(
                "hello:app",
                listen=("tcp:0", "unix:/run/app.sock"),
                workers=4,
                policy="least-connections",
                admin="/run/admin.sock",
                generationTimeout=60.0,
                drainTimeout=10.0,
                drainGrace=0.25,
                stopTimeout=3.0,
                hungTimeout=0.0,
                credit=7,
                reloadParallel=2,
                reloadOnTouch="/run/touch",
                restartIntensity=5,
                restartPeriod=120.0,
                state="redis://h:1/2?name=shop",
                stateTimeout=2.0,
                cacheSize=2 << 20,
            ),
        )

    def test_lastWins(self) -> None:
        """Of an option given twice, the last counts."""
        self.assertEqual(self.config("--workers=4", "--workers=2").workers, 2)

    def test_noAdmin(self) -> None:
        """The admin socket can be switched off in two ways."""
        self.assertIsNone(self.config("--no-admin").admin)
        self.assertIsNone(self.config("--admin", "").admin)
        self.assertIsNone(self.config("--admin", "x", "--no-admin").admin)

    def test_relativePaths(self) -> None:
        """Paths are those of the directory in which the command is given."""
        config = self.config("--admin=run/a.sock", "--reload-on-touch=touched")
        os.chdir("/")
        self.assertEqual(config.admin, os.path.join(self.directory, "run/a.sock"))
        self.assertEqual(config.reloadOnTouch, os.path.join(self.directory, "touched"))

    def test_heartbeat(self) -> None:
        """Workers beat often enough for a short limit, and not more often for a long one."""
        self.assertEqual(self.config("--hung-timeout=1").heartbeat, 0.25)
        self.assertEqual(self.config("--hung-timeout=1m").heartbeat, 2.0)
        self.assertEqual(self.config("--hung-timeout=0").heartbeat, 2.0)

    def test_hungTimeoutTooShort(self) -> None:
        """A limit that no heartbeat could keep is refused."""
        self.assertIn("give 0 for no limit, or at least 0.1", self.refused("--hung-timeout=50ms"))

    def test_appMissing(self) -> None:
        """Without an app there is nothing to run."""
        error = self.assertRaises(usage.UsageError, Options().parseOptions, ["--listen", "tcp:0"])
        self.assertEqual(
            str(error),
            "can't start the cluster: no app given; name one with --app module:attr, --tac,"
            " --module or --script, or give a twistd command after the options",
        )

    def test_listenMissing(self) -> None:
        """An app may know by itself where to listen."""
        options = Options()
        options.parseOptions(["--app", "a:b"])
        self.assertEqual(options.clusterConfig.listen, ())

    def alone(self, *arguments: str) -> ClusterConfig:
        """
        The configuration that these alone make.
        """
        options = Options()
        options.parseOptions(arguments)
        return options.clusterConfig

    def test_command(self) -> None:
        """A command of twistd follows the options, and nobody reads its own."""
        for arguments in (
            ("--workers", "2", "web", "--listen", "tcp:1", "--workers", "x"),
            ("--workers=2", "--", "web", "--listen", "tcp:1", "--workers", "x"),
        ):
            config = self.alone(*arguments)
            self.assertEqual((config.workers, config.listen), (2, ()))
            words = ("--listen", "tcp:1", "--workers", "x")
            self.assertEqual(config.source, Source(SourceKind.PLUGIN, "web", words))

    def test_programs(self) -> None:
        """What follows a module or a script is its own."""
        script = os.path.join(self.directory, "server.py")
        for option, kind, name in (
            ("module", SourceKind.MODULE, "server"),
            ("script", SourceKind.SCRIPT, "server.py"),
        ):
            found = Source(kind, script if kind is SourceKind.SCRIPT else name, ("-p", "80", "--x"))
            for arguments in (
                ("--preload", "--workers", "2", f"--{option}", name, "-p", "80", "--x"),
                ("--workers=2", f"--{option}={name}", "-p", "80", "--x"),
                ("--workers", "2", f"--{option}", name, "--", "-p", "80", "--x"),
            ):
                config = self.alone(*arguments)
                self.assertEqual((config.workers, config.source), (2, found))

    def test_tac(self) -> None:
        """The path of a .tac file holds wherever the process goes."""
        config = self.alone("--tac", "app.tac")
        self.assertEqual(config.tac, os.path.join(self.directory, "app.tac"))

    def test_twoApps(self) -> None:
        """There is one app."""
        error = self.assertRaises(usage.UsageError, self.alone, "--app=a:b", "--tac=c.tac")
        self.assertIn("app and tac are both given", str(error))

    def test_appNotImported(self) -> None:
        """An app that would break whoever imports it does not break the master."""
        self.file("explosive.py", "raise SystemExit('imported')\n")
        options = self.parsed("--app=explosive:app")
        makeService(options)
        self.assertNotIn("explosive", sys.modules)

    def test_wrong(self) -> None:
        """A wrong value is refused with the option, the reason and what is allowed."""
        for argument, cause, allowed in (
            ("--app=hello", "it has no colon", "module:attr"),
            ("--listen=8080", "does not begin with a kind of endpoint", "tcp:8080"),
            ("--listen=stdio:", "is standard input", "tcp:8080"),
            ("--listen=localhost:80", "no kind of endpoint is called localhost", "tcp, tcp6, tls"),
            ("--listen=tcp:http", "Twisted can't read it: .*'http'", "a port or a path"),
            ("--listen=tcp:80:bcklog=5", "Twisted can't read it: .*bcklog", "NAME=VALUE"),
            ("--workers=nonsense", "it is not a whole number", "from 1 to 1024, or max"),
            ("--workers=0", "it is less than 1", "from 1 to 1024, or max"),
            ("--policy=fastest", "there is none of that name", "round-robin, least-connections"),
            ("--policy=", "it is empty", "the name of a policy"),
            ("--admin=" + "x" * 108, "it is 108 bytes long", "at most 107 bytes"),
            ("--generation-timeout=0", "it is 0", "above 0"),
            ("--drain-timeout=5h", "it is not a duration", "such as 30, 0.5, 500ms, 30s or 2m"),
            ("--drain-grace=-1", "it is less than 0", "from 0"),
            ("--stop-timeout=inf", "it is not a duration", "from 0"),
            ("--hung-timeout=8d", "it is not a duration", "from 0 .no limit. to 604800"),
            ("--credit=251", "it is more than 250", "from 1 to 250"),
            ("--reload-parallel=all", "it is not a whole number", "from 1 to"),
            ("--restart-intensity=0", "it is less than 1", "from 1 to"),
            ("--restart-period=0s", "it is 0", "above 0"),
            ("--state=disk", "it begins with none of redis", "memory, or a URL such as redis:"),
            ("--state-timeout=0", "it is 0", "above 0"),
            ("--cache-size=64MB", "it is not a number of bytes", "such as 500000, 64M or 1G"),
            ("--cache-size=1K", "it is less than 65536", "a number of bytes from 65536"),
            ("--service=hello", "it has no colon", "module:attr"),
            ("--service=os:path", "it is no subclass of ClusterService", "derived from it"),
            ("--service=os:nowhere", "no attribute 'nowhere'", "something that os has"),
            ("--service=noSuch:X", "No module named 'noSuch'", "mend or install noSuch"),
            ("--config=no.toml", "No such file", "name a TOML file"),
        ):
            message = self.refused(argument)
            option = argument.partition("=")[0][2:]
            named = "" if option in ("policy", "config", "admin") else f"--{option} "
            self.assertRegex(message, f"^can't (use|read) {named}.*: .*{cause}.*; .*{allowed}")
            self.assertNotIn("\n", message)

    def test_longDefaultAdmin(self) -> None:
        """In a directory too deep for a socket, the error says so and what to do."""
        deep = os.path.join(self.directory, "d" * 100)
        os.makedirs(deep)
        os.chdir(deep)
        self.assertRegex(
            self.refused(),
            "^can't use --admin .*too long for a UNIX socket; .*or an empty text for none$",
        )
        self.assertEqual(self.config("--no-admin").admin, None)

    def test_argument(self) -> None:
        """Something that is not an option is refused by its name."""
        self.assertEqual(
            self.refused("hello:app"),
            "can't use 'hello:app': it is not an option, and the app is named already; leave one of"
            " them away",
        )

    def test_unknown(self) -> None:
        """An option that does not exist is refused by its name."""
        self.assertIn("--wokers", self.refused("--wokers=4"))

    def test_endpointSyntax(self) -> None:
        """The endpoints that the documentation names are all accepted."""
        listen = [
            "tcp:8080",
            "tcp:8080:interface=127.0.0.1:backlog=100",
            r"tcp:8080:interface=\:\:1",
            "tcp6:8080",
            "unix:/run/app.sock:mode=660",
            "ssl:8443:privateKey=key.pem:certKey=cert.pem",
            "tls:8443:privateKey=key.pem:certKey=cert.pem",
            "systemd:domain=INET:index=0",
            "fd:3",
        ]
        config = self.config(*(f"--listen={text}" for text in listen))
        self.assertEqual(config.listen, ("tcp:0", *listen))

    def test_version(self) -> None:
        """The version is that of this package and that of Twisted."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        self.assertRaises(SystemExit, Options().parseOptions, ["--version"])
        self.assertRegex(
            out.getvalue(), rf"^twisted_cluster {twisted_cluster.__version__}, Twisted \d+"
        )


class ConfigFileTests(InDirectory):
    """
    Options in a file.
    """

    def test_file(self) -> None:
        """A file can say all of it."""
        self.file(
            "cluster.toml",
            """
            [cluster]
            app = "hello:app"
            listen = ["tcp:0", "tcp:1"]
            workers = 3
            admin = "run/a.sock"
            reload-on-touch = "touched"
            drain-timeout = "500ms"
            """,
        )
        options = Options()
        options.parseOptions(["--config", "cluster.toml"])
        self.assertEqual(
            options.clusterConfig,
            ClusterConfig(
                "hello:app",
                listen=("tcp:0", "tcp:1"),
                workers=3,
                admin=os.path.join(self.directory, "run/a.sock"),
                reloadOnTouch=os.path.join(self.directory, "touched"),
                drainTimeout=0.5,
            ),
        )

    def test_commandLineWins(self) -> None:
        """The command line wins over the file, wherever it names the file."""
        self.file(
            "cluster.toml",
            """
            [cluster]
            app = "other:app"
            listen = "tcp:1"
            workers = 3
            credit = 9
            admin = "a.sock"
            """,
        )
        for arguments in (
            ["--config=cluster.toml", "--workers=5", "--no-admin"],
            ["--workers=5", "--no-admin", "--config=cluster.toml"],
        ):
            config = self.config(*arguments)
            self.assertEqual((config.app, config.listen), ("hello:app", ("tcp:0",)))
            self.assertEqual((config.workers, config.credit, config.admin), (5, 9, None))

    def test_commandLinesApp(self) -> None:
        """An app on the command line replaces that of the file, whatever kind it is of."""
        self.file(
            "cluster.toml",
            """
            [cluster]
            plugin = "web"
            arguments = ["--listen", "tcp:1"]
            workers = 3
            """,
        )
        options = Options()
        options.parseOptions(["--config=cluster.toml"])
        self.assertEqual(str(options.clusterConfig.source), "web --listen tcp:1")
        config = self.config("--config=cluster.toml")
        self.assertEqual((str(config.source), config.workers), ("hello:app", 3))

    def test_fileSwitchesOff(self) -> None:
        """The file can switch the admin socket off, the command line on again."""
        self.file("cluster.toml", "[cluster]\nadmin = false\n")
        self.assertIsNone(self.config("--config=cluster.toml").admin)
        self.assertEqual(self.config("--config=cluster.toml", "--admin=/a").admin, "/a")

    def test_wrong(self) -> None:
        """A wrong value in the file is refused with the path of the file."""
        path = self.file("cluster.toml", "[cluster]\nworkers = 'many'\n")
        self.assertEqual(
            self.refused("--config=cluster.toml"),
            f"can't use workers = 'many' in {path}: it is text, not a whole number;"
            " give a whole number from 1 to 1024, or max",
        )

    def test_mapping(self) -> None:
        """After parsing, the options hold what was given in either place."""
        self.file("cluster.toml", "[cluster]\ncredit = 9\n")
        options = self.parsed("--config=cluster.toml", "--workers=2")
        self.assertEqual(
            dict(options),
            {
                "app": "hello:app",
                "listen": ("tcp:0",),
                "workers": 2,
                "credit": 9,
                "config": os.path.join(self.directory, "cluster.toml"),
            },
        )


class HelpTests(SynchronousTestCase):
    """
    What C{--help} shows.
    """

    def test_everyOption(self) -> None:
        """Every option that can be given is shown once, and no other."""
        options = Options()
        shown = re.findall(r"^  --([a-z-]+)", options.getUsage(), re.MULTILINE)
        possible = {name.rstrip("=") for name in options.longOpt}
        # The default of the pair is named where its opposite is explained.
        self.assertEqual(sorted([*shown, "preload"]), sorted(possible))
        # These two come after the options, not as one.
        self.assertLessEqual(set(OPTIONS) - {"plugin", "arguments"}, possible)

    def test_defaults(self) -> None:
        """Defaults are those of the configuration."""
        text = " ".join(Options().getUsage().split())
        for option, default in (
            ("workers=N|max", "max"),
            ("policy=NAME", "round-robin"),
            ("drain-timeout=TIME", f"{ClusterConfig.drainTimeout:g}"),
            ("credit=N", f"{ClusterConfig.credit}"),
        ):
            after = text.partition(f"--{option} ")[2]
            self.assertEqual(re.search(r"\[default: ([^]]*)\]", after).group(1), default)  # type: ignore[union-attr]

    def test_policies(self) -> None:
        """The policies that can be had are named."""
        text = " ".join(Options().getUsage().split())
        self.assertIn("Known are round-robin, least-connections", text)

    def test_width(self) -> None:
        """No line of an option is longer than the terminal, unless that is tiny."""
        for width in (60, 80, 132):
            usage = Options().getUsage(width).partition("Examples:")[0]
            self.assertLessEqual(max(map(len, usage.splitlines())), width)

    def test_documented(self) -> None:
        """The reference describes every option under its name."""
        with open(os.path.join(ROOT, "docs", "options.rst")) as file:
            text = file.read()
        for name in Options().longOpt:
            self.assertIn(f"``--{name.rstrip('=')}", text)


class ParentTests(SynchronousTestCase):
    """
    What is derived from the options of twistd and twist themselves.
    """

    def twistd(self, *arguments: str) -> ServerOptions:
        """
        The options of twistd, with no command.
        """
        options = ServerOptions()
        options.parseOptions([*arguments, "--"])
        return options

    def twist(self, file: Any, format: str) -> dict[str, Any]:
        """
        What the options of twist contain for this log.
        """
        factories = {"text": textFileLogObserver, "json": jsonFileLogObserver}
        return {
            "logFile": file,
            "logFormat": format,
            "fileLogObserverFactory": factories[format],
            "reactorName": "default",
        }

    def test_inherit(self) -> None:
        """Workers write where the master logs as text in the foreground."""
        for arguments in (["-n"], ["-n", "--logfile=-"]):
            self.assertEqual(workerOutput(self.twistd(*arguments)), "inherit", arguments)
        self.assertEqual(workerOutput({"debug": True}), "inherit")

    def test_relay(self) -> None:
        """Lines of workers go through the log of the master wherever that is not so."""
        for arguments in (
            [],
            ["--logfile=x.log"],
            ["-n", "--logfile=x.log"],
            ["-n", "--syslog"],
            ["-n", "--logger=twisted.logger.textFileLogObserver"],
        ):
            self.assertEqual(workerOutput(self.twistd(*arguments)), "relay", arguments)

    def test_twist(self) -> None:
        """The same for twist, which logs JSON unless it is told or has a terminal."""
        self.assertEqual(workerOutput(self.twist(sys.stdout, "text")), "inherit")
        self.assertEqual(workerOutput(self.twist(sys.__stderr__, "text")), "inherit")
        self.assertEqual(workerOutput(self.twist(sys.stdout, "json")), "relay")
        self.assertEqual(workerOutput(self.twist(io.StringIO(), "text")), "relay")

    def test_realTwist(self) -> None:
        """The options of twist have the names that are read here."""
        for format, expected in (("text", "inherit"), ("json", "relay")):
            options = TwistOptions()
            options.opt_log_format(format)
            options.opt_log_file("-")
            self.assertEqual(workerOutput(options), expected)

    def test_noParent(self) -> None:
        """Without a command above, workers inherit and nothing else is known."""
        self.assertEqual(workerOutput(None), "inherit")
        self.assertIsNone(reactorName(None))
        self.assertIsNone(adminOwner(None))

    def test_reactor(self) -> None:
        """The reactor is known by the name it was chosen by."""
        self.assertIsNone(reactorName(self.twistd()))
        self.assertEqual(reactorName({"reactor": "asyncio"}), "asyncio")
        self.assertIsNone(reactorName({"reactor": "default"}))
        self.assertEqual(reactorName({"reactorName": "poll", "reactor": object()}), "poll")
        self.assertIsNone(reactorName({"reactorName": "default", "reactor": object()}))
        self.assertIsNone(reactorName(TwistOptions()))

    def test_owner(self) -> None:
        """The admin socket goes to the user and group that twistd changes to."""
        self.assertIsNone(adminOwner(self.twistd()))
        self.assertEqual(adminOwner(self.twistd("--uid=1234", "--gid=567")), (1234, 567))
        self.assertEqual(adminOwner(self.twistd("--gid=567")), (os.getuid(), 567))

    def test_ownersGroup(self) -> None:
        """Without a group, it is that of the user, as it is for twistd."""
        user = pwd.getpwall()[-1]
        self.assertEqual(
            adminOwner(self.twistd(f"--uid={user.pw_name}")),
            (user.pw_uid, pwd.getpwuid(user.pw_uid).pw_gid),
        )

    def test_ownerUnknown(self) -> None:
        """A user that has no entry has no group either."""
        error = self.assertRaises(ConfigError, adminOwner, {"uid": 2**31 - 7, "gid": None})
        self.assertIn("give twistd a --gid too", str(error))


class MakeServiceTests(InDirectory):
    """
    From options to the service.
    """

    def test_default(self) -> None:
        """The service is a L{ClusterService}."""
        service = makeService(self.parsed("--no-admin"))
        self.assertIs(type(service), ClusterService)
        self.assertTrue(verifyObject(IService, service))

    def test_subclass(self) -> None:
        """The service is what C{--service} names, made from the configuration."""
        options = self.parsed("--no-admin", f"--service={__name__}:RecordingService")
        service = makeService(options)
        self.assertEqual(type(service).__name__, "RecordingService")
        self.assertEqual(
            getattr(service, "made", None),
            ((options.clusterConfig,), {"workerOutput": "inherit", "adminOwner": None}),
        )

    def test_fromCurrentDirectory(self) -> None:
        """The subclass may be in the current directory."""
        self.file(
            "tapTestService.py",
            """
            from twisted_cluster.service import ClusterService
            class Mine(ClusterService):
                pass
            """,
        )
        self.addCleanup(sys.modules.pop, "tapTestService", None)
        service = makeService(self.parsed("--no-admin", "--service=tapTestService:Mine"))
        self.assertEqual(type(service).__name__, "Mine")

    def test_parent(self) -> None:
        """What the command above was told reaches the service."""
        parent = ServerOptions()
        service = f"--service={__name__}:RecordingService"
        parent.parseOptions(["--uid=1234", "--gid=567", "cluster", *ENOUGH, "--no-admin", service])
        parent["reactor"] = "asyncio"
        options = parent.subOptions
        options.postOptions()
        self.assertEqual(options.clusterConfig.reactor, "asyncio")
        self.assertEqual(
            getattr(makeService(options), "made", ((), {}))[1],
            {"workerOutput": "relay", "adminOwner": (1234, 567)},
        )

    def test_refused(self) -> None:
        """A service that refuses its configuration ends the command in one line."""
        options = self.parsed(f"--service={__name__}:RefusingService")
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(error.code, "can't serve: it is closed; come back tomorrow")

    def test_operatorsErrors(self) -> None:
        """
        From then on, an error of the operator that ends the process shows no
        traceback, and any other error does.
        """
        out, usual = io.StringIO(), []
        self.patch(sys, "__stderr__", out)
        self.patch(sys, "excepthook", lambda *details: usual.append(details))
        makeService(self.parsed("--no-admin"))
        error = ListenError("listen", "it is taken", "take another")
        sys.excepthook(ListenError, error, None)
        self.assertEqual(out.getvalue(), "can't listen: it is taken; take another\n")
        self.assertEqual(usual, [])
        bug = ZeroDivisionError()
        sys.excepthook(ZeroDivisionError, bug, None)
        self.assertEqual(usual, [(ZeroDivisionError, bug, None)])


class PluginTests(SynchronousTestCase):
    """
    The plug-in of twistd.
    """

    def test_found(self) -> None:
        """There is one command called cluster, with these options and this service."""
        found = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "cluster"]
        self.assertEqual(len(found), 1)
        self.assertTrue(verifyObject(IServiceMaker, found[0]))
        self.assertTrue(IPlugin.providedBy(found[0]))
        self.assertIs(found[0].options, Options)
        self.assertIs(found[0].makeService, makeService)

    def test_noPackage(self) -> None:
        """The directories of the plug-in are no packages, or they would hide Twisted."""
        for directory in ("twisted", "twisted/plugins"):
            self.assertFalse(os.path.exists(os.path.join(ROOT, directory, "__init__.py")))


TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


class CommandTests(InDirectory):
    """
    The commands themselves, as processes.
    """

    def run_(self, *command: str, keep: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """
        Run Python with this package importable.

        @param keep: Descriptors that it gets too.
        """
        path = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            capture_output=True,
            timeout=60,
            pass_fds=keep,
        )

    def twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run C{twistd -n cluster}.
        """
        return self.run_("-c", TWISTD, "-n", "--pidfile=", "cluster", *arguments)

    def twist(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run C{twist cluster}.
        """
        return self.run_("-m", "twisted", "cluster", *arguments)

    def assertRefused(self, done: subprocess.CompletedProcess[str], message: str) -> None:
        """
        The process said C{message}, showed no traceback, and failed.
        """
        output = done.stdout + done.stderr
        self.assertIn(message, output)
        self.assertNotIn("Traceback", output)
        self.assertNotEqual(done.returncode, 0)

    def test_wrongValue(self) -> None:
        """Both commands refuse a wrong value with an error and no traceback."""
        message = "can't use --workers 'nonsense': it is not a whole number; give a whole number"
        for run in (self.twistd, self.twist):
            self.assertRefused(run(*ENOUGH, "--workers", "nonsense"), message)

    def test_wrongTogether(self) -> None:
        """The same for what is found out after all options are read."""
        message = "can't start the cluster: no app given; name one with --app module:attr"
        for run in (self.twistd, self.twist):
            self.assertRefused(run("--listen", "tcp:0"), message)

    def test_refusedByService(self) -> None:
        """The same for what the service itself refuses."""
        self.file(
            "refusing.py",
            """
            from twisted_cluster.errors import ConfigError
            from twisted_cluster.service import ClusterService
            class Refusing(ClusterService):
                def __init__(self, *args, **kwargs):
                    raise ConfigError("serve", "it is closed", "come back tomorrow")
            """,
        )
        message = "can't serve: it is closed; come back tomorrow"
        for run in (self.twistd, self.twist):
            self.assertRefused(run(*ENOUGH, "--service=refusing:Refusing"), message)

    def test_addressTaken(self) -> None:
        """The same for an address that another process has; twistd cleans up after itself."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            arguments = ["--app=a:b", f"--listen={listen}", "--no-admin"]
            for command in (
                ["-c", TWISTD, "-n", "cluster"],
                ["-c", TWISTD, "-n", "--logfile=x.log", "cluster"],
                ["-m", "twisted", "cluster"],
            ):
                done = self.run_(*command, *arguments)
                self.assertRefused(done, f"can't listen on {listen}: Address already in use; ")
                self.assertIn("can't listen on", done.stderr)
                self.assertFalse(os.path.exists("twistd.pid"))
        with open("x.log") as log:
            self.assertIn("can't listen on", log.read())

    def test_addressTakenByDaemon(self) -> None:
        """A daemon that can't bind says so to its terminal and in its log."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            # Open for as long as the daemon runs, which may be longer than
            # the process that started it.
            alive, ours = os.pipe()
            arguments = ("cluster", "--app=a:b", f"--listen={listen}", "--no-admin")
            done = self.run_("-c", TWISTD, *arguments, keep=(ours,))
            os.close(ours)
            with open(alive, "rb") as end:
                end.read()
        self.assertRefused(done, "can't listen on tcp:")
        with open("twistd.log") as log:
            text = log.read()
        self.assertIn(f"can't listen on {listen}: Address already in use; ", text)
        self.assertNotIn("Traceback", text)
        self.assertFalse(os.path.exists("twistd.pid"))

    def test_help(self) -> None:
        """Both commands show the help and succeed."""
        for run in (self.twistd, self.twist):
            done = run("--help")
            self.assertIn("--app=MODULE:ATTR", done.stdout)
            self.assertIn("twistd -n cluster --app hello:resource", done.stdout)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_lazy(self) -> None:
        """Listing the commands of twistd imports nothing of the cluster but the plug-in."""
        done = self.run_(
            "-c",
            "import sys, json\n"
            "from twisted.scripts.twistd import ServerOptions\n"
            "names = [name for name, *_ in ServerOptions().subCommands]\n"
            "loaded = sorted(m for m in sys.modules if m.startswith('twisted_cluster'))\n"
            "print(json.dumps(['cluster' in names, loaded]))",
        )
        self.assertEqual(json.loads(done.stdout), [True, []])

    def test_noReactor(self) -> None:
        """Parsing the options installs no reactor: twist does that afterwards."""
        done = self.run_(
            "-c",
            "import sys\n"
            "from twisted_cluster.tap import Options\n"
            f"Options().parseOptions({ENOUGH!r})\n"
            "print('twisted.internet.reactor' in sys.modules)",
        )
        self.assertEqual(done.stdout.strip(), "False", done.stderr)

    def test_reactor(self) -> None:
        """The reactor that either command is told to use is known to the configuration."""
        for parent, module in (
            ("ServerOptions", "twisted.scripts.twistd"),
            ("TwistOptions", "twisted.application.twist._options"),
        ):
            done = self.run_(
                "-c",
                f"from {module} import {parent} as Parent\n"
                "parent = Parent()\n"
                f"parent.parseOptions(['--reactor=asyncio', 'cluster', *{ENOUGH!r}])\n"
                "print(parent.subOptions.clusterConfig.reactor)",
            )
            self.assertEqual(done.stdout.strip(), "asyncio", done.stderr)
