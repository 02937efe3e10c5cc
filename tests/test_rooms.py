"""
Holds the package to its architecture, by reading its source.

docs/architecture.rst has the same table in words.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "twisted_cluster"

MAX_LINES = 40
"""The longest that a function may be, below its signature and docstring."""

LEAVES = frozenset(
    {
        "config",
        "cpus",
        "errors",
        "events",
        "imports",
        "interfaces",
        "kernel",
        "kinds",
        "missing",
        "sources",
        "stateurl",
    }
)

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "leaves": frozenset(),
    "package": frozenset({"context"}),
    "context": frozenset({"shared", "wire.messages"}),
    "endpoints": frozenset({"context"}),
    "policies": frozenset({"policy.scheduling"}),
    "policy": frozenset(),
    "wire": frozenset(),
    "backends": frozenset(
        {"policy.cache", "policy.counters", "policy.leases", "policy.replica", "wire.values"}
    ),
    "shared": frozenset({"wire", "policy.replica"}),
    "worker": frozenset({"context", "shared", "wire"}),
    "master": frozenset({"policies", "policy", "shared", "wire"}),
    "ops": frozenset({"wire.admin"}),
    "service": frozenset({"backends", "master", "ops.admin", "policies", "shared"}),
    "tap": frozenset({"service", "ops", "policies"}),
    "testing": frozenset({"backends.memory", "context", "master.shared", "wire"}),
    "sentinel": frozenset(),
    "sessions": frozenset({"context", "wire.values"}),
    "singleton": frozenset({"context", "shared"}),
}
"""The rooms, and what each may import besides itself and the leaves: rooms as
a whole, or single modules of them."""

PURE = frozenset(
    {
        "__future__",
        "abc",
        "automat",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "operator",
        "random",
        "twisted_cluster",
        "types",
        "typing",
        "zope",
    }
)
"""What decisions are made of.  Neither the system nor the time nor a reactor
is among it; a source of randomness comes as an argument."""


Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def modules(directory: Path = PACKAGE) -> Iterator[tuple[str, ast.Module]]:
    """
    Each module below C{directory}, by its name without that of the package.
    """
    for path in sorted(directory.rglob("*.py")):
        parts = path.relative_to(directory).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """
    The full name of each module or name that is imported anywhere in C{tree}.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST, known: frozenset[str]) -> set[str]:
    """
    Which of the C{known} modules of the package are imported in C{tree}.
    """
    found = set()
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] != "twisted_cluster":
            continue
        # What is not a module is a name in the module before it.
        inner = ".".join(parts[1:])
        found.add(inner if inner in known else ".".join(parts[1:-1]))
    return found


def room(module: str) -> str:
    """
    The room that C{module} is in.
    """
    first = module.split(".")[0]
    if not first:
        return "package"
    return "leaves" if first in LEAVES else first


def allowed(module: str, other: str) -> bool:
    """
    Whether C{module} may import C{other}.
    """
    here, there = room(module), room(other)
    if here == there or (there in ("leaves", "package") and here != "sentinel"):
        return True
    return there in MAY_IMPORT[here] or other in MAY_IMPORT[here]


def longFunctions(tree: ast.AST) -> list[str]:
    """
    The functions in C{tree} that are too long, with their lengths.
    """
    return [
        f"{node.name} ({length} lines)"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := linesOf(node)) > MAX_LINES
    ]


def linesOf(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """
    How many lines there are below the signature and the docstring.
    """
    skipped = 0 if ast.get_docstring(function) is None else 1
    body = function.body[skipped:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def undocumented(tree: ast.Module) -> list[str]:
    """
    The public classes and functions in C{tree} that do not say what they are.
    A method may leave that to the class above it in the same module.
    """
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    for one in _public(tree):
        if isinstance(one, ast.ClassDef):
            found += [
                f"{one.name}.{node.name}" for node in _public(one) if not _says(node, one, classes)
            ]
    return found


def _public(parent: ast.Module | ast.ClassDef) -> list[Documented]:
    return [
        node
        for node in parent.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
    ]


def _says(node: Documented, owner: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> bool:
    if ast.get_docstring(node):
        return True
    above = [classes[ast.unparse(base)] for base in owner.bases if ast.unparse(base) in classes]
    return any(
        _says(other, base, classes)
        for base in above
        for other in _public(base)
        if other.name == node.name
    ) or any(_says(node, base, classes) for base in above)


def importsReactor(tree: ast.Module) -> bool:
    """
    Whether importing the module C{tree} installs a reactor.
    """
    return any(
        name.startswith("twisted.internet.reactor")
        for node in tree.body
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for name in imported(node)
    )


class RoomTests(SynchronousTestCase):
    """
    Who imports whom.
    """

    def setUp(self) -> None:
        """
        Read everything.
        """
        self.trees = dict(modules())
        self.known = frozenset(self.trees)
        self.graph = {name: ours(tree, self.known) - {name} for name, tree in self.trees.items()}

    def test_everyModuleHasRoom(self) -> None:
        """
        Each module belongs to a room of the table.
        """
        self.assertEqual({room(name) for name in self.trees} - set(MAY_IMPORT), set())

    def test_table(self) -> None:
        """
        Each room imports only what the table lets it import.
        """
        broken = [
            f"{name} imports {other}"
            for name, others in self.graph.items()
            for other in sorted(others)
            if not allowed(name, other)
        ]
        self.assertEqual(broken, [])

    def test_acyclic(self) -> None:
        """
        No module imports itself by way of others.
        """
        graph = {name: {one for one in others if one} for name, others in self.graph.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(f"a cycle: {' -> '.join(error.args[1])}")

    def test_policyIsPure(self) -> None:
        """
        Policies decide without a look at the system, the time or a reactor.
        """
        impure = [
            f"{module} imports {name}"
            for module, tree in self.trees.items()
            if room(module) == "policy"
            for name in imported(tree)
            if name.split(".")[0] not in PURE
        ]
        self.assertEqual(impure, [])

    def test_sentinelStandsAlone(self) -> None:
        """
        The sentinel runs with the standard library alone.
        """
        foreign = [
            name
            for name in imported(self.trees["sentinel"])
            if name.split(".")[0] not in sys.stdlib_module_names
        ]
        self.assertEqual(foreign, [])

    def test_noReactorAtImport(self) -> None:
        """
        No module installs a reactor when it is imported: which reactor there
        is to be is the operator's choice.
        """
        self.assertEqual([name for name, tree in self.trees.items() if importsReactor(tree)], [])

    def test_packageIsLight(self) -> None:
        """
        An app that asks where it runs imports no Twisted by that.
        """
        code = "import sys, twisted_cluster; print('twisted' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "False\n")


class StyleTests(SynchronousTestCase):
    """
    What a linter does not know.
    """

    def test_shortFunctions(self) -> None:
        """
        No function of the package is longer than 40 lines.
        """
        found = [
            f"{name}: {function}" for name, tree in modules() for function in longFunctions(tree)
        ]
        self.assertEqual(found, [])

    def test_docstrings(self) -> None:
        """
        Each module says what it is for.
        """
        silent = [
            f"{directory}/{name}"
            for directory in ("twisted_cluster", "twisted", "examples", "benchmarks")
            for name, tree in modules(ROOT / directory)
            if not ast.get_docstring(tree)
        ]
        self.assertEqual(silent, [])

    def test_publicDocstrings(self) -> None:
        """
        So does each public class and function of the package.
        """
        silent = [f"{name}: {one}" for name, tree in modules() for one in undocumented(tree)]
        self.assertEqual(silent, [])


class CheckTests(SynchronousTestCase):
    """
    The checks themselves find what they are to find.
    """

    def test_forms(self) -> None:
        """
        Each form of an import is seen, wherever it stands.
        """
        tree = ast.parse(
            "import twisted_cluster.errors\n"
            "from twisted_cluster import kernel, __version__\n"
            "def f():\n"
            "    from twisted_cluster.master.master import Master\n"
        )
        known = frozenset({"", "errors", "kernel", "master", "master.master"})
        self.assertEqual(ours(tree, known), {"errors", "kernel", "", "master.master"})

    def test_forbidden(self) -> None:
        """
        The table forbids what would break the architecture.
        """
        for module, other in (
            ("worker.session", "master.master"),
            ("master.master", "worker.session"),
            ("policy.rolling", "wire.commands"),
            ("wire.channel", "policy.rolling"),
            ("ops.admin", "master.master"),
            ("ops.admin", "service"),
            ("errors", "wire.channel"),
            ("sentinel", "errors"),
        ):
            self.assertFalse(allowed(module, other), f"{module} may import {other}")

    def test_longFunction(self) -> None:
        """
        41 lines are one too many; neither signature nor docstring counts.
        """
        start = "async def f(\n    a,\n    b,\n):\n    'Says\\nwhat.'\n"
        self.assertEqual(longFunctions(ast.parse(start + "    pass\n" * 40)), [])
        self.assertEqual(longFunctions(ast.parse(start + "    pass\n" * 41)), ["f (41 lines)"])
        self.assertEqual(longFunctions(ast.parse(start)), [])

    def test_undocumented(self) -> None:
        """
        What says nothing is found; what a class above says is enough.
        """
        tree = ast.parse(
            "class A:\n"
            "    'A.'\n"
            "    def said(self):\n        'Said.'\n"
            "    def unsaid(self): pass\n"
            "    def _private(self): pass\n"
            "class B(A):\n"
            "    'B.'\n"
            "class C(B):\n"
            "    def said(self): pass\n"
            "    def unsaid(self): pass\n"
            "def function(): pass\n"
        )
        self.assertEqual(undocumented(tree), ["C", "function", "A.unsaid", "C.unsaid"])

    def test_reactor(self) -> None:
        """
        A reactor is found at the top of a module, and may be in a function.
        """
        self.assertTrue(importsReactor(ast.parse("from twisted.internet import reactor")))
        self.assertTrue(
            importsReactor(ast.parse("if True:\n    import twisted.internet.reactor as r"))
        )
        self.assertFalse(
            importsReactor(ast.parse("def f():\n    from twisted.internet import reactor"))
        )
