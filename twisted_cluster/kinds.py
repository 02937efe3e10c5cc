"""
The kinds of values that the configuration is made of.

Each L{Kind} knows one sort of value in its three guises: as Python code that
embeds the cluster gives it, as text on the command line, and as a value in a
TOML file.  Usable in any process; nothing here touches the file system.
"""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from twisted_cluster.stateurl import EXAMPLE, parseStateUrl, withoutSecret

MAX_SECONDS = 604800.0
"""The longest time that can be configured: a week."""

SOCKET_PATH_BYTES = 107
"""The longest path of a UNIX socket, as Linux has it."""

_NUMBER = re.compile(r"[+-]?[0-9]+")
_DURATION = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(ms|s|m|)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
_SIZE = re.compile(r"([+-]?[0-9]{1,20})([KMG]?)")
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*:")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "nothing"),
    (bool, "true or false"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (dict, "a table"),
    ((list, tuple), "a list"),
    ((date, datetime, time), "a date or a time"),
)


def typeName(value: object) -> str:
    """
    What C{value} is, in the words of someone who does not read Python.
    """
    for types, name in _TYPE_NAMES:
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """
    C{value} as it appears in an error message: quoted, on one line, and never
    longer than a line.
    """
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _requireText(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is {typeName(value)}, not text")
    if not value:
        raise ValueError("it is empty")
    if not value.isprintable():
        raise ValueError("it contains a character that can't be printed")
    return value


class Kind(ABC):
    """
    One sort of value.
    """

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What Python code may give, the words after "give"."""

    @property
    def written(self) -> str:
        """What an operator may write, the words after "give"."""
        return self.allowed

    def shown(self, value: object) -> str:
        """
        C{value} as it appears in an error message.
        """
        return shown(value)

    @abstractmethod
    def check(self, value: Any) -> None:
        """
        Accept C{value} as it is.

        @raise ValueError: It is wrong; the text says why.
        """

    def parse(self, text: str) -> Any:
        """
        The value that C{text} on the command line stands for, unchecked.

        @raise ValueError: It stands for none; the text says why.
        """
        return text

    def load(self, value: Any) -> Any:
        """
        The value that C{value} in a TOML file stands for, unchecked.

        @raise ValueError: It stands for none; the text says why.
        """
        return value


@dataclass(frozen=True)
class Whole(Kind):
    """
    A whole number from C{least} to C{most}.
    """

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def check(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"it is {typeName(value)}, not a whole number")
        if value < self.least:
            raise ValueError(f"it is less than {self.least}")
        if value > self.most:
            raise ValueError(f"it is more than {self.most}")

    def parse(self, text: str) -> Any:
        if not _NUMBER.fullmatch(text):
            raise ValueError("it is not a whole number")
        return int(text)


@dataclass(frozen=True)
class Count(Whole):
    """
    A whole number, or the word C{max}, which stands for whatever C{maximum}
    answers at the moment of reading.
    """

    maximum: Callable[[], int]

    @property
    def written(self) -> str:
        return f"{self.allowed}, or max"

    def parse(self, text: str) -> Any:
        return self._resolve() if text == "max" else super().parse(text)

    def load(self, value: Any) -> Any:
        return self._resolve() if value == "max" else value

    def _resolve(self) -> int:
        return max(self.least, min(self.most, self.maximum()))


@dataclass(frozen=True)
class Seconds(Kind):
    """
    A time in seconds, up to L{MAX_SECONDS}.

    @ivar zero: Whether 0 is allowed.
    @ivar zeroMeans: What 0 stands for, if that needs to be said.
    """

    zero: bool = True
    zeroMeans: str = ""

    @property
    def _range(self) -> str:
        low = "from 0" if self.zero else "above 0"
        meaning = f" ({self.zeroMeans})" if self.zeroMeans else ""
        return f"{low}{meaning} to {MAX_SECONDS:.0f}"

    @property
    def allowed(self) -> str:
        return f"a number of seconds {self._range}"

    @property
    def written(self) -> str:
        return f"{self.allowed}, such as 30, 0.5, 500ms, 30s or 2m"

    def check(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"it is {typeName(value)}, not a number of seconds")
        if not math.isfinite(value):
            raise ValueError("it is not a finite number")
        if value < 0:
            raise ValueError("it is less than 0")
        if value == 0 and not self.zero:
            raise ValueError("it is 0")
        if value > MAX_SECONDS:
            raise ValueError("it is more than a week")

    def parse(self, text: str) -> Any:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError("it is not a duration")
        number, unit = match.groups()
        return float(number) * _UNITS[unit]

    def load(self, value: Any) -> Any:
        return self.parse(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Flag(Kind):
    """
    Yes or no.
    """

    @property
    def allowed(self) -> str:
        return "True or False"

    @property
    def written(self) -> str:
        return "true or false"

    def check(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"it is {typeName(value)}")

    def parse(self, text: str) -> Any:
        if text not in ("true", "false"):
            raise ValueError("it is neither true nor false")
        return text == "true"


@dataclass(frozen=True)
class PythonName(Kind):
    """
    Where something is found in a Python module: C{module:attr}, both of which
    may be dotted.

    @ivar example: One such name, for the error message.
    """

    example: str

    @property
    def allowed(self) -> str:
        return f"module:attr, such as {self.example}"

    def check(self, value: Any) -> None:
        module, colon, attribute = _requireText(value).partition(":")
        if not colon:
            raise ValueError("it has no colon between the module and what is in it")
        if module.endswith(".py"):
            raise ValueError("it names a file, not a module")
        for part in (module, attribute):
            if not part:
                raise ValueError("there is nothing on one side of the colon")
            if not all(word.isidentifier() for word in part.split(".")):
                raise ValueError(f"{shown(part)} is not a Python name")


@dataclass(frozen=True)
class ModuleName(Kind):
    """
    The name of a Python module or package, dotted.

    @ivar example: One such name, for the error message.
    """

    example: str

    @property
    def allowed(self) -> str:
        return f"the name of a module, such as {self.example}"

    def check(self, value: Any) -> None:
        text = _requireText(value)
        if text.endswith(".py"):
            raise ValueError("it names a file, not a module")
        if not all(word.isidentifier() for word in text.split(".")):
            raise ValueError(f"{shown(text)} is not a Python name")


@dataclass(frozen=True)
class Optional(Kind):
    """
    What another kind is, or L{None}.
    """

    kind: Kind

    @property
    def allowed(self) -> str:
        return f"{self.kind.allowed}, or None"

    @property
    def written(self) -> str:
        return self.kind.written

    def check(self, value: Any) -> None:
        if value is not None:
            self.kind.check(value)

    def parse(self, text: str) -> Any:
        return self.kind.parse(text)

    def load(self, value: Any) -> Any:
        return self.kind.load(value)


@dataclass(frozen=True)
class Words(Kind):
    """
    Arguments for another command, as a tuple of texts.
    """

    @property
    def allowed(self) -> str:
        return "a tuple of texts"

    @property
    def written(self) -> str:
        return "a list of texts"

    def check(self, value: Any) -> None:
        if not isinstance(value, tuple):
            raise ValueError(f"it is {typeName(value)}, not a tuple")
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"{shown(item)} is {typeName(item)}, not text")
            if "\0" in item:
                raise ValueError(f"{shown(item)} contains a null character")

    def parse(self, text: str) -> Any:
        return (text,)

    def load(self, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class PolicyName(Kind):
    """
    The name of a policy, or C{module:Class}.  Whether such a policy exists is
    for L{twisted_cluster.policies} to say.
    """

    @property
    def allowed(self) -> str:
        return "the name of a policy, such as round-robin, or module:Class"

    def check(self, value: Any) -> None:
        text = _requireText(value)
        if ":" in text:
            PythonName("hello:Nearest").check(text)
        elif not _WORD.fullmatch(text):
            raise ValueError("it is not a name")


@dataclass(frozen=True)
class StateName(Kind):
    """
    Where state, cache and leases are: C{memory}, or the URL of a Redis server.
    """

    @property
    def allowed(self) -> str:
        return f"memory, or a URL such as {EXAMPLE}"

    def shown(self, value: object) -> str:
        return shown(withoutSecret(value) if isinstance(value, str) else value)

    def check(self, value: Any) -> None:
        text = _requireText(value)
        if text != "memory":
            parseStateUrl(text)


@dataclass(frozen=True)
class Size(Whole):
    """
    A number of bytes.  Operators may write C{K}, C{M} or C{G} behind it, for
    1024 of them and so on.
    """

    @property
    def allowed(self) -> str:
        return f"a number of bytes from {self.least} to {self.most}"

    @property
    def written(self) -> str:
        return f"{self.allowed}, such as 500000, 64M or 1G"

    def parse(self, text: str) -> Any:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError("it is not a number of bytes")
        number, unit = match.groups()
        return int(number) * _BYTES[unit]

    def load(self, value: Any) -> Any:
        return self.parse(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Endpoints(Kind):
    """
    Endpoint strings, as a tuple.  Only their shape is checked here: what
    follows the prefix is for whoever makes the endpoints.
    """

    @property
    def allowed(self) -> str:
        return f"a tuple of endpoint strings, {self._examples}"

    @property
    def written(self) -> str:
        return f"an endpoint string, {self._examples}"

    _examples = "such as tcp:8080, tcp:8080:interface=127.0.0.1 or unix:/run/app.sock"

    def check(self, value: Any) -> None:
        if not isinstance(value, tuple):
            raise ValueError(f"it is {typeName(value)}, not a tuple")
        for item in value:
            self._checkOne(item)

    def parse(self, text: str) -> Any:
        return (text,)

    def load(self, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list):
            return tuple(value)
        raise ValueError(f"it is {typeName(value)}, neither text nor a list")

    def _checkOne(self, item: object) -> None:
        try:
            text = _requireText(item)
        except ValueError as error:
            raise ValueError(f"in {shown(item)}, {error}") from None
        prefix = _PREFIX.match(text)
        if prefix is None:
            raise ValueError(f"{shown(text)} does not begin with a kind of endpoint and a colon")
        if prefix.group() == "stdio:":
            raise ValueError(
                f"{shown(text)} is standard input, which has no connections to share out"
            )
        if prefix.end() == len(text):
            raise ValueError(f"nothing follows the colon of {shown(text)}")


@dataclass(frozen=True)
class Path(Kind):
    """
    A path of the file system, or L{None}.  Operators write an empty text, or
    C{false} in a TOML file, for L{None}.
    """

    @property
    def allowed(self) -> str:
        return "a path, or None"

    @property
    def written(self) -> str:
        return "a path, or an empty text for none"

    def check(self, value: Any) -> None:
        if value is not None:
            _requireText(value)

    def parse(self, text: str) -> Any:
        return text or None

    def load(self, value: Any) -> Any:
        return None if value is False or value == "" else value


@dataclass(frozen=True)
class SocketPath(Path):
    """
    The path of a UNIX socket, or L{None}.
    """

    @property
    def allowed(self) -> str:
        return f"a path of at most {SOCKET_PATH_BYTES} bytes, or None"

    @property
    def written(self) -> str:
        return f"a path of at most {SOCKET_PATH_BYTES} bytes, or an empty text for none"

    def check(self, value: Any) -> None:
        super().check(value)
        length = 0 if value is None else len(os.fsencode(value))
        if length > SOCKET_PATH_BYTES:
            raise ValueError(f"it is {length} bytes long, too long for a UNIX socket")


@dataclass(frozen=True)
class OptionalWord(Kind):
    """
    A short name, or L{None}.

    @ivar meaning: What it names, the words after "the name of".
    """

    meaning: str

    @property
    def allowed(self) -> str:
        return f"the name of {self.meaning}, or None"

    def check(self, value: Any) -> None:
        if value is not None and not _WORD.fullmatch(_requireText(value)):
            raise ValueError("it is not a name")
