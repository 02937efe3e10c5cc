"""
Tests for L{twisted_cluster.sessions}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import StringTransport
from twisted.python.components import registerAdapter
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Session
from zope.interface import Attribute, Interface, implementer

from tests.shared.case import SharedTestCase, Worker
from twisted_cluster.errors import StateUnavailable
from twisted_cluster.sessions import ClusterSite
from twisted_cluster.testing import pretendWorker


class ICart(Interface):
    """
    A component of sessions.
    """

    items = Attribute("list: what is in it.")


@implementer(ICart)
class Cart:
    """
    Has something that can be kept, and something that can't.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.items: list[str] = []
        self.lock = object()


registerAdapter(Cart, Session, ICart)


class Page(Resource):
    """
    Does with a request what a test says.
    """

    isLeaf = True

    def __init__(self, render: Callable[[Any], Any]) -> None:
        super().__init__()
        self.render = render  # type: ignore[method-assign]


class SessionsTestCase(SharedTestCase):
    """
    Has the same site in two workers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.here = pretendWorker(self.addCleanup)
        self.at: Worker = self.one
        self.patch(type(self.here), "commons", property(lambda here: self.at.commons))
        self.cookie = b""
        self.sites = {
            worker.name: ClusterSite(Page(self.render), reactor=self.clock)
            for worker in (self.one, self.two)
        }
        for site in self.sites.values():
            site.displayTracebacks = False

    def render(self, request: Any) -> Any:
        """
        Call what the test has put there.
        """
        return self.page(request)

    page: Callable[[Any], Any]

    def send(self, method: bytes = b"GET", cookie: bytes | None = None) -> tuple[Any, Any]:
        """
        Send a request to the worker C{at}.

        @return: The channel and its transport.
        """
        channel: Any = self.sites[self.at.name].buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        sent = self.cookie if cookie is None else cookie
        head = b"Cookie: " + sent + b"\r\n" if sent else b""
        channel.dataReceived(method + b" / HTTP/1.0\r\n" + head + b"\r\n")
        return channel, transport

    def get(self, method: bytes = b"GET", cookie: bytes | None = None) -> bytes:
        """
        The response of the worker C{at}; its cookie is kept.
        """
        _, transport = self.send(method, cookie)
        self.settle()
        return self.response(transport)

    def response(self, transport: Any) -> bytes:
        """
        What has come, as long as it is complete.
        """
        data: bytes = transport.value()
        self.assertTrue(transport.disconnecting, data)
        for line in data.split(b"\r\n"):
            if line.lower().startswith(b"set-cookie: "):
                self.cookie = line.partition(b" ")[2].partition(b";")[0]
        return data

    def body(self, response: bytes) -> bytes:
        """
        The body of a response.
        """
        return response.partition(b"\r\n\r\n")[2]


class SharingTests(SessionsTestCase):
    """
    What one worker has put into a session.
    """

    def page(self, request: Any) -> bytes:
        """Count visits in a namespace and in a component."""
        session = request.getSession()
        visits = session.sessionNamespaces.get("visits", 0) + 1
        session.sessionNamespaces["visits"] = visits
        cart = ICart(session)
        cart.items.append(f"{self.at.name}")
        return f"{visits} {' '.join(cart.items)}".encode()

    def test_known(self) -> None:
        """
        The other one goes on with it, and so on.
        """
        self.assertEqual(self.body(self.get()), b"1 one")
        self.at = self.two
        self.assertEqual(self.body(self.get()), b"2 one two")
        self.at = self.one
        self.assertEqual(self.body(self.get()), b"3 one two one")

    def test_memory(self) -> None:
        """
        Between requests no worker keeps anything.
        """
        self.get()
        self.get()
        self.assertEqual([site.sessions for site in self.sites.values()], [{}, {}])

    def test_order(self) -> None:
        """
        All workers know before the client has the first byte.
        """
        _, transport = self.send()
        self.fabric.full.add("one")
        self.settle()
        self.assertEqual(transport.value(), b"")
        self.fabric.full.clear()
        self.wait(1.0)
        self.assertEqual(self.body(self.response(transport)), b"1 one")

    def test_strangers(self) -> None:
        """
        A cookie that names no session, or can't, begins a new one.
        """
        for cookie in (b"TWISTED_SESSION=" + b"a" * 64, b"TWISTED_SESSION=../x", b"other=1"):
            self.assertEqual(self.body(self.get(cookie=cookie)), b"1 one")

    def test_ttl(self) -> None:
        """
        It ends some time after it was last used, not after it was last
        changed.
        """
        self.get()
        for _ in range(3):
            self.wait(600.0)
            self.page = self.show  # type: ignore[method-assign]
            self.assertEqual(self.body(self.get()), b"{'visits': 1}")
        self.wait(901.0)
        self.assertEqual(self.body(self.get()), b"{}")

    def show(self, request: Any) -> bytes:
        """What is in the session."""
        return b"%r" % request.getSession().sessionNamespaces

    def test_expire(self) -> None:
        """
        A session that is ended is over in all workers, and says so here.
        """
        self.get()
        ended: list[str] = []

        def logout(request: Any) -> bytes:
            session = request.getSession()
            session.notifyOnExpire(lambda: ended.append("here"))
            session.expire()
            return b"bye"

        counting, self.page = self.page, logout  # type: ignore[method-assign]
        self.assertEqual(self.body(self.get()), b"bye")
        self.at, self.page = self.two, counting  # type: ignore[method-assign]
        self.assertEqual((self.body(self.get()), ended), (b"1 two", ["here"]))

    def test_head(self) -> None:
        """
        A request without a body in its response counts too.
        """
        self.assertEqual(self.body(self.get(b"HEAD")), b"")
        self.assertEqual(self.body(self.get()), b"2 one one")

    def test_later(self) -> None:
        """
        So does what a response that ends later has changed.
        """
        requests: list[Any] = []

        def later(request: Any) -> int:
            requests.append(request)
            request.write(b"first ")
            return NOT_DONE_YET

        counting, self.page = self.page, later  # type: ignore[assignment,method-assign]
        _, transport = self.send()
        self.settle()
        requests[0].write(counting(requests[0]))
        requests[0].finish()
        self.settle()
        self.assertEqual(self.body(self.response(transport)), b"first 1 one")
        self.page = counting  # type: ignore[method-assign]
        # The cookie came too late for that response: the head was written.
        self.assertEqual(self.body(self.get()), b"1 one")

    def test_together(self) -> None:
        """
        Requests of one client at the same time, in one worker, see the same
        session.
        """
        self.get()
        requests: list[Any] = []
        counting = self.page
        self.page = lambda request: requests.append(request) or NOT_DONE_YET  # type: ignore
        transports = [self.send()[1] for _ in range(2)]
        self.settle()
        for request in requests:
            request.write(counting(request))
            request.finish()
        self.settle()
        self.assertEqual(
            [self.body(self.response(one)) for one in transports], [b"2 one one", b"3 one one one"]
        )
        self.assertEqual(self.sites["one"].sessions, {})

    def test_clientGone(self) -> None:
        """
        What a client that goes away has changed is kept.
        """
        self.get()
        requests: list[Any] = []
        counting = self.page
        self.page = lambda request: requests.append(request) or NOT_DONE_YET  # type: ignore
        channel, _ = self.send()
        self.settle()
        counting(requests[0])
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        channel.connectionLost(Failure(ConnectionLost()))
        self.settle()
        self.page = counting  # type: ignore[method-assign]
        self.assertEqual(self.body(self.get()), b"3 one one one")
        self.assertEqual(self.sites["one"].sessions, {})


class FailureTests(SessionsTestCase):
    """
    When a session can't be had, or kept.
    """

    def page(self, request: Any) -> bytes:
        """Change the session."""
        request.getSession().sessionNamespaces["user"] = self.value
        return b"welcome"

    value: Any = "ada"

    def unavailable(self, *arguments: Any) -> Deferred[Any]:
        """
        Fail as a backend does that is away.
        """
        return fail(StateUnavailable("it is away"))

    def test_away(self) -> None:
        """
        A request whose session can't be fetched is not processed.
        """
        self.get()
        self.patch(self.one.cache.desk, "cacheGet", self.unavailable)
        response = self.get()
        self.assertTrue(response.startswith(b"HTTP/1.0 503 "), response)
        self.assertEqual(len(self.flushLoggedErrors(StateUnavailable)), 1)

    def test_notKept(self) -> None:
        """
        What can't be kept is not claimed to be, and no cookie names it.
        """
        self.patch(self.one.cache.desk, "cacheSet", self.unavailable)
        response = self.get()
        self.assertTrue(response.startswith(b"HTTP/1.0 503 "), response)
        self.assertNotIn(b"welcome", response)
        self.assertEqual(self.cookie, b"")
        self.assertEqual(len(self.flushLoggedErrors(StateUnavailable)), 1)

    def test_noJSON(self) -> None:
        """
        Neither is what can't be expressed.
        """
        self.value = object()
        response = self.get()
        self.assertTrue(response.startswith(b"HTTP/1.0 503 "), response)
        (failure,) = self.flushLoggedErrors()
        self.assertIn("can't send a dict", str(failure.value))

    def test_without(self) -> None:
        """
        Requests that use no session do not care.
        """
        self.patch(self.one.cache.desk, "cacheSet", self.unavailable)
        self.page = lambda request: b"plain"  # type: ignore[method-assign]
        self.assertEqual(self.body(self.get()), b"plain")
