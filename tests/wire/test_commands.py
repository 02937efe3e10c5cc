"""
Tests for L{twisted_cluster.wire.commands}.
"""

from __future__ import annotations

import inspect
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.amp import AmpBox, Command, parseString
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import PeerError
from twisted_cluster.wire import commands

numbers = st.integers(0, 2**64 - 1)
counts = st.integers(0, 2**80)


def parsed(command: type[Command], data: bytes) -> dict[str, Any]:
    """
    What AMP's own parser makes of the bytes of one box.
    """
    (box,) = parseString(data)
    assert box.pop(b"_command") == command.commandName
    values: dict[str, Any] = command.parseArguments(box, None)
    return values


class HandmadeTests(SynchronousTestCase):
    """
    Frequent boxes are put together by hand.  They must be what AMP itself
    makes and understands.
    """

    @given(first=counts, listeners=st.lists(numbers, max_size=253))
    def test_handoff(self, first: int, listeners: list[int]) -> None:
        """
        AMP parses a handmade C{Handoff} to what went in, and its own encoding
        has the same keys and values.
        """
        data = commands.encodeHandoff(first, listeners)
        self.assertEqual(parsed(commands.Handoff, data), {"first": first, "listeners": listeners})
        self.assertEqual(
            parseString(data),
            parseString(commands.encode(commands.Handoff, first=first, listeners=listeners)),
        )

    @given(received=counts, closed=counts, touched=st.lists(numbers, max_size=300))
    def test_ack(self, received: int, closed: int, touched: list[int]) -> None:
        """
        AMP parses a handmade C{Ack} to what went in, and its own encoding has
        the same keys and values.
        """
        data = commands.encodeAck(received, closed, touched)
        values = {"received": received, "closed": closed, "touched": touched}
        self.assertEqual(parsed(commands.Ack, data), values)
        self.assertEqual(parseString(data), parseString(commands.encode(commands.Ack, **values)))


class NumbersTests(SynchronousTestCase):
    """
    Lists of numbers.
    """

    @given(st.lists(numbers))
    def test_roundTrip(self, values: list[int]) -> None:
        """
        What is packed comes out again.
        """
        argument = commands.Numbers()
        self.assertEqual(argument.fromString(argument.toString(values)), values)

    @given(st.binary().filter(lambda data: len(data) % 8))
    def test_torn(self, data: bytes) -> None:
        """
        Bytes that are no whole number of numbers are the peer's fault.
        """
        self.assertRaises(PeerError, commands.unpackNumbers, data)


class AllCommandsTests(SynchronousTestCase):
    """
    What holds of every command.
    """

    def commands(self) -> list[type[Command]]:
        """
        All commands of the module.
        """
        found = [
            value
            for _, value in inspect.getmembers(commands, inspect.isclass)
            if issubclass(value, Command) and value.__module__ == commands.__name__
        ]
        return [command for command in found if not command.__name__.startswith("_")]

    def test_noAnswers(self) -> None:
        """
        No command asks for an answer: neither side ever waits for the other.
        """
        self.assertEqual([one for one in self.commands() if one.requiresAnswer], [])

    def test_names(self) -> None:
        """
        A command is called on the wire what it is called in the code.
        """
        names = {one.__name__.encode("ascii"): one.commandName for one in self.commands()}
        self.assertIn(b"Handoff", names)
        self.assertEqual(list(names), list(names.values()))

    def test_encode(self) -> None:
        """
        L{commands.encode} makes a box without a tag, so that no answer is
        expected.
        """
        data = commands.encode(commands.Message, text="hello")
        self.assertEqual(parseString(data), [AmpBox(_command=b"Message", text=b"hello")])
