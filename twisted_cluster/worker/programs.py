"""
Apps that are more than an importable name: commands of twistd, C{.tac} files,
modules and scripts.  Runs in the worker; what says C{preload}, in the template.
"""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import io
import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import Application, IService
from twisted.internet.error import CannotListenError
from twisted.python import usage

from twisted_cluster.errors import AppLoadError
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.worker import loader
from twisted_cluster.worker.loader import App, WrongName


def load(source: Source) -> Any:
    """
    What C{source}, of any kind but a program, stands for: something for
    L{loader.resolve}.

    @raise WrongName: if the operator named it wrongly.
    @raise AppLoadError: if the app's own code fails.
    """
    return _LOADERS[source.kind](source)


def _plugin(source: Source) -> App:
    options = _twistdOptions(source)
    maker = options.loadedPlugins[source.name]
    try:
        application = Application(maker.tapname)
        maker.makeService(options.subOptions).setServiceParent(application)
    except (Exception, SystemExit) as error:
        raise failure(source, error) from error
    return App(service=application)


def _twistdOptions(source: Source) -> Any:
    """
    The command line of twistd, read by twistd's own code, so that what the
    command sees is what it always sees.
    """
    from twisted.scripts._twistd_unix import ServerOptions

    sys.argv = ["twistd", "--nodaemon", source.name, *source.arguments]
    options = ServerOptions()
    try:
        options.parseOptions(sys.argv[1:])
    except usage.UsageError as error:
        known = options.loadedPlugins if hasattr(options, "loadedPlugins") else {}
        if source.name in known:
            raise WrongName(f"app {source}: {error}; see twistd {source.name} --help") from error
        raise WrongName(f"twistd has no command {source.name!r}; see twistd --help") from error
    except SystemExit as error:
        raise WrongName(
            f"app {source} says something and ends: it serves nothing; see above"
        ) from error
    except Exception as error:
        raise failure(source, error) from error
    return options


def _tac(source: Source) -> App:
    from twisted.persisted.sob import loadValueFromFile

    try:
        # What twistd calls goes on to ask for a passphrase if there is a fault.
        found = loadValueFromFile(source.name, "application")
    except FileNotFoundError as error:
        if error.filename != source.name:
            raise failure(source, error) from error
        raise WrongName(f"there is no file {source.name}") from error
    except KeyError as error:
        if error.args != ("application",):
            raise failure(source, error) from error
        raise WrongName(f"{source.name} defines no variable called application") from error
    except (Exception, SystemExit) as error:
        raise failure(source, error) from error
    if IService(found, None) is None:
        raise WrongName(f"the application in {source.name} is a {type(found).__name__}")
    return App(service=found)


_LOADERS: dict[SourceKind, Callable[[Source], Any]] = {
    SourceKind.APP: lambda source: loader.find(source.name),
    SourceKind.PLUGIN: _plugin,
    SourceKind.TAC: _tac,
}


def failure(source: Source, error: BaseException) -> AppLoadError:
    """
    What to say of an app whose own code fails.
    """
    if isinstance(error, AppLoadError):
        return error
    if isinstance(error, CannotListenError):
        return cannotListen(error)
    return loader.failed(str(source), error, __file__, runpy.__file__)


def cannotListen(error: CannotListenError) -> AppLoadError:
    """
    The operator's fault: an address that can't be had.
    """
    cause = error.socketError
    text = getattr(cause, "strerror", None) or str(cause)
    port = os.fsdecode(error.port) if isinstance(error.port, bytes) else str(error.port)
    where = f"{error.interface}:{port}" if error.interface else port.replace("\0", "@", 1)
    remedy = _REMEDIES.get(getattr(cause, "errno", 0), "choose another address")
    return WrongName(f"can't listen on {where}: {text}; {remedy}")


_REMEDIES = {
    errno.EADDRINUSE: "stop what uses it or choose another one; what can't be shared by workers"
    " (multicast, for one) needs --workers 1",
    errno.EACCES: "name it with --listen too, which is bound before privileges are dropped, or"
    " choose another one",
    errno.EBADF: "start the master with a listening socket under that number",
}


def run(source: Source) -> int:
    """
    Run a module or a script to its end, as the interpreter would.

    @return: Its exit code.
    @raise WrongName: if there is no such program.
    @raise AppLoadError: if it fails.
    """
    try:
        if source.kind is SourceKind.MODULE:
            _runModule(source)
        else:
            _runScript(source)
    except SystemExit as error:
        return _exitCode(error)
    except AppLoadError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise failure(source, error) from error
    return 0


def _runModule(source: Source) -> None:
    if _moduleSpec(source.name) is None:
        raise WrongName(f"there is no module {source.name!r} that can be run")
    sys.argv = [source.name, *source.arguments]
    runpy.run_module(source.name, run_name="__main__", alter_sys=True)


def _runScript(source: Source) -> None:
    if not os.path.isfile(source.name):
        raise WrongName(f"there is no script {source.name}")
    sys.argv = [source.name, *source.arguments]
    _findBeside(source.name)
    runpy.run_path(source.name, run_name="__main__")


def _findBeside(script: str) -> None:
    """
    Have modules found where the interpreter finds those of a script first.
    """
    directory = os.path.dirname(os.path.realpath(script))
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)


def _exitCode(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return 1


def _moduleSpec(name: str) -> Any:
    """
    Where the code of a module, or of a package's C{__main__}, is; L{None} if
    there is none.  Imports the packages that it is in, whose own errors are
    passed on.
    """
    if name.startswith(".") or name in ("", "__main__"):
        return None
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            return None
        raise
    return spec


def preload(source: Source) -> Any:
    """
    Import ahead what workers will need, as far as that can't change what the
    app does.

    @return: What L{loader.resolve} takes, or L{None} if each worker is to
        L{load} or L{run} C{source} itself.
    @raise AppLoadError: as L{load}.
    """
    if source.kind is SourceKind.APP:
        return loader.resolveEarly(loader.find(source.name))
    if source.kind is SourceKind.PLUGIN:
        _preloadPlugin(source.name)
    elif source.kind is SourceKind.MODULE:
        _try(lambda: _preloadModule(source.name))
    else:
        if source.kind is SourceKind.SCRIPT:
            _findBeside(source.name)
        importAhead(_sourceOf(source.name))
    return None


def _preloadModule(name: str) -> None:
    spec = _moduleSpec(name)
    if spec is not None:
        importAhead(_sourceOf(spec.origin), package=spec.parent or "")


def _preloadPlugin(name: str) -> None:
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    importlib.import_module("twisted.scripts.twistd")
    for plugin in getPlugins(IServiceMaker):
        if plugin.tapname == name:
            # The module with the command's own code is imported by this.
            _try(partial(getattr, plugin, "options"))


def _sourceOf(path: str | None) -> ast.Module:
    """
    The parsed file, or an empty one if it can't be read: who runs it finds
    that out.
    """
    try:
        with io.open_code(path or "") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def importAhead(tree: ast.Module, package: str = "") -> None:
    """
    Carry out the imports that a program begins with, up to the first
    statement that does something else: so all happens in the order that the
    program wants, and nothing that it does not do first of all.

    @param package: What relative imports refer to.
    """
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            done = all(_try(partial(_importModule, alias.name)) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            done = _try(partial(_importFrom, statement, package))
        else:
            done = _isHarmless(statement)
        if not done:
            return


def _importModule(name: str) -> None:
    if name not in _NEVER:
        importlib.import_module(name)


def _importFrom(statement: ast.ImportFrom, package: str) -> None:
    """
    Import the module, and those of its names that are modules themselves.
    """
    name = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
    if name in _NEVER:
        return
    module = importlib.import_module(name)
    for alias in statement.names:
        inner = f"{name}.{alias.name}"
        if alias.name != "*" and inner not in _NEVER and not hasattr(module, alias.name):
            importlib.import_module(inner)


_NEVER = frozenset({"__future__", "twisted.internet.reactor"})
"""What is left to the workers: the reactor, lest it be the wrong one."""


def _isHarmless(statement: ast.stmt) -> bool:
    """
    Whether a statement does nothing that an import could depend on.  The
    making of a class may do anything.
    """
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        head = [one for one in (statement.args, statement.returns) if one is not None]
        calls = [node for part in head for node in ast.walk(part) if isinstance(node, ast.Call)]
        return not statement.decorator_list and not calls
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _try(call: Callable[[], Any]) -> bool:
    """
    Do what a worker is about to do as well: if it fails, it fails there, where
    it can be told.
    """
    try:
        call()
    except (Exception, SystemExit):
        return False
    return True
