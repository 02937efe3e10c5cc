"""
Tests for L{twisted_cluster.sources}.
"""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.sources import PROGRAMS, SERVICES, WITH_ARGUMENTS, Source, SourceKind


class SourceTests(SynchronousTestCase):
    """
    What the workers run, in words.
    """

    def test_text(self) -> None:
        """
        It is shown as one would type it.
        """
        self.assertEqual(str(Source(SourceKind.APP, "hello:app")), "hello:app")
        source = Source(SourceKind.PLUGIN, "web", ("--path", "a b", ""))
        self.assertEqual(str(source), "web --path 'a b' ''")

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
    def test_anyArguments(self, arguments: list[str]) -> None:
        """
        Whatever the arguments are, a shell would read them again.
        """
        source = Source(SourceKind.SCRIPT, "server.py", tuple(arguments))
        self.assertEqual(shlex.split(str(source)), ["server.py", *arguments])

    def test_kinds(self) -> None:
        """
        Each kind but the first is a service or a program, and not both.
        """
        self.assertEqual(SERVICES | PROGRAMS, set(SourceKind) - {SourceKind.APP})
        self.assertEqual(SERVICES & PROGRAMS, frozenset())
        self.assertLessEqual(PROGRAMS, WITH_ARGUMENTS)
