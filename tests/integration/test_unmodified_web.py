"""
Web servers that know nothing of clusters.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.clients import Ab
from tests.integration.harness import (
    PATIENCE,
    Cluster,
    environment,
    reactor,
    requireTool,
    run,
    within,
)
from tests.integration.unmodified import (
    UNMODIFIED,
    UnmodifiedTestCase,
    Visit,
    WebVisit,
    app,
    visits,
)

LISTEN = ("--listen", "tcp:0:interface=127.0.0.1")


class WebTests(UnmodifiedTestCase):
    """
    Servers that say hello.
    """

    async def _proved(self, cluster: Cluster) -> None:
        await self._curled(cluster)
        await self.prove(cluster, visits(WebVisit, cluster.port))

    async def _curled(self, cluster: Cluster) -> None:
        curl = requireTool("curl", "curl")
        url = f"http://127.0.0.1:{cluster.port}/"
        finished = await run([curl, "-sS", "--fail", url, url])
        self.assertEqual((finished.out, finished.err), ("hello\nhello\n", ""))

    async def _loaded(self, cluster: Cluster) -> None:
        """
        A reload under C{ab -k} loses no request.
        """
        ab = Ab(cluster.port, "-k", concurrency=50)
        cluster.signal(signal.SIGHUP)
        await cluster.says("replacement by generation 2 done")
        report = await ab.stop()
        self.assertEqual(report.failed, {}, report.text)
        self.assertGreater(report.complete, 100)

    async def test_static(self) -> None:
        """
        C{twistd web --path}.
        """
        os.mkdir(self.path("site"))
        self.write("site/index.html", "hello\n")
        cluster = await self.serve("web", *LISTEN, "--path", "site")
        await self._loaded(cluster)
        await self._proved(cluster)

    async def test_wsgi(self) -> None:
        """
        C{twistd web --wsgi}, whose threads are each worker's own.
        """
        path = os.pathsep.join((UNMODIFIED, environment()["PYTHONPATH"]))
        words = ("web", *LISTEN, "--wsgi", "wsgi_hello.application")
        cluster = await self.serve(*words, env={"PYTHONPATH": path})
        await self._loaded(cluster)
        await self._proved(cluster)

    async def test_kleinScript(self) -> None:
        """
        A Klein app that calls C{app.run}, as a script.
        """
        await self._proved(await self.serve("--script", app("klein_server.py"), "0"))

    async def test_kleinModule(self) -> None:
        """
        The same as a module.
        """
        await self._proved(await self.serve("--module", "unmodified.klein_server", "0"))


class Client(WebSocketClientProtocol):
    """
    A websocket client that awaits each echo.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[Client] = Deferred()
        self.ended: Deferred[str] = Deferred()
        self._echo: Deferred[bytes] | None = None

    def onOpen(self) -> None:
        """The handshake is over."""
        self.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """An echo has come."""
        echo, self._echo = self._echo, None
        assert echo is not None, payload
        echo.callback(payload)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        """The end."""
        text = f"closed, {'clean' if wasClean else 'unclean'}: {code} {reason}"
        echo, self._echo = self._echo, None
        if echo is not None:
            echo.errback(AssertionError(text))
        self.ended.callback(text)

    def say(self, message: bytes) -> Deferred[bytes]:
        """
        Send a message, and await its echo.
        """
        if self.ended.called:
            raise AssertionError("said after the end")
        self._echo = Deferred()
        self.sendMessage(message)
        return within(PATIENCE, "an echo", self._echo, lambda: repr(message))


_numbers = itertools.count()


class WebSocketVisit(Visit):
    """
    A websocket.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    async def opened(cls, port: int) -> WebSocketVisit:
        """
        Connect, and shake hands.
        """
        factory: Any = WebSocketClientFactory(f"ws://127.0.0.1:{port}")
        factory.noisy = False
        client = Client()
        factory.buildProtocol = lambda address: _adopt(factory, client)
        reactor.connectTCP("127.0.0.1", port, factory)
        await within(PATIENCE, "a handshake", client.opened, lambda: "")
        return cls(client)

    async def ask(self) -> None:
        """Have a message echoed."""
        said = b"message %d" % next(_numbers)
        echo = await self.client.say(said)
        if echo != said:
            raise AssertionError(f"{echo!r} for {said!r}")

    def leave(self) -> None:
        """Close the websocket."""
        self.client.sendClose()

    def lost(self) -> Deferred[Any]:
        """Await the end."""
        return within(PATIENCE, "the end of a websocket", self.client.ended, lambda: "")

    @property
    def isOpen(self) -> bool:
        """Whether it stands."""
        return not self.client.ended.called

    @property
    def transport(self) -> Any:
        """The TCP connection under it."""
        return self.client.transport


def _adopt(factory: Any, client: Client) -> Client:
    client.factory = factory
    return client


class WebSocketTests(UnmodifiedTestCase):
    """
    Autobahn's websockets.
    """

    async def test_echo(self) -> None:
        """
        An echo server does what has to hold for all.
        """
        cluster = await self.serve("--script", app("websocket_echo.py"), "0")
        await self.prove(cluster, lambda: WebSocketVisit.opened(cluster.port))

    async def test_throughAReload(self) -> None:
        """
        Fifty sockets exchange a hundred messages each while all workers are
        replaced: none is closed, each message is echoed, and those who come
        meanwhile are served by the new workers.
        """
        cluster = await self.serve(
            "--reload-parallel", "2", "--script", app("websocket_echo.py"), "0"
        )
        before = cluster.ready()
        sockets = [await WebSocketVisit.opened(cluster.port) for _ in range(50)]
        owners = [socket.owner(cluster) for socket in sockets]
        self.assertEqual(set(owners), set(before.values()))
        draining = gatherResults([cluster.says(f"pid {pid}] draining") for pid in before.values()])
        talks = [self._talk(socket, cluster, draining) for socket in sockets]
        await gatherResults([Deferred.fromCoroutine(talk) for talk in talks])
        self.assertEqual([socket.owner(cluster) for socket in sockets], owners)
        newcomer = await WebSocketVisit.opened(cluster.port)
        self.assertNotIn(newcomer.owner(cluster), before.values())
        self.assertEqual([socket for socket in sockets if not socket.isOpen], [])
        self.assertEqual(cluster.matching("replacement by generation 2 done"), [])
        await self.leave([*sockets, newcomer])
        await cluster.says("replacement by generation 2 done")
        self.assertEqual(cluster.matching("not drained|Traceback|Unhandled"), [])

    async def _talk(self, socket: WebSocketVisit, cluster: Cluster, draining: Any) -> None:
        for number in range(100):
            if number == 20 and not cluster.matching("reloading: "):
                cluster.signal(signal.SIGHUP)
            if number == 80:
                # The rest for sure while the workers drain.
                await self._after(draining)
            await socket.ask()

    def _after(self, event: Deferred[Any]) -> Deferred[None]:
        """
        Await what others await too.
        """
        done: Deferred[None] = Deferred()

        def tell(result: Any) -> Any:
            done.callback(None)
            return result

        event.addBoth(tell)
        return done
