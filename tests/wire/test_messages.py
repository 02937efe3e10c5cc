"""
Tests for L{twisted_cluster.wire.messages}.
"""

from __future__ import annotations

import contextlib
import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster import context
from twisted_cluster.errors import AppError, PeerError
from twisted_cluster.wire import messages
from twisted_cluster.wire.messages import (
    MASTER,
    Envelope,
    Kind,
    checkTimeout,
    checkTopic,
    decode,
    whole,
)

TOPICS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
ENVELOPES = st.builds(
    Envelope,
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    NUMBERS,
    NUMBERS,
    st.floats(0, 1e9),
    TOPICS,
    st.binary(),
)


class EnvelopeTests(SynchronousTestCase):
    """
    L{Envelope} and L{decode}.
    """

    @given(ENVELOPES)
    def test_both(self, envelope: Envelope) -> None:
        """
        What goes in comes out.
        """
        self.assertEqual(decode(envelope.encode()), envelope)
        self.assertEqual(whole([envelope.encode(), b"and", b"more"]).value[-7:], b"andmore")

    def test_garbage(self) -> None:
        """
        What no envelope has is the fault of whoever sent it: a kind that does
        not exist, a topic that is cut off or no text, a time that never ends
        or has passed before it began.
        """
        good = Envelope(Kind.CALL, 1, 2, MASTER, 1.0, "topic", b"").encode()
        for bad in (b"", good[:-1], b"\x09" + good[1:], good[:-1] + b"\xff"):
            self.assertRaises(PeerError, decode, bad)
        for timeout in (-1.0, math.inf, math.nan):
            late = Envelope(Kind.CALL, 1, 2, MASTER, timeout, "topic", b"").encode()
            self.assertRaises(PeerError, decode, late)

    @given(st.binary())
    def test_anyBytes(self, data: bytes) -> None:
        """
        No bytes whatever raise anything else.
        """
        with contextlib.suppress(PeerError):
            decode(data)

    def test_targets(self) -> None:
        """
        The numbers that the context knows by heart are these.
        """
        self.assertEqual(
            (context._MASTER, context._OTHERS, context._ALL, context._EVERYWHERE),
            (messages.MASTER, messages.OTHERS, messages.ALL, messages.EVERYWHERE),
        )


class CheckTests(SynchronousTestCase):
    """
    What an app gets to hear of a topic, or a timeout, that can't be used.
    """

    def test_topics(self) -> None:
        """
        A topic is a text of at most 255 bytes, and no one of ours.
        """
        checkTopic("ü" * 127, "ours.")
        for topic, cause in (
            ("", "empty"),
            (7, "not a text"),
            ("ü" * 128, "more than 255 bytes"),
            ("ours.state", "are taken"),
            ("\ud800", "surrogates"),
        ):
            error = self.assertRaises(AppError, checkTopic, topic, "ours.")
            self.assertIn(cause, str(error))
            self.assertIn("can't use the topic", str(error))

    def test_timeouts(self) -> None:
        """
        A timeout is a number of seconds that can pass.
        """
        checkTimeout(0)
        checkTimeout(2.5)
        for timeout in (-1, math.inf, math.nan, None, "10", 10**400):
            self.assertRaises(AppError, checkTimeout, timeout)
