"""
Answers a worker that asks for ports.  Runs in the master.

It has a channel of its own, since the worker waits for the answer and must
not have to look through handoffs for it.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from twisted_cluster.master.listener import BindRequest
from twisted_cluster.master.listeners import NotBound
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import Channel


class IBindRequests(Protocol):
    """
    Who decides on what a worker asks for.
    """

    @property
    def name(self) -> str:
        """What log lines call the worker."""

    def bindRequested(self, request: BindRequest) -> tuple[int, int]:
        """
        Its app wants a port.

        @return: The number of a listener, and the descriptor of its socket.
        @raise NotBound: if it can't be had.
        """

    def unbound(self, listener: int) -> None:
        """Its app wants it no more."""


class BindSession(Channel):
    """
    Speaks with one worker about ports.
    """

    def __init__(self, requests: IBindRequests) -> None:
        super().__init__()
        self._requests = requests

    @property
    def name(self) -> str:
        """The worker at the other end."""
        return self._requests.name

    @commands.Bind.responder
    def _bind(self, address: bytes, **rest: Any) -> dict[str, Any]:
        request = BindRequest(address=os.fsdecode(address), **rest)
        try:
            listener, descriptor = self._requests.bindRequested(request)
        except NotBound as error:
            answer = commands.encode(
                commands.NotBound, errno=error.errno, reason=_short(error.reason)
            )
            self.transport.write(answer)
        else:
            answer = commands.encode(commands.Bound, listener=listener)
            # The kernel has its own reference by the time this returns, or
            # keeps the listener's descriptor waiting, which stays open.
            self.transport.writeWithDescriptors(answer, [descriptor])
        return {}

    @commands.Unbind.responder
    def _unbind(self, listener: int) -> dict[str, Any]:
        self._requests.unbound(listener)
        return {}


def _short(reason: str) -> str:
    return reason[:4000].encode("utf-8", "replace").decode("utf-8")
