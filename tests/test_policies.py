"""
Tests for L{twisted_cluster.policies} and L{twisted_cluster.imports}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from twisted_cluster import policies
from twisted_cluster.errors import ConfigError
from twisted_cluster.imports import importName
from twisted_cluster.interfaces import ILoad, IScheduler, ISchedulerMaker, Peer
from twisted_cluster.policies import SHARED, makeScheduler, schedulerNames
from twisted_cluster.policy.scheduling import BUILT_IN


@implementer(IScheduler)
class FirstScheduler:
    """
    Always the first.
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    def choose(self, loads: Sequence[ILoad], peer: Peer) -> ILoad:
        """
        Choose the first.
        """
        return loads[0]


@implementer(IPlugin, ISchedulerMaker)
class FirstMaker:
    """
    A plug-in that makes a L{FirstScheduler}.
    """

    description = "Always the first."

    def __init__(self, name: str = "first") -> None:
        self.name = name

    def make(self, random: Random) -> IScheduler:
        """
        Make one.
        """
        return FirstScheduler(random)


class Shapeless:
    """
    Claims to be a policy, and can't choose.
    """

    def __init__(self, random: Random) -> None:
        directlyProvides(self, IScheduler)


class Raising:
    """
    Can't be made.
    """

    def __init__(self, random: Random) -> None:
        raise LookupError("no table of weights")


class PoliciesTests(SynchronousTestCase):
    """
    Names and what they stand for.
    """

    def setUp(self) -> None:
        self.plugins: list[Any] = []
        self.patch(policies, "getPlugins", lambda interface: iter(self.plugins))
        self.random = Random(1)

    def test_builtIn(self) -> None:
        """Every built-in policy can be had by its name."""
        self.assertEqual(schedulerNames(), (*BUILT_IN, SHARED))
        for name in schedulerNames():
            self.assertTrue(verifyObject(IScheduler, makeScheduler(name, self.random)))

    def test_promisedNames(self) -> None:
        """The built-in policies have the names that the documentation promises."""
        self.assertLessEqual({"round-robin", "least-connections"}, set(BUILT_IN))

    def test_plugin(self) -> None:
        """A plug-in is found by its name and made with the randomness given."""
        self.plugins.append(FirstMaker())
        self.assertTrue(verifyObject(ISchedulerMaker, self.plugins[0]))
        made = makeScheduler("first", self.random)
        self.assertIsInstance(made, FirstScheduler)
        assert isinstance(made, FirstScheduler)
        self.assertIs(made.random, self.random)

    def test_pluginNames(self) -> None:
        """Plug-ins are listed after the built-in policies, in order, once each."""
        self.plugins += [FirstMaker("zeta"), FirstMaker("alpha"), FirstMaker("round-robin")]
        self.assertEqual(schedulerNames(), (*BUILT_IN, SHARED, "alpha", "zeta"))

    def test_builtInWins(self) -> None:
        """A plug-in can't take the name of a built-in policy."""
        self.plugins.append(FirstMaker("round-robin"))
        self.assertNotIsInstance(makeScheduler("round-robin", self.random), FirstScheduler)

    def test_class(self) -> None:
        """A class is named by its module, and made with the randomness given."""
        made = makeScheduler(f"{__name__}:FirstScheduler", self.random)
        self.assertEqual(type(made).__name__, "FirstScheduler")
        self.assertIs(getattr(made, "random", None), self.random)

    def test_unknown(self) -> None:
        """A name that nothing has is refused with those that exist."""
        self.plugins.append(FirstMaker())
        error = self.assertRaises(ConfigError, makeScheduler, "fastest", self.random)
        self.assertEqual(
            str(error),
            "can't use the policy 'fastest': there is none of that name;"
            f" give {', '.join((*BUILT_IN, SHARED))}, first or module:Class",
        )

    def test_notScheduler(self) -> None:
        """What is made has to be a policy."""
        error = self.assertRaises(ConfigError, makeScheduler, "builtins:repr", self.random)
        self.assertIn("IScheduler", error.cause)
        self.assertIn("returns an IScheduler", error.remedy)
        self.assertNotIn("\n", str(error))

    def test_incomplete(self) -> None:
        """A policy has to have the methods of one."""
        error = self.assertRaises(ConfigError, makeScheduler, f"{__name__}:Shapeless", self.random)
        self.assertIn("choose", error.cause)

    def test_raising(self) -> None:
        """A policy that can't be made is refused with what it raised."""
        error = self.assertRaises(ConfigError, makeScheduler, f"{__name__}:Raising", self.random)
        self.assertEqual(error.cause, "making it raised LookupError: no table of weights")

    def test_notCallable(self) -> None:
        """Neither can something that is no class be called."""
        error = self.assertRaises(ConfigError, makeScheduler, "sys:path", self.random)
        self.assertIn("making it raised TypeError", error.cause)

    def test_noModule(self) -> None:
        """A class in a module that does not exist is refused with the reason."""
        error = self.assertRaises(ConfigError, makeScheduler, "noSuchModule:X", self.random)
        self.assertEqual(
            str(error),
            "can't use the policy 'noSuchModule:X': importing noSuchModule raised"
            " ModuleNotFoundError: No module named 'noSuchModule';"
            " mend or install noSuchModule",
        )


class RealPluginTests(SynchronousTestCase):
    """
    The plug-in system itself.
    """

    def test_names(self) -> None:
        """Whatever is installed, the built-in policies come first."""
        self.assertEqual(schedulerNames()[: len(BUILT_IN)], tuple(BUILT_IN))

    def test_unknown(self) -> None:
        """Whatever is installed, a name that nothing has is refused."""
        self.assertRaises(ConfigError, makeScheduler, "no-such-policy", Random(1))


class ImportNameTests(SynchronousTestCase):
    """
    Imports from the current directory.
    """

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.patch(sys, "path", list(sys.path))

    def module(self, name: str, text: str) -> None:
        """
        Have a module in the current directory.
        """
        with open(os.path.join(self.directory, f"{name}.py"), "w") as file:
            file.write(text)
        self.addCleanup(sys.modules.pop, name, None)

    def test_currentDirectory(self) -> None:
        """A module of the current directory can be imported, attributes may be dotted."""
        self.module("importNameGood", "class A:\n    class B:\n        c = 7\n")
        self.assertEqual(importName("try", "importNameGood:A.B.c"), 7)
        self.assertEqual(sys.path[0], self.directory)

    def test_onPathOnce(self) -> None:
        """The directory is put on the path once."""
        importName("try", "os:path")
        importName("try", "os:sep")
        self.assertEqual(sys.path.count(self.directory), 1)

    def test_noAttribute(self) -> None:
        """A missing attribute is named."""
        error = self.assertRaises(ConfigError, importName, "try", "os:path.nowhere")
        self.assertRegex(
            str(error), "^can't try: module '.*' has no attribute 'nowhere'; name something"
        )

    def test_raising(self) -> None:
        """A module that raises is refused with the line that did."""
        self.module("importNameBad", "x = 1\n\nraise OSError('two\\nlines')\n")
        error = self.assertRaises(ConfigError, importName, "try", "importNameBad:x")
        path = os.path.join(self.directory, "importNameBad.py")
        self.assertEqual(
            error.cause, f"importing importNameBad raised OSError: two lines ({path}, line 3)"
        )

    def test_syntaxError(self) -> None:
        """A module that is no Python is refused with the line that is not."""
        self.module("importNameWorse", "x = 1\ny = = 2\n")
        error = self.assertRaises(ConfigError, importName, "try", "importNameWorse:x")
        self.assertIn("SyntaxError", error.cause)
        self.assertIn("line 2", error.cause)
        self.assertNotIn("\n", str(error))
