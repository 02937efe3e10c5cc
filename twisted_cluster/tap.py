"""
The C{cluster} command of twistd and twist: its options, and the service that
they describe.  Runs in the master.

Everything that can be wrong with an option is found while the options are
parsed, which is when both commands print an error without a traceback.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.copyright import version as twistedVersion
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python import usage

import twisted_cluster
from twisted_cluster.config import OPTIONS, ClusterConfig, fieldName, fromText, fromToml, optionName
from twisted_cluster.errors import ConfigError, OperatorError
from twisted_cluster.imports import importName
from twisted_cluster.kinds import shown
from twisted_cluster.policies import makeScheduler, schedulerNames
from twisted_cluster.service import ClusterService
from twisted_cluster.sources import SourceKind

SHORTEST_HEARTBEAT = 0.05
"""Seconds; a worker that beats faster does nothing else."""

_log = Logger()

_NO_BREAK = "\N{NO-BREAK SPACE}"

_BUILT_IN_ENDPOINTS = frozenset({"tcp", "unix", "ssl", "tls", "fd"})


@dataclass(frozen=True)
class _Help:
    """
    An option as C{--help} shows it.

    @ivar value: What its value is called; empty if it takes none.
    """

    option: str
    value: str
    text: str

    @property
    def left(self) -> str:
        """The option with its value, as one types it."""
        return f"--{self.option}={self.value}" if self.value else f"--{self.option}"


_GROUPS: tuple[tuple[str, tuple[_Help, ...]], ...] = (
    (
        "What to run",
        (
            _Help(
                "app",
                "MODULE:ATTR",
                "What the workers run: a Factory, Site, Resource, WSGI callable, IService or"
                " Application, or a callable that returns one of these. The workers import it,"
                " from the current directory too.",
            ),
            _Help(
                "tac",
                "FILE",
                "Instead, run a .tac file, as twistd -y does. Or give, after all options, a"
                " command of twistd with options of its own, such as web.",
            ),
            _Help(
                "module",
                "NAME",
                "Instead, run a module, as python -m does, with the arguments that follow.",
            ),
            _Help(
                "script", "FILE", "Instead, run a Python script, with the arguments that follow."
            ),
            _Help(
                "listen",
                "ENDPOINT",
                "Where to accept connections: tcp:PORT, unix:PATH, ssl: or tls: (the workers do"
                " the TLS), systemd: or fd:N. Repeat it for more. What the app binds itself needs"
                " none, unless it takes privileges that the workers do not have.",
            ),
            _Help("workers", "N|max", "How many workers; max is what this process may really use."),
            _Help(
                "policy", "NAME", "Which worker gets a connection: a known policy or MODULE:CLASS."
            ),
            _Help("credit", "N", "How many sockets a worker may hold unacknowledged."),
            _Help(
                "no-preload",
                "",
                "Start each worker as a fresh interpreter, instead of forking it from a template"
                " that has imported the app already; --preload is the default.",
            ),
            _Help(
                "service",
                "MODULE:CLASS",
                "A subclass of twisted_cluster.service.ClusterService to run the cluster with.",
            ),
            _Help(
                "config",
                "FILE.toml",
                "Read options from the table [cluster] of this file. The command line wins.",
            ),
        ),
    ),
    (
        "Time limits (seconds, or with a unit: 500ms, 30s, 2m)",
        (
            _Help("generation-timeout", "TIME", "From the start of a worker to its being ready."),
            _Help("drain-timeout", "TIME", "For a worker to finish what it serves."),
            _Help("drain-grace", "TIME", "For an idle keep-alive connection of such a worker."),
            _Help("stop-timeout", "TIME", "From telling a worker to stop to killing it."),
            _Help(
                "hung-timeout",
                "TIME",
                "For a worker's reactor to be stuck, before its stacks are logged and it is"
                " killed; 0 for no limit.",
            ),
        ),
    ),
    (
        "Reloads and restarts",
        (
            _Help("reload-parallel", "N", "How many workers a reload replaces at a time."),
            _Help("reload-on-touch", "FILE", "Reload when the modification time of FILE changes."),
            _Help(
                "restart-intensity",
                "N",
                "Give a slot up after more than N crashes within the time of --restart-period.",
            ),
            _Help("restart-period", "TIME", "See --restart-intensity."),
        ),
    ),
    (
        "State, cache and leases",
        (
            _Help(
                "state",
                "memory|URL",
                "Where they are: in the master, or in Redis, which several hosts may share:"
                " redis://:PASSWORD@HOST:PORT/DB?name=CLUSTER.",
            ),
            _Help("state-timeout", "TIME", "For Redis to come back, before a write fails."),
            _Help(
                "cache-size", "BYTES", "How much of the master's memory the cache may take: 64M."
            ),
        ),
    ),
    (
        "Operation",
        (
            _Help(
                "admin",
                "PATH",
                "The UNIX socket that twisted-cluster(1) talks to; an empty PATH for none.",
            ),
            _Help("no-admin", "", "No admin socket."),
            _Help("version", "", "Show the versions of twisted_cluster and Twisted, and exit."),
            _Help("help", "", "Show this help and exit."),
        ),
    ),
)

_OF_THEIR_OWN = frozenset({"listen", "preload", "plugin", "arguments"})
"""Options that do not simply take one value."""

_SOURCES = frozenset({"arguments", *(kind.value for kind in SourceKind)})
"""Options that say what to run; those of a file do not mix with others."""

_LAST = frozenset({"module", "script"})
"""Options after whose value the app's own arguments begin."""

_EXAMPLES = """\
Examples:
  twistd -n cluster --app hello:resource --listen tcp:8080 --workers 4
  twistd -n cluster --workers 4 web --listen tcp:8080 --path .
  twistd -n cluster --script server.py --port 8080
  twistd --uid www cluster --app hello:resource --listen tcp:80 --config cluster.toml

SIGHUP or SIGUSR2 reloads without losing a connection, SIGTERM drains and
stops, a second SIGTERM stops at once. "twisted-cluster status" shows what runs.
"""


def _reader(option: str) -> Callable[[str], Any]:
    """
    What reads the value of C{option}, for L{usage.Options}.
    """

    def read(text: str) -> Any:
        try:
            return fromText(option, text)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None

    return read


def _parameters() -> list[list[Any]]:
    """
    The options that take one value, for L{usage.Options}.
    """
    readers = {option: _reader(option) for option in OPTIONS if option not in _OF_THEIR_OWN}
    readers["config"] = os.path.abspath
    return [
        [help.option, None, None, help.text, readers[help.option]]
        for _, group in _GROUPS
        for help in group
        if help.option in readers
    ]


class Options(usage.Options):
    """
    The options of C{cluster}.  As a mapping it holds, once they are parsed,
    the value of every option that was given on the command line or in the
    config file.

    @ivar clusterConfig: All of it, checked.
    @ivar serviceFactory: What makes the service, called like
        L{ClusterService}.
    """

    synopsis = (
        "[options] --app=MODULE:ATTR --listen=ENDPOINT | --tac=FILE | --module=NAME [...]"
        " | --script=FILE [...] | COMMAND [...]"
    )

    optParameters = _parameters()

    compData = usage.Completions(
        multiUse=["listen"],
        optActions={
            "config": usage.CompleteFiles("*.toml"),
            "reload-on-touch": usage.CompleteFiles(),
            "policy": lambda: usage.CompleteList(schedulerNames()),
        },
    )

    clusterConfig: ClusterConfig
    serviceFactory: Callable[..., IService]

    def __init__(self) -> None:
        super().__init__()
        # What is not given is absent, rather than None: the config file may
        # have it, and None is how the admin socket is switched off.
        self.clear()

    def opt_listen(self, text: str) -> None:
        """
        Add a listener.
        """
        self["listen"] = (*self.get("listen", ()), *_reader("listen")(text))

    def opt_preload(self) -> None:
        """
        Fork workers from a template that has imported the app.
        """
        self["preload"] = True

    def opt_no_preload(self) -> None:
        """
        Start each worker as a fresh interpreter.
        """
        self["preload"] = False

    def opt_no_admin(self) -> None:
        """
        Have no admin socket.
        """
        self["admin"] = None

    def opt_version(self) -> NoReturn:
        """
        Show the versions of twisted_cluster and Twisted, and exit.
        """
        print(f"twisted_cluster {twisted_cluster.__version__}, Twisted {twistedVersion}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line, up to where the app's own begins.
        """
        words = list(sys.argv[1:] if options is None else options)
        super().parseOptions(_withEnd(words))

    def parseArgs(self, *arguments: str) -> None:
        """
        Take what follows the options: the app's arguments, or a command of
        twistd with its own.
        """
        if not arguments:
            return
        if self.keys() & _LAST:
            self["arguments"] = arguments
        elif self.keys() & {"app", "tac"}:
            raise usage.UsageError(
                f"can't use {shown(arguments[0])}: it is not an option, and the app is named"
                " already; leave one of them away"
            )
        else:
            self["plugin"], *rest = arguments
            self["arguments"] = tuple(rest)

    def postOptions(self) -> None:
        """
        Read the config file, and check everything together.
        """
        try:
            if "config" in self:
                given = fromToml(self["config"])
                if self.keys() & _SOURCES:
                    given = {name: given[name] for name in given if name not in _SOURCES}
                for option, value in given.items():
                    self.setdefault(option, value)
            self.clusterConfig = _clusterConfig(self, self.parent)
            self.serviceFactory = _serviceFactory(self.get("service"))
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None

    def getUsage(self, width: int | None = None) -> str:
        """
        The options by subject, the most important ones first.
        """
        columns = width or int(os.environ.get("COLUMNS", "80"))
        lines = [""]
        for heading, group in _GROUPS:
            lines += [f"{heading}:", *_groupLines(group, columns), ""]
        return "\n".join(lines) + "\n" + _EXAMPLES


def _withEnd(words: list[str]) -> list[str]:
    """
    C{words} with a mark at the end of the cluster's own options, if one of
    them says that all that follows belongs to the app.
    """
    expected = False
    for index, word in enumerate(words):
        if expected:
            expected = False
        elif word == "--" or not word.startswith("--"):
            break
        else:
            option, equals, _ = word[2:].partition("=")
            expected = not equals and option in OPTIONS and option != "preload"
            if option in _LAST:
                end = index + 1 + expected
                mark = [] if words[end : end + 1] == ["--"] else ["--"]
                return [*words[:end], *mark, *words[end:]]
    return words


def _groupLines(group: tuple[_Help, ...], columns: int) -> Iterator[str]:
    indent = 4 + max(len(help.left) for _, other in _GROUPS for help in other)
    for help in group:
        text = help.text + _known(help.option) + _defaultText(help.option)
        wrapped = textwrap.wrap(
            text,
            max(columns, indent + 20),
            initial_indent=f"  {help.left}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        yield from (line.replace(_NO_BREAK, " ") for line in wrapped)


def _known(option: str) -> str:
    return f" Known are {', '.join(schedulerNames())}." if option == "policy" else ""


def _defaultText(option: str) -> str:
    if option == "workers":
        return f" [default:{_NO_BREAK}max]"
    defaults = {field.name: field.default for field in dataclasses.fields(ClusterConfig)}
    default = defaults.get(fieldName(option))
    if default in (None, (), dataclasses.MISSING):
        return ""
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f" [default:{_NO_BREAK}{text}]"


def _clusterConfig(given: Mapping[str, Any], parent: Mapping[str, Any] | None) -> ClusterConfig:
    """
    The configuration that C{given} describes.  Paths become absolute: twistd
    changes its directory when it becomes a daemon.
    """
    fields = {fieldName(option): given[option] for option in OPTIONS if option in given}
    fields.pop("service", None)
    fields.setdefault("workers", fromText("workers", "max"))
    fields.setdefault("admin", ClusterConfig.admin)
    for path in ("admin", "reloadOnTouch", "tac", "script"):
        if fields.get(path) is not None:
            fields[path] = fromText(optionName(path), os.path.abspath(fields[path]))
    config = ClusterConfig(
        **fields,
        heartbeat=_heartbeat(fields.get("hungTimeout", ClusterConfig.hungTimeout)),
        reactor=reactorName(parent),
    )
    for endpoint in config.listen:
        _checkEndpoint(endpoint)
    makeScheduler(config.policy, Random())
    return config


def _heartbeat(hungTimeout: float) -> float:
    """
    The default, or faster for a short C{hungTimeout}: one late beat must not
    look like a stuck reactor.
    """
    if hungTimeout == 0:
        return ClusterConfig.heartbeat
    return max(SHORTEST_HEARTBEAT, min(ClusterConfig.heartbeat, hungTimeout / 4))


def _checkEndpoint(text: str) -> None:
    """
    Refuse what no endpoint is made of, as far as it can be told without
    opening a file or a socket.
    """
    prefix = text.partition(":")[0]
    plugins = {plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)}
    kinds = (_BUILT_IN_ENDPOINTS | plugins) - {"stdio"}
    if prefix not in kinds:
        raise ConfigError(
            f"use --listen {shown(text)}",
            f"no kind of endpoint is called {prefix}",
            f"those that exist are {', '.join(sorted(kinds))}",
        )
    if prefix in ("tcp", "unix"):
        try:
            serverFromString(None, text)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"use --listen {shown(text)}",
                f"Twisted can't read it: {error}",
                "give a port or a path, then NAME=VALUE, such as tcp:8080:interface=127.0.0.1",
            ) from None


def _serviceFactory(name: str | None) -> Callable[..., IService]:
    """
    L{ClusterService}, or the subclass of it that is called C{name}.
    """
    if name is None:
        return ClusterService
    what = f"use --service {shown(name)}"
    found = importName(what, name)
    if not (isinstance(found, type) and issubclass(found, ClusterService)):
        raise ConfigError(
            what, "it is no subclass of ClusterService", "name a class that is derived from it"
        )
    return found


def reactorName(parent: Mapping[str, Any] | None) -> str | None:
    """
    The name of the reactor that the operator chose, or L{None} for the
    default one.

    @param parent: The options of twistd or twist.  The one keeps the name as
        C{reactor}; the other has it as C{reactorName}, and the reactor itself
        as C{reactor}.
    """
    options = parent or {}
    name = options.get("reactorName", options.get("reactor"))
    return name if isinstance(name, str) and name != "default" else None


def workerOutput(parent: Mapping[str, Any] | None) -> str:
    """
    C{inherit} if the workers can write where the master logs, since that is
    its own standard output as plain text; C{relay} if their lines have to go
    through the log of the master.

    @param parent: The options of twistd or twist, L{None} for neither.
    """
    if parent is None:
        return "inherit"
    if "logFile" in parent:
        plain = parent.get("logFormat") == "text" and _isStandardStream(parent["logFile"])
    else:
        plain = _logsToTerminal(parent)
    return "inherit" if plain else "relay"


def _isStandardStream(file: object) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return any(file is stream for stream in streams)


def _logsToTerminal(twistd: Mapping[str, Any]) -> bool:
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    elsewhere = twistd.get("syslog") or twistd.get("logger")
    return bool(foreground) and not elsewhere and twistd.get("logfile") in (None, "", "-")


def adminOwner(parent: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """
    The user and group that the process will run as, if that is to change once
    the sockets are bound; they are to own the admin socket.

    @param parent: The options of twistd or twist.

    @raise ConfigError: The user has no group to fall back on.
    """
    options = parent or {}
    uid, gid = options.get("uid"), options.get("gid")
    if uid is None:
        return None if gid is None else (os.getuid(), gid)
    return uid, (_groupOf(uid) if gid is None else gid)


def _groupOf(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise ConfigError(
            f"run as user {uid}", "there is no such user, hence no group", "give twistd a --gid too"
        ) from None


def makeService(options: Options) -> IService:
    """
    The service that C{options} describe.  The app is not imported.

    @raise SystemExit: The service refused them.
    """
    _showPlainly(OperatorError)
    try:
        return options.serviceFactory(
            options.clusterConfig,
            workerOutput=workerOutput(options.parent),
            adminOwner=adminOwner(options.parent),
        )
    except OperatorError as error:
        raise SystemExit(str(error)) from None


def _showPlainly(errors: type[Exception]) -> None:
    """
    Have C{errors} that end this process logged and shown as one line.

    What goes wrong while services start, such as an address that is taken,
    passes through twistd and twist to the interpreter.  It must remain an
    exception until then, for twistd removes its pidfile on the way, and tells
    whoever waits for the daemon to start.
    """
    usual = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, errors):
            usual(kind, error, trace)
            return
        _log.critical("{error}", error=error)
        print(error, file=sys.__stderr__)

    sys.excepthook = show
