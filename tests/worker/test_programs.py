"""
Tests for L{twisted_cluster.worker.programs}.
"""

from __future__ import annotations

import ast
import errno
import os
import shutil
import sys
import tempfile
import types
from textwrap import dedent
from typing import Any

from twisted import plugin
from twisted.application import app
from twisted.application.service import IServiceCollection, IServiceMaker, Service
from twisted.internet.error import CannotListenError
from twisted.plugin import IPlugin
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_cluster.errors import AppLoadError
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.worker import programs
from twisted_cluster.worker.loader import App, WrongName


class ProgramTestCase(SynchronousTestCase):
    """
    Has a directory of its own on the module path, and forgets what was
    imported from it.

    @ivar order: What modules have said of themselves with C{noted(name)}.
    """

    def setUp(self) -> None:
        self.directory = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.patch(sys, "path", [self.directory, *sys.path])
        self.patch(sys, "argv", list(sys.argv))
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(self.forget, set(sys.modules))
        self.order: list[Any] = []
        notes: Any = types.ModuleType("notes_of_test")
        notes.noted = self.order.append
        sys.modules["notes_of_test"] = notes

    def forget(self, before: set[str]) -> None:
        """
        Forget all that has been imported since.
        """
        for name in set(sys.modules) - before:
            if name.startswith(("ahead", "notes_of_test")):
                del sys.modules[name]

    def write(self, path: str, text: str = "") -> str:
        """
        Write a file that says its name, then something else.
        """
        whole = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w", encoding="utf-8") as file:
            file.write("from notes_of_test import noted\nnoted(__name__)\n" + dedent(text))
        return whole

    def wrong(self, source: Source, call: Any = programs.load) -> str:
        """
        What the operator is told who named something wrongly.
        """
        return str(self.assertRaises(WrongName, call, source))

    def fails(self, source: Source, call: Any = programs.load) -> AppLoadError:
        """
        What is raised of an app whose own code fails.
        """
        error: AppLoadError = self.assertRaises(AppLoadError, call, source)
        self.assertNotIsInstance(error, WrongName)
        return error


class ScriptTests(ProgramTestCase):
    """
    Scripts, as C{python} runs them.
    """

    def script(self, text: str, *arguments: str, path: str = "ahead.py") -> Source:
        """
        A script.
        """
        return Source(SourceKind.SCRIPT, self.write(path, text), arguments)

    def test_surroundings(self) -> None:
        """
        A script has its own arguments, is C{__main__}, and finds modules
        beside itself.
        """
        self.write("scripts/ahead_sibling.py")
        source = self.script(
            """
            import sys
            import ahead_sibling
            noted(list(sys.argv))
            noted(__file__)
            noted(sys.modules["__main__"].__dict__ is globals())
            """,
            "--port",
            "80",
            path="scripts/ahead.py",
        )
        self.assertEqual(programs.run(source), 0)
        name = source.name
        self.assertEqual(
            self.order, ["__main__", "ahead_sibling", [name, "--port", "80"], name, True]
        )

    def test_link(self) -> None:
        """
        Beside itself is where the file really is, not where a link to it is.
        """
        self.write("there/ahead_sibling.py")
        there = self.write("there/ahead.py", "import ahead_sibling")
        link = os.path.join(self.directory, "link.py")
        os.symlink(there, link)
        self.assertEqual(programs.run(Source(SourceKind.SCRIPT, link)), 0)
        self.assertEqual(self.order, ["__main__", "ahead_sibling"])

    def test_relative(self) -> None:
        """
        A path may be relative to the current directory.
        """
        self.write("scripts/ahead_sibling.py")
        self.script("import ahead_sibling", path="scripts/ahead.py")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.assertEqual(programs.run(Source(SourceKind.SCRIPT, "scripts/ahead.py")), 0)
        self.assertEqual(self.order, ["__main__", "ahead_sibling"])

    def test_exitCodes(self) -> None:
        """
        The exit code is what the interpreter would make of it; words go to
        standard error.
        """
        with tempfile.TemporaryFile("w+") as errors:
            self.patch(sys, "stderr", errors)
            codes = {
                text: programs.run(self.script(f"raise SystemExit({text})"))
                for text in ("", "None", "0", "7", "-1", "'no database'", "('a', 1)", "b'x'")
            }
            errors.seek(0)
            said = errors.read()
        self.assertEqual(
            codes,
            {
                "": 0,
                "None": 0,
                "0": 0,
                "7": 7,
                "-1": -1,
                "'no database'": 1,
                "('a', 1)": 1,
                "b'x'": 1,
            },
        )
        self.assertEqual(said, "no database\n('a', 1)\nb'x'\n")

    def test_missing(self) -> None:
        """
        The operator is told if there is no such file.
        """
        for name in (os.path.join(self.directory, "none.py"), self.directory):
            told = self.wrong(Source(SourceKind.SCRIPT, name), programs.run)
            self.assertEqual(told, f"there is no script {name}")

    def test_fails(self) -> None:
        """
        What it raises is told with a traceback that begins in it.
        """
        error = self.fails(self.script("def f():\n  1 / 0\nf()"), programs.run)
        self.assertRegex(str(error), "app .*ahead.py fails to load: ZeroDivisionError: .* by zero")
        first = error.traceback.splitlines()[1]
        self.assertIn("ahead.py", first)

    def test_syntaxError(self) -> None:
        """
        So is a script that is no Python, and one that is no text.
        """
        error = self.fails(self.script("def"), programs.run)
        self.assertIn("SyntaxError", str(error))
        path = os.path.join(self.directory, "ahead.bin")
        with open(path, "wb") as file:
            file.write(b"\0\xff\xfe")
        self.fails(Source(SourceKind.SCRIPT, path), programs.run)

    def test_interrupted(self) -> None:
        """
        Ctrl-C in a script is a failure of it.
        """
        error = self.fails(self.script("raise KeyboardInterrupt"), programs.run)
        self.assertIn("KeyboardInterrupt", str(error))

    def test_taken(self) -> None:
        """
        An address that can't be had is the operator's affair.
        """
        source = self.script(
            """
            from twisted.internet.error import CannotListenError
            raise CannotListenError("127.0.0.1", 80, OSError(13, "Permission denied"))
            """
        )
        self.assertIn("can't listen on 127.0.0.1:80: Perm", self.wrong(source, programs.run))


class ModuleTests(ProgramTestCase):
    """
    Modules, as C{python -m} runs them.
    """

    def run_(self, name: str, *arguments: str) -> int:
        """
        Run one.
        """
        return programs.run(Source(SourceKind.MODULE, name, arguments))

    def test_module(self) -> None:
        """
        A module in a package has its package imported first.
        """
        self.write("ahead/__init__.py")
        path = self.write("ahead/main.py", "import sys\nnoted(list(sys.argv))\nfrom . import other")
        self.write("ahead/other.py")
        self.assertEqual(self.run_("ahead.main", "-v"), 0)
        self.assertEqual(self.order, ["ahead", "__main__", [path, "-v"], "ahead.other"])

    def test_package(self) -> None:
        """
        Of a package its C{__main__} is run.
        """
        self.write("ahead/__init__.py")
        self.write("ahead/__main__.py", "raise SystemExit(3)")
        self.assertEqual(self.run_("ahead"), 3)
        self.assertEqual(self.order, ["ahead", "__main__"])

    def test_missing(self) -> None:
        """
        The operator is told if there is no such module, or nothing in it that
        can be run.
        """
        self.write("ahead/__init__.py")
        self.write("ahead_module.py")
        for name in (
            "ahead_none",
            "ahead.none",
            "ahead_none.none",
            "ahead_module.none",
            "ahead",
            "",
            ".ahead",
            "ahead..main",
            "__main__",
        ):
            told = self.wrong(Source(SourceKind.MODULE, name), programs.run)
            self.assertEqual(told, f"there is no module {name!r} that can be run")

    def test_brokenPackage(self) -> None:
        """
        A package that can't be imported is not said to be missing.
        """
        for text in (
            "import ahead_missing",
            "from sys import nothing_of_the_kind",
            "raise ValueError(1)",
            "raise SystemExit('no')",
            "an error of syntax",
        ):
            self.write("ahead/__init__.py", text)
            self.write("ahead/__main__.py")
            source = Source(SourceKind.MODULE, "ahead")
            if "SystemExit" in text:
                self.assertEqual(programs.run(source), 1)
            else:
                self.assertIn("app ahead fails to load", str(self.fails(source, programs.run)))


class TacTests(ProgramTestCase):
    """
    C{.tac} files.
    """

    def tac(self, text: str) -> Source:
        """
        A file.
        """
        return Source(SourceKind.TAC, self.write("ahead.tac", text))

    def write(self, path: str, text: str = "") -> str:
        """
        Files of this kind have no name to say.
        """
        whole = os.path.join(self.directory, path)
        with open(whole, "w", encoding="utf-8") as file:
            file.write(dedent(text))
        return whole

    def test_application(self) -> None:
        """
        The application in it is the app.
        """
        found = programs.load(
            self.tac(
                """
                from twisted.application.service import Application, Service
                application = Application("name")
                service = Service()
                service.setName(__file__)
                service.setServiceParent(application)
                """
            )
        )
        self.assertIsInstance(found, App)
        (service,) = IServiceCollection(found.service)
        self.assertEqual(service.name, os.path.join(self.directory, "ahead.tac"))

    def test_nothing(self) -> None:
        """
        The operator is told of a file that is missing, or has no application,
        or something else under that name.
        """
        source = self.tac("app = 1")
        self.assertIn("defines no variable called application", self.wrong(source))
        self.assertIn("the application in", self.wrong(self.tac("application = 7")))
        self.assertIn("is a int", self.wrong(self.tac("application = 7")))
        missing = Source(SourceKind.TAC, os.path.join(self.directory, "none.tac"))
        self.assertEqual(self.wrong(missing), f"there is no file {missing.name}")

    def test_fails(self) -> None:
        """
        Any other failure is its own, even one that looks like those.
        """
        for text in (
            "1 / 0",
            "open('/nonexistent')",
            "{}['port']",
            "raise SystemExit(1)",
            "an error of syntax",
        ):
            error = self.fails(self.tac(text))
            self.assertIn("ahead.tac fails to load: ", str(error))


class Options(usage.Options):
    """
    Of a command of twistd.
    """

    optParameters = [["port", "p", 0, "Where", int]]

    def parseArgs(self, *rest: str) -> None:
        """Take what is left."""
        self["rest"] = rest

    def postOptions(self) -> None:
        """
        Judge.
        """
        if self["port"] < 0:
            raise usage.UsageError("ports are positive")


@implementer(IPlugin, IServiceMaker)
class Maker:
    """
    A command of twistd.
    """

    tapname = "ahead"
    description = "A test."

    def __init__(self, make: Any = None) -> None:
        self.made: list[Any] = []
        self.make = make
        self.asked = 0

    @property
    def options(self) -> Any:
        """Count who asks."""
        self.asked += 1
        return Options

    def makeService(self, options: Any) -> Any:
        """Make what the test wants."""
        self.made.append(options)
        return self.make() if self.make is not None else Service()


class PluginTests(ProgramTestCase):
    """
    Commands of twistd.
    """

    def setUp(self) -> None:
        super().setUp()
        self.maker = Maker()

        def getPlugins(*_: Any) -> list[Maker]:
            return [self.maker]

        self.patch(plugin, "getPlugins", getPlugins)
        # Put back as it is: what is looked up on the class is no static method.
        before = app.ServerOptions.__dict__["_getPlugins"]
        self.addCleanup(setattr, app.ServerOptions, "_getPlugins", before)
        setattr(app.ServerOptions, "_getPlugins", staticmethod(getPlugins))  # noqa: B010

    def source(self, *arguments: str, name: str = "ahead") -> Source:
        """
        The command.
        """
        return Source(SourceKind.PLUGIN, name, arguments)

    def test_service(self) -> None:
        """
        What it makes of its own options is the app.
        """
        found = programs.load(self.source("--port", "7", "x", "y"))
        self.assertIsInstance(found, App)
        (options,) = self.maker.made
        self.assertEqual((options["port"], options["rest"]), (7, ("x", "y")))
        self.assertEqual(sys.argv, ["twistd", "--nodaemon", "ahead", "--port", "7", "x", "y"])
        self.assertEqual(len(list(IServiceCollection(found.service))), 1)

    def test_wrong(self) -> None:
        """
        Options that it does not take, and a command that there is not, are the
        operator's.
        """
        for arguments in (("--port", "x"), ("--port", "-7"), ("--nonsense",)):
            self.assertIn("; see twistd ahead --help", self.wrong(self.source(*arguments)))
        told = self.wrong(self.source(name="behind"))
        self.assertEqual(told, "twistd has no command 'behind'; see twistd --help")

    def test_help(self) -> None:
        """
        So is asking for help.
        """
        with tempfile.TemporaryFile("w+") as output:
            self.patch(sys, "stdout", output)
            told = self.wrong(self.source("--help"))
        self.assertIn("it serves nothing; see above", told)

    def test_fails(self) -> None:
        """
        What it raises is its own failure, also if it makes no service.
        """

        def divide() -> Any:
            return 1 / 0

        def leave() -> Any:
            raise SystemExit("no")

        for make in (divide, leave, lambda: 7):
            self.maker.make = make
            self.assertIn("app ahead fails to load: ", str(self.fails(self.source())))

    def test_taken(self) -> None:
        """
        An address that it can't have at once is the operator's affair.
        """

        def listen() -> Any:
            raise CannotListenError(None, b"/run/s", OSError(errno.EADDRINUSE, "In use"))

        self.maker.make = listen
        self.assertTrue(
            self.wrong(self.source()).startswith("can't listen on /run/s: In use; stop what uses")
        )

    def test_preload(self) -> None:
        """
        Ahead, its options are looked at, which imports its code, and nothing
        is made.
        """
        self.assertIs(programs.preload(self.source()), None)
        self.assertEqual((self.maker.asked, self.maker.made), (1, []))
        programs.preload(self.source(name="behind"))
        self.assertEqual(self.maker.asked, 1)


class CannotListenTests(SynchronousTestCase):
    """
    L{programs.cannotListen}.
    """

    def told(self, interface: Any, port: Any, cause: Any) -> str:
        """
        What the operator reads, up to the remedy.
        """
        error = programs.cannotListen(CannotListenError(interface, port, cause))
        self.assertIsInstance(error, WrongName)
        return str(error).partition("; ")[0]

    def test_places(self) -> None:
        """
        Addresses are told as an operator writes them.
        """
        cause = OSError(errno.EACCES, "Permission denied")
        denied = "Permission denied"
        for interface, port, where in (
            ("", 80, "80"),
            (None, 80, "80"),
            ("", 0, "0"),
            ("127.0.0.1", 80, "127.0.0.1:80"),
            (None, b"/run/s", "/run/s"),
            (None, "/run/s", "/run/s"),
            (None, b"/\xff", "/\udcff"),
            (None, b"\0name", "@name"),
        ):
            self.assertEqual(
                self.told(interface, port, cause), f"can't listen on {where}: {denied}"
            )

    def test_remedies(self) -> None:
        """
        What to do depends on what is wrong.
        """
        for number, remedy in (
            (errno.EADDRINUSE, "stop what uses it or choose another one"),
            (errno.EACCES, "name it with --listen too, which is bound before"),
            (errno.EBADF, "start the master with a listening socket under that number"),
            (errno.EADDRNOTAVAIL, "choose another address"),
        ):
            error = programs.cannotListen(CannotListenError("", 80, OSError(number, "no")))
            self.assertIn(f"can't listen on 80: no; {remedy}", str(error))

    def test_words(self) -> None:
        """
        A cause may be mere words, as that of a lock that is taken.
        """
        self.assertEqual(
            self.told(None, b"/s", "Cannot acquire lock"),
            "can't listen on /s: Cannot acquire lock",
        )


class ImportAheadTests(ProgramTestCase):
    """
    What is imported before workers are forked.
    """

    def setUp(self) -> None:
        super().setUp()
        for name in ("a", "b", "c"):
            self.write(f"ahead_{name}.py", "value = 1")

    def ahead(self, program: str, package: str = "") -> list[str]:
        """
        The names of the modules that were imported ahead for a program.
        """
        for name in [name for name in sys.modules if name.startswith("ahead")]:
            del sys.modules[name]
        self.order.clear()
        programs.importAhead(ast.parse(dedent(program)), package)
        return list(self.order)

    def test_order(self) -> None:
        """
        Imports come in the order of the program.
        """
        self.assertEqual(
            self.ahead("import ahead_b\nfrom ahead_a import value\nimport ahead_c"),
            ["ahead_b", "ahead_a", "ahead_c"],
        )
        self.assertEqual(self.ahead("import ahead_c, ahead_a"), ["ahead_c", "ahead_a"])

    def test_passedOver(self) -> None:
        """
        Definitions, and words about the program, stop nothing.
        """
        program = """
            '''Words.'''
            from __future__ import annotations
            import ahead_a
            def f(): import ahead_c
            async def g(): pass
            import ahead_b
            """
        self.assertEqual(self.ahead(program), ["ahead_a", "ahead_b"])

    def test_stops(self) -> None:
        """
        Any statement that does something ends it, since what comes after may
        depend on it.
        """
        for statement in (
            "x = 1",
            "f()",
            "del x",
            "if True: pass",
            "try: pass\nexcept ImportError: pass",
            "with x: pass",
            "@f\ndef g(): pass",
            "@f\nclass C: pass",
            "assert True",
            "x: int = 1",
            "for x in y: pass",
        ):
            program = f"import ahead_a\n{statement}\nimport ahead_b"
            self.assertEqual(self.ahead(program), ["ahead_a"], statement)

    def test_definitions(self) -> None:
        """
        So does a definition in which something is called, and any class: it
        might be what installs a reactor.
        """
        for statement in (
            "def f(x=g()): pass",
            "def f(x: g()): pass",
            "def f() -> g(): pass",
            "async def f(*, x=[g()]): pass",
            "class C: pass",
            "class C(g()): pass",
        ):
            program = f"import ahead_a\n{statement}\nimport ahead_b"
            self.assertEqual(self.ahead(program), ["ahead_a"], statement)
        for statement in (
            "def f(x=1, *, y='', z=()): return g()",
            "async def f(x: int = -2) -> None: await g()",
        ):
            program = f"import ahead_a\n{statement}\nimport ahead_b"
            self.assertEqual(self.ahead(program), ["ahead_a", "ahead_b"], statement)

    def test_failing(self) -> None:
        """
        An import that fails ends it, and is tried once; the worker finds the
        failure, and tells of it.
        """
        self.write("ahead_bad.py", "1 / 0")
        self.write("ahead_exit.py", "raise SystemExit")
        for statement, order in (
            ("import ahead_bad", ["ahead_bad"]),
            ("from ahead_bad import x, y", ["ahead_bad"]),
            ("import ahead_exit", ["ahead_exit"]),
            ("import ahead_none", []),
            ("import ahead_none, ahead_c", []),
            ("from ahead_none import x", []),
            ("from ahead_c import nothing", ["ahead_c"]),
            ("import ahead_c, ahead_none, ahead_b", ["ahead_c"]),
        ):
            program = f"import ahead_a\n{statement}\nimport ahead_b"
            self.assertEqual(self.ahead(program), ["ahead_a", *order], statement)

    def test_secondName(self) -> None:
        """
        A module is imported even if another one has something of that name.
        """
        self.write("ahead_a.py", "ahead_b = 1")
        self.assertEqual(self.ahead("import ahead_a, ahead_b"), ["ahead_a", "ahead_b"])

    def test_lazyModule(self) -> None:
        """
        A module that makes up its attributes when asked may refuse in any way
        it likes.
        """
        self.write("ahead_lazy.py", "def __getattr__(name): raise RuntimeError(name)")
        self.assertEqual(
            self.ahead("import ahead_a\nfrom ahead_lazy import x\nimport ahead_b"),
            ["ahead_a", "ahead_lazy"],
        )

    def test_packages(self) -> None:
        """
        Names in a package may be modules; a star is none.
        """
        self.write("ahead/__init__.py", "value = 1")
        self.write("ahead/inner.py")
        self.assertEqual(
            self.ahead("from ahead import value, inner\nimport ahead_a"),
            ["ahead", "ahead.inner", "ahead_a"],
        )
        self.assertEqual(self.ahead("from ahead import *\nimport ahead_a"), ["ahead", "ahead_a"])
        self.assertEqual(self.ahead("import ahead.inner as x"), ["ahead", "ahead.inner"])

    def test_relative(self) -> None:
        """
        Relative imports are those of the program's package; beyond the
        outermost one there is nothing.
        """
        for path in ("ahead/__init__.py", "ahead/x.py", "ahead/inner/__init__.py"):
            self.write(path)
        self.write("ahead/inner/x.py")
        for statement, order in (
            ("from . import x", ["ahead", "ahead.inner", "ahead.inner.x"]),
            ("from .x import noted", ["ahead", "ahead.inner", "ahead.inner.x"]),
            ("from .. import x", ["ahead", "ahead.x"]),
            ("from ..x import noted", ["ahead", "ahead.x"]),
            ("from ... import x", []),
            ("from .... import x", []),
            ("from ....x import noted", []),
        ):
            found = self.ahead(statement, "ahead.inner")
            # The package of a program is imported before it in any case.
            self.assertEqual([one for one in found if one in order], order, statement)
            self.assertIn(found, (order, ["ahead", "ahead.inner", *order[1:]]), statement)
        self.assertEqual(self.ahead("from . import x\nimport ahead_a"), [])

    def test_reactor(self) -> None:
        """
        The reactor is left to each worker, however it is imported.
        """
        self.patch(sys, "modules", dict(sys.modules))
        sys.modules.pop("twisted.internet.reactor", None)
        internet: Any = sys.modules["twisted.internet"]
        if hasattr(internet, "reactor"):
            kept = internet.reactor
            self.addCleanup(setattr, internet, "reactor", kept)
            del internet.reactor
        for statement in (
            "from twisted.internet import reactor",
            "from twisted.internet import defer, reactor, task",
            "import twisted.internet.reactor",
            "from twisted.internet.reactor import callLater",
        ):
            self.ahead(f"import ahead_a\n{statement}\nimport ahead_b")
            self.assertEqual(self.order, ["ahead_a", "ahead_b"])
            self.assertNotIn("twisted.internet.reactor", sys.modules)


class PreloadTests(ProgramTestCase):
    """
    L{programs.preload} of modules, scripts and C{.tac} files.
    """

    def preload(self, kind: SourceKind, name: str) -> list[Any]:
        """
        What was imported ahead; nothing was run, and each worker does so.
        """
        self.assertIs(programs.preload(Source(kind, name)), None)
        self.assertNotIn("__main__", self.order)
        return self.order

    def test_script(self) -> None:
        """
        Of a script, what it begins with, found beside it; nothing twice.
        """
        self.write("scripts/ahead_sibling.py")
        path = os.path.join(self.directory, "scripts", "ahead.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write("import ahead_sibling\nfrom notes_of_test import noted\nnoted(__name__)\n")
        self.assertEqual(self.preload(SourceKind.SCRIPT, path), ["ahead_sibling"])
        before = list(sys.path)
        self.assertEqual(programs.run(Source(SourceKind.SCRIPT, path)), 0)
        self.assertEqual((self.order, sys.path), (["ahead_sibling", "__main__"], before))

    def test_unreadable(self) -> None:
        """
        What can't be read, or is no Python, is left to the worker.
        """
        self.write("ahead_wrong.py", "def")
        binary = os.path.join(self.directory, "ahead.so")
        with open(binary, "wb") as file:
            file.write(b"\0\xff")
        for name in ("none.py", "ahead_wrong.py", "ahead.so", "."):
            path = os.path.join(self.directory, name)
            for kind in (SourceKind.SCRIPT, SourceKind.TAC):
                self.assertEqual(self.preload(kind, path), [])

    def test_module(self) -> None:
        """
        Of a module, its package and what it begins with.
        """
        self.write("ahead/__init__.py")
        self.write("ahead/other.py")
        with open(os.path.join(self.directory, "ahead", "main.py"), "w", encoding="utf-8") as file:
            file.write("from . import other\nfrom .other import noted\nnoted(__name__)\n")
        shutil.copy(
            os.path.join(self.directory, "ahead", "main.py"),
            os.path.join(self.directory, "ahead", "__main__.py"),
        )
        self.assertEqual(self.preload(SourceKind.MODULE, "ahead.main"), ["ahead", "ahead.other"])
        self.assertEqual(self.preload(SourceKind.MODULE, "ahead"), ["ahead", "ahead.other"])

    def test_brokenModule(self) -> None:
        """
        One that there is not, or whose package fails, is left to the worker.
        """
        for text in ("raise ValueError(1)", "raise SystemExit(1)", "import ahead_missing"):
            self.write("ahead/__init__.py", text)
            self.write("ahead/__main__.py")
            self.order.clear()
            self.assertEqual(self.preload(SourceKind.MODULE, "ahead"), ["ahead"])
        for name in ("ahead_none", "sys", ""):
            self.order.clear()
            self.assertEqual(self.preload(SourceKind.MODULE, name), [])
