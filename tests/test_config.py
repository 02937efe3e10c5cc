"""
Tests for L{twisted_cluster.config} and the kinds of values it is made of.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from textwrap import dedent
from types import ModuleType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster import cpus
from twisted_cluster.config import (
    FIELDS,
    MAX_CACHE,
    MAX_CREDIT,
    MAX_WORKERS,
    MIN_CACHE,
    OPTIONS,
    ClusterConfig,
    fieldName,
    fromText,
    fromToml,
    optionName,
)
from twisted_cluster.errors import ConfigError
from twisted_cluster.kinds import MAX_SECONDS, SOCKET_PATH_BYTES, shown, typeName
from twisted_cluster.sources import Source, SourceKind

APPS = {"app", "plugin", "tac", "module", "script"}
"""The fields of which exactly one says what to run."""

WRONG: dict[str, list[tuple[Any, str]]] = {
    "app": [
        ("", "it is empty"),
        ("hello", "it has no colon"),
        ("hello.py:app", "names a file"),
        ("pkg/hello:app", "'pkg/hello' is not a Python name"),
        ("hello:", "nothing on one side"),
        (":app", "nothing on one side"),
        ("hello:a..b", "'a..b' is not a Python name"),
        ("hello:app()", "'app()' is not a Python name"),
        ("hello:a:b", "'a:b' is not a Python name"),
        ("hello\n:app", "can't be printed"),
        (7, "it is a whole number, not text"),
        (b"hello:app", "it is a bytes, not text"),
    ],
    "plugin": [("", "it is empty"), ("a b", "not a name"), (7, "it is a whole number")],
    "tac": [("", "it is empty"), (7, "it is a whole number, not text")],
    "module": [
        ("", "it is empty"),
        ("server.py", "names a file"),
        ("a..b", "'a..b' is not a Python name"),
        (7, "it is a whole number, not text"),
    ],
    "script": [("", "it is empty"), (7, "it is a whole number, not text")],
    "arguments": [
        ("-v", "it is text, not a tuple"),
        ((1,), "1 is a whole number, not text"),
        (("a\0b",), "contains a null character"),
    ],
    "listen": [
        ("tcp:8080", "it is text, not a tuple"),
        (["tcp:8080"], "it is a list, not a tuple"),
        (("tcp:8080", ""), "in '', it is empty"),
        (("8080",), "'8080' does not begin with a kind of endpoint"),
        (("127.0.0.1:80",), "does not begin with a kind of endpoint"),
        (("tcp:",), "nothing follows the colon"),
        (("stdio:",), "standard input"),
        (("tcp:80\n",), "can't be printed"),
        ((8080,), "in 8080, it is a whole number, not text"),
    ],
    "workers": [
        (0, "it is less than 1"),
        (-1, "it is less than 1"),
        (MAX_WORKERS + 1, f"it is more than {MAX_WORKERS}"),
        (True, "it is true or false, not a whole number"),
        (2.0, "it is a number with a fraction, not a whole number"),
        ("max", "it is text, not a whole number"),
    ],
    "policy": [("", "it is empty"), ("a b", "not a name"), ("x:", "nothing on one side")],
    "admin": [
        ("", "it is empty"),
        (3, "it is a whole number, not text"),
        ("a" * (SOCKET_PATH_BYTES + 1), "too long for a UNIX socket"),
        ("é" * 54, "it is 108 bytes long"),
    ],
    "generationTimeout": [(0, "it is 0"), (-1, "it is less than 0")],
    "drainTimeout": [
        (-0.1, "it is less than 0"),
        (float("nan"), "it is not a finite number"),
        (float("inf"), "it is not a finite number"),
        (MAX_SECONDS + 1, "it is more than a week"),
        ("30", "it is text, not a number of seconds"),
        (True, "it is true or false, not a number of seconds"),
        (None, "it is nothing"),
    ],
    "drainGrace": [(-1, "it is less than 0")],
    "stopTimeout": [(-1, "it is less than 0")],
    "hungTimeout": [(-1, "it is less than 0"), (3.9, "every 2.0 s")],
    "heartbeat": [(0, "it is 0"), (16, "every 16 s")],
    "credit": [(0, "it is less than 1"), (MAX_CREDIT + 1, f"it is more than {MAX_CREDIT}")],
    "reloadParallel": [(0, "it is less than 1")],
    "reloadOnTouch": [("", "it is empty"), (False, "it is true or false, not text")],
    "restartIntensity": [(0, "it is less than 1"), (10001, "it is more than 10000")],
    "restartPeriod": [(0, "it is 0")],
    "backoffBase": [(0, "it is 0"), (40, "the first delay, backoffBase, is 40")],
    "backoffCap": [(0, "it is 0"), (0.05, "the first delay, backoffBase, is 0.1")],
    "reactor": [("", "it is empty"), ("a:b", "it is not a name")],
    "preload": [(1, "it is a whole number"), ("yes", "it is text")],
    "state": [
        ("", "it is empty"),
        ("disk", "it begins with none of redis://"),
        ("redis://", "it has no host"),
        ("redis://h/x", "its database is 'x'"),
        (None, "it is nothing, not text"),
    ],
    "stateTimeout": [(0, "it is 0")],
    "cacheSize": [
        (0, f"it is less than {MIN_CACHE}"),
        (MAX_CACHE + 1, f"it is more than {MAX_CACHE}"),
        ("64M", "it is text, not a whole number"),
    ],
}

RIGHT: dict[str, list[Any]] = {
    "app": ["hello:app", "pkg.hello:make.app", "grüße:app"],
    "listen": [(), ("tcp:0",), ("tcp:80", "unix:/run/x.sock", "systemd:domain=INET:index=0")],
    "workers": [1, MAX_WORKERS],
    "policy": ["round-robin", "third_party.1", "hello:Nearest"],
    "admin": [None, "a", "a" * SOCKET_PATH_BYTES],
    "generationTimeout": [0.001, MAX_SECONDS],
    "drainTimeout": [0, 0.0, 5, MAX_SECONDS],
    "hungTimeout": [0, 4, 4.0],
    "heartbeat": [0.001, 15],
    "credit": [1, MAX_CREDIT],
    "reloadOnTouch": [None, "deployed"],
    "backoffBase": [0.01, 10.0],
    "reactor": [None, "asyncio"],
    "preload": [True, False],
    "state": ["memory", "redis://h", "rediss://u:p@h:1/2?name=x", "unix:///run/redis.sock"],
    "cacheSize": [MIN_CACHE, MAX_CACHE],
}


class ClusterConfigTests(SynchronousTestCase):
    """
    What Python code may make a configuration from.
    """

    def test_defaults(self) -> None:
        """Only the app has to be said."""
        made = ClusterConfig("hello:app")
        self.assertEqual((made.workers, made.policy, made.listen), (1, "round-robin", ()))

    def test_everyFieldChecked(self) -> None:
        """No field escapes the checks, nor these tests."""
        names = {field.name for field in dataclasses.fields(ClusterConfig)}
        self.assertEqual(set(FIELDS), names)
        self.assertEqual(set(WRONG), names)

    def test_wrong(self) -> None:
        """A wrong value is refused with its field, the reason and what is allowed."""
        for field, cases in WRONG.items():
            for value, cause in cases:
                app = {} if field in APPS else {"app": "hello:app"}
                error = self.assertRaises(ConfigError, ClusterConfig, **{**app, field: value})
                self.assertIn(cause, error.cause, (field, value))
                self.assertRegex(str(error), r"^can't use \w+=.*: .*; give .*$")
                self.assertNotIn("\n", str(error))

    def test_namesFieldAndValue(self) -> None:
        """The error names the field that is wrong, and its value."""
        error = self.assertRaises(ConfigError, ClusterConfig, "hello:app", workers=0)
        self.assertEqual(
            str(error),
            "can't use workers=0: it is less than 1; give a whole number from 1 to 1024",
        )

    def test_right(self) -> None:
        """Values at the edges of what is allowed are kept as they are."""
        for field, values in RIGHT.items():
            for value in values:
                made = ClusterConfig(**{"app": "hello:app", field: value})
                self.assertEqual(getattr(made, field), value)

    def test_longValueShortened(self) -> None:
        """An error stays readable however long the value is."""
        error = self.assertRaises(ConfigError, ClusterConfig, "x" * 100_000)
        self.assertLess(len(str(error)), 300)

    def test_sources(self) -> None:
        """What to run is said in exactly one of several ways."""
        for field, value in (
            ("app", "hello:app"),
            ("plugin", "web"),
            ("tac", "hello.tac"),
            ("module", "hello.server"),
            ("script", "server.py"),
        ):
            options: dict[str, Any] = {field: value}
            source = ClusterConfig(**options).source
            self.assertEqual((source.kind.value, source.name), (field, value))
        error = self.assertRaises(ConfigError, ClusterConfig)
        self.assertIn("can't start the cluster: no app given; name one with", str(error))
        error = self.assertRaises(ConfigError, ClusterConfig, "hello:app", tac="a.tac")
        self.assertEqual(
            str(error), "can't start the cluster: app and tac are both given; give one of them"
        )

    def test_arguments(self) -> None:
        """Arguments are for an app that has a command line."""
        arguments = ("--listen", "tcp:80", "a b")
        source = ClusterConfig(plugin="web", arguments=arguments).source
        self.assertEqual(source, Source(SourceKind.PLUGIN, "web", arguments))
        self.assertEqual(str(source), "web --listen tcp:80 'a b'")
        error = self.assertRaises(ConfigError, ClusterConfig, tac="a.tac", arguments=("x",))
        self.assertIn("can't use 'x': tac a.tac takes no arguments; ", str(error))

    def test_replace(self) -> None:
        """A changed copy is checked like a new one."""
        made = ClusterConfig("hello:app")
        self.assertRaises(ConfigError, dataclasses.replace, made, credit=0)


class NamesTests(SynchronousTestCase):
    """
    The names of options and of fields.
    """

    def test_inverse(self) -> None:
        """Every field has one option name, which leads back to it."""
        for field in FIELDS:
            self.assertEqual(fieldName(optionName(field)), field)

    def test_kebab(self) -> None:
        """Options are spelled in lower case with dashes."""
        self.assertEqual(optionName("reloadOnTouch"), "reload-on-touch")

    def test_optionsAreFields(self) -> None:
        """Every option sets a field, except the one that names the service."""
        self.assertEqual({fieldName(name) for name in OPTIONS} - set(FIELDS), {"service"})


class FromTextTests(SynchronousTestCase):
    """
    Values from the command line.
    """

    def test_durations(self) -> None:
        """Seconds need no unit; ms, s and m are units."""
        for text, seconds in (
            ("30", 30.0),
            ("0.5", 0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+2", 2.0),
            ("500ms", 0.5),
            ("30s", 30.0),
            ("2m", 120.0),
            ("1.5m", 90.0),
            ("0", 0.0),
        ):
            self.assertEqual(fromText("drain-timeout", text), seconds, text)

    def test_noDurations(self) -> None:
        """What is no duration is refused with what would be one."""
        for text in ("", "soon", "5h", "1e3", "inf", "nan", "5 s", "5S", "ms", ".", "1_0", "٣"):
            error = self.assertRaises(ConfigError, fromText, "drain-timeout", text)
            self.assertEqual(
                str(error),
                f"can't use --drain-timeout '{text}': it is not a duration; give a number of"
                " seconds from 0 to 604800, such as 30, 0.5, 500ms, 30s or 2m",
            )

    def test_negativeDuration(self) -> None:
        """A negative time is told apart from nonsense."""
        error = self.assertRaises(ConfigError, fromText, "drain-timeout", "-5")
        self.assertEqual(error.cause, "it is less than 0")

    def test_zeroMeans(self) -> None:
        """Where 0 has a meaning of its own, the error says which."""
        error = self.assertRaises(ConfigError, fromText, "hung-timeout", "x")
        self.assertIn("from 0 (no limit) to", error.remedy)

    def test_workers(self) -> None:
        """A number of workers is a number."""
        self.assertEqual(fromText("workers", "4"), 4)

    def test_workersMax(self) -> None:
        """The word max is what this process may use."""
        self.patch(cpus, "usableCpus", lambda: 12)
        self.assertEqual(fromText("workers", "max"), 12)

    def test_workersMaxBounded(self) -> None:
        """On a machine larger than any, max is the largest number allowed."""
        self.patch(cpus, "usableCpus", lambda: 4096)
        self.assertEqual(fromText("workers", "max"), MAX_WORKERS)

    def test_noWorkers(self) -> None:
        """What is no number of workers is refused with what would be one."""
        for text in ("nonsense", "", "4.0", "MAX", "0x4", "1_000"):
            error = self.assertRaises(ConfigError, fromText, "workers", text)
            self.assertEqual(
                str(error),
                f"can't use --workers '{text}': it is not a whole number;"
                " give a whole number from 1 to 1024, or max",
            )

    def test_hugeNumber(self) -> None:
        """A number of any length is refused in one line."""
        error = self.assertRaises(ConfigError, fromText, "workers", "9" * 10_000)
        self.assertLess(len(str(error)), 400)

    def test_listen(self) -> None:
        """One endpoint string is a tuple of one."""
        self.assertEqual(fromText("listen", "tcp:80:interface=::1"), ("tcp:80:interface=::1",))

    def test_emptyPaths(self) -> None:
        """An empty path is none."""
        self.assertIsNone(fromText("admin", ""))
        self.assertIsNone(fromText("reload-on-touch", ""))

    def test_service(self) -> None:
        """The service is checked like an app."""
        self.assertEqual(fromText("service", "hello:MyCluster"), "hello:MyCluster")
        error = self.assertRaises(ConfigError, fromText, "service", "MyCluster")
        self.assertIn("such as hello:MyCluster", error.remedy)

    @given(st.sampled_from(sorted(OPTIONS)), st.text())
    def test_anyText(self, option: str, text: str) -> None:
        """Any text is either read or refused in one line that can be printed."""
        try:
            fromText(option, text)
        except ConfigError as error:
            self.assertRegex(str(error), rf"^can't use --{option} .*; give .*$")
            self.assertTrue(str(error).isprintable())


class FromTomlTests(SynchronousTestCase):
    """
    Values from a config file.
    """

    def file(self, text: str | bytes) -> str:
        """
        Have a config file with this text; return its path.
        """
        path: str = self.mktemp()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else dedent(text).encode())
        return path

    def refused(self, text: str | bytes) -> ConfigError:
        """
        The error that a file with this text gets.
        """
        error: ConfigError = self.assertRaises(ConfigError, fromToml, self.file(text))
        return error

    def test_everything(self) -> None:
        """A file can say all that the command line can say."""
        self.patch(cpus, "usableCpus", lambda: 3)
        path = self.file("""
            [cluster]
            app = "hello:app"
            plugin = "web"
            tac = "hello.tac"
            module = "hello.server"
            script = "server.py"
            arguments = ["--port", "80"]
            listen = ["tcp:8080", "unix:/run/app.sock"]
            workers = "max"
            policy = "least-connections"
            admin = "run/admin.sock"
            generation-timeout = 10
            drain-timeout = 2.5
            drain-grace = "500ms"
            stop-timeout = "5"
            hung-timeout = 0
            credit = 100
            preload = false
            reload-parallel = 2
            reload-on-touch = "deployed"
            restart-intensity = 3
            restart-period = "1m"
            service = "hello:MyCluster"
            state = "redis://:s3cret@h"
            state-timeout = "2s"
            cache-size = "1G"
            """)
        expected = {
            "app": "hello:app",
            "plugin": "web",
            "tac": "hello.tac",
            "module": "hello.server",
            "script": "server.py",
            "arguments": ("--port", "80"),
            "listen": ("tcp:8080", "unix:/run/app.sock"),
            "workers": 3,
            "policy": "least-connections",
            "admin": "run/admin.sock",
            "generation-timeout": 10,
            "drain-timeout": 2.5,
            "drain-grace": 0.5,
            "stop-timeout": 5.0,
            "hung-timeout": 0,
            "credit": 100,
            "preload": False,
            "reload-parallel": 2,
            "reload-on-touch": "deployed",
            "restart-intensity": 3,
            "restart-period": 60.0,
            "service": "hello:MyCluster",
            "state": "redis://:s3cret@h",
            "state-timeout": 2.0,
            "cache-size": 1 << 30,
        }
        self.assertEqual(fromToml(path), expected)
        self.assertEqual(set(expected), set(OPTIONS))

    def test_noSecrets(self) -> None:
        """No error shows the password of a URL, wherever it was given."""
        path = self.file('[cluster]\nstate = "redis://:s3cret@h/x"')
        for give in (
            lambda: fromToml(path),
            lambda: fromText("state", "redis://:s3cret@h/x"),
            lambda: ClusterConfig("hello:app", state="redis://:s3cret@h/x"),
        ):
            error = self.assertRaises(ConfigError, give)
            self.assertIn("redis://:***@h/x", str(error))
            self.assertNotIn("s3cret", str(error))
        config = ClusterConfig("hello:app", state="redis://:s3cret@h")
        self.assertNotIn("s3cret", repr(config))

    def test_oneListener(self) -> None:
        """A single listener needs no list."""
        self.assertEqual(
            fromToml(self.file('[cluster]\nlisten = "tcp:80"')), {"listen": ("tcp:80",)}
        )

    def test_noAdmin(self) -> None:
        """The admin socket is switched off by false or by an empty text."""
        for value in ("false", '""'):
            self.assertEqual(fromToml(self.file(f"[cluster]\nadmin = {value}")), {"admin": None})

    def test_empty(self) -> None:
        """A file that says nothing sets nothing."""
        self.assertEqual(fromToml(self.file("")), {})
        self.assertEqual(fromToml(self.file("[cluster]")), {})

    def test_wrong(self) -> None:
        """A wrong value or type is refused with its place, the reason and what is allowed."""
        for line, cause in (
            ('workers = "many"', "it is text, not a whole number"),
            ('workers = "4"', "it is text, not a whole number"),
            ("workers = true", "it is true or false, not a whole number"),
            ("workers = 2.0", "it is a number with a fraction, not a whole number"),
            ("workers = 0", "it is less than 1"),
            ("app = 3", "it is a whole number, not text"),
            ("app = false", "it is true or false, not text"),
            ("listen = 8080", "it is a whole number, neither text nor a list"),
            ("listen = [8080]", "in 8080, it is a whole number, not text"),
            ("listen = [[]]", "in [], it is a list, not text"),
            ('listen = "8080"', "does not begin with a kind of endpoint"),
            ("admin = true", "it is true or false, not text"),
            ("drain-timeout = 1979-05-27", "it is a date or a time, not a number of seconds"),
            ("drain-timeout = inf", "it is not a finite number"),
            ("drain-timeout = nan", "it is not a finite number"),
            ('drain-timeout = "soon"', "it is not a duration"),
            ("drain-timeout = {}", "it is a table, not a number of seconds"),
            ("credit = []", "it is a list, not a whole number"),
        ):
            error = self.refused(f"[cluster]\n{line}\n")
            option = line.partition(" ")[0]
            self.assertIn(cause, error.cause, line)
            self.assertRegex(str(error), rf"^can't use {option} = .* in .*: .*; give .*$")

    def test_namesFile(self) -> None:
        """The error names the file."""
        path = self.file("[cluster]\nworkers = 0")
        error = self.assertRaises(ConfigError, fromToml, path)
        self.assertEqual(
            str(error),
            f"can't use workers = 0 in {path}: it is less than 1;"
            " give a whole number from 1 to 1024, or max",
        )

    def test_unknownNear(self) -> None:
        """An option that does not exist is refused with the nearest that do."""
        for key, near in (
            ("wokers", "workers"),
            ("drainTimeout", "drain-timeout"),
            ("drain_timeout", "drain-timeout"),
            ("listeners", "listen"),
            ("no-admin", "admin"),
        ):
            error = self.refused(f"[cluster]\n{key} = 1\n")
            self.assertEqual(error.cause, "there is no such option")
            self.assertIn(near, error.remedy.split(" are ")[1].split(", "))
            self.assertLessEqual(error.remedy.count(","), 2)

    def test_unknownFar(self) -> None:
        """Where nothing is near, all options are named."""
        error = self.refused("[cluster]\nzzz = 1\n")
        self.assertIn(", ".join(OPTIONS), error.remedy)

    def test_outsideTable(self) -> None:
        """Whatever is outside of the table is refused, for it would do nothing."""
        for text in ("workers = 4\n", "[clusters]\nworkers = 4\n", "[cluster]\n[other]\n"):
            self.assertEqual(self.refused(text).cause, "it is outside of the table [cluster]")

    def test_notTable(self) -> None:
        """The table has to be a table."""
        self.assertEqual(self.refused("cluster = 4").cause, "it is a whole number, not a table")
        self.assertEqual(self.refused("[[cluster]]").cause, "it is a list, not a table")

    def test_noToml(self) -> None:
        """A file that is not TOML is refused with the place of the error."""
        error = self.refused("[cluster]\nworkers: 4\n")
        self.assertRegex(str(error), r"^can't read .*: it is not TOML: .*line 2.*; mend the file$")

    def test_noText(self) -> None:
        """Neither are arbitrary bytes."""
        self.assertIn("it is not TOML", self.refused(b"\xff\xfe\x00").cause)

    def test_noFile(self) -> None:
        """A file that is not there, or can't be read, is named."""
        missing = self.mktemp()
        error = self.assertRaises(ConfigError, fromToml, missing)
        self.assertEqual(
            str(error),
            f"can't read {missing}: No such file or directory; name a TOML file that can be read",
        )
        error = self.assertRaises(ConfigError, fromToml, os.curdir)
        self.assertEqual(error.cause, "Is a directory")

    def test_noReader(self) -> None:
        """Where no module reads TOML, the error says how to get one."""
        path = self.file("[cluster]")
        error = self.assertRaises(ConfigError, fromToml, path, readers=("noSuchReader",))
        self.assertEqual(
            str(error),
            f"can't read {path}: this Python has no reader for TOML;"
            " install one with: pip install twisted_cluster[toml]",
        )

    def test_otherReader(self) -> None:
        """Where the first reader is not installed, the next one is used."""
        module = ModuleType("otherTomlReader")
        module.__dict__["load"] = lambda file: {"cluster": {"credit": len(file.read())}}
        sys.modules["otherTomlReader"] = module
        self.addCleanup(sys.modules.pop, "otherTomlReader")
        readers = ("noSuchReader", "otherTomlReader")
        self.assertEqual(fromToml(self.file("four"), readers), {"credit": 4})


class WordsTests(SynchronousTestCase):
    """
    How errors speak of values.
    """

    def test_typeName(self) -> None:
        """Types have plain names; those without one have that of Python."""
        self.assertEqual(typeName(True), "true or false")
        self.assertEqual(typeName({}), "a table")
        self.assertEqual(typeName(sys), "a module")

    def test_shown(self) -> None:
        """Values are quoted, and cut at the length of a line."""
        self.assertEqual(shown("a\nb"), "'a\\nb'")
        self.assertEqual(len(shown("x" * 100)), 80)
        self.assertTrue(shown("x" * 100).endswith("..."))
