"""
Tests of what surrounds the package: that its parts agree with each other.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster
from twisted_cluster.config import OPTIONS
from twisted_cluster.tap import Options

ROOT = Path(__file__).resolve().parent.parent


def read(path: str) -> str:
    """
    The text of a file of the project.
    """
    return (ROOT / path).read_text(encoding="utf-8")


def targets(makefile: str) -> set[str]:
    """
    What can be made on purpose.
    """
    found = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def commands(text: str) -> set[str]:
    """
    The targets that C{text} tells its reader to make, on lines of their own
    or as C{`make this`}.
    """
    return set(re.findall(r"(?:^ {0,4}|`)make ([a-z]+)", text, re.MULTILINE))


class MakeTests(SynchronousTestCase):
    """
    The Makefile.
    """

    def test_readme(self) -> None:
        """
        The README tells to run and to test, and each command it names exists.
        """
        told = commands(read("README.md"))
        self.assertLessEqual({"run", "test"}, told)
        self.assertEqual(told - targets(read("Makefile")), set())

    def test_docs(self) -> None:
        """
        So it is in the documentation.
        """
        told = {
            name for page in (ROOT / "docs").glob("*.rst") for name in commands(page.read_text())
        }
        self.assertTrue(told)
        self.assertEqual(told - targets(read("Makefile")), set())

    def test_help(self) -> None:
        """
        "make help" tells of each target.
        """
        told = set(re.findall(r'@echo "make ([a-z]+)', read("Makefile")))
        self.assertEqual(told, targets(read("Makefile")) - {"help"})

    def test_targetsFound(self) -> None:
        """
        The check knows a target when it sees one.
        """
        self.assertEqual(targets(".PHONY: a b\nc:\n"), {"a", "b"})
        self.assertEqual(commands("    make run\nor `make test`, to make sense"), {"run", "test"})


class PackagingTests(SynchronousTestCase):
    """
    What gets installed.
    """

    def test_version(self) -> None:
        """
        The version stands in one place.
        """
        self.assertRegex(twisted_cluster.__version__, r"^\d+\.\d+\.\d+")
        self.assertIn('attr = "twisted_cluster.__version__"', read("pyproject.toml"))
        self.assertNotRegex(read("pyproject.toml"), r'(?m)^version = "')

    def test_twistedIsTwisteds(self) -> None:
        """
        The package adds a plug-in to Twisted's directories and nothing else,
        above all no __init__.py, which would hide all of Twisted.
        """
        directory = ROOT / "twisted"
        found = {str(path.relative_to(directory)) for path in directory.rglob("*.py")}
        self.assertEqual(found, {"plugins/twisted_cluster_plugin.py"})

    def test_plugin(self) -> None:
        """
        twistd and twist find the command once.
        """
        makers: list[Any] = list(getPlugins(IServiceMaker))
        found = [maker for maker in makers if maker.tapname == "cluster"]
        self.assertEqual([maker.module for maker in found], ["twisted_cluster.tap"])

    def test_dependencies(self) -> None:
        """
        Twisted and zope.interface are all that an installation needs.
        """
        found = re.search(r"^dependencies = \[(.*)\]$", read("pyproject.toml"), re.MULTILINE)
        assert found is not None
        names = re.findall(r'"([\w.]+)[^"]*"', found.group(1))
        self.assertEqual(sorted(names), ["twisted", "zope.interface"])

    def test_typed(self) -> None:
        """
        Type checkers may believe the annotations.
        """
        self.assertTrue((ROOT / "twisted_cluster" / "py.typed").exists())
        self.assertIn('twisted_cluster = ["py.typed"]', read("pyproject.toml"))

    def test_console(self) -> None:
        """
        The console script names something that can be called.
        """
        found = re.search(r'^twisted-cluster = "([\w.]+):(\w+)"$', read("pyproject.toml"), re.M)
        assert found is not None
        module = importlib.import_module(found.group(1))
        self.assertTrue(callable(getattr(module, found.group(2))))


class ContinuousIntegrationTests(SynchronousTestCase):
    """
    The script that checks a fresh clone.
    """

    def test_executable(self) -> None:
        """
        It can be run.
        """
        self.assertTrue(os.access(ROOT / ".ci" / "run", os.X_OK))
        subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)

    def test_tools(self) -> None:
        """
        It installs each program that a test would else be skipped for.
        """
        needed = {
            f"{program}:{package}"
            for path in (ROOT / "tests").rglob("*.py")
            for program, package in re.findall(
                r'requireTool\("([\w-]+)", "([\w-]+)"\)', path.read_text(encoding="utf-8")
            )
        }
        self.assertTrue(needed)
        script = set(re.findall(r"^  ([\w-]+:[\w-]+)$", read(".ci/run"), re.MULTILINE))
        self.assertEqual(needed - script, set())


class DocumentationTests(SynchronousTestCase):
    """
    The documentation says what there is.
    """

    def test_options(self) -> None:
        """
        Each option of the command is described, and no other.
        """
        described = set(re.findall(r"^``--([a-z-]+)", read("docs/options.rst"), re.MULTILINE))
        described |= set(re.findall(r"^``.*``, ``--([a-z-]+)", read("docs/options.rst"), re.M))
        # These two follow the options.
        self.assertLessEqual(set(OPTIONS) - {"plugin", "arguments"}, described)

    def test_toctree(self) -> None:
        """
        Each page can be reached from the first one.
        """
        pages = {path.stem for path in (ROOT / "docs").glob("[a-z]*.rst")} - {"index"}
        listed = set(re.findall(r"^   ([a-z-]+)$", read("docs/index.rst"), re.MULTILINE))
        self.assertEqual(pages, listed)

    def test_commandLines(self) -> None:
        """
        Each call of the command that the documentation shows is accepted,
        until it comes to names of the reader's own.
        """
        shown = {
            line
            for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.rst")]
            for line in re.findall(
                r"^\s*(?:\.venv/bin/)?twistd? .*?cluster( -.*)$",
                path.read_text(encoding="utf-8").replace("\\\n", " "),
                re.MULTILINE,
            )
        }
        self.assertTrue(shown)
        for line in shown:
            options = Options()
            try:
                options.parseOptions(line.split())
            except usage.UsageError as error:
                self.assertNotIn("option", str(error), line)
