"""
The master's end of a channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twisted_cluster.errors import PeerError
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import (
    Channel,
    DescriptorGroup,
    closeDescriptors,
    numberFrom,
)
from twisted_cluster.wire.parts import Inbox

RESUME_BATCH = 16
"""How many connections with state go in one box, whose values AMP limits."""

MAX_BACKLOG = 4 << 20
"""Bytes that may wait for a worker to read them before it gets no messages."""


class IWorkerReports(Protocol):
    """
    Who hears what a worker reports.
    """

    @property
    def name(self) -> str:
        """What log lines call the worker."""

    def ready(self, listeners: list[int] | None = None) -> None:
        """It can take sockets of these, or of all that the operator named."""

    def bootFailed(self, fault: str, reason: str, traceback: str) -> None:
        """It can't run the app."""

    def beat(self, connections: int | None = None) -> None:
        """Its reactor runs, and so many connections are open."""

    def leaving(self) -> None:
        """Somebody else told it to terminate."""

    def drained(self) -> None:
        """It has no connection left."""

    def acknowledged(self, received: int, closed: int, touched: list[int]) -> None:
        """What became of its sockets."""

    def refused(self, sockets: list[int], reason: str) -> None:
        """It can't serve these."""

    def messageReceived(self, lane: int, parts: Sequence[bytes]) -> None:
        """It sent a message."""

    def throttled(self, paused: bool) -> None:
        """It wants no sockets, or wants them again."""

    def offered(
        self,
        numbers: list[int],
        listeners: list[int],
        states: list[bytes],
        descriptors: list[int],
    ) -> None:
        """It gives these connections back; C{descriptors} may be fewer."""

    def channelLost(self) -> None:
        """Nothing more will come."""


class MasterSession(Channel):
    """
    Speaks with one worker.  Runs in the master.
    """

    def __init__(self, reports: IWorkerReports) -> None:
        super().__init__()
        self._reports = reports
        self._groups: deque[list[int]] = deque()
        self.boxes[b"Part"] = Inbox(reports.messageReceived).receive
        self.boxes[b"Ack"] = self._ack
        self.boxes[b"Beat"] = self._beat

    @property
    def name(self) -> str:
        """The worker at the other end."""
        return self._reports.name

    def sendHandoff(self, first: int, listeners: Sequence[int], descriptors: Sequence[int]) -> None:
        """
        Send sockets, numbered from C{first} on, in one box.
        """
        box = commands.encodeHandoff(first, listeners)
        self.transport.writeWithDescriptors(box, descriptors)

    def sendResume(
        self,
        first: int,
        listeners: Sequence[int],
        descriptors: Sequence[int],
        states: Sequence[bytes],
    ) -> None:
        """
        Send sockets whose protocols carry state, numbered from C{first} on.
        """
        for start in range(0, len(states), RESUME_BATCH):
            end = start + RESUME_BATCH
            box = commands.encode(
                commands.Resume,
                first=first + start,
                listeners=listeners[start:end],
                states=list(states[start:end]),
            )
            self.transport.writeWithDescriptors(box, descriptors[start:end])

    def sendShare(self, listeners: Sequence[int], descriptors: Sequence[int]) -> None:
        """
        Have the worker accept for itself.
        """
        box = commands.encode(commands.Share, listeners=listeners)
        self.transport.writeWithDescriptors(box, descriptors)

    def sendTaken(self, taken: Sequence[int], declined: Sequence[int]) -> None:
        """
        Answer an offer.
        """
        self.callRemote(commands.Taken, taken=taken, declined=declined)

    def sendDrain(self, grace: float, migrate: bool) -> None:
        """
        Tell the worker to finish what it serves.

        @param grace: Seconds that idle connections may stay open.
        @param migrate: Whether other workers can take connections over.
        """
        self.callRemote(commands.Drain, grace=grace, migrate=migrate)

    def sendStop(self) -> None:
        """
        Tell the worker to stop the app and exit.
        """
        self.callRemote(commands.Stop)

    def sendMessage(self, text: str) -> bool:
        """
        Send a broadcast.

        @return: Whether it was sent; it is not to a worker that has long
            stopped reading.
        """
        if self.transport.backlog > MAX_BACKLOG:
            return False
        self.callRemote(commands.Message, text=text)
        return True

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """
        The sockets of the next offer.
        """
        self._groups.append(group.descriptors)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The channel is gone."""
        super().connectionLost(reason)
        while self._groups:
            closeDescriptors(self._groups.popleft())
        self._reports.channelLost()

    def _ack(self, box: Any) -> None:
        self._reports.acknowledged(
            numberFrom(box, b"received"),
            numberFrom(box, b"closed"),
            commands.unpackNumbers(box.get(b"touched", b"")),
        )

    def _beat(self, box: Any) -> None:
        told = b"connections" in box
        self._reports.beat(numberFrom(box, b"connections") if told else None)

    @commands.Ready.responder
    def _ready(self, listeners: list[int] | None) -> dict[str, Any]:
        self._reports.ready(listeners)
        return {}

    @commands.BootFailed.responder
    def _bootFailed(self, fault: str, reason: str, traceback: str) -> dict[str, Any]:
        self._reports.bootFailed(fault, reason, traceback)
        return {}

    @commands.Leaving.responder
    def _leaving(self) -> dict[str, Any]:
        self._reports.leaving()
        return {}

    @commands.Drained.responder
    def _drained(self) -> dict[str, Any]:
        self._reports.drained()
        return {}

    @commands.Refuse.responder
    def _refuse(self, sockets: list[int], reason: str) -> dict[str, Any]:
        self._reports.refused(sockets, reason)
        return {}

    @commands.Offer.responder
    def _offer(
        self, numbers: list[int], listeners: list[int], states: list[bytes]
    ) -> dict[str, Any]:
        if not self._groups or not len(numbers) == len(listeners) == len(states):
            raise PeerError("an offer that lacks something")
        self._reports.offered(numbers, listeners, states, self._groups.popleft())
        return {}

    @commands.Throttle.responder
    def _throttle(self, paused: int) -> dict[str, Any]:
        self._reports.throttled(bool(paused))
        return {}
