"""
Where state, cache and leases are when they are not in the memory of the
master: the URL of a Redis server.  Usable in any process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PORT = 6379
"""Where Redis listens unless someone says otherwise."""

NAME = "default"
"""What a cluster is called unless someone says otherwise."""

EXAMPLE = "redis://10.0.0.5:6379/0?name=shop"

_SCHEMES = ("redis", "rediss", "unix")
_PARAMETERS = frozenset({"name", "db", "ca"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET = re.compile(r"(//[^/@]*:)[^/@]*(?=@)")


@dataclass(frozen=True)
class StateUrl:
    """
    A Redis server, and what the cluster is called there.

    @ivar host: The host name or address; empty for a UNIX socket.
    @ivar path: The path of the UNIX socket; empty for a host.
    @ivar database: The number of the database.
    @ivar name: Clusters of one name share; others do not see them.
    @ivar secure: Whether it is reached over TLS.
    @ivar authority: The file with the certificates to trust, PEM; empty for
        those of the system.
    """

    host: str = ""
    port: int = PORT
    path: str = ""
    database: int = 0
    name: str = NAME
    username: str = ""
    password: str = field(default="", repr=False)
    secure: bool = False
    authority: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"Redis at {self.path or f'{host}:{self.port}'}"

    @property
    def prefix(self) -> str:
        """What each key and channel begins with.  The braces put all of them
        into one slot of those that shard."""
        return f"twisted_cluster:{{{self.name}}}:"


def parseStateUrl(text: str) -> StateUrl:
    """
    What C{text} stands for: C{redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]},
    C{rediss://} for TLS, or C{unix://[[USER]:PASSWORD@]/PATH}, each with
    C{?name=CLUSTER}, C{db=N} and C{ca=FILE} as they are wanted.

    @raise ValueError: It stands for nothing; the text says why.
    """
    url = urlsplit(text)
    if url.scheme not in _SCHEMES:
        raise ValueError(f"it begins with none of {', '.join(s + '://' for s in _SCHEMES)}")
    if url.fragment:
        raise ValueError("it has a #; write %23 for one in a password")
    parameters = _parameters(url)
    name = parameters.get("name", NAME)
    if not _NAME.fullmatch(name):
        raise ValueError("its name is not one of letters, digits, '.', '_' and '-', 64 at most")
    isUnix = url.scheme == "unix"
    if isUnix and (url.hostname or not url.path.startswith("/")):
        raise ValueError("it has no absolute path, as in unix:///run/redis.sock")
    if not isUnix and not url.hostname:
        raise ValueError("it has no host")
    return StateUrl(
        host="" if isUnix else url.hostname or "",
        port=_port(url),
        path=unquote(url.path) if isUnix else "",
        database=_database(parameters.get("db") or ("" if isUnix else url.path[1:]) or "0"),
        name=name,
        username=unquote(url.username or ""),
        password=unquote(url.password or ""),
        secure=url.scheme == "rediss",
        authority=_authority(url, parameters.get("ca", "")),
    )


def withoutSecret(text: str) -> str:
    """
    C{text} with its password left out, fit for logs.
    """
    return _SECRET.sub(r"\1***", text)


def _parameters(url: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(url.query, keep_blank_values=True)
    for key, _ in pairs:
        if key not in _PARAMETERS:
            known = ", ".join(sorted(_PARAMETERS))
            raise ValueError(f"it has a parameter {key!r}; those that exist are {known}")
    return dict(pairs)


def _port(url: SplitResult) -> int:
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    return port or PORT


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ValueError(f"its database is {text!r}, not a number")
    return int(text)


def _authority(url: SplitResult, path: str) -> str:
    if path and url.scheme != "rediss":
        raise ValueError("it has a parameter 'ca', which is for rediss:// only")
    return path
