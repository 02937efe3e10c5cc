"""
Finding a scheduling policy by its name.

A name is that of a built-in policy, that of a plug-in, or C{module:Class}.
Runs in the master, which is where policies run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, cast

from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from twisted_cluster.errors import ConfigError
from twisted_cluster.imports import importName
from twisted_cluster.interfaces import IScheduler, ISchedulerMaker
from twisted_cluster.kinds import shown
from twisted_cluster.policy.scheduling import BUILT_IN

SHARED = "shared"
"""The policy with which no policy is asked: workers accept for themselves on
the master's listening sockets.  What passes through the master all the same,
connections that move at a reload among them, is dealt out in turn."""

SchedulerFactory = Callable[[Random], IScheduler]


def schedulerNames() -> tuple[str, ...]:
    """
    The names of all policies that can be had now, built-in ones first.
    """
    names = dict.fromkeys((*BUILT_IN, SHARED))
    names.update(dict.fromkeys(sorted(maker.name for maker in _makers())))
    return tuple(names)


def makeScheduler(name: str, random: Random) -> IScheduler:
    """
    Make the policy called C{name}.  A class that is given as C{module:Class}
    is called with C{random}, as the C{make} of a plug-in is.

    @raise ConfigError: There is no such policy, or it can't be made.
    """
    factory = _factory(name)
    try:
        scheduler = factory(random)
    except Exception as error:
        raise _unusable(name, f"making it raised {type(error).__name__}: {error}") from error
    try:
        verifyObject(IScheduler, scheduler)
    except Invalid as error:
        raise _unusable(name, " ".join(str(error).split())) from error
    return scheduler


def _factory(name: str) -> SchedulerFactory:
    if ":" in name:
        return cast("SchedulerFactory", importName(f"use the policy {shown(name)}", name))
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name == SHARED:
        return BUILT_IN["round-robin"]
    for maker in _makers():
        if maker.name == name:
            return cast("SchedulerFactory", maker.make)
    raise ConfigError(
        f"use the policy {shown(name)}",
        "there is none of that name",
        f"give {', '.join(schedulerNames())} or module:Class",
    )


def _makers() -> Iterator[Any]:
    return iter(getPlugins(ISchedulerMaker))


def _unusable(name: str, cause: str) -> ConfigError:
    return ConfigError(
        f"use the policy {shown(name)}",
        cause,
        "give something that, called with a random.Random, returns an IScheduler",
    )
