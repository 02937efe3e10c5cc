"""
Tests for L{twisted_cluster.ops.admin} and L{twisted_cluster.ops.responder}:
both ends in memory.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AMP, AmpBox, Command, UnhandledCommand, parseString
from twisted.test.iosim import FakeTransport, IOPump
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.ops.fakes import FakeCluster
from tests.support import Lines
from twisted_cluster.events import Phase
from twisted_cluster.interfaces import ICluster
from twisted_cluster.ops import admin as ops
from twisted_cluster.ops.admin import AdminProtocol, AdminService
from twisted_cluster.ops.credentials import Credentials
from twisted_cluster.wire import admin as wire

Answer = Deferred[dict[str, Any]]

ROOT = Credentials(12, 0, 0)


class Tool(AMP):
    """
    A tool that speaks plain AMP and notes the progress it hears of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    def progress(self, **fields: Any) -> dict[str, Any]:
        """Note it."""
        self.heard.append(fields)
        return {}

    wire.Progress.responder(progress)


class Case(SynchronousTestCase):
    """
    A service for a fake cluster.
    """

    def setUp(self) -> None:
        self.cluster = FakeCluster()
        self.clock = Clock()
        self.peer: Credentials | None = ROOT
        self.service = AdminService(
            self.clock, self.cluster, "admin.sock", credentialsOf=lambda transport: self.peer
        )
        self.lines = Lines(self)

    def accept(self) -> AdminProtocol:
        """
        The master's end of a new connection.
        """
        protocol = self.service.accept()
        assert protocol is not None
        return protocol

    def tool(self) -> tuple[Tool, IOPump]:
        """
        A tool that is connected.
        """
        tool, protocol = Tool(), self.accept()
        ends = FakeTransport(tool, False), FakeTransport(protocol, True)
        protocol.makeConnection(ends[1])
        tool.makeConnection(ends[0])
        return tool, IOPump(tool, protocol, *ends, False)


class CommandTests(Case):
    """
    Each command, from a tool that speaks plain AMP.
    """

    def setUp(self) -> None:
        super().setUp()
        self.client, self.pump = self.tool()

    def ask(self, command: type[Command], **arguments: Any) -> Answer:
        """
        Send a command.
        """
        return self.outcome(self.client.callRemote(command, **arguments))

    def outcome(self, called: Answer) -> Answer:
        """
        Let a command through.  AMP takes an error for its own business unless
        it is handled at once.
        """
        done: Answer = Deferred()
        called.addCallbacks(done.callback, done.errback)
        self.pump.flush()
        return done

    def done(self, command: type[Command], **arguments: Any) -> dict[str, Any]:
        """
        Send a command that is answered at once.
        """
        return self.successResultOf(self.ask(command, **arguments))

    def assertAlive(self) -> None:
        """
        The connection still works.
        """
        self.assertEqual(self.done(wire.Broadcast, text="still here"), {"workers": 2})

    def test_fake(self) -> None:
        """
        The fake is a cluster, and the protocol a producer.
        """
        verifyObject(ICluster, self.cluster)
        verifyObject(IPushProducer, AdminProtocol(self.service))

    def test_hello(self) -> None:
        """
        C{Hello} tells versions and the process id.
        """
        self.assertEqual(
            self.done(wire.Hello), {"protocol": 1, "version": "0.1.0", "pid": self.cluster.pid}
        )

    def test_status(self) -> None:
        """
        C{Status} answers with the status as JSON.
        """
        answer = self.done(wire.Status)
        self.assertEqual((answer["part"], answer["parts"]), (0, 1))
        self.assertEqual(json.loads(answer["json"]), json.loads(self.asJson()))

    def asJson(self) -> str:
        """
        The status of the cluster as it is now.
        """
        return json.dumps(self.cluster.status().asDict())

    def grow(self) -> None:
        """
        Have a status that does not fit into one answer.
        """
        worker = self.cluster.workers[0]
        self.cluster.workers = tuple(replace(worker, slot=slot) for slot in range(1500))

    def test_statusInParts(self) -> None:
        """
        A status larger than an AMP value comes in parts of one snapshot, even
        if the cluster changes in between.
        """
        self.grow()
        expected = json.loads(self.asJson())
        first = self.done(wire.Status)
        self.assertGreater(first["parts"], 2)
        parts = [first["json"]]
        for number in range(1, first["parts"]):
            self.cluster.workers = self.cluster.workers[:number]
            answer = self.done(wire.Status, part=number)
            self.assertEqual((answer["part"], answer["parts"]), (number, first["parts"]))
            parts.append(answer["json"])
        self.assertEqual(json.loads(b"".join(parts)), expected)

    def test_snapshotsApart(self) -> None:
        """
        Each connection has its own snapshot.
        """
        self.grow()
        other, pump = self.tool()
        mine = self.done(wire.Status)
        self.cluster.workers = self.cluster.workers[:900]
        theirs = other.callRemote(wire.Status)
        pump.flush()
        self.assertNotEqual(mine["parts"], self.successResultOf(theirs)["parts"])
        self.assertEqual(self.done(wire.Status, part=1)["parts"], mine["parts"])

    def test_partOutOfOrder(self) -> None:
        """
        A part that the snapshot does not have, or of no snapshot at all, is
        refused with what to do, and so is one after the last part was read.
        """
        self.grow()
        cases = [(5, 0), (-1, 0)]
        for part, parts in cases:
            error = self.failureResultOf(self.ask(wire.Status, part=part), wire.BadRequest)
            self.assertIn(f"{parts} parts; begin with part 0", str(error.value))
        parts = self.done(wire.Status)["parts"]
        self.failureResultOf(self.ask(wire.Status, part=parts), wire.BadRequest)
        self.done(wire.Status, part=parts - 1)
        self.failureResultOf(self.ask(wire.Status, part=1), wire.BadRequest)

    def test_reload(self) -> None:
        """
        C{Reload} is answered when the reload has ended; a tool that wants to
        hears of each step before.
        """
        answer = self.ask(wire.Reload, progress=True)
        self.assertNoResult(answer)
        self.cluster.finish()
        self.pump.flush()
        self.assertEqual(self.successResultOf(answer), {"generation": 2})
        self.assertEqual(
            [(step["phase"], step["slot"], step["done"]) for step in self.client.heard],
            [
                ("begun", None, 0),
                ("ready", 0, 0),
                ("replaced", 0, 1),
                ("ready", 1, 1),
                ("replaced", 1, 2),
                ("done", None, 2),
            ],
        )
        self.assertEqual({step["generation"] for step in self.client.heard}, {2})

    def test_reloadQuietly(self) -> None:
        """
        A tool that did not ask for progress is sent none: plain AMP would
        close the connection over a command that it does not know.
        """
        answer = self.ask(wire.Reload)
        self.cluster.finish()
        self.pump.flush()
        self.successResultOf(answer)
        self.assertEqual(self.client.heard, [])

    def test_progressEnds(self) -> None:
        """
        What happens after the answer is nothing to hear of.
        """
        self.ask(wire.Reload, progress=True)
        self.cluster.finish()
        self.pump.flush()
        before = len(self.client.heard)
        self.cluster.reload()
        self.cluster.finish()
        self.pump.flush()
        self.assertEqual(len(self.client.heard), before)

    def test_reloadFails(self) -> None:
        """
        A failed reload is answered with the reason and the traceback of the
        app, and the connection lives on.
        """
        answer = self.ask(wire.Reload, progress=True)
        self.cluster.abort("slot 0: exit code 1", "Traceback\n  boom\n")
        self.pump.flush()
        error = self.failureResultOf(answer, wire.ReplacementFailed).value
        self.assertEqual(error.reason, "slot 0: exit code 1")
        self.assertEqual(error.traceback, "Traceback\n  boom\n")
        self.assertEqual(self.client.heard[-1]["phase"], "aborted")
        self.assertEqual(self.client.heard[-1]["reason"], "slot 0: exit code 1")
        self.assertAlive()

    def test_secondReload(self) -> None:
        """
        A reload while another is under way is refused; the first goes on.
        """
        first = self.ask(wire.Reload)
        error = self.failureResultOf(self.ask(wire.Reload, progress=True), wire.Refused).value
        self.assertEqual(error.reason, "can't reload: a replacement is under way; try again later")
        self.assertNoResult(first)
        self.cluster.finish()
        self.pump.flush()
        self.successResultOf(first)
        self.assertEqual(self.client.heard, [])

    def test_restart(self) -> None:
        """
        C{Restart} works like C{Reload}, for one slot.
        """
        answer = self.ask(wire.Restart, slot=1, progress=True)
        self.cluster.finish()
        self.pump.flush()
        self.assertEqual(self.successResultOf(answer), {"generation": 1})
        self.assertEqual(self.cluster.calls, [("restart", 1)])
        self.assertEqual(
            [step["slot"] for step in self.client.heard if step["phase"] == "replaced"], [1]
        )

    def test_noSuchSlot(self) -> None:
        """
        A slot that does not exist is answered with an error of its own.
        """
        for slot in (99, -1):
            error = self.failureResultOf(self.ask(wire.Restart, slot=slot), wire.UnknownSlot)
            self.assertIn("there are slots 0 to 1", str(error.value))
        self.assertAlive()

    def test_scale(self) -> None:
        """
        C{Scale} is answered when the cluster has got there.
        """
        answer = self.ask(wire.Scale, wanted=5)
        self.assertNoResult(answer)
        assert self.cluster.scaling is not None
        self.cluster.scaling.callback(5)
        self.pump.flush()
        self.assertEqual(self.successResultOf(answer), {"wanted": 5})

    def test_scaleRefused(self) -> None:
        """
        An impossible number of workers is refused.
        """
        error = self.failureResultOf(self.ask(wire.Scale, wanted=-1), wire.Refused).value
        self.assertEqual(
            error.reason, "can't scale to -1: that is no number of workers; give another"
        )
        self.assertAlive()

    def test_broadcast(self) -> None:
        """
        C{Broadcast} says to how many workers the text went, and takes the
        largest text that AMP can carry.
        """
        text = "x" * wire.MAX_VALUE
        self.assertEqual(self.done(wire.Broadcast, text=text), {"workers": 2})
        self.assertEqual(self.cluster.calls, [("broadcast", text)])

    def test_broadcastRefused(self) -> None:
        """
        A refusal that the cluster raises at once is an answer as well.
        """
        self.failureResultOf(self.ask(wire.Broadcast, text="too long for this one"), wire.Refused)
        self.assertAlive()

    def test_stop(self) -> None:
        """
        C{Stop} is answered when no worker is left; draining is the default.
        """
        answer = self.ask(wire.Stop)
        self.assertNoResult(answer)
        assert self.cluster.stopping is not None
        self.cluster.stopping.callback(None)
        self.pump.flush()
        self.assertEqual(self.successResultOf(answer), {})
        self.ask(wire.Stop, now=True)
        self.assertEqual(self.cluster.calls, [("stop", False), ("stop", True)])

    def test_stopAnsweredBeforeClosing(self) -> None:
        """
        When the service stops first, commands under way are still answered
        before the connection ends.
        """
        answer = self.ask(wire.Stop)
        closed = self.service.stopService()
        self.pump.flush()
        self.assertNoResult(answer)
        self.assertNoResult(closed)
        assert self.cluster.stopping is not None
        self.cluster.stopping.callback(None)
        self.pump.flush()
        self.assertEqual(self.successResultOf(answer), {})
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformedArgument(self) -> None:
        """
        An argument of the wrong type is answered with an error, does nothing,
        and the connection lives on.
        """
        answer = self.outcome(self.client.callRemoteString(b"Scale", wanted=b"many"))
        error = self.failureResultOf(answer).value
        self.assertEqual(error.errorCode, b"BAD_REQUEST")
        self.assertEqual(self.cluster.calls, [])
        self.assertAlive()

    def test_unknownCommand(self) -> None:
        """
        So is a command that does not exist, with AMP's own code.
        """
        answer = self.outcome(self.client.callRemoteString(b"Dance"))
        error = self.failureResultOf(answer, UnhandledCommand).value
        self.assertIn("Broadcast, Hello, Reload", str(error))
        self.assertAlive()

    def test_noAnswerWanted(self) -> None:
        """
        A command without a tag is carried out, and not answered; what goes
        wrong is in the log.
        """
        self.client.callRemoteString(b"Broadcast", requiresAnswer=False, text=b"hi")
        self.client.callRemoteString(b"Restart", requiresAnswer=False, slot=b"9")
        self.pump.flush()
        self.assertEqual(self.cluster.calls, [("broadcast", "hi"), ("restart", 9)])
        (line,) = self.lines.grave()
        self.assertIn("process 12 of user 0: can't restart slot 9", line)
        self.assertAlive()

    def test_bug(self) -> None:
        """
        An error that nobody planned for is logged with its traceback; the tool
        learns that there was one, and the connection lives on.
        """
        answer = self.ask(wire.Scale, wanted=2)
        assert self.cluster.scaling is not None
        self.cluster.scaling.errback(ZeroDivisionError("a bug"))
        self.pump.flush()
        error = self.failureResultOf(answer, wire.Internal)
        self.assertNotIn("a bug", str(error.value))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertAlive()

    def test_tooManyPending(self) -> None:
        """
        A connection may have only so many commands under way; one more is
        refused, and there is room again when one has ended.
        """
        answers = [self.ask(wire.Scale, wanted=1) for _ in range(ops.MAX_PENDING)]
        error = self.failureResultOf(self.ask(wire.Broadcast, text="hi"), wire.Refused)
        self.assertIn(f"{ops.MAX_PENDING} commands are under way", str(error.value))
        assert self.cluster.scaling is not None
        self.cluster.scaling.callback(1)
        self.pump.flush()
        self.successResultOf(answers[-1])
        self.assertAlive()

    def test_said(self) -> None:
        """
        The log says who asked for what; what only looks at the cluster leaves
        no line.
        """
        self.done(wire.Status)
        self.done(wire.Hello)
        self.assertEqual(self.lines.containing("asks"), [])
        self.ask(wire.Restart, slot=1)
        self.assertEqual(
            self.lines.containing("asks"),
            ["admin socket: process 12 of user 0 asks: Restart slot=1"],
        )

    def test_vanishes(self) -> None:
        """
        A tool that goes away while its reload is under way does not end it,
        and its end, good or bad, hurts nobody.
        """
        for end in (self.cluster.finish, lambda: self.cluster.abort("x")):
            tool, pump = self.tool()
            gone = tool.callRemote(wire.Reload, progress=True)
            pump.flush()
            pump.clientIO.loseConnection()
            pump.flush()
            self.failureResultOf(gone)
            self.assertIsNotNone(self.cluster.replacement)
            end()
        self.assertEqual(self.cluster.failures, [])
        self.assertEqual(self.lines.grave(), [])


def ask(name: bytes, tag: bytes = b"1", **arguments: bytes) -> bytes:
    """
    The bytes of a command.
    """
    box = AmpBox(arguments)
    box[b"_command"], box[b"_ask"] = name, tag
    return bytes(box.serialize())


class Wire(StringTransport):
    """
    A transport that notes how it was ended, and is full when told to be.

    @ivar aborted: Whether the connection was cut off.
    @ivar closed: Whether it was ended in good order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.closed = False

    def abortConnection(self) -> None:
        """See L{ITCPTransport.abortConnection}."""
        self.aborted = True

    def loseConnection(self) -> None:
        """See L{ITransport.loseConnection}."""
        self.closed = True

    def boxes(self) -> list[AmpBox]:
        """
        What was written since the last call.
        """
        data = self.value()
        self.clear()
        found: list[AmpBox] = parseString(data)
        return found


class HostileTests(Case):
    """
    What a peer does wrong costs it the connection, one line in the log, and
    nobody else anything.
    """

    def connect(self) -> tuple[AdminProtocol, Wire]:
        """
        A connection whose transport is in the hands of the test.
        """
        protocol, transport = self.accept(), Wire()
        protocol.makeConnection(transport)
        return protocol, transport

    def assertCut(self, transport: Wire, cause: str) -> None:
        """
        The connection was cut off for C{cause}, with a single line in the log
        and nothing left to wait for.
        """
        self.assertTrue(transport.aborted)
        (line,) = self.lines.grave()
        self.assertIn(f"process 12 of user 0 is cut off: {cause}", line)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def barred(self) -> tuple[AdminProtocol, Wire]:
        """
        A connection of a user who may not use the socket.
        """
        self.peer = Credentials(12, 33, 33)
        self.addCleanup(setattr, self, "peer", ROOT)
        self.service._allowedUids = frozenset({0})
        return self.connect()

    def assertTurnedAway(self) -> None:
        """
        Nothing was carried out or is waited for, and the log has a single line.
        """
        self.assertEqual(self.cluster.calls, [])
        self.assertEqual(
            self.lines.grave(),
            ["admin socket: process 12 of user 33 is cut off: it may not use it"],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forbidden(self) -> None:
        """
        A user who may not use the socket is told so at the first command, of
        which nothing is carried out, and the connection ends.
        """
        protocol, transport = self.barred()
        data = ask(b"Broadcast", b"7", text=b"hi")
        protocol.dataReceived(data[:-1])
        self.assertEqual((transport.value(), transport.closed), (b"", False))
        protocol.dataReceived(data[-1:] + data)
        (box,) = transport.boxes()
        self.assertEqual((box[b"_error"], box[b"_error_code"]), (b"7", b"FORBIDDEN"))
        self.assertEqual(
            box[b"_error_description"],
            b"can't use the admin socket: process 12 of user 33 is neither the master's user nor"
            b" root; run this as one of them",
        )
        self.assertTrue(transport.closed)
        protocol.dataReceived(data)
        self.assertEqual(transport.value(), b"")
        self.assertTurnedAway()

    def test_forbiddenWithoutAsk(self) -> None:
        """
        Such a user gets no answer to what wants none.
        """
        protocol, transport = self.barred()
        protocol.dataReceived(AmpBox(_command=b"Stop").serialize())
        self.assertEqual((transport.value(), transport.closed), (b"", True))
        self.assertTurnedAway()

    def test_forbiddenGarbage(self) -> None:
        """
        Such a user is cut off for what is not AMP.
        """
        protocol, transport = self.barred()
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.aborted)
        self.assertTurnedAway()

    def test_forbiddenSlowly(self) -> None:
        """
        Such a user has no more time if it sends its command bit by bit.
        """
        protocol, transport = self.barred()
        self.clock.advance(ops.STALL_TIMEOUT - 1)
        protocol.dataReceived(b"\0")
        self.assertFalse(transport.aborted)
        self.clock.advance(1)
        self.assertTrue(transport.aborted)
        self.assertTurnedAway()

    def test_forbiddenMakeRoom(self) -> None:
        """
        Such users are the first to lose their places.
        """
        tools = [self.connect()[1] for _ in range(ops.MAX_CONNECTIONS - 1)]
        self.clock.advance(1)
        _, transport = self.barred()
        self.peer = ROOT
        self.connect()
        self.assertTrue(transport.aborted)
        self.assertEqual([tool for tool in tools if tool.aborted], [])

    def test_noCredentials(self) -> None:
        """
        Where the platform does not tell who the peer is, the mode of the
        socket has to do.
        """
        self.peer = None
        protocol, transport = self.connect()
        protocol.dataReceived(ask(b"Broadcast", text=b"hi"))
        self.assertEqual(len(transport.boxes()), 1)

    def test_garbage(self) -> None:
        """
        What is not AMP is cut off, after what came before it.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(ask(b"Broadcast", text=b"hi") + b"GET / HTTP/1.1\r\n\r\n")
        self.assertCut(transport, "a key of 18245 bytes, so this is not AMP")
        self.assertEqual(self.cluster.calls, [("broadcast", "hi")])
        protocol.dataReceived(ask(b"Broadcast", text=b"more"))
        self.assertEqual(len(self.cluster.calls), 1)

    def test_answersNobodyAskedFor(self) -> None:
        """
        Boxes that are no commands are cut off: the master never asks.
        """
        for box in (AmpBox({b"_answer": b"1"}), AmpBox()):
            self.lines.events.clear()
            protocol, transport = self.connect()
            protocol.dataReceived(box.serialize())
            self.assertCut(transport, "a box that is no command")

    def test_hugeBox(self) -> None:
        """
        A box that never ends is cut off at a fixed size.
        """
        protocol, transport = self.connect()
        sent = 0
        while not transport.aborted:
            protocol.dataReceived(b"\0\x01a\xff\xff" + b"x" * wire.MAX_VALUE)
            sent += wire.MAX_VALUE
            self.assertLess(sent, 2 * wire.MAX_BOX)
        self.assertCut(transport, f"a box of more than {wire.MAX_BOX} bytes")

    def test_halfBox(self) -> None:
        """
        A box that is left unfinished is cut off after a while, however slowly
        it goes on growing.
        """
        protocol, transport = self.connect()
        for byte in ask(b"Hello")[:9]:
            protocol.dataReceived(bytes([byte]))
            self.clock.advance(1)
        self.assertFalse(transport.aborted)
        self.clock.advance(1)
        self.assertCut(transport, "it has left a box unfinished for 10 s")

    def test_slowBoxes(self) -> None:
        """
        A tool that completes a box now and then has its time anew for each,
        and one that says nothing at all is left in peace.
        """
        protocol, transport = self.connect()
        data = ask(b"Hello")
        for _ in range(5):
            protocol.dataReceived(data[-4:] if transport.value() else data)
            protocol.dataReceived(data[:-4])
            self.clock.advance(ops.STALL_TIMEOUT - 1)
        protocol.dataReceived(data[-4:])
        self.clock.advance(1000 * ops.STALL_TIMEOUT)
        self.assertFalse(transport.aborted)
        self.assertEqual(len(transport.boxes()), 6)
        self.assertEqual(self.lines.grave(), [])

    def test_doesNotRead(self) -> None:
        """
        A tool that does not read its answers is given no more of them, and is
        cut off after a while.
        """
        protocol, transport = self.connect()
        protocol.pauseProducing()
        self.assertEqual(transport.producerState, "paused")
        protocol.dataReceived(ask(b"Hello") * 3)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(ops.STALL_TIMEOUT)
        self.assertCut(transport, "it does not read its answers for 10 s")

    def test_readsAgain(self) -> None:
        """
        A tool that reads again gets the answers that it waits for, and no
        deadline goes on.
        """
        protocol, transport = self.connect()
        protocol.pauseProducing()
        protocol.dataReceived(ask(b"Hello") * 3)
        protocol.resumeProducing()
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(len(transport.boxes()), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fullInTheMiddle(self) -> None:
        """
        When the transport gets full between two commands that came together,
        the second one waits.
        """
        protocol, transport = self.connect()
        write = transport.write

        def fillUp(data: bytes) -> None:
            write(data)
            protocol.pauseProducing()

        transport.write = fillUp  # type: ignore[method-assign]
        protocol.dataReceived(ask(b"Hello", b"1") + ask(b"Hello", b"2"))
        self.assertEqual([box[b"_answer"] for box in transport.boxes()], [b"1"])
        protocol.resumeProducing()
        self.assertEqual([box[b"_answer"] for box in transport.boxes()], [b"2"])

    def test_unreadProgress(self) -> None:
        """
        Progress that is not read is held up to a bound; then the tool is cut
        off and hears no more, while the reload goes on.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(ask(b"Reload", progress=b"True"))
        protocol.pauseProducing()
        for _ in range(10):
            self.cluster.step(Phase.SPAWNED, reason="x" * 60_000)
        self.assertCut(transport, f"it has left more than {ops.MAX_UNREAD} bytes unread")
        self.assertLessEqual(len(transport.value()), ops.MAX_UNREAD + 1000)
        self.cluster.finish()
        self.assertEqual(self.cluster.failures, [])

    def test_endlessReason(self) -> None:
        """
        Whatever is written into a broadcast stays short in the log.
        """
        protocol, _ = self.connect()
        protocol.dataReceived(ask(b"Broadcast", text=b"x\n" * 30_000))
        (line,) = self.lines.containing("asks")
        self.assertLess(len(line), 200)
        self.assertNotIn("\n", line)

    def test_closeWithoutReader(self) -> None:
        """
        A tool that does not read, or whose command does not end, holds up the
        end of the service for a moment only.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(ask(b"Reload"))
        closed = self.service.stopService()
        self.assertFalse(transport.closed)
        self.clock.advance(ops.CLOSE_TIMEOUT)
        self.assertTrue(transport.aborted)
        protocol.connectionLost()
        self.successResultOf(closed)
        self.cluster.finish()

    def test_lostAfterCut(self) -> None:
        """
        The end of a connection that was cut off leaves nothing behind.
        """
        protocol, _ = self.connect()
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        protocol.connectionLost()
        self.successResultOf(protocol.lost)
        self.successResultOf(self.service.stopService())


class RoomTests(Case):
    """
    How many may be connected.
    """

    def connect(self) -> tuple[AdminProtocol, Wire]:
        """
        A connection whose transport is in the hands of the test.
        """
        protocol, transport = self.accept(), Wire()
        protocol.makeConnection(transport)
        self.clock.advance(1)
        return protocol, transport

    def test_idleMakeRoom(self) -> None:
        """
        When all places are taken, the tool that has been idle for the longest
        time loses its own to the next: nobody can lock the operator out.
        """
        ends = [self.connect() for _ in range(ops.MAX_CONNECTIONS)]
        ends[0][0].dataReceived(ask(b"Hello"))
        ends[1][0].dataReceived(ask(b"Reload"))
        self.connect()
        self.assertEqual([number for number, (_, t) in enumerate(ends) if t.aborted], [2])
        self.connect()
        self.assertEqual([number for number, (_, t) in enumerate(ends) if t.aborted], [2, 3])
        self.assertIn("another tool wants its place", self.lines.grave()[0])

    def test_allBusy(self) -> None:
        """
        When all are busy, one more is refused; there is room again when one
        has gone.
        """
        ends = [self.connect() for _ in range(ops.MAX_CONNECTIONS)]
        for protocol, _ in ends:
            protocol.dataReceived(ask(b"Scale", wanted=b"3"))
        self.assertIsNone(self.service.accept())
        self.assertIn("refused one", self.lines.grave()[0])
        ends[5][0].connectionLost()
        self.connect()
        self.assertEqual([t for _, t in ends if t.aborted], [])
