"""
Sessions of twisted.web that all workers know: a login made in one of them
holds in the others.  Runs in the workers.

    site = ClusterSite(resource)

is a C{Site} whose requests have C{getSession()} as ever.  Before a request is
processed its session is fetched from the cache of the cluster; what the
request has changed is back in the cache before the client gets the first byte
of the response.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import (
    Deferred,
    FirstError,
    ensureDeferred,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.server import Request, Session, Site

from twisted_cluster import context
from twisted_cluster.errors import AppError
from twisted_cluster.wire import values

KEY = "session/"
"""What the keys of sessions in the cache begin with; the uid follows."""

MAX_UID = 128
"""The most bytes of a cookie that can be a session's."""

REFRESH = 0.25
"""The part of its life after which a session that has not changed is written
again, so that it lives on."""

_COOKIES = (b"TWISTED_SESSION", b"TWISTED_SECURE_SESSION")


class ClusterSession(Session):
    """
    A session that other workers may go on with.

    What it keeps: C{sessionNamespaces}, a dict, and the attributes of each
    component that was got with an interface, as in C{ICounter(session)}; all
    of it must be what JSON can express, and what is not stays here.  It ends
    C{sessionTimeout} seconds after the last request that used it.  Callbacks
    of C{notifyOnExpire} run if C{expire} is called in the same request.

    @ivar users: How many requests of this worker use it now.
    """

    log = Logger()

    def __init__(self, site: Any, uid: bytes, reactor: Any = None) -> None:
        super().__init__(site, uid, reactor)
        self.users = 0
        self.expired = False
        self._stored: bytes | None = None
        self._storedAt = 0.0
        self._components: dict[str, dict[str, Any]] = {}

    def startCheckingExpiration(self) -> None:
        """
        The cache sees to it.
        """

    def expire(self) -> None:
        """
        End the session in the whole cluster, when the response is sent.
        """
        self.expired = True
        callbacks, self.expireCallbacks = self.expireCallbacks, []
        self.site.sessions.pop(self.uid, None)
        for callback in callbacks:
            callback()

    def getComponent(self, interface: Any, default: Any = None) -> Any:
        """
        As ever; one that is made anew gets the attributes that it had.
        """
        component = super().getComponent(interface, default)
        saved = self._components.pop(_nameOf(interface), None)
        if saved is not None and component is not default:
            component.__dict__.update(saved)
        return component

    def load(self, stored: dict[str, Any]) -> None:
        """
        Take over what another request has left.
        """
        self._storedAt = stored.pop("at")
        self._stored = values.encode(stored)
        self.sessionNamespaces = stored["namespaces"]
        self._components = stored["components"]
        for name, component in self._adapterCache.items():
            saved = self._components.pop(name, None)
            if saved is not None:
                component.__dict__.update(saved)

    def content(self) -> dict[str, Any]:
        """
        What is to be kept.
        """
        found = dict(self._components)
        for name, component in self._adapterCache.items():
            attributes = {
                key: value
                for key, value in getattr(component, "__dict__", {}).items()
                if self._isKept(name, key, value)
            }
            found[name] = attributes
        return {"namespaces": self.sessionNamespaces, "components": found}

    def _isKept(self, name: str, key: str, value: Any) -> bool:
        if value is self:
            return False
        try:
            values.encode(value)
        except AppError as error:
            self.log.debug("{key} of {name} stays here: {error}", key=key, name=name, error=error)
            return False
        return not isinstance(value, (bytes, bytearray, memoryview))

    def save(self) -> Deferred[Any]:
        """
        Have all workers know it.

        @return: A Deferred that fires when they do; at once if they know it.
        """
        cache = context.current().cache
        key = KEY + self.uid.decode("ascii")
        if self.expired:
            return cache.delete(key)
        content = self.content()
        encoded = values.encode(content)
        now = self._reactor.seconds()
        if encoded == self._stored and now - self._storedAt < REFRESH * self.sessionTimeout:
            return succeed(None)
        self._stored, self._storedAt = encoded, now
        return cache.set(key, {**content, "at": now}, ttl=self.sessionTimeout)


def _nameOf(interface: Any) -> str:
    return f"{interface.__module__}.{interface.__name__}"


def _causeOf(failure: Failure) -> Failure:
    """
    What went wrong, of several things that were done at once.
    """
    error: Any = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure


class ClusterRequest(Request):
    """
    A request that waits for its session, and whose response does.
    """

    _opened: tuple[ClusterSession, ...] = ()
    _pending: list[bytes] | None = None
    _saved = False
    _ending = False

    def process(self) -> None:
        """
        Fetch the sessions that the cookies name, then go on.
        """
        channel: Any = self.channel
        site = channel.site
        uids = {
            cookie
            for name, cookie in self.received_cookies.items()
            if name.startswith(_COOKIES) and len(cookie) <= MAX_UID and cookie.isalnum()
        }
        opening = gatherResults([site.openSession(uid) for uid in uids], consumeErrors=True)
        opening.addCallbacks(self._processWith, self._unavailable)

    def _processWith(self, opened: list[ClusterSession | None]) -> None:
        self._opened = tuple(one for one in opened if one is not None)
        super().process()

    def _unavailable(self, failure: Failure) -> None:
        failure = _causeOf(failure)
        channel: Any = self.channel
        self.site = channel.site
        ClusterSession.log.failure("a session can't be reached", failure)
        self._refuse()

    def _refuse(self) -> None:
        self._saved = True
        self._pending = None
        self.setResponseCode(SERVICE_UNAVAILABLE)
        self.responseHeaders.removeHeader(b"set-cookie")
        self.cookies.clear()
        body = b"The session can't be reached now.\n"
        self.setHeader(b"content-type", b"text/plain")
        self.setHeader(b"content-length", b"%d" % len(body))
        super().write(body)
        super().finish()

    def write(self, data: bytes) -> None:
        """
        Write, but nothing before the sessions are known to all workers.
        """
        if self._saved:
            super().write(data)
        elif self._pending is None:
            self._pending = [data]
            self._save().addCallbacks(lambda _: self._goOn(), self._notSaved)
        else:
            self._pending.append(data)

    def finish(self) -> None:
        """
        End the response, when all workers know what it has changed.
        """
        if self._pending is not None:
            self._ending = True
        elif not self.finished:
            self._save().addCallbacks(lambda _: self._end(), self._notSaved)

    def _goOn(self) -> None:
        self._saved = True
        pending, self._pending = self._pending, None
        for data in pending or ():
            if not self._disconnected:
                super().write(data)
        if self._ending:
            self.finish()

    def _end(self) -> None:
        self._saved = True
        self._close()
        if not self._disconnected and not self.finished:
            super().finish()

    def _notSaved(self, failure: Failure) -> None:
        failure = _causeOf(failure)
        ClusterSession.log.failure("a session can't be kept", failure)
        self._close()
        if self._disconnected or self.finished:
            return
        if self.startedWriting:
            # It is too late to say so.
            super().finish()
        else:
            self._refuse()

    def _sessions(self) -> list[ClusterSession]:
        made: list[Any] = [self._insecureSession, self._secureSession]
        return [*self._opened, *(one for one in made if one not in (None, *self._opened))]

    def _save(self) -> Deferred[Any]:
        # Those that the request has asked for.
        used: list[Any] = [self._insecureSession, self._secureSession]
        saves = [maybeDeferred(one.save) for one in used if one is not None]
        return gatherResults(saves, consumeErrors=True)

    def _close(self) -> None:
        site: Any = self.site
        for session in self._sessions():
            site.closeSession(session)
        self._opened = ()

    def connectionLost(self, reason: Failure) -> None:
        """
        The client is gone; what it has changed is kept all the same.
        """
        self._save().addErrback(
            lambda failure: ClusterSession.log.failure("a session can't be kept", _causeOf(failure))
        )
        self._close()
        super().connectionLost(reason)


class ClusterSite(Site):
    """
    A site whose sessions all workers know.
    """

    sessionFactory = ClusterSession
    requestFactory = ClusterRequest

    def openSession(self, uid: bytes) -> Deferred[ClusterSession | None]:
        """
        Fetch a session for one request.

        @return: A Deferred of it, or of L{None} if there is none.  It fails if
            the cache can't be reached.
        """
        return ensureDeferred(self._open(uid))

    async def _open(self, uid: bytes) -> ClusterSession | None:
        stored = await context.current().cache.get(KEY + uid.decode("ascii"))
        if not isinstance(stored, dict):
            return None
        session: Any = self.sessions.get(uid)
        if session is None:
            session = self.sessions[uid] = self.sessionFactory(self, uid)
        if not session.users:
            session.load(stored)
        session.users += 1
        return session  # type: ignore[no-any-return]

    def closeSession(self, session: ClusterSession) -> None:
        """
        A request is done with a session; without any, it lives in the cache
        alone.
        """
        session.users -= 1
        if session.users <= 0:
            self.sessions.pop(session.uid, None)
