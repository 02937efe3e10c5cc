"""
Tests for L{twisted_cluster.worker.messages}, and for what the context of an app
makes of it.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import Deferred

from tests.support import Lines
from tests.worker.case import SessionTestCase
from twisted_cluster.context import Role
from twisted_cluster.errors import AppError, CallFailed, CallTimedOut, ClusterError
from twisted_cluster.interfaces import RESERVED, Message
from twisted_cluster.testing import pretendWorker
from twisted_cluster.wire.messages import ALL, EVERYWHERE, MASTER, OTHERS, Envelope, Kind
from twisted_cluster.wire.parts import APP_LANE, Packet
from twisted_cluster.wire.values import decode, encode
from twisted_cluster.worker.messages import SEND_TIMEOUT


class MessagesTestCase(SessionTestCase):
    """
    Has a worker of slot 1, and its context.
    """

    def setUp(self) -> None:
        self.here = pretendWorker(self.addCleanup, slot=1)
        super().setUp()

    def say(self, envelope: Envelope) -> None:
        """
        Say something to the worker.
        """
        packet = Packet(APP_LANE, envelope.encode())
        for index in range(packet.count):
            self.master.transport.write(packet.box(index))
        self.reactor.settle()

    def tell(self, topic: str, value: Any, sender: int = MASTER) -> None:
        """
        Send it a message.
        """
        self.say(Envelope(Kind.MESSAGE, 0, sender, 1, 0.0, topic, encode(value)))

    def ask(self, topic: str, value: Any = None, sender: int = MASTER) -> list[tuple[Kind, Any]]:
        """
        Call it.

        @return: The answers so far.
        """
        self.say(Envelope(Kind.CALL, 9, sender, 1, 5.0, topic, encode(value)))
        return self.answers()

    def answers(self) -> list[tuple[Kind, Any]]:
        """
        What it has answered.
        """
        self.reactor.settle()
        return [
            (one.kind, decode(one.value))
            for one in self.master.said
            if one.kind in (Kind.RESULT, Kind.FAILURE)
        ]

    def said(self) -> list[Envelope]:
        """
        What it has said of itself, other than of the state.
        """
        self.reactor.settle()
        return [
            one
            for one in self.master.said
            if one.kind in (Kind.MESSAGE, Kind.CALL) and not one.topic.startswith(RESERVED)
        ]

    def reply(self, value: Any, kind: Kind = Kind.RESULT) -> None:
        """
        Answer what it said last.
        """
        number = self.said()[-1].number
        self.say(Envelope(kind, number, MASTER, 1, 0.0, "", encode(value)))


class SaysTests(MessagesTestCase):
    """
    What the app says.
    """

    def test_targets(self) -> None:
        """
        It can send to a slot, the master, the other workers, all, and those of
        all hosts.
        """
        sent = [self.here.send(target, "topic", "one") for target in (2, Role.MASTER, Role.WORKER)]
        sent.append(self.here.broadcast("topic", b"all"))
        sent.append(self.here.broadcast("topic", b"all", everywhere=True))
        targets = [one.target for one in self.said()]
        self.assertEqual(targets, [2, MASTER, OTHERS, ALL, EVERYWHERE])
        values = [decode(one.value) for one in self.said()]
        self.assertEqual(values, ["one", "one", "one", b"all", b"all"])
        self.master.transport.abort()
        self.reactor.settle()
        for done in sent:
            self.failureResultOf(done, CallFailed)

    def test_send(self) -> None:
        """
        The app is told when, and to how many, it was passed on.
        """
        done = self.here.send(2, "topic", 1)
        self.reactor.settle()
        self.assertNoResult(done)
        self.reply(1)
        self.assertEqual(self.successResultOf(done), 1)

    def test_notSent(self) -> None:
        """
        Or why it was not.
        """
        done = self.here.send(2, "topic", 1)
        self.reply("it has no worker now", Kind.FAILURE)
        error = self.failureResultOf(done, CallFailed).value
        self.assertEqual(str(error), "can't send 'topic': it has no worker now")

    def test_silence(self) -> None:
        """
        A master that can't say so keeps nobody waiting for ever.
        """
        done = self.here.send(2, "topic", 1)
        self.wait(SEND_TIMEOUT + 1)
        self.failureResultOf(done, CallTimedOut)

    def test_call(self) -> None:
        """
        A call says how long it waits, and has an answer.
        """
        done = self.here.call(2, "add", [1, 2], timeout=3)
        (question,) = self.said()
        self.assertEqual((question.kind, question.timeout), (Kind.CALL, 3.0))
        self.reply({"sum": 3})
        self.assertEqual(self.successResultOf(done), {"sum": 3})

    def test_callFails(self) -> None:
        """
        Or the reason why there is none, or none in time.
        """
        failing = self.here.call(Role.MASTER, "add", [1, 2])
        self.reply("ValueError: no", Kind.FAILURE)
        error = self.failureResultOf(failing, CallFailed).value
        self.assertEqual(str(error), "can't call 'add' of the master: ValueError: no")
        late = self.here.call(3, "add", timeout=0.5)
        self.wait(0.6)
        text = str(self.failureResultOf(late, CallTimedOut).value)
        self.assertEqual(text, "can't call 'add' of slot 3: no answer within 0.5 s")

    def test_masterGone(self) -> None:
        """
        When the master goes, whoever waits for an answer is told; what is said
        after that fails.
        """
        waiting = [self.here.send(2, "topic", 1), self.here.call(2, "add")]
        self.master.transport.abort()
        self.reactor.settle()
        for done in (*waiting, self.here.send(2, "topic", 1)):
            self.failureResultOf(done, CallFailed)

    def test_refused(self) -> None:
        """
        What can't be said fails in the Deferred, and nothing is sent.
        """
        refused: list[Deferred[Any]] = [
            self.here.send(2, "topic", {1}),
            self.here.send(2, "", 1),
            self.here.send(2, "twisted_cluster.state", 1),
            self.here.call(2, "topic", timeout=math.nan),
            self.here.call(2, "topic", timeout=10**400),
            self.here.send(1 << 80, "topic", 1),
            self.here.call(Role.WORKER, "topic"),
            self.here.send(-1, "topic", 1),
            self.here.send(Role.TEMPLATE, "topic", 1),
            self.here.call("two", "topic"),  # type: ignore[arg-type]
        ]
        for done in refused:
            self.assertIn("can't ", str(self.failureResultOf(done, AppError).value))
        self.assertEqual(self.said(), [])


class HearsTests(MessagesTestCase):
    """
    What the app hears.
    """

    def test_handle(self) -> None:
        """
        A handler gets topic, value and sender; a later one of the same topic
        takes its place.
        """
        heard: list[Message] = []
        self.here.handle("topic")(lambda message: self.fail("this one is gone"))
        self.here.handle("topic")(heard.append)
        self.tell("topic", {"a": 1})
        self.tell("topic", b"bytes", sender=0)
        expected = [Message("topic", {"a": 1}, None), Message("topic", b"bytes", 0)]
        self.assertEqual(heard, expected)
        self.assertEqual(self.answers(), [])

    def test_large(self) -> None:
        """
        A value of many parts arrives as it was.
        """
        heard: list[Message] = []
        self.here.handle("topic")(heard.append)
        value = bytes(number % 251 for number in range(300_000))
        self.tell("topic", value)
        self.assertEqual([message.value for message in heard], [value])

    def test_answers(self) -> None:
        """
        What a handler returns answers a call: a value, a Deferred or a
        coroutine.
        """
        waiting: Deferred[int] = Deferred()

        @self.here.handle("later")
        async def later(message: Message) -> int:
            return await waiting + int(message.value)

        self.here.handle("now")(lambda message: [message.value])
        self.assertEqual(self.ask("now", 1), [(Kind.RESULT, [1])])
        self.assertEqual(len(self.ask("later", 2)), 1)
        waiting.callback(3)
        self.assertEqual(self.answers()[1:], [(Kind.RESULT, 5)])

    def test_fails(self) -> None:
        """
        A handler that raises: who asked gets the text, the log here the
        traceback.
        """

        @self.here.handle("topic")
        def handler(message: Message) -> None:
            raise ValueError("no such thing")

        self.assertEqual(self.ask("topic"), [(Kind.FAILURE, "ValueError: no such thing")])
        self.tell("topic", 1)
        self.assertEqual(len(self.answers()), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_badAnswer(self) -> None:
        """
        So does one whose answer can't be sent.
        """
        self.here.handle("topic")(lambda message: {1})
        ((kind, reason),) = self.ask("topic")
        self.assertEqual(kind, Kind.FAILURE)
        self.assertIn("can't send a set", reason)
        self.flushLoggedErrors(AppError)

    def test_unhandled(self) -> None:
        """
        A topic that the app does not handle is a failure for who asks, and one
        line in the log.
        """
        lines = Lines(self)
        self.tell("topic", 1, sender=0)
        self.tell("topic", 1)
        self.assertEqual(self.ask("topic"), [(Kind.FAILURE, "its app handles no 'topic'")])
        (line,) = lines.containing("is dropped")
        self.assertIn("a message of slot 0", line)

    def test_garbage(self) -> None:
        """
        A master that sends nonsense is left, with one line in the log.
        """
        lines = Lines(self)
        self.master.transport.write(Packet(APP_LANE, b"garbage").box(0))
        self.reactor.settle()
        self.assertEqual(len(lines.containing("protocol violation")), 1)
        self.assertFalse(self.session.transport.connected)


class OutsideTests(SessionTestCase):
    """
    Where nobody can be spoken to.
    """

    def test_fails(self) -> None:
        """
        In a process that is no worker of a running cluster, messages fail, and
        say what to do.
        """
        here = pretendWorker(self.addCleanup)
        here.messenger = None
        calls = (here.send(1, "t", 1), here.broadcast("t", 1), here.call(1, "t"))
        for done in calls:
            text = str(self.failureResultOf(done, ClusterError).value)
            self.assertIn("this process is no worker of a running cluster", text)
