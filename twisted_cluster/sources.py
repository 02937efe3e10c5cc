"""
What the workers of a cluster run: one of several kinds of app.  Usable in any
process; nothing here imports an app.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum


class SourceKind(Enum):
    """
    How an app is found.
    """

    APP = "app"
    """C{module:attr}: a factory, a resource, a service and the like."""

    PLUGIN = "plugin"
    """The name of a C{twistd} command, with that command's own arguments."""

    TAC = "tac"
    """The path of a C{.tac} file."""

    MODULE = "module"
    """The name of a module to be run as C{python -m} does."""

    SCRIPT = "script"
    """The path of a script to be run as C{python} does."""


SERVICES = frozenset({SourceKind.PLUGIN, SourceKind.TAC})
"""Kinds that describe a service, which the worker starts and stops."""

PROGRAMS = frozenset({SourceKind.MODULE, SourceKind.SCRIPT})
"""Kinds that run the reactor themselves."""

WITH_ARGUMENTS = frozenset({SourceKind.PLUGIN, *PROGRAMS})
"""Kinds that have a command line of their own."""


@dataclass(frozen=True)
class Source:
    """
    An app, as the operator names it.

    @ivar arguments: The app's own command line; nobody but the app reads it.
    """

    kind: SourceKind
    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return shlex.join((self.name, *self.arguments)) if self.arguments else self.name
