"""
Which backend a cluster has.  Runs in the master.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.config import ClusterConfig
from twisted_cluster.errors import ConfigError
from twisted_cluster.interfaces import IStateBackend
from twisted_cluster.stateurl import parseStateUrl, withoutSecret

CLIENT = "txredisapi"
"""What Redis takes."""


def makeBackend(reactor: Any, config: ClusterConfig, client: str = CLIENT) -> IStateBackend:
    """
    The backend that C{config} names, not started.

    @param client: The module of the client library for Redis.
    @raise ConfigError: if it can't be had.
    """
    if config.state == "memory":
        return MemoryBackend(reactor, config.cacheSize)
    try:
        importlib.import_module(client)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"use --state {withoutSecret(config.state)}",
            f"{error.name} is not installed",
            "install it with: pip install twisted_cluster[redis]",
        ) from None
    # It is not there unless it is asked for.
    from twisted_cluster.backends.redis import RedisBackend

    return RedisBackend(reactor, parseStateUrl(config.state), config.stateTimeout)
