"""
From the name of an app to something that can be served.  Runs in the worker;
the master never imports an app.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from twisted.application.service import IService
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.components import Componentized

from twisted_cluster.errors import AppLoadError

KINDS = (
    "a Factory, a Site, a Resource, a WSGI callable, an IService, an Application,"
    " or a callable that takes no argument and returns one of these"
)


class WrongName(AppLoadError):
    """
    The name given for the app is wrong, rather than the app.
    """


@dataclass(frozen=True)
class App:
    """
    What a worker runs: exactly one of the two is set.

    @ivar factory: Builds the protocols of all handed-off connections.
    @ivar service: Listens for itself.
    """

    factory: Any = None
    service: Any = None


def find(name: str) -> Any:
    """
    Import C{module:attr} and return the object itself.

    @raise WrongName: if there is no such module or attribute.
    @raise AppLoadError: if the module's own code fails.
    """
    moduleName, _, attributes = name.partition(":")
    found: Any = _import(name, moduleName)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            raise WrongName(
                f"app {name}: {_describe(found)} has no attribute {attribute!r}"
            ) from error
        except (Exception, SystemExit) as error:
            raise failed(name, error) from error
    return found


def _import(name: str, moduleName: str) -> ModuleType:
    try:
        return importlib.import_module(moduleName)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if moduleName == missing or moduleName.startswith(f"{missing}."):
            raise WrongName(f"app {name}: there is no module {missing!r} in {_places()}") from error
        raise failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise failed(name, error) from error


def _places() -> str:
    return f"{sys.path[0] or '.'} or on the rest of the module path"


def _describe(found: Any) -> str:
    if isinstance(found, ModuleType):
        return f"module {found.__name__!r}"
    return f"{type(found).__name__} object"


def failed(name: str, error: BaseException, *ours: str) -> AppLoadError:
    """
    What to say of an app that raised C{error} while it was loaded.

    @param ours: Files whose lines the traceback need not show.
    """
    summary = traceback.format_exception_only(type(error), error)[-1].strip()
    return AppLoadError(f"app {name} fails to load: {summary}", appTraceback(error, *ours))


def appTraceback(error: BaseException, *ours: str) -> str:
    """
    The traceback of C{error} from the app's own first line on.
    """
    frames = traceback.extract_tb(error.__traceback__)
    hidden = {__file__, importlib.__file__, *ours}
    shown = [
        frame
        for frame in frames
        if frame.filename not in hidden and not frame.filename.startswith("<frozen ")
    ]
    lines = traceback.format_list(shown)
    lines += traceback.format_exception_only(type(error), error)
    return "Traceback (most recent call last):\n" + "".join(lines)


def resolve(name: str, found: Any) -> Any:
    """
    Turn the object that was found into an L{App}, or a Deferred or coroutine
    of an object for L{resolve}.

    @raise WrongName: if it is nothing that can be served.
    @raise AppLoadError: if the app's own code fails.
    """
    app = found if isinstance(found, App) else _asApp(found)
    if app is not None:
        return app
    if callable(found) and _takesNothing(found):
        try:
            made = found()
        except (Exception, SystemExit) as error:
            raise failed(name, error) from error
        return made if _isPending(made) else resolveResult(name, made)
    raise WrongName(f"app {name} is a {type(found).__name__}; it must be {KINDS}")


def resolveEarly(found: Any) -> Any:
    """
    Do as much of L{resolve} as runs none of the app's own code: for a
    template, so that its workers need not do it each.  Installs the reactor,
    if what was found is complete and thus has no word to say about it.

    @return: An L{App}, or C{found} as it is.
    """
    app = None if inspect.isclass(found) else _asReadyApp(found)
    if app is None:
        return found
    importlib.import_module("twisted.internet.reactor")
    return app


def resolveResult(name: str, made: Any) -> App:
    """
    Turn what a callable returned into an L{App}.

    @raise WrongName: if it is nothing that can be served.
    """
    app = _asApp(made)
    if app is None:
        raise WrongName(f"app {name} returned a {type(made).__name__}; it must return {KINDS}")
    return app


def _isPending(made: Any) -> bool:
    from twisted.internet.defer import Deferred

    return isinstance(made, Deferred) or inspect.iscoroutine(made)


def _asApp(found: Any) -> App | None:
    if inspect.isclass(found):
        return None
    app = _asReadyApp(found)
    if app is None and callable(found) and _takesTwo(found):
        app = App(factory=_wsgiSite(found))
    return app


def _asReadyApp(found: Any) -> App | None:
    """
    What can be served as it is.  twisted.web is imported for those who use
    it.
    """
    if IProtocolFactory.providedBy(found):
        return App(factory=found)
    # Only an Application has to be adapted; asking for adapters is not free.
    if IService.providedBy(found) or isinstance(found, Componentized):
        # Itself, since an Application also says whom to run as.
        return None if IService(found, None) is None else App(service=found)
    if "twisted.web.resource" in sys.modules:
        from twisted.web.resource import IResource
        from twisted.web.server import Site

        if IResource.providedBy(found):
            return App(factory=Site(found))
    return None


def _wsgiSite(application: Any) -> Any:
    from twisted.internet import reactor
    from twisted.web.server import Site
    from twisted.web.wsgi import WSGIResource

    return Site(WSGIResource(reactor, reactor.getThreadPool(), application))  # type: ignore[attr-defined]


def _required(function: Any) -> int | None:
    """
    How many positional arguments C{function} must be given, or L{None} if
    that can't be told.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        1
        for parameter in parameters
        if parameter.kind in positional and parameter.default is inspect.Parameter.empty
    )


def _takesNothing(function: Any) -> bool:
    return _required(function) == 0


def _takesTwo(function: Any) -> bool:
    return _required(function) == 2
