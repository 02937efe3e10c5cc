"""
Tests for L{twisted_cluster.worker.loader}.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterable
from textwrap import dedent
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application, MultiService, Service
from twisted.internet.defer import succeed
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.wsgi import WSGIResource

from twisted_cluster.errors import AppLoadError
from twisted_cluster.worker import loader
from twisted_cluster.worker.loader import App, WrongName

NAME = "hello:app"


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    """
    A WSGI callable.
    """
    return [b"hello"]


class FlaskLike:
    """
    An object that is called as WSGI wants it.
    """

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer."""
        return [b"hello"]


class KleinLike:
    """
    An object whose method makes the resource.
    """

    def resource(self) -> Resource:
        """Make it."""
        return Resource()


class Configured(Resource):
    """
    A resource that can't be made without an argument.
    """

    def __init__(self, database: str) -> None:
        super().__init__()


class Optional_(Resource):
    """
    One that can.
    """

    def __init__(self, database: str = "none") -> None:
        super().__init__()


class ResolveTests(SynchronousTestCase):
    """
    What can be served, and how.
    """

    def resolved(self, found: Any) -> App:
        """
        What is made of it.
        """
        app = loader.resolve(NAME, found)
        self.assertIsInstance(app, App)
        self.assertEqual([app.factory is None, app.service is None].count(True), 1)
        result: App = app
        return result

    def siteOf(self, found: Any) -> Any:
        """
        The resource of the site that is made of it.
        """
        factory = self.resolved(found).factory
        self.assertIsInstance(factory, Site)
        return factory.resource

    def test_factory(self) -> None:
        """
        A factory, and a site, are served as they are.
        """
        for factory in (Factory(), Site(Resource())):
            self.assertIs(self.resolved(factory).factory, factory)

    def test_resource(self) -> None:
        """
        A resource gets a site around it.
        """
        resource = Resource()
        self.assertIs(self.siteOf(resource), resource)

    def test_resourceClass(self) -> None:
        """
        A class whose instances can be served is called.
        """
        self.assertIsInstance(self.siteOf(Resource), Resource)
        self.assertIsInstance(self.siteOf(Optional_), Optional_)
        self.assertIsInstance(self.resolved(Factory).factory, Factory)

    def test_wsgi(self) -> None:
        """
        A function or an object called as WSGI wants it is served by WSGI.
        """
        for application in (wsgi, FlaskLike()):
            resource = self.siteOf(application)
            self.assertIsInstance(resource, WSGIResource)
            self.assertIs(resource._application, application)

    def test_service(self) -> None:
        """
        A service is run.
        """
        for service in (Service(), MultiService(), StreamServerEndpointService(None, None)):
            self.assertIs(self.resolved(service).service, service)

    def test_application(self) -> None:
        """
        An application is taken as a whole: it also says whom to run as.
        """
        application = Application("hello")
        self.assertIs(self.resolved(application).service, application)

    def test_callables(self) -> None:
        """
        A callable may return any of these.
        """
        resource, factory, service = Resource(), Factory(), Service()
        self.assertIs(self.siteOf(lambda: resource), resource)
        self.assertIs(self.resolved(lambda: factory).factory, factory)
        self.assertIs(self.resolved(lambda: service).service, service)
        self.assertIs(self.siteOf(lambda: wsgi)._application, wsgi)
        self.assertIsInstance(self.siteOf(KleinLike().resource), Resource)

    def test_defaults(self) -> None:
        """
        Arguments with defaults need not be given.
        """

        def make(debug: bool = False, *rest: Any, **more: Any) -> Resource:
            return Resource()

        self.assertIsInstance(self.siteOf(make), Resource)

    def test_pending(self) -> None:
        """
        What a Deferred or a coroutine is to give is left to the caller.
        """
        made = loader.resolve(NAME, lambda: succeed(Resource()))
        self.assertIsInstance(self.successResultOf(made), Resource)

        async def later() -> Resource:
            return Resource()

        coroutine = loader.resolve(NAME, later)
        self.assertNotIsInstance(coroutine, App)
        coroutine.close()

    def assertWrong(self, call: Callable[[], Any], text: str) -> None:
        """
        What was named can't be served, and the operator is told why.
        """
        error = self.assertRaises(WrongName, call)
        self.assertIn(text, str(error))
        self.assertIn("a Factory, a Site, a Resource, a WSGI callable, an IService", str(error))

    def test_wrongType(self) -> None:
        """
        What can't be served is called what it is, and what could be is said.
        """
        values = [(3, "int"), (None, "NoneType"), ("text", "str"), (types, "module")]
        for value, name in values:
            self.assertWrong(
                lambda value=value: loader.resolve(NAME, value),  # type: ignore[misc]
                f"app hello:app is a {name}; it must be",
            )

    def test_wrongArguments(self) -> None:
        """
        So is a callable that wants arguments.
        """
        self.assertWrong(lambda: loader.resolve(NAME, Configured), "app hello:app is a type")
        self.assertWrong(lambda: loader.resolve(NAME, lambda a, b, c: None), "is a function")

    def test_wrongResult(self) -> None:
        """
        And one that returns what can't be served.
        """
        self.assertWrong(
            lambda: loader.resolve(NAME, lambda: 3), "app hello:app returned a int; it must return"
        )

    def test_raises(self) -> None:
        """
        A callable that fails is the app's fault; the traceback begins in the
        app.
        """

        def broken() -> None:
            raise KeyError("DATABASE")

        error = self.assertRaises(AppLoadError, loader.resolve, NAME, broken)
        self.assertNotIsInstance(error, WrongName)
        self.assertEqual(str(error), "app hello:app fails to load: KeyError: 'DATABASE'")
        self.assertIn("in broken", error.traceback)
        self.assertNotIn("worker/loader.py", error.traceback.replace("tests/worker", ""))

    def test_exits(self) -> None:
        """
        One that wants to end the process only fails.
        """
        error = self.assertRaises(AppLoadError, loader.resolve, NAME, lambda: sys.exit(3))
        self.assertEqual(str(error), "app hello:app fails to load: SystemExit: 3")


class FindTests(SynchronousTestCase):
    """
    From C{module:attr} to the object.
    """

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        sys.path.insert(0, self.directory)
        self.addCleanup(sys.path.remove, self.directory)
        self.addCleanup(self.forget, set(sys.modules))

    def forget(self, known: set[str]) -> None:
        """
        Forget the modules that a test has imported.
        """
        for name in set(sys.modules) - known:
            del sys.modules[name]

    def module(self, name: str, text: str) -> None:
        """
        Write a module.
        """
        path = os.path.join(self.directory, *name.split(".")) + ".py"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(dedent(text))

    def assertWrong(self, name: str, text: str) -> None:
        """
        The name is the operator's fault.
        """
        error = self.assertRaises(WrongName, loader.find, name)
        self.assertIn(text, str(error))
        self.assertEqual(error.traceback, "")

    def assertFails(self, name: str, text: str) -> str:
        """
        The app is at fault.

        @return: The traceback.
        """
        error = self.assertRaises(AppLoadError, loader.find, name)
        self.assertNotIsInstance(error, WrongName)
        self.assertEqual(str(error), f"app {name} fails to load: {text}")
        return str(error.traceback)

    def test_found(self) -> None:
        """
        Dotted modules and dotted attributes are followed.
        """
        self.module("lt_package.inner", "class Deep:\n    app = ['it']\n")
        self.assertEqual(loader.find("lt_package.inner:Deep.app"), ["it"])

    def test_noModule(self) -> None:
        """
        A module, or a package above it, that does not exist.
        """
        self.assertWrong("lt_missing:app", "there is no module 'lt_missing' in")
        self.assertWrong("lt_missing.deep:app", "there is no module 'lt_missing' in")
        self.module("lt_plain", "")
        self.assertWrong("lt_plain.deep:app", "there is no module 'lt_plain.deep'")

    def test_noAttribute(self) -> None:
        """
        An attribute that does not exist.
        """
        self.module("lt_empty", "thing = 3\n")
        self.assertWrong("lt_empty:app", "module 'lt_empty' has no attribute 'app'")
        self.assertWrong("lt_empty:thing.app", "int object has no attribute 'app'")

    def test_missingDependency(self) -> None:
        """
        A module that the app itself misses is the app's fault.
        """
        self.module("lt_depends", "import lt_dependency\n")
        trace = self.assertFails(
            "lt_depends:app", "ModuleNotFoundError: No module named 'lt_dependency'"
        )
        self.assertIn("lt_depends.py", trace)

    def test_raises(self) -> None:
        """
        A module that fails; the traceback has the app's lines alone.
        """
        self.module("lt_raises", "def go():\n    raise ValueError('x')\ngo()\n")
        trace = self.assertFails("lt_raises:app", "ValueError: x")
        self.assertIn("lt_raises.py", trace)
        self.assertNotIn("worker/loader.py", trace)
        self.assertNotIn("importlib", trace)
        self.assertTrue(trace.endswith("ValueError: x\n"))

    def test_syntax(self) -> None:
        """
        A module that is no Python.
        """
        self.module("lt_syntax", "def def\n")
        error = self.assertRaises(AppLoadError, loader.find, "lt_syntax:app")
        self.assertIn("SyntaxError", str(error))
        self.assertIn("lt_syntax.py", error.traceback)

    def test_exits(self) -> None:
        """
        A module that ends the process at its import, as a script would.
        """
        self.module("lt_exits", "import sys\nsys.exit('usage: ...')\n")
        self.assertFails("lt_exits:app", "SystemExit: usage: ...")

    def test_attributeRaises(self) -> None:
        """
        An attribute that fails when it is looked up.
        """
        self.module("lt_lazy", "def __getattr__(name):\n    raise RuntimeError(name)\n")
        trace = self.assertFails("lt_lazy:app", "RuntimeError: app")
        self.assertIn("lt_lazy.py", trace)
