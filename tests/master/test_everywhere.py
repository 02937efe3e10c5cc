"""
Tests for messages to the workers of all hosts, in
L{twisted_cluster.master.messages}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.protocols.amp import parseString
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import AppError, PeerError, StateUnavailable
from twisted_cluster.events import EventStream
from twisted_cluster.master.messages import HOSTS_TOPIC, Messages
from twisted_cluster.wire import values
from twisted_cluster.wire.messages import ALL, EVERYWHERE, MASTER, Envelope, Kind, decode
from twisted_cluster.wire.parts import APP_LANE, Packet


class Outbox:
    """
    Remembers what is sent.
    """

    queued = 0
    isOpen = True

    def __init__(self) -> None:
        self.sent: list[Envelope] = []

    def post(self, packet: Packet) -> bool:
        """There is always room."""
        (box,) = parseString(packet.box(0))
        self.sent.append(decode(box[b"data"]))
        return True


@dataclass(eq=False)
class Member:
    """
    A worker that is Ready.
    """

    slot: int
    generation: int = 1
    pid: int | None = None
    outbox: Any = field(default_factory=Outbox)


class EverywhereTests(SynchronousTestCase):
    """
    Two masters that hear each other.
    """

    def setUp(self) -> None:
        self.members = [[Member(0), Member(1)], [Member(0)]]
        self.masters = [self.master(members) for members in self.members]

    def master(self, members: list[Member]) -> Messages:
        """
        A master with workers.
        """
        messages = Messages(Clock(), lambda: members, EventStream(print))
        messages.publish = self.publish
        for member in members:
            messages.join(member, member.outbox)
        return messages

    def publish(self, topic: str, data: bytes) -> Deferred[None]:
        """
        All masters hear it.
        """
        self.assertEqual(topic, HOSTS_TOPIC)
        for master in self.masters:
            master.heardFrom(data)
        return succeed(None)

    def sent(self) -> list[list[Envelope]]:
        """
        What each worker was sent.
        """
        return [member.outbox.sent for members in self.members for member in members]

    def ask(self, value: Any) -> None:
        """
        A worker sends something to everywhere.
        """
        envelope = Envelope(Kind.MESSAGE, 7, 0, EVERYWHERE, 0.0, "t", values.encode(value))
        self.masters[0].received(self.members[0][0], APP_LANE, [envelope.encode()])

    def test_tell(self) -> None:
        """
        What a master tells goes to each worker of all, from nobody.
        """
        done = self.masters[0].tellEverywhere("t", {"a": 1})
        self.assertEqual(self.successResultOf(done), 2)
        expected = Envelope(Kind.MESSAGE, 0, MASTER, ALL, 0.0, "t", values.encode({"a": 1}))
        self.assertEqual(self.sent(), [[expected]] * 3)

    def test_fromWorker(self) -> None:
        """
        So does what a worker sends, who is answered when it is on its way.
        """
        self.ask("x")
        message = Envelope(Kind.MESSAGE, 0, MASTER, ALL, 0.0, "t", values.encode("x"))
        answer = Envelope(Kind.RESULT, 7, MASTER, 0, 0.0, "", values.encode(2))
        self.assertEqual(self.sent(), [[message, answer], [message], [message]])

    def test_unavailable(self) -> None:
        """
        Both hear if that can't be done.
        """
        error = StateUnavailable("can't publish: away; wait")
        self.masters[0].publish = lambda topic, data: fail(error)
        self.failureResultOf(self.masters[0].tellEverywhere("t", 1), StateUnavailable)
        self.ask("x")
        ((answer,), *_) = self.sent()
        self.assertEqual(answer.kind, Kind.FAILURE)
        self.assertEqual(values.decode(answer.value), "can't publish: away; wait")

    def test_refused(self) -> None:
        """
        Topics and values are the same as elsewhere.
        """
        for topic, value in (("twisted_cluster.x", 1), ("", 1), ("t", {1, 2})):
            done = self.masters[0].tellEverywhere(topic, value)
            self.failureResultOf(done, AppError)
        self.assertEqual(self.sent(), [[], [], []])

    def test_nonsense(self) -> None:
        """
        Nonsense from another host goes to no worker.
        """
        call = Envelope(Kind.CALL, 0, MASTER, ALL, 0.0, "t", b"i1").encode()
        one = Envelope(Kind.MESSAGE, 0, MASTER, 0, 0.0, "t", b"i1").encode()
        for data in (b"", b"x" * 40, call, one):
            self.assertRaises(PeerError, self.masters[0].heardFrom, data)
        self.assertEqual(self.sent(), [[], [], []])
