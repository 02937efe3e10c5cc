"""
Tests for L{twisted_cluster.wire.admin}.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.amp import AmpBox, Command, parseString
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import (
    AppLoadError,
    ClusterError,
    NoSuchSlot,
    OperatorError,
    PeerError,
    ReloadFailed,
    ReloadRefused,
)
from twisted_cluster.events import HostStepped, ListenerState, Phase, ReloadStepped, State
from twisted_cluster.interfaces import (
    Account,
    ClusterStatus,
    ListenerStatus,
    RollingStatus,
    WorkerStatus,
)
from twisted_cluster.wire import admin
from twisted_cluster.wire.admin import MAX_BOX, MAX_KEYS, MAX_VALUE, BoxReader

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

keys = st.binary(min_size=1, max_size=255)
boxes = st.dictionaries(keys, st.binary(max_size=300), min_size=1, max_size=MAX_KEYS)


def read(data: bytes) -> list[AmpBox]:
    """
    All boxes in C{data}.
    """
    reader = BoxReader()
    reader.feed(data)
    return taken(reader)


def taken(reader: BoxReader) -> list[AmpBox]:
    """
    All boxes that C{reader} has complete.
    """
    found = []
    box = reader.next()
    while box is not None:
        found.append(box)
        box = reader.next()
    return found


class DocumentationTests(SynchronousTestCase):
    """
    The specification in C{docs/admin-protocol.rst}.
    """

    def setUp(self) -> None:
        path = os.path.join(ROOT, "docs", "admin-protocol.rst")
        with open(path, encoding="utf-8") as file:
            self.text = file.read()

    def section(self, name: str) -> str:
        """
        The section of a command.
        """
        _, _, rest = self.text.partition(f"\n{name}\n{'.' * len(name)}\n")
        return re.split(r"\n\S+\n(?:\.+|-+)\n", rest)[0]

    def test_commands(self) -> None:
        """
        Each command has a section with all that it takes and answers, each
        with its type.
        """
        commands: list[type[Command]] = [
            *admin.REQUESTS.values(),
            admin.Progress,
            admin.HostProgress,
        ]
        for command in commands:
            section = self.section(command.__name__)
            for name, kind in [*command.arguments, *command.response]:
                type_ = f"``{type(kind).__name__}``" + (", optional" if kind.optional else " ")
                rows = re.findall(rf"^``{name.decode('ascii')}`` +(.*)", section, re.MULTILINE)
                self.assertTrue(
                    [row for row in rows if f"{row} ".startswith(type_)], (command, name)
                )

    def test_numbers(self) -> None:
        """
        Codes, phases, states and limits are there.
        """
        codes = [kind.code.decode("ascii") for kind in admin.CommandFailed.__subclasses__()]
        states = [state.value for state in (*Phase, *State, *ListenerState)]
        for word in [*codes, *states]:
            self.assertIn(f"``{word}``", self.text)
        for number in (MAX_BOX, MAX_VALUE):
            self.assertIn(f"{number:,} bytes", self.text)
        self.assertIn(f"{MAX_KEYS} keys", self.text)
        self.assertIn(f"specifies version {admin.ADMIN_PROTOCOL_VERSION} ", self.text)

    def test_status(self) -> None:
        """
        So is each member of the status object.
        """
        records = (ClusterStatus, WorkerStatus, ListenerStatus, RollingStatus, Account)
        for record in records:
            for field in dataclasses.fields(record):
                self.assertIn(f"``{field.name}``", self.text)


class BoxReaderTests(SynchronousTestCase):
    """
    The reader cuts bytes as AMP does, within bounds.
    """

    @given(st.lists(boxes, max_size=4), st.lists(st.integers(0, 4000), max_size=6))
    def test_anyCuts(self, sent: list[dict[bytes, bytes]], cuts: list[int]) -> None:
        """
        However the bytes arrive, the boxes that come out went in.
        """
        data = b"".join(AmpBox(box).serialize() for box in sent)
        reader = BoxReader()
        found: list[AmpBox] = []
        ends = sorted(cut for cut in cuts if cut < len(data))
        for start, end in zip([0, *ends], [*ends, len(data)]):
            reader.feed(data[start:end])
            found += taken(reader)
        self.assertEqual(found, sent)
        self.assertFalse(reader.isPartial)

    @given(boxes)
    def test_sameAsAMP(self, sent: dict[bytes, bytes]) -> None:
        """
        AMP's own parser finds the same.
        """
        data = AmpBox(sent).serialize()
        self.assertEqual(read(data), parseString(data))

    @given(st.binary(max_size=600))
    def test_anyBytes(self, data: bytes) -> None:
        """
        Whatever comes in, the reader returns boxes, waits or raises
        L{PeerError}; nothing else.
        """
        try:
            found = read(data)
        except PeerError:
            return
        for box in found:
            self.assertIsInstance(box, AmpBox)

    def test_partial(self) -> None:
        """
        The reader tells an unfinished box from none at all.
        """
        reader = BoxReader()
        self.assertFalse(reader.isPartial)
        reader.feed(b"\0")
        self.assertIsNone(reader.next())
        self.assertTrue(reader.isPartial)
        reader.feed(b"\x01a\0\x01b\0\0")
        self.assertTrue(reader.isPartial)
        self.assertEqual(reader.next(), {b"a": b"b"})
        self.assertFalse(reader.isPartial)

    def test_largestValue(self) -> None:
        """
        A value of 65,535 bytes passes.
        """
        box = AmpBox({b"text": b"x" * MAX_VALUE, b"_command": b"Broadcast", b"_ask": b"1"})
        self.assertEqual(read(box.serialize()), [box])

    def test_notAMP(self) -> None:
        """
        A key longer than AMP allows is refused at once.
        """
        self.assertIn("not AMP", str(self.assertRaises(PeerError, read, b"GET / HTTP/1.1\r\n")))

    def test_tooManyKeys(self) -> None:
        """
        A box with one key too many is refused before it is complete, and
        repeating a key does not help.
        """
        key = b"\0\x01a\0\x01b"
        self.assertEqual(read(key * MAX_KEYS), [])
        error = self.assertRaises(PeerError, read, key * (MAX_KEYS + 1))
        self.assertIn(f"more than {MAX_KEYS} keys", str(error))

    def test_tooLarge(self) -> None:
        """
        A box that is too large is refused, complete or not.
        """
        key = b"\0\x01a\xff\xff" + b"x" * MAX_VALUE
        for end in (b"", b"\0\0"):
            error = self.assertRaises(PeerError, read, key * 2 + end)
            self.assertIn(f"more than {MAX_BOX} bytes", str(error))

    def test_bounded(self) -> None:
        """
        A reader that is fed without end never holds more than a box and a
        value.
        """
        reader = BoxReader()
        data = (b"\0\x01a\xff\xff" + b"x" * MAX_VALUE) * 10
        fed = 0
        try:
            for start in range(0, len(data), 1000):
                reader.feed(data[start : start + 1000])
                fed += 1000
                self.assertIsNone(reader.next())
        except PeerError:
            self.assertLess(fed, MAX_BOX + MAX_VALUE)
            return
        self.fail("not refused")


class ParseTests(SynchronousTestCase):
    """
    What a box asks for.
    """

    def parse(self, **box: bytes) -> tuple[type[Command], dict[str, Any]]:
        """
        Parse a box.
        """
        return admin.parse(AmpBox({name.encode("ascii"): value for name, value in box.items()}))

    def refusal(self, **box: bytes) -> str:
        """
        Parse a box that must be refused.
        """
        return str(self.assertRaises(admin.BadRequest, self.parse, **box))

    def test_whatAMPSends(self) -> None:
        """
        Arguments come out as AMP encodes them from Python values.
        """
        sent: list[tuple[type[Command], dict[str, Any]]] = [
            (admin.Hello, {}),
            (admin.Status, {"part": 3}),
            (admin.Reload, {"progress": True}),
            (admin.Restart, {"slot": 7, "progress": False}),
            (admin.Scale, {"wanted": -1}),
            (admin.Broadcast, {"text": "h\xe9llo"}),
            (admin.Stop, {"now": True}),
        ]
        for command, values in sent:
            box = command.makeArguments(dict(values), None)
            box[b"_command"] = command.commandName
            self.assertEqual(admin.parse(box), (command, values))

    def test_leftOut(self) -> None:
        """
        An optional argument that was left out is L{None}.
        """
        self.assertEqual(self.parse(_command=b"Stop"), (admin.Stop, {"now": None}))

    def test_unknownArguments(self) -> None:
        """
        Arguments that a later version may have are ignored.
        """
        self.assertEqual(self.parse(_command=b"Hello", later=b"x"), (admin.Hello, {}))

    def test_malformed(self) -> None:
        """
        The refusal names the command, the argument and what came.
        """
        self.assertEqual(
            self.refusal(_command=b"Scale", wanted=b"many"),
            "can't do Scale: its argument wanted is 'many'; send Integer as AMP encodes it",
        )
        self.assertEqual(
            self.refusal(_command=b"Scale"),
            "can't do Scale: its argument wanted is missing; send Integer as AMP encodes it",
        )
        self.assertIn("argument now is 'yes'", self.refusal(_command=b"Stop", now=b"yes"))
        self.assertIn("argument text is", self.refusal(_command=b"Broadcast", text=b"\xff\xfe"))

    def test_longNumber(self) -> None:
        """
        A number too long for Python is refused, and not repeated in full.
        """
        text = self.refusal(_command=b"Scale", wanted=b"9" * 60_000)
        self.assertIn("...", text)
        self.assertLess(len(text), 300)

    def test_unknownCommand(self) -> None:
        """
        The refusal of an unknown command says which ones exist.
        """
        error = self.assertRaises(admin.Unhandled, self.parse, _command=b"Relaod")
        self.assertIn("can't do 'Relaod': there is no such command", str(error))
        for name in admin.REQUESTS:
            self.assertIn(name.decode("ascii"), str(error))

    def test_noCommand(self) -> None:
        """
        A box that asks for nothing breaks the protocol.
        """
        self.assertRaises(PeerError, self.parse, _answer=b"1")
        self.assertRaises(PeerError, self.parse)


class ErrorTests(SynchronousTestCase):
    """
    What the cluster raises becomes an error that AMP can carry.
    """

    def answer(self, error: ClusterError) -> admin.CommandFailed:
        """
        The answer to a command that failed with C{error}.
        """
        answer = admin.failureOf(error)
        assert answer is not None
        return answer

    def test_codes(self) -> None:
        """
        Each fault has its code.
        """
        cases: list[tuple[ClusterError, bytes]] = [
            (ReloadRefused("reload", "x", "y"), b"REFUSED"),
            (OperatorError("broadcast", "x", "y"), b"REFUSED"),
            (NoSuchSlot("restart slot 9", "x", "y"), b"NO_SUCH_SLOT"),
            (ReloadFailed("x"), b"RELOAD_FAILED"),
            (AppLoadError("x"), b"RELOAD_FAILED"),
            (admin.BadRequest("x"), b"BAD_REQUEST"),
        ]
        for error, code in cases:
            self.assertEqual(self.answer(error).code, code)

    def test_unexpected(self) -> None:
        """
        An error that nobody has planned for has no answer of its own.
        """
        self.assertIsNone(admin.failureOf(PeerError("x")))

    def test_traceback(self) -> None:
        """
        The first line is the reason, the rest the traceback of the app.
        """
        answer = self.answer(ReloadFailed("slot 0\nfailed", "Traceback:\n  boom\n"))
        self.assertEqual(answer.reason, "slot 0 failed")
        self.assertEqual(answer.traceback, "Traceback:\n  boom\n")
        self.assertEqual(self.answer(ReloadFailed("slow")).traceback, "")

    @given(st.text(max_size=300), st.text(max_size=300), st.integers(1, 2000))
    def test_fits(self, reason: str, traceback: str, times: int) -> None:
        """
        Whatever the app's words, the error fits into a value, and as much of
        the end of the traceback is there as can be.
        """
        answer = self.answer(ReloadFailed(reason * times, traceback * times))
        (box,) = parseString(admin.encodeError(b"1", answer))
        description = box[b"_error_description"]
        self.assertLessEqual(len(description), MAX_VALUE)
        found = admin.ReplacementFailed(description.decode("utf-8"))
        sent = (traceback * times).encode("utf-8", "backslashreplace").decode("utf-8")
        self.assertTrue(sent.endswith(found.traceback))
        if len(sent) < 10_000:
            self.assertEqual(found.traceback, sent)

    def test_longReason(self) -> None:
        """
        A reason too long for a value is trimmed, in whole characters.
        """
        (box,) = parseString(admin.encodeError(b"1", admin.Refused("\N{EURO SIGN}" * 40_000)))
        description = box[b"_error_description"].decode("utf-8")
        self.assertEqual(description, "\N{EURO SIGN}" * (MAX_VALUE // 3))


class HostProgressTests(SynchronousTestCase):
    """
    Steps of a reload of all hosts, on the wire.
    """

    def test_fields(self) -> None:
        """
        AMP finds the fields of the step; a long reason is cut.
        """
        step = HostStepped(1.0, "web1 (pid 7)", Phase.REPLACED, 1, 3, 9, 0, 2, 4, "é" * 40_000)
        (box,) = parseString(admin.encodeHostProgress(step))
        self.assertEqual(box.pop(b"_command"), b"HostProgress")
        self.assertNotIn(b"_ask", box)
        fields: dict[str, Any] = admin.HostProgress.parseArguments(box, None)
        self.assertEqual(len(fields.pop("reason")), admin.MAX_VALUE // 2)
        expected = {**dataclasses.asdict(step), "phase": "replaced"}
        del expected["at"], expected["reason"]
        self.assertEqual(fields, expected)

    def test_whole(self) -> None:
        """
        A step of the whole host has no slot.
        """
        step = HostStepped(1.0, "web1 (pid 7)", Phase.BEGUN, 0, 3)
        (box,) = parseString(admin.encodeHostProgress(step))
        self.assertIsNone(admin.HostProgress.parseArguments(box, None)["slot"])


class ProgressTests(SynchronousTestCase):
    """
    Steps of a replacement, on the wire.
    """

    def fields(self, step: ReloadStepped) -> dict[str, Any]:
        """
        What AMP's own parser makes of the step.
        """
        (box,) = parseString(admin.encodeProgress(step))
        self.assertEqual(box.pop(b"_command"), b"Progress")
        self.assertNotIn(b"_ask", box)
        fields: dict[str, Any] = admin.Progress.parseArguments(box, None)
        return fields

    def test_fields(self) -> None:
        """
        AMP finds the fields of the step.
        """
        self.assertEqual(
            self.fields(ReloadStepped(1.5, 3, Phase.REPLACED, 2, 1, 4, "")),
            {
                "generation": 3,
                "phase": "replaced",
                "slot": 2,
                "done": 1,
                "total": 4,
                "reason": "",
            },
        )

    def test_whole(self) -> None:
        """
        A step of the whole has no slot, and a long reason is trimmed.
        """
        step = ReloadStepped(1.5, 3, Phase.ABORTED, None, 1, 4, "x" * 70_000)
        fields = self.fields(step)
        self.assertIsNone(fields["slot"])
        self.assertEqual(fields["reason"], "x" * MAX_VALUE)
