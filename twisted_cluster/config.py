"""
One frozen configuration, validated where it is made.

The command line, the config file and code that embeds the cluster all end in
a L{ClusterConfig}; nothing downstream checks a value again.  Usable in any
process.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

from twisted_cluster import cpus
from twisted_cluster.errors import ConfigError
from twisted_cluster.kinds import (
    Count,
    Endpoints,
    Flag,
    Kind,
    ModuleName,
    Optional,
    OptionalWord,
    Path,
    PolicyName,
    PythonName,
    Seconds,
    Size,
    SocketPath,
    StateName,
    Whole,
    Words,
    shown,
    typeName,
)
from twisted_cluster.sources import WITH_ARGUMENTS, Source, SourceKind

DEFAULT_ADMIN = "twisted-cluster.sock"
"""Where the admin socket is unless someone says otherwise: a path relative to
the directory in which the command is given."""

MAX_WORKERS = 1024
"""More slots than this are a mistake in typing."""

MAX_CREDIT = 250
"""One handoff carries all the descriptors that credit allows, and the kernel
takes 253 descriptors at a time."""

MIN_CACHE, MAX_CACHE = 1 << 16, 1 << 40
"""The bytes that a cache may be given: a smaller one holds next to nothing."""

TOML_TABLE = "cluster"
"""The table of a TOML file that holds the options."""


def _usableCpus() -> int:
    return cpus.usableCpus()


FIELDS: Mapping[str, Kind] = MappingProxyType(
    {
        "app": Optional(PythonName("hello:resource")),
        "plugin": OptionalWord("a twistd command"),
        "tac": Path(),
        "module": Optional(ModuleName("hello.server")),
        "script": Path(),
        "arguments": Words(),
        "listen": Endpoints(),
        "workers": Count(1, MAX_WORKERS, _usableCpus),
        "policy": PolicyName(),
        "admin": SocketPath(),
        "generationTimeout": Seconds(zero=False),
        "drainTimeout": Seconds(),
        "drainGrace": Seconds(),
        "stopTimeout": Seconds(),
        "hungTimeout": Seconds(zeroMeans="no limit"),
        "heartbeat": Seconds(zero=False),
        "credit": Whole(1, MAX_CREDIT),
        "reloadParallel": Whole(1, MAX_WORKERS),
        "reloadOnTouch": Path(),
        "restartIntensity": Whole(1, 10_000),
        "restartPeriod": Seconds(zero=False),
        "backoffBase": Seconds(zero=False),
        "backoffCap": Seconds(zero=False),
        "reactor": OptionalWord("a reactor"),
        "preload": Flag(),
        "state": StateName(),
        "stateTimeout": Seconds(zero=False),
        "cacheSize": Size(MIN_CACHE, MAX_CACHE),
    }
)
"""What each field of L{ClusterConfig} accepts."""


@dataclass(frozen=True)
class ClusterConfig:
    """
    Everything the master needs to know.  Times are in seconds.  Making one
    raises L{ConfigError} if any value is wrong; what only the process that
    acts on a value can know (whether the policy exists, whether an address can
    be bound) is found out there.

    Exactly one of C{app}, C{plugin}, C{tac}, C{module} and C{script} says what
    the workers run; L{source} is that one.

    @ivar app: Where the app is found, C{module:attr}.
    @ivar plugin: The name of a C{twistd} command, such as C{web}.
    @ivar tac: The path of a C{.tac} file.
    @ivar module: The name of a module to be run as C{python -m} does.
    @ivar script: The path of a script to be run as C{python} does.
    @ivar arguments: The command line of C{plugin}, C{module} or C{script}.
    @ivar listen: Endpoint strings, one listener each.  What an app binds
        itself needs none.
    @ivar workers: How many slots there are.
    @ivar policy: The name of a scheduling policy, or C{module:Class}.
    @ivar admin: The path of the admin socket, or L{None} for no admin socket.
    @ivar generationTimeout: How long a worker may take from spawn to Ready.
    @ivar drainTimeout: How long a worker may take to drain.
    @ivar drainGrace: How long a draining worker leaves an idle keep-alive
        connection open.
    @ivar stopTimeout: How long a worker may take from being told to stop to
        its exit, before it is killed.
    @ivar hungTimeout: How long a worker's reactor may be silent before its
        stacks are dumped and it is killed; 0 for no limit.
    @ivar heartbeat: How often a worker tells that its reactor runs.
    @ivar credit: How many sockets a worker may be sent before it says that they
        have arrived; 1 to 250.
    @ivar reloadParallel: How many slots a reload replaces at a time.
    @ivar reloadOnTouch: A file whose change of modification time reloads, or
        L{None}.
    @ivar restartIntensity: A slot fails after this many crashes within
        C{restartPeriod}.
    @ivar restartPeriod: See C{restartIntensity}.
    @ivar backoffBase: The delay before the second restart in a row.
    @ivar backoffCap: The longest delay before a restart.
    @ivar preload: Whether the app is imported once, by a template that forks
        the workers of a generation, where app and system allow it.
    @ivar state: Where state, cache and leases are: C{memory}, that of the
        master, or the URL of a Redis server.
    @ivar stateTimeout: How long writes and the cache wait for a Redis server
        that can't be reached.
    @ivar cacheSize: How many bytes the cache may take in the memory of the
        master.
    @ivar reactor: The name of the reactor the workers install, or L{None} for
        the default one.
    """

    app: str | None = None
    listen: tuple[str, ...] = ()
    workers: int = 1
    policy: str = "round-robin"
    admin: str | None = DEFAULT_ADMIN
    generationTimeout: float = 60.0
    drainTimeout: float = 30.0
    drainGrace: float = 1.0
    stopTimeout: float = 5.0
    hungTimeout: float = 30.0
    heartbeat: float = 2.0
    credit: int = 16
    reloadParallel: int = 1
    reloadOnTouch: str | None = None
    restartIntensity: int = 10
    restartPeriod: float = 120.0
    backoffBase: float = 0.1
    backoffCap: float = 10.0
    reactor: str | None = None
    preload: bool = True
    state: str = dataclasses.field(default="memory", repr=False)
    stateTimeout: float = 5.0
    cacheSize: int = 64 << 20
    plugin: str | None = None
    tac: str | None = None
    module: str | None = None
    script: str | None = None
    arguments: tuple[str, ...] = ()

    @property
    def source(self) -> Source:
        """What the workers run."""
        (source,) = self._sources()
        return source

    def _sources(self) -> list[Source]:
        named = [(kind, getattr(self, kind.value)) for kind in SourceKind]
        return [Source(kind, name, self.arguments) for kind, name in named if name is not None]

    def _checkSource(self) -> None:
        sources = self._sources()
        if not sources:
            raise ConfigError(
                "start the cluster",
                "no app given",
                "name one with --app module:attr, --tac, --module or --script,"
                " or give a twistd command after the options",
            )
        kinds = " and ".join(source.kind.value for source in sources)
        if len(sources) > 1:
            raise ConfigError("start the cluster", f"{kinds} are both given", "give one of them")
        if self.arguments and sources[0].kind not in WITH_ARGUMENTS:
            raise ConfigError(
                f"use {shown(self.arguments[0])}",
                f"{kinds} {sources[0].name} takes no arguments",
                "leave them away, or put options of the cluster before the app",
            )

    def __post_init__(self) -> None:
        for field, kind in FIELDS.items():
            value = getattr(self, field)
            try:
                kind.check(value)
            except ValueError as error:
                raise _refusal(f"{field}={kind.shown(value)}", error, kind.allowed) from None
        self._checkSource()
        if 0 < self.hungTimeout < 2 * self.heartbeat:
            raise ConfigError(
                f"use hungTimeout={self.hungTimeout}",
                f"a worker tells only every {self.heartbeat} s that its reactor runs (heartbeat)",
                f"give 0 for no limit, or at least {2 * self.heartbeat}",
            )
        if self.backoffCap < self.backoffBase:
            raise ConfigError(
                f"use backoffCap={self.backoffCap}",
                f"the first delay, backoffBase, is {self.backoffBase}",
                f"give at least {self.backoffBase}",
            )


_FOR_CODE_ONLY = frozenset({"heartbeat", "backoffBase", "backoffCap", "reactor"})
"""Fields that no option sets: they follow from others, or one value fits all."""


def optionName(field: str) -> str:
    """
    The long option, without dashes before it, that sets C{field}:
    C{drain-timeout} for C{drainTimeout}.
    """
    return re.sub("[A-Z]", lambda match: "-" + match.group().lower(), field)


def fieldName(option: str) -> str:
    """
    The inverse of L{optionName}.
    """
    return re.sub("-([a-z])", lambda match: match.group(1).upper(), option)


OPTIONS: Mapping[str, Kind] = MappingProxyType(
    {
        **{optionName(field): FIELDS[field] for field in FIELDS if field not in _FOR_CODE_ONLY},
        "service": PythonName("hello:MyCluster"),
    }
)
"""What each option accepts, on the command line and in a TOML file."""


def fromText(option: str, text: str) -> Any:
    """
    The value that C{--option text} on the command line stands for.

    @raise ConfigError: It stands for none, or for one that is not allowed.
    """
    kind = OPTIONS[option]
    try:
        value = kind.parse(text)
        kind.check(value)
    except ValueError as error:
        raise _refusal(f"--{option} {kind.shown(text)}", error, kind.written) from None
    return value


def fromToml(path: str, readers: Sequence[str] = ("tomllib", "tomli")) -> dict[str, Any]:
    """
    The options in the C{[cluster]} table of a TOML file, by option name.

    @param readers: The modules that can read TOML, best first.

    @raise ConfigError: The file can't be read, it has anything but this table,
        or an option in it does not exist or has a wrong value.
    """
    return {
        option: _fromTomlValue(path, option, value)
        for option, value in _clusterTable(path, _readToml(path, readers)).items()
    }


def _fromTomlValue(path: str, option: str, value: object) -> Any:
    kind = OPTIONS.get(option)
    if kind is None:
        where = f"{option} = {shown(value)} in {path}"
        raise ConfigError(f"use {where}", "there is no such option", _nearest(option))
    try:
        loaded = kind.load(value)
        kind.check(loaded)
    except ValueError as error:
        where = f"{option} = {kind.shown(value)} in {path}"
        raise _refusal(where, error, kind.written) from None
    return loaded


def _nearest(option: str) -> str:
    near = difflib.get_close_matches(option, OPTIONS, n=3)
    if near:
        return f"the nearest that exist are {', '.join(near)}"
    return f"those that exist are {', '.join(OPTIONS)}"


def _clusterTable(path: str, document: dict[str, Any]) -> dict[str, Any]:
    for key, value in document.items():
        if key != TOML_TABLE:
            raise ConfigError(
                f"use {shown(key)} in {path}",
                f"it is outside of the table [{TOML_TABLE}]",
                f"put all options below a line [{TOML_TABLE}] and remove the rest",
            )
        if not isinstance(value, dict):
            raise ConfigError(
                f"use {key} = {shown(value)} in {path}",
                f"it is {typeName(value)}, not a table",
                f"put all options below a line [{TOML_TABLE}]",
            )
    table: dict[str, Any] = document.get(TOML_TABLE, {})
    return table


def _readToml(path: str, readers: Sequence[str]) -> dict[str, Any]:
    reader = _tomlReader(path, readers)
    try:
        with open(path, "rb") as file:
            document: dict[str, Any] = reader.load(file)
    except OSError as error:
        raise ConfigError(
            f"read {path}", error.strerror or str(error), "name a TOML file that can be read"
        ) from None
    except ValueError as error:
        raise ConfigError(f"read {path}", f"it is not TOML: {error}", "mend the file") from None
    return document


def _tomlReader(path: str, names: Sequence[str]) -> ModuleType:
    """
    The first of the modules C{names} that is installed: the standard library
    reads TOML from Python 3.11 on only.
    """
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(
        f"read {path}",
        "this Python has no reader for TOML",
        "install one with: pip install twisted_cluster[toml]",
    )


def _refusal(what: str, error: ValueError, allowed: str) -> ConfigError:
    return ConfigError(f"use {what}", str(error), f"give {allowed}")
