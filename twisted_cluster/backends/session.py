"""
A session with a Redis server, from the first connection to the loss of any.

It is two connections, since one that listens can't ask.  Runs in the master.
This is the only module that knows the client library, and is imported only
where Redis is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import txredisapi
from OpenSSL.crypto import Error as CertificateError
from twisted.internet import ssl
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_cluster.backends.line import Argument, ServerRefused, SessionLost
from twisted_cluster.backends.replies import Reader
from twisted_cluster.backends.scripts import Script
from twisted_cluster.errors import ConfigError, PeerError
from twisted_cluster.stateurl import StateUrl

CONNECT_TIMEOUT = 5.0
"""Seconds that both connections may take until they can be used."""


class _Commands(txredisapi.RedisProtocol):  # type: ignore[misc]
    """
    The connection that asks.  It keeps to bytes.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._session = session
        self._replies = Reader(txredisapi.ResponseError)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """The server said something."""
        self._session.read(self, self._replies, data)

    def connectionLost(self, why: Failure) -> None:
        """The connection is gone; what was asked fails."""
        # First, since what fails with it does not say why.
        self._session.abort(f"the connection was lost: {_plain(why)}")
        super().connectionLost(why)


class _Feed(txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """
    The connection that listens.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._session = session
        self._replies = Reader(txredisapi.ResponseError)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """The server said something."""
        self._session.read(self, self._replies, data)

    def messageReceived(self, pattern: object, channel: bytes, message: bytes) -> None:
        """Something was published."""
        self._session.heard(channel, message)

    def connectionLost(self, why: Failure) -> None:
        """The connection is gone."""
        # First, since what fails with it does not say why.
        self._session.abort(f"the connection was lost: {_plain(why)}")
        super().connectionLost(why)


class _Factory(Factory):
    """
    Gives out one protocol.
    """

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        """The connection was made."""
        return self._protocol


class Session:
    """
    Two connections, which live and die together.

    @ivar lost: Fires with the reason when the session is over.
    @ivar heard: Called with a channel and what was published there.
    """

    def __init__(self, reactor: Any, url: StateUrl, heard: Callable[[bytes, bytes], Any]) -> None:
        self.lost: Deferred[str] = Deferred()
        self._heard = heard
        self._reactor = reactor
        self._url = url
        self._over = False
        self._reason = ""
        self._commands = _Commands(self)
        self._feed = _Feed(self)

    def heard(self, channel: bytes, message: bytes) -> None:
        """
        Something was published.
        """
        if not self._over:
            self._heard(channel, message)

    def read(self, protocol: Any, replies: Reader, data: bytes) -> None:
        """
        The server said something to one of the connections.
        """
        try:
            for reply in replies.feed(data):
                protocol.replyReceived(reply)
        except PeerError as error:
            self.abort(str(error))

    def open(self, channels: Iterable[str]) -> Deferred[None]:
        """
        Connect, and listen to C{channels}.

        @return: A Deferred that fires when commands can be given.  It fails
            with L{SessionLost} if that does not come about.
        """
        opening = ensureDeferred(self._open(list(channels)))
        opening.addTimeout(CONNECT_TIMEOUT, self._reactor, onTimeoutCancel=_tooLate)
        return opening.addErrback(self._notOpened)

    async def _open(self, channels: Sequence[str]) -> None:
        for protocol in (self._commands, self._feed):
            await endpointFor(self._reactor, self._url).connect(_Factory(protocol))
            for command in _greeting(self._url):
                await protocol.execute_command(*command)
        await self._feed.subscribe(channels)

    def _notOpened(self, failure: Failure) -> None:
        self.abort(_plain(failure))
        raise SessionLost(self._reason) from None

    def abort(self, reason: str) -> None:
        """
        End the session, if that has not happened.
        """
        if self._over:
            return
        self._over = True
        self._reason = reason
        for protocol in (self._commands, self._feed):
            if protocol.transport is not None:
                protocol.transport.abortConnection()
        self.lost.callback(reason)

    # Commands.

    def command(self, *arguments: Argument) -> Deferred[Any]:
        """
        Have the server carry out a command.

        @return: A Deferred of its answer.  It fails with L{ServerRefused} or
            L{SessionLost}.
        """
        try:
            done: Deferred[Any] = self._commands.execute_command(*arguments)
        except txredisapi.ConnectionError as error:
            done = Deferred()
            done.errback(Failure(error))
        return done.addErrback(_translated)

    def atOnce(self, commands: Iterable[Sequence[Argument]]) -> Deferred[list[Any]]:
        """
        Have the server carry out commands with nothing in between.

        @return: A Deferred of the answers; it fails as that of L{command}, if
            one of them can't be carried out too.
        """
        for command in (("MULTI",), *commands):
            # If it is refused, so is the whole.
            self.command(*command).addErrback(_passOver)
        return self.command("EXEC").addCallback(_allWell)

    def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Deferred[Any]:
        """
        Have the server run a script.

        @return: As L{command}.
        """
        rest = (len(keys), *keys, *arguments)

        def unknown(failure: Failure) -> Deferred[Any]:
            # The server has forgotten it, or has never had it.
            failure.trap(ServerRefused)
            if not str(failure.value).startswith("NOSCRIPT"):
                failure.raiseException()
            return self.command(b"EVAL", script.source, *rest)

        return self.command(b"EVALSHA", script.digest, *rest).addErrback(unknown)


def _allWell(answers: Any) -> list[Any]:
    if not isinstance(answers, list):
        raise ServerRefused(f"it answered {answers!r}")
    for answer in answers:
        if isinstance(answer, txredisapi.ResponseError):
            raise ServerRefused(str(answer).strip())
    return answers


def _passOver(failure: Failure) -> None:
    failure.trap(ServerRefused, SessionLost)


def endpointFor(reactor: Any, url: StateUrl) -> IStreamClientEndpoint:
    """
    Where the server is.

    @raise ConfigError: as L{clientOptions}.
    """
    if url.path:
        return UNIXClientEndpoint(reactor, url.path, timeout=int(CONNECT_TIMEOUT))
    endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=CONNECT_TIMEOUT)
    return wrapClientTLS(clientOptions(url), endpoint) if url.secure else endpoint


def clientOptions(url: StateUrl) -> Any:
    """
    What a connection over TLS takes.

    @raise ConfigError: The certificates to trust can't be read.
    """
    roots = None
    if url.authority:
        try:
            with open(url.authority, "rb") as file:
                roots = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(file.read())])
        except (OSError, CertificateError) as error:
            raise ConfigError(
                f"reach {url} over TLS",
                f"{url.authority} can't be read: {error}",
                "give ca= a certificate in PEM",
            ) from None
    return ssl.optionsForClientTLS(url.host, trustRoot=roots)


def _greeting(url: StateUrl) -> Iterable[tuple[Argument, ...]]:
    if url.password:
        yield ("AUTH", *([url.username] if url.username else []), url.password)
    if url.database:
        yield ("SELECT", url.database)


def _translated(failure: Failure) -> Failure:
    """
    An error of the client library, as one of this module.
    """
    if failure.check(txredisapi.ResponseError):
        return Failure(ServerRefused(str(failure.value).strip()))
    if failure.check(txredisapi.RedisError):
        return Failure(SessionLost(str(failure.value)))
    return failure


def _plain(failure: Failure) -> str:
    """
    Why there is no connection, on one line.
    """
    return " ".join(failure.getErrorMessage().split()).rstrip(".")


def _tooLate(result: object, seconds: float) -> None:
    raise SessionLost(f"it did not answer within {seconds:g} s")
