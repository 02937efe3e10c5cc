"""
Tests for L{twisted_cluster.master.messages}, in a whole master.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.master.case import ClusterTestCase
from tests.support import Lines
from twisted_cluster.errors import AppError, CallFailed, CallTimedOut
from twisted_cluster.events import MessagesDropped
from twisted_cluster.interfaces import Message
from twisted_cluster.master import messages
from twisted_cluster.testing import FakeWorker
from twisted_cluster.wire import commands, parts
from twisted_cluster.wire.messages import ALL, MASTER, OTHERS, Envelope, Kind
from twisted_cluster.wire.values import decode


class MessagesTestCase(ClusterTestCase):
    """
    Has a master with workers that are Ready.
    """

    slots = 3

    def setUp(self) -> None:
        super().setUp()
        self.messages = self.run_(workers=self.slots).messages
        self.workers = [self.worker(slot) for slot in range(self.slots)]

    def heard(self, *kinds: Kind) -> list[list[tuple[str, Any]]]:
        """
        What each worker has been said, other than answers.
        """
        self.reactor.settle()
        return [worker.heard(*(kinds or (Kind.MESSAGE, Kind.CALL))) for worker in self.workers]

    def answers(self, worker: FakeWorker) -> list[tuple[Kind, int, Any]]:
        """
        The answers that a worker got.
        """
        self.reactor.settle()
        return [
            (one.kind, one.number, decode(one.value))
            for one in worker.said
            if one.kind in (Kind.RESULT, Kind.FAILURE)
        ]

    def question(self, worker: FakeWorker) -> Envelope:
        """
        The one call that a worker got.
        """
        self.reactor.settle()
        (found,) = [one for one in worker.said if one.kind is Kind.CALL]
        return found

    def handle(self, topic: str, answer: Any = None) -> list[Message]:
        """
        Have the master keep what comes.

        @param answer: What to answer; called if it can be.
        """
        kept: list[Message] = []

        def handler(message: Message) -> Any:
            kept.append(message)
            return answer() if callable(answer) else answer

        self.messages.handlers.handle(topic, handler)
        return kept


class MasterSaysTests(MessagesTestCase):
    """
    What the master's own code says.
    """

    def test_send(self) -> None:
        """
        A message goes to the worker of a slot, from nobody's slot.
        """
        self.successResultOf(self.messages.send(1, "topic", {"a": [1]}))
        self.assertEqual(self.heard(), [[], [("topic", {"a": [1]})], []])
        (envelope,) = (one for one in self.workers[1].said if one.topic == "topic")
        self.assertEqual(envelope.sender, MASTER)

    def test_tell(self) -> None:
        """
        A message to all goes to all that are Ready.
        """
        self.spawner.latest(0).die()
        self.reactor.settle()
        self.assertEqual(self.messages.tell("topic", b"bytes"), 2)
        self.assertEqual(self.heard()[1:], [[("topic", b"bytes")]] * 2)

    def test_call(self) -> None:
        """
        A call has an answer.
        """
        done = self.messages.call(2, "add", [1, 2])
        question = self.question(self.workers[2])
        self.assertNoResult(done)
        self.workers[2].answer(question, 3)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(done), 3)

    def test_failed(self) -> None:
        """
        Or the reason why there is none.
        """
        done = self.messages.call(2, "add", [1, 2])
        self.workers[2].fail(self.question(self.workers[2]), "ValueError: no")
        self.reactor.settle()
        error = self.failureOf(done, CallFailed)
        self.assertEqual(str(error), "can't call 'add' of slot 2: ValueError: no")

    def test_timeout(self) -> None:
        """
        Or nobody waits any longer; an answer that comes later is dropped.
        """
        done = self.messages.call(2, "add", [1, 2], timeout=1.5)
        question = self.question(self.workers[2])
        self.wait(1.5)
        error = self.failureOf(done, CallTimedOut)
        self.assertEqual(str(error), "can't call 'add' of slot 2: no answer within 1.5 s")
        self.workers[2].answer(question, 3)
        self.reactor.settle()
        self.assertTrue(self.workers[2].transport.connected)

    def test_died(self) -> None:
        """
        Or who was asked is gone.
        """
        done = self.messages.call(2, "add", [1, 2])
        self.spawner.latest(2).die()
        self.reactor.settle()
        error = self.failureOf(done, CallFailed)
        self.assertEqual(str(error), "can't call 'add' of slot 2: the worker of slot 2 has ended")

    def test_notTheirs(self) -> None:
        """
        Nobody can answer what somebody else was asked.
        """
        done = self.messages.call(2, "add", [1, 2])
        self.workers[1].answer(self.question(self.workers[2]), "forged")
        self.reactor.settle()
        self.assertNoResult(done)
        self.workers[2].answer(self.question(self.workers[2]), 3)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(done), 3)

    def test_nobody(self) -> None:
        """
        A slot that has no worker now can be neither sent to nor called, and
        that is said at once.
        """
        self.spawner.latest(1).die()
        for slot in (1, 7):
            for done in (self.messages.send(slot, "t", 1), self.messages.call(slot, "t", 1)):
                error = self.failureOf(done, CallFailed)
                self.assertIn("it has no worker now; try again when it has", str(error))

    def test_refused(self) -> None:
        """
        What no app may say is refused, and nothing is sent.
        """
        for topic, value in (("", 1), ("twisted_cluster.state", 1), ("t", {1})):
            self.failureOf(self.messages.send(0, topic, value), AppError)
            self.failureOf(self.messages.call(0, topic, value), AppError)
            self.assertRaises(AppError, self.messages.tell, topic, value)
        self.failureOf(self.messages.call(0, "t", 1, timeout=-1), AppError)
        self.assertEqual(self.heard(), [[], [], []])


class WorkerSaysTests(MessagesTestCase):
    """
    What workers say, to the master and to each other.
    """

    def test_toSlot(self) -> None:
        """
        A message to a slot arrives with the sender's slot, whatever it wrote
        there, and the sender is told that it was passed on.
        """
        self.workers[0].say(2, "topic", "text", number=5)
        self.assertEqual(self.heard(), [[], [], [("topic", "text")]])
        self.assertEqual(self.workers[2].said[-1].sender, 0)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 5, 1)])

    def test_toOthers(self) -> None:
        """
        One to the other workers goes to all but the sender.
        """
        self.workers[0].say(OTHERS, "topic", 1, number=5)
        self.assertEqual(self.heard(), [[], [("topic", 1)], [("topic", 1)]])
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 5, 2)])

    def test_toAll(self) -> None:
        """
        One to all goes to the sender too.
        """
        self.workers[0].say(ALL, "topic", 1, number=5)
        self.assertEqual(self.heard(), [[("topic", 1)]] * 3)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 5, 3)])

    def test_toNobody(self) -> None:
        """
        The sender hears if a slot has no worker.
        """
        self.workers[0].say(9, "topic", 1, number=5)
        self.workers[0].ask(9, "topic", number=6)
        reason = "it has no worker now; try again when it has"
        self.assertEqual(
            self.answers(self.workers[0]),
            [(Kind.FAILURE, 5, reason), (Kind.FAILURE, 6, reason)],
        )

    def test_large(self) -> None:
        """
        A message of many parts is passed on as it is.
        """
        value = bytes(number % 251 for number in range(1_000_000))
        self.workers[0].transport.reactor = self.reactor
        self.workers[0].say(1, "topic", value)
        self.assertEqual(self.heard()[1], [("topic", value)])

    def test_call(self) -> None:
        """
        A question goes to a worker, and its answer to who asked, under the
        number that it gave.
        """
        self.workers[0].ask(1, "add", [1, 2], number=77)
        question = self.question(self.workers[1])
        self.assertEqual((question.sender, decode(question.value)), (0, [1, 2]))
        self.workers[1].answer(question, 3)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 77, 3)])

    def test_callFails(self) -> None:
        """
        So does the reason why there is none.
        """
        self.workers[0].ask(1, "add", number=77)
        self.workers[1].fail(self.question(self.workers[1]), "no")
        self.assertEqual(self.answers(self.workers[0]), [(Kind.FAILURE, 77, "no")])

    def test_calledDies(self) -> None:
        """
        Who asks is told at once when who was asked is gone.
        """
        self.workers[0].ask(1, "add", number=77)
        self.reactor.settle()
        self.spawner.latest(1).die()
        self.assertEqual(
            self.answers(self.workers[0]),
            [(Kind.FAILURE, 77, "the worker of slot 1 has ended")],
        )

    def test_callerDies(self) -> None:
        """
        An answer that nobody waits for is dropped, and nothing of it is kept.
        """
        self.workers[0].ask(1, "add", number=77)
        question = self.question(self.workers[1])
        self.spawner.latest(0).die()
        self.reactor.settle()
        self.assertEqual(self.messages._relays, {})
        self.workers[1].answer(question, 3)
        self.reactor.settle()
        self.assertTrue(self.workers[1].transport.connected)

    def test_callExpires(self) -> None:
        """
        Nothing is kept of a question for longer than who asked waits.
        """
        self.workers[0].ask(1, "add", timeout=2.0)
        self.reactor.settle()
        self.assertEqual(len(self.messages._relays), 1)
        self.wait(2)
        self.assertEqual(self.messages._relays, {})

    def test_unanswered(self) -> None:
        """
        So many questions may wait and no more, however long a worker that
        asks without end is willing to.
        """
        self.patch(messages, "MAX_RELAYS", 3)
        for number in range(5):
            self.workers[0].ask(1, "add", number=number, timeout=1e9)
        self.reactor.settle()
        self.assertEqual(len(self.messages._relays), 3)
        for kind, number, reason in self.answers(self.workers[0]):
            self.assertEqual(kind, Kind.FAILURE)
            self.assertIn(number, (3, 4))
            self.assertIn("too many calls wait for their answers", reason)
        self.assertEqual(len(self.answers(self.workers[0])), 2)
        self.workers[1].answer(self.workers[1].said[-1], 3)
        self.reactor.settle()
        self.workers[0].ask(1, "add", number=6)
        self.reactor.settle()
        self.assertEqual(len(self.workers[1].heard(Kind.CALL)), 4)

    def test_drainingAnswers(self) -> None:
        """
        A worker that drains still answers what it was asked.
        """
        self.workers[0].ask(1, "add", number=77)
        question = self.question(self.workers[1])
        self.workers[1].obedient = False
        restarted = self.master.restart(1)
        self.ready(1)
        self.assertIn("Drain", self.workers[1].told)
        self.workers[1].answer(question, 3)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 77, 3)])
        self.workers[0].say(1, "topic", "new")
        self.assertEqual(self.heard(Kind.MESSAGE)[1], [])
        self.assertEqual(self.worker(1).heard(), [("topic", "new")])
        self.workers[1].obedient = True
        self.workers[1].drained()
        self.reactor.settle()
        self.successResultOf(restarted)

    def test_toMaster(self) -> None:
        """
        The master's handlers get topic, value, the sender's slot and an
        identity of its process.
        """
        kept = self.handle("topic")
        self.workers[1].say(MASTER, "topic", {"a": 1}, number=5)
        self.assertEqual(self.answers(self.workers[1]), [(Kind.RESULT, 5, 1)])
        self.assertEqual(kept, [Message("topic", {"a": 1}, 1)])
        self.workers[1].say(MASTER, "topic", 2)
        self.workers[2].say(MASTER, "topic", 3)
        self.reactor.settle()
        first, second, third = (message.worker for message in kept)
        self.assertEqual(first, second)
        self.assertNotEqual(second, third)

    def test_callsMaster(self) -> None:
        """
        What a handler returns is the answer: a value, a Deferred or a
        coroutine.
        """
        waiting: list[Deferred[int]] = [Deferred(), Deferred()]

        async def soon() -> int:
            return await waiting[1] + 1

        for number, answer in enumerate((7, lambda: waiting[0], soon), 1):
            self.handle(f"topic {number}", answer)
            self.workers[0].ask(MASTER, f"topic {number}", number=number)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 1, 7)])
        for number, one in enumerate(waiting):
            one.callback(number)
        self.assertEqual(
            self.answers(self.workers[0])[1:], [(Kind.RESULT, 2, 0), (Kind.RESULT, 3, 2)]
        )

    def test_handlerFails(self) -> None:
        """
        A handler that raises: who asked gets the text, the log the traceback.
        """

        def fail() -> None:
            raise ValueError("no such thing")

        self.handle("topic", fail)
        self.workers[0].ask(MASTER, "topic")
        self.assertEqual(
            self.answers(self.workers[0]), [(Kind.FAILURE, 1, "ValueError: no such thing")]
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_badAnswer(self) -> None:
        """
        An answer that can't be sent is a failure too.
        """
        self.handle("topic", lambda: {1})
        self.workers[0].ask(MASTER, "topic")
        ((kind, _, reason),) = self.answers(self.workers[0])
        self.assertEqual(kind, Kind.FAILURE)
        self.assertIn("can't send a set", reason)
        self.assertEqual(len(self.flushLoggedErrors(AppError)), 1)

    def test_unhandled(self) -> None:
        """
        A topic that nothing handles: who asks is told, and the log once.
        """
        lines = Lines(self)
        for _ in range(3):
            self.workers[0].say(MASTER, "topic", 1)
        self.workers[0].ask(MASTER, "topic")
        self.assertIn(
            (Kind.FAILURE, 1, "the master handles no 'topic'"), self.answers(self.workers[0])
        )
        self.assertEqual(len(lines.containing("nothing here handles the topic 'topic'")), 1)

    def test_onUnhandled(self) -> None:
        """
        Unless there is something for what is left over.
        """
        self.messages.onUnhandled = lambda message: message.value * 2
        self.workers[0].ask(MASTER, "topic", 4)
        self.assertEqual(self.answers(self.workers[0]), [(Kind.RESULT, 1, 8)])

    def test_garbage(self) -> None:
        """
        A worker that sends what is no message loses its channel, with one
        line in the log; the others go on.
        """
        lines = Lines(self)
        box = parts.Packet(parts.APP_LANE, b"garbage").box(0)
        self.workers[0].transport.write(box)
        self.reactor.settle()
        self.assertEqual(len(lines.containing("protocol violation")), 1)
        self.assertFalse(self.workers[0].transport.connected)
        self.workers[1].say(2, "topic", 1)
        self.assertEqual(self.heard()[2], [("topic", 1)])

    def test_garbageAnswer(self) -> None:
        """
        So does one whose answer is none, and who asked is told.
        """
        lines = Lines(self)
        done = self.messages.call(0, "add", [1, 2], timeout=1e6)
        question = self.question(self.workers[0])
        self.workers[0]._speak(question._replace(kind=Kind.RESULT, value=b"garbage"))
        self.reactor.settle()
        self.failureOf(done, CallFailed)
        self.assertEqual(len(lines.containing("protocol violation")), 1)
        self.assertFalse(self.workers[0].transport.connected)

    def test_endless(self) -> None:
        """
        So does one that never comes to the end of a message: no more of it is
        kept than a message may have.
        """
        self.patch(parts, "MAX_MESSAGE", 4 * parts.CHUNK)
        lines = Lines(self)
        chunk = commands.encode(
            commands.Part, lane=parts.APP_LANE, last=False, data=bytes(parts.CHUNK)
        )
        for _ in range(20):
            self.workers[0].transport.write(chunk)
            self.reactor.settle()
        self.assertFalse(self.workers[0].transport.connected)
        self.assertEqual(len(lines.containing("a message of more than")), 1)

    def test_wrongPlace(self) -> None:
        """
        Targets that there are not, and answers to what nobody has asked, do
        no harm.
        """
        lines = Lines(self)
        for target in (-77, 1 << 40, OTHERS, ALL):
            self.workers[0].ask(target, "add", number=5)
        self.workers[0].answer(Envelope(Kind.CALL, 99, MASTER, 0, 0.0, "", b""), 1)
        self.workers[0].fail(Envelope(Kind.CALL, 99, MASTER, 0, 0.0, "", b""), "no")
        self.assertEqual(
            [(kind, number) for kind, number, _ in self.answers(self.workers[0])],
            [(Kind.FAILURE, 5)] * 4,
        )
        self.assertTrue(self.workers[0].transport.connected)
        self.assertEqual(lines.grave(), [])


class StuckTests(MessagesTestCase):
    """
    A worker that does not read.
    """

    slots = 2

    def setUp(self) -> None:
        super().setUp()
        self.patch(parts, "MAX_QUEUED", 1 << 20)
        self.workers[0].transport.stopReading()

    def fill(self) -> int:
        """
        Tell until the worker gets nothing more.

        @return: How many messages it was sent.
        """
        value = bytes(100_000)
        for count in range(1000):
            if self.messages.tell("topic", value) < 2:
                return count
            self.reactor.settle()
        raise AssertionError("there is no bound")

    def dropped(self) -> list[MessagesDropped]:
        """
        The events.
        """
        return [event for event in self.events if isinstance(event, MessagesDropped)]

    def test_bound(self) -> None:
        """
        The master keeps no more for it than the bound; the others get
        everything; it is said once, and counted.
        """
        lines = Lines(self)
        count = self.fill()
        for _ in range(5):
            self.assertEqual(self.messages.tell("topic", bytes(100_000)), 1)
        self.reactor.settle()
        self.assertEqual(len(self.heard()[1]), count + 6)
        (event,) = self.dropped()
        self.assertEqual(event.slot, 0)
        self.assertLessEqual(event.waiting, 1 << 20)
        self.assertEqual(self.status().dropped, 6)
        self.assertEqual(len(lines.containing("does not read")), 1)

    def test_again(self) -> None:
        """
        When it reads again it gets what was kept, whole and in order, and all
        that follows; the next time is said again.
        """
        count = self.fill()
        self.workers[0].transport.startReading()
        self.reactor.settle()
        self.messages.tell("topic", "more")
        self.assertEqual(len(self.heard()[0]), count + 1)
        self.assertEqual(self.heard()[0][-1], ("topic", "more"))
        self.workers[0].transport.stopReading()
        self.fill()
        self.assertEqual(len(self.dropped()), 2)

    def test_lostChannel(self) -> None:
        """
        A worker whose channel is closed is left out, but not said not to read.
        """
        (outbox, _) = self.messages._outboxes.values()
        transport: Any = outbox._transport
        self.patch(transport, "connected", False)
        self.assertEqual(self.messages.tell("topic", 1), 1)
        self.assertEqual((self.dropped(), self.status().dropped), ([], 0))

    def test_senderHears(self) -> None:
        """
        Who sends to it, or calls it, is told.
        """
        self.fill()
        value = bytes(100_000)
        for done in (self.messages.send(0, "t", value), self.messages.call(0, "t", value)):
            self.failureOf(done, CallFailed)
        self.workers[1].say(0, "t", value, number=1)
        self.workers[1].ask(0, "t", value, number=2)
        kinds = [(kind, number) for kind, number, _ in self.answers(self.workers[1])]
        self.assertEqual(kinds, [(Kind.FAILURE, 1), (Kind.FAILURE, 2)])

    def test_handoffs(self) -> None:
        """
        What waits for it in the transport stays small, so that sockets for it
        do not wait for messages.
        """
        self.fill()
        transport: Any = self.messages._outboxes
        backlogs = [outbox._transport.backlog for outbox in transport.values()]
        self.assertLess(max(backlogs), parts.AHEAD + 2 * parts.CHUNK)

    def test_dies(self) -> None:
        """
        When it dies, who waits is told, and nothing is left.
        """
        done = self.messages.send(0, "t", bytes(900_000))
        self.assertNoResult(done)
        self.spawner.latest(0).die()
        self.reactor.settle()
        self.failureOf(done, CallFailed)
        slots = [worker.pid for worker in self.messages._outboxes]
        self.assertNotIn(self.spawner.processes[0].pid, slots)
