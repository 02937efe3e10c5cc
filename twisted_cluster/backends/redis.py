"""
State, cache and leases in a Redis server, which several masters may share.

Each master has a replica of the state, which goes ahead by what the server
publishes, and from which all is read.  Whenever something may have been missed
the replica is taken anew, in one piece.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.backends import scripts
from twisted_cluster.backends.line import Argument, Line, Question, ServerRefused, SessionLost
from twisted_cluster.backends.scripts import Script, pack, unpack
from twisted_cluster.backends.session import Session, clientOptions
from twisted_cluster.errors import AppError, PeerError, StateUnavailable
from twisted_cluster.interfaces import (
    ITEM_OVERHEAD,
    MAX_STATE,
    Change,
    IBackendListener,
    IStateBackend,
    Snapshot,
    Write,
    Written,
)
from twisted_cluster.policy.counters import increased
from twisted_cluster.policy.replica import Applied, Gap, Replica
from twisted_cluster.stateurl import StateUrl

BEAT = 1.0
"""Seconds between two looks at whether the server answers, and whether the
replica has all."""

SILENCE = 3.0
"""Seconds without a beat after which the session is given up."""

FIRST_DELAY = 0.1
"""The most seconds between the end of a session and the first try of another;
each further try doubles it."""

LONGEST_DELAY = 5.0
"""The most seconds between two tries."""

REMEMBERED = 60.0
"""Seconds for which the server remembers a write, lest one that is repeated
count twice; or for twice as long as a question may wait."""

KEPT = 30 * 24 * 3600.0
"""Seconds for which the cache holds what was given no time.  With a time, it
is among what Redis may push out under C{volatile-lru}; the state is not."""

MAX_INLINE = 8 << 20
"""Bytes of a step that is published whole; for a larger one, masters take the
replica anew.  Redis cuts off who has 32 MiB to read."""

MAX_PUBLISHED = 4 << 20
"""The most bytes that one message to the masters may have."""

MAX_HELD = 10_000
"""Steps that are held while the replica is taken anew."""


@dataclass
class _Awaited:
    """
    A write that was answered, and of which the replica has not heard yet.
    """

    epoch: str
    written: Written
    done: Deferred[Written] = field(default_factory=Deferred)


@implementer(IStateBackend)
class RedisBackend:
    """
    A Redis server, reached again and again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: StateUrl,
        timeout: float = 5.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """
        @param timeout: Seconds for which writes and the cache wait for a
            server that can't be reached.
        @param draw: Returns a random number from 0 to 1.
        @raise ConfigError: if it can't be reached as C{url} says.
        """
        if url.secure:
            clientOptions(url)
        self._reactor = reactor
        self._url = url
        self._line = Line(reactor, timeout, str(url))
        self._remembered = _milliseconds(max(REMEMBERED, 2 * timeout))
        self._draw = draw
        self._replica = Replica()
        self._listener: IBackendListener | None = None
        self._session: Session | None = None
        self._life: Deferred[None] | None = None
        self._started: Deferred[None] | None = None
        self._taking = False
        self._held: list[bytes] = []
        self._awaited: list[_Awaited] = []
        self._up = False
        self._reason = "it has not been tried yet"
        self._lastBeat = 0.0
        self._ownBeat = self._name("beat:" + uuid.uuid4().hex)
        self._hears: dict[str, Callable[[bytes], object]] = {
            self._name("changes"): self._stepped,
            self._name("freed"): self._freed,
            self._name("published"): self._published,
            self._ownBeat: self._beaten,
        }

    def _name(self, rest: str) -> str:
        return self._url.prefix + rest

    # Its life.

    def start(self, listener: IBackendListener) -> Deferred[None]:
        """See L{IStateBackend.start}."""
        self._listener = listener
        self._started = Deferred()
        self._line.detach(self._reason)
        self._life = ensureDeferred(self._live())
        self._life.addErrback(self._ended)
        return self._started

    def stop(self) -> Deferred[None]:
        """See L{IStateBackend.stop}."""
        self._listener = None
        life, self._life = self._life, None
        if self._session is not None:
            self._session.abort("the master stops")
        if life is not None:
            life.cancel()
        started, self._started = self._started, None
        if started is not None:
            started.errback(StateUnavailable(f"can't use {self._url}: the master stops"))
        self._line.close("the master is not running")
        self._settle()
        return succeed(None)

    def describe(self) -> dict[str, Any]:
        """See L{IStateBackend.describe}."""
        return {
            "kind": "redis",
            "up": self._up,
            "reason": "" if self._up else self._reason,
            "server": str(self._url),
            "name": self._url.name,
            "version": self._replica.version,
            "keys": len(self._replica.items),
            "bytes": self._replica.size,
            "waiting": len(self._line),
        }

    def _ended(self, failure: Failure) -> None:
        failure.trap(CancelledError)

    async def _live(self) -> None:
        """
        Have one session after another.
        """
        failures = 0
        while self._listener is not None:
            session = Session(self._reactor, self._url, self._hear)
            try:
                await session.open(self._hears)
                await self._begin(session)
                failures = 0
                reason = await session.lost
            except (SessionLost, ServerRefused) as error:
                reason = str(error)
            finally:
                session.abort("it was given up")
            self._lose(reason)
            if self._listener is not None:
                await deferLater(self._reactor, self._delay(failures))
                failures += 1

    async def _begin(self, session: Session) -> None:
        """
        Take the replica over a session that has just been opened.
        """
        self._session = session
        self._lastBeat = self._reactor.seconds()
        beat = LoopingCall(self._beat, session)
        beat.clock = self._reactor
        beating = beat.start(BEAT)
        beating.addErrback(self._beatFailed, session)
        session.lost.addBoth(self._stopBeat, beat)
        await self._take(session)
        self._reached(session)

    def _delay(self, failures: int) -> float:
        """
        The seconds until the next session, not the same in all masters.
        """
        most = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 32))
        return most * (0.5 + self._draw() / 2)

    def _stopBeat(self, reason: Any, beat: LoopingCall) -> Any:
        if beat.running:
            beat.stop()
        return reason

    def _reached(self, session: Session) -> None:
        before, self._up = self._up, True
        self._line.attach(session)
        started, self._started = self._started, None
        if started is not None:
            started.callback(None)
        elif not before and self._listener is not None:
            self._listener.availability(True, f"{self._url} is reached again")

    def _lose(self, reason: str) -> None:
        isNews = self._up or self._reason != reason
        self._up = False
        self._session = None
        self._reason = reason
        self._line.detach(reason)
        if isNews and self._listener is not None:
            self._listener.availability(False, f"{self._url} can't be used: {reason}")

    # Is it there, and is this all?

    def _beat(self, session: Session) -> Deferred[Any] | None:
        if self._reactor.seconds() - self._lastBeat > SILENCE:
            session.abort(f"it has been silent for {SILENCE:g} s")
            return None
        arguments = (self._ownBeat, uuid.uuid4().hex)
        done = session.run(scripts.BEAT, [self._name("meta")], arguments)
        # Not returned: what is late must not stop the looks at how late it is.
        done.addErrback(self._beatFailed, session)
        return None

    def _beatFailed(self, failure: Failure, session: Session) -> None:
        if not failure.check(ServerRefused, SessionLost):
            self.log.failure("a beat failed", failure)
        session.abort(str(failure.value))

    def _beaten(self, message: bytes) -> None:
        """
        What was published before the beat has arrived; it must have led here.
        """
        self._lastBeat = self._reactor.seconds()
        epoch, version = unpack(message)
        if self._taking:
            return
        if (_text(epoch), _number(version)) != (self._replica.epoch, self._replica.version):
            self._takeAgain()

    # What is published.

    def _hear(self, channel: bytes, message: bytes) -> None:
        if self._listener is None:
            return
        try:
            self._hears[channel.decode("utf-8")](message)
        except (PeerError, ValueError) as error:
            # Whoever can write to the server could have published it.
            self.log.error("{url} published nonsense: {error}", url=self._url, error=error)

    def _freed(self, message: bytes) -> None:
        if self._listener is not None:
            self._listener.leaseFreed(message.decode("utf-8"))

    def _published(self, message: bytes) -> None:
        topic, data = unpack(message)
        if self._listener is not None:
            self._listener.published(_text(topic), data or b"")

    # The replica.

    def _stepped(self, message: bytes) -> None:
        """
        A step was published.
        """
        if self._taking:
            # One that is not held is missed, as any other that is.
            if len(self._held) < MAX_HELD:
                self._held.append(message)
            return
        epoch, version, *items = unpack(message)
        if _text(epoch) != self._replica.epoch:
            self._takeAgain()
            return
        change = Change(_number(version), _items(items))
        if not change.items and change.version > self._replica.version:
            self._takeAgain()
            return
        result = self._replica.apply(change)
        if isinstance(result, Gap):
            self._takeAgain()
        elif isinstance(result, Applied) and self._listener is not None:
            self._listener.changed(change)
            self._settle()

    def _takeAgain(self) -> None:
        session = self._session
        if session is None:
            return
        taking = ensureDeferred(self._take(session))
        taking.addErrback(lambda failure: session.abort(str(failure.value)))

    async def _take(self, session: Session) -> None:
        """
        Take the replica anew, then the steps that came meanwhile.
        """
        self._taking = True
        self._held = []
        try:
            standing = scripts.STANDING.source
            (epoch, version), items = await session.atOnce(
                [
                    ("EVAL", standing, 1, self._name("meta"), uuid.uuid4().hex),
                    ("HGETALL", self._name("state")),
                ]
            )
        finally:
            self._taking = False
        if self._session is not session:
            return
        self._reset(Snapshot(_text(epoch), _number(version), _present(items)))
        held, self._held = self._held, []
        for message in held:
            self._stepped(message)

    def _reset(self, snapshot: Snapshot) -> None:
        before = (self._replica.epoch, self._replica.version)
        changed = self._replica.reset(snapshot).keys
        isOther = changed or before != (snapshot.epoch, snapshot.version)
        if isOther and self._started is None and self._listener is not None:
            self._listener.resynced(self._replica.snapshot())
        self._settle()

    def snapshot(self) -> Snapshot:
        """See L{IStateBackend.snapshot}."""
        return self._replica.snapshot()

    def _settle(self) -> None:
        """
        Answer the writes that the replica has, or never will have.
        """
        awaited, self._awaited = self._awaited, []
        for one in awaited:
            if self._listener is not None and not self._has(one.epoch, one.written.version):
                self._awaited.append(one)
            else:
                one.done.callback(one.written)

    def _has(self, epoch: str, version: int) -> bool:
        return self._replica.epoch != epoch or self._replica.version >= version

    # Writes.

    def write(self, write: Write) -> Deferred[Written]:
        """See L{IStateBackend.write}."""
        for key in write.increments:
            if key in write.sets:
                text = f"can't increment {key!r}: the same write sets it; do one of both"
                return fail(AppError(text))
        keys = [self._name(part) for part in ("meta", "state", "done:" + write.id, "scratch")]
        asked = self._ask("write the state", scripts.WRITE, keys, self._arguments(write))
        return asked.addCallback(self._written, write)

    def _arguments(self, write: Write) -> list[Argument]:
        arguments: list[Argument] = [
            self._name("changes"),
            uuid.uuid4().hex,
            self._remembered,
            MAX_STATE,
            MAX_INLINE,
            ITEM_OVERHEAD,
            len(write.expects),
            len(write.sets),
            len(write.increments),
        ]
        for values in (write.expects, write.sets):
            for key, value in values.items():
                arguments += (key, 0 if value is None else 1, value or b"")
        for key, by in write.increments.items():
            arguments += (key, by)
        return arguments

    def _written(self, answer: bytes, write: Write) -> Deferred[Written]:
        outcome, epoch, version, *items = unpack(answer)
        if outcome == b"sum":
            key, value, by = items
            increased(_text(key), value, _number(by))
        if outcome == b"size":
            raise AppError(
                f"can't write the state: it would have {_number(items[0])} bytes, more than the"
                f" {MAX_STATE} that it may have; delete what is not needed"
            )
        found = _items(items) if outcome == b"done" else {}
        written = Written(outcome == b"done", _number(version), found)
        if self._has(_text(epoch), written.version):
            return succeed(written)
        awaited = _Awaited(_text(epoch), written)
        self._awaited.append(awaited)
        return awaited.done

    # The cache.

    def cacheGet(self, key: str) -> Deferred[bytes | None]:
        """See L{IStateBackend.cacheGet}."""
        return self._command(f"get {key!r} from the cache", "GET", self._entry(key))

    def cacheSet(self, key: str, value: bytes, ttl: float | None) -> Deferred[None]:
        """See L{IStateBackend.cacheSet}."""
        command = ("SET", self._entry(key), value, "PX", _milliseconds(ttl))
        return self._command(f"cache {key!r}", *command).addCallback(lambda _: None)

    def cacheDelete(self, key: str) -> Deferred[bool]:
        """See L{IStateBackend.cacheDelete}."""
        done = self._command(f"delete {key!r} from the cache", "DEL", self._entry(key))
        return done.addCallback(bool)

    def cacheIncrement(self, key: str, by: int, ttl: float | None) -> Deferred[int]:
        """See L{IStateBackend.cacheIncrement}."""
        keys = [self._entry(key), self._name("done:" + uuid.uuid4().hex), self._name("scratch")]
        arguments = (by, _milliseconds(ttl), self._remembered)
        what = f"increment {key!r} in the cache"
        asked = self._ask(what, scripts.CACHE_INCREMENT, keys, arguments)

        def summed(answer: bytes) -> int:
            value, before = unpack(answer)
            return int((value or increased(key, before, by))[1:])

        return asked.addCallback(summed)

    def _entry(self, key: str) -> str:
        return self._name("cache:" + key)

    # Leases.  They do not wait for the server: who wants one asks again.

    def acquire(self, name: str, owner: str, seconds: float) -> Deferred[int | None]:
        """See L{IStateBackend.acquire}."""
        keys = [self._lease(name), self._name("token")]
        arguments = (owner, _milliseconds(seconds))
        what = f"get the lease {name!r}"
        asked = self._ask(what, scripts.ACQUIRE, keys, arguments, patient=False)
        return asked.addCallback(lambda token: None if token is None else int(token))

    def renew(self, name: str, owner: str, seconds: float) -> Deferred[bool]:
        """See L{IStateBackend.renew}."""
        arguments = (owner, _milliseconds(seconds))
        what = f"renew the lease {name!r}"
        asked = self._ask(what, scripts.RENEW, [self._lease(name)], arguments, patient=False)
        return asked.addCallback(bool)

    def release(self, name: str, owner: str) -> Deferred[bool]:
        """See L{IStateBackend.release}."""
        arguments = (owner, self._name("freed"), name)
        what = f"give back the lease {name!r}"
        asked = self._ask(what, scripts.RELEASE, [self._lease(name)], arguments, patient=False)
        return asked.addCallback(bool)

    def _lease(self, name: str) -> str:
        return self._name("lease:" + name)

    # Messages.

    def publish(self, topic: str, data: bytes) -> Deferred[None]:
        """See L{IStateBackend.publish}."""
        if len(data) > MAX_PUBLISHED:
            return fail(
                AppError(
                    f"can't publish {len(data)} bytes to all hosts: {MAX_PUBLISHED} are the most;"
                    " put them into the cache and publish the key"
                )
            )
        message = pack([topic.encode("utf-8"), data])
        command = ("PUBLISH", self._name("published"), message)
        question = Question("publish to all hosts", None, (), command, repeatable=False)
        return self._line.ask(question).addCallback(lambda _: None)

    # Asking.

    def _command(self, what: str, *command: Argument) -> Deferred[Any]:
        return self._line.ask(Question(what, None, (), command))

    def _ask(
        self, what: str, script: Script, keys: Any, arguments: Any, patient: bool = True
    ) -> Deferred[Any]:
        return self._line.ask(
            Question(what, script, keys, arguments, repeatable=patient, patient=patient)
        )


def _milliseconds(seconds: float | None) -> int:
    return max(1, round(1000 * (KEPT if seconds is None else seconds)))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8")


def _number(value: bytes | None) -> int:
    return int(value or b"0")


def _items(flat: list[bytes | None]) -> dict[str, bytes | None]:
    return {_text(key): value for key, value in zip(flat[::2], flat[1::2])}


def _present(flat: list[bytes | None]) -> dict[str, bytes]:
    return {_text(key): value or b"" for key, value in zip(flat[::2], flat[1::2])}
