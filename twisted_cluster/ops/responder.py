"""
What each admin command does.  Runs in the master; knows the cluster and
nothing of sockets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols.amp import Command

import twisted_cluster
from twisted_cluster.events import Event, HostStepped, ReloadStepped
from twisted_cluster.interfaces import ICluster
from twisted_cluster.wire import admin as wire
from twisted_cluster.wire.admin import MAX_VALUE, BadRequest

Answer = dict[str, Any]


class Responder:
    """
    Carries out the commands of one connection.
    """

    def __init__(
        self, cluster: ICluster, tell: Callable[[ReloadStepped | HostStepped], object]
    ) -> None:
        """
        @param tell: Called with each step of a replacement that this
            connection has asked for, if it wants to know.
        """
        self._cluster = cluster
        self._tell = tell
        self._snapshot: list[bytes] = []
        self._does: dict[type[Command], Callable[..., Any]] = {
            wire.Hello: self._hello,
            wire.Status: self._status,
            wire.Reload: self._reload,
            wire.ReloadAll: self._reloadAll,
            wire.Restart: self._restart,
            wire.Scale: self._scale,
            wire.Broadcast: self._broadcast,
            wire.Stop: self._stop,
        }

    def carryOut(self, command: type[Command], arguments: dict[str, Any]) -> Deferred[Answer]:
        """
        Do what C{command} says.

        @return: A Deferred that fires with the values of the answer, or fails
            with what the cluster said, or with L{BadRequest}.
        """
        return maybeDeferred(self._does[command], **arguments)

    def _hello(self) -> Answer:
        return {
            "protocol": wire.ADMIN_PROTOCOL_VERSION,
            "version": twisted_cluster.__version__,
            "pid": self._cluster.status().pid,
        }

    def _status(self, part: int | None) -> Answer:
        if not part:
            text = json.dumps(self._cluster.status().asDict(), separators=(",", ":"))
            self._snapshot = cut(text.encode("ascii"), MAX_VALUE)
        snapshot, number = self._snapshot, part or 0
        if not 0 <= number < len(snapshot):
            raise BadRequest(
                f"can't do Status: its argument part is {number}, and this connection has a"
                f" snapshot of {len(snapshot)} parts; begin with part 0"
            )
        if number == len(snapshot) - 1:
            self._snapshot = []
        return {"part": number, "parts": len(snapshot), "json": snapshot[number]}

    def _reload(self, progress: bool | None) -> Deferred[Answer]:
        return self._replace(self._cluster.reload, bool(progress))

    def _reloadAll(self, progress: bool | None) -> Deferred[Answer]:
        tell = self._tell if progress else lambda step: None
        done: Deferred[int] = maybeDeferred(self._cluster.reloadAll, tell)
        return done.addCallback(lambda hosts: {"hosts": hosts})

    def _restart(self, slot: int, progress: bool | None) -> Deferred[Answer]:
        return self._replace(lambda: self._cluster.restart(slot), bool(progress))

    def _replace(self, begin: Callable[[], Any], progress: bool) -> Deferred[Answer]:
        """
        Subscribe first, since the first steps happen before C{begin} returns.
        """
        subscribe = self._cluster.events.subscribe
        unsubscribe = subscribe(self._onEvent) if progress else lambda: None

        def ended(result: Any) -> Any:
            unsubscribe()
            return result

        done: Deferred[int] = maybeDeferred(begin).addBoth(ended)
        return done.addCallback(lambda generation: {"generation": generation})

    def _onEvent(self, event: Event) -> None:
        if isinstance(event, ReloadStepped):
            self._tell(event)

    def _scale(self, wanted: int) -> Deferred[Answer]:
        done: Deferred[int] = maybeDeferred(self._cluster.scale, wanted)
        return done.addCallback(lambda reached: {"wanted": reached})

    def _broadcast(self, text: str) -> Answer:
        return {"workers": self._cluster.broadcast(text)}

    def _stop(self, now: bool | None) -> Deferred[Answer]:
        return maybeDeferred(self._cluster.stop, bool(now)).addCallback(lambda _: {})


def cut(data: bytes, size: int) -> list[bytes]:
    """
    C{data} in pieces of at most C{size} bytes.
    """
    return [data[start : start + size] for start in range(0, len(data), size)]
