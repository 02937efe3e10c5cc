"""
The masters of a cluster that share one backend, and the reload of all of them.
Runs in each master.

They know each other by what they publish: each says every now and then that it
is there.  The one that is asked to reload all takes a lease, and tells one
after another to reload; the first that fails is the last.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    AppError,
    ClusterError,
    LeaseTimedOut,
    OperatorError,
    PeerError,
    ReloadFailed,
    ReloadRefused,
    StateUnavailable,
)
from twisted_cluster.events import Event, HostStepped, Phase, ReloadStepped
from twisted_cluster.interfaces import RESERVED, ICluster
from twisted_cluster.policy.hosts import EXPIRY, Host, Presence, order
from twisted_cluster.shared.leases import Lease, Leases

TOPIC = RESERVED + "hosts"
"""What hosts say to each other is published under."""

LEASE = RESERVED + "reload"
"""Who has this lease reloads all hosts."""

INTERVAL = 2.0
"""Seconds between two words of a host that it is there."""

ROLL_CALL = 1.0
"""Seconds that hosts have for saying that they are there."""

LEASE_TIMEOUT = 2.0
"""Seconds to wait for the lease."""

ANSWER_TIMEOUT = 5.0
"""Seconds within which a host has to begin its reload."""

MAX_TEXT = 20_000
"""How much of a reason or a traceback is passed on."""

Tell = Callable[[HostStepped], object]


@dataclass
class _Run:
    """
    The reload of one host, as the one who asked for it has it.

    @ivar begun: Whether the host has said that it begins.
    @ivar done: Fires with the generation.
    """

    host: Host
    tell: Callable[[dict[str, Any]], object]
    begun: bool = False
    done: Deferred[int] = field(default_factory=Deferred)

    def fail(self, error: Exception) -> None:
        """
        Nothing more is expected.
        """
        if not self.done.called:
            self.done.errback(error)


class Hosts:
    """
    One master among those that share its backend.

    @ivar me: This one.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        cluster: ICluster,
        publish: Callable[[str, bytes], Deferred[None]],
        leases: Leases,
        me: Host,
        now: Callable[[], float],
        isShared: bool,
    ) -> None:
        """
        @param publish: Has the masters of all hosts hear something under a
            topic, this one too.
        @param now: Gives the seconds since the epoch.
        @param isShared: Whether other masters may share the backend.
        """
        self.me = me
        self._reactor = reactor
        self._cluster = cluster
        self._publish = publish
        self._leases = leases
        self._now = now
        self._isShared = isShared
        self._presence = Presence()
        self._runs: dict[str, _Run] = {}
        self._lastToken = 0
        self._loop = LoopingCall(self._beat)
        self._loop.clock = reactor
        self._hears: dict[str, Callable[[Host, dict[str, Any]], object]] = {
            "here": lambda host, said: None,
            "who": lambda host, said: self._say("here"),
            "gone": self._gone,
            "reload": self._told,
            "begun": self._begun,
            "stepped": self._stepped,
            "reloaded": self._reloaded,
            "failed": self._failed,
        }

    # Who there is.

    def start(self) -> None:
        """
        Say that this one is there, from now on, and ask who else is.
        """
        if self._isShared and not self._loop.running:
            self._say("who")
            self._loop.start(INTERVAL)

    def stop(self) -> None:
        """
        Say that it ends.
        """
        for run in list(self._runs.values()):
            run.fail(_refusal("this master stops", "ask another one"))
        if self._loop.running:
            self._loop.stop()
            self._say("gone")

    def present(self) -> tuple[Host, ...]:
        """
        All hosts that were heard of lately.
        """
        return self._presence.hosts(self._reactor.seconds())

    def _beat(self) -> None:
        self._say("here")
        present = self.present()
        for run in list(self._runs.values()):
            if run.host not in present:
                text = f"host {run.host} has said nothing for {EXPIRY:g} s"
                run.fail(_refusal(text, "see whether it is there, and look at its log"))

    def _gone(self, host: Host, said: dict[str, Any]) -> None:
        self._presence.gone(host)
        for run in list(self._runs.values()):
            if run.host == host:
                run.fail(_refusal(f"host {host} has stopped", "try again"))

    # Talk.

    def _say(self, kind: str, **more: Any) -> None:
        self._publishWord(kind, **more).addErrback(self._unheard)

    def _publishWord(self, kind: str, **more: Any) -> Deferred[None]:
        said = json.dumps({"kind": kind, "host": asdict(self.me), **more})
        return self._publish(TOPIC, said.encode("ascii"))

    def _unheard(self, failure: Failure) -> None:
        """
        The backend tells itself that it can't be reached, and who waits for an
        answer does so for a limited time.
        """
        failure.trap(ClusterError)
        self.log.debug("hosts could not be told: {error}", error=failure.value)

    def heard(self, data: bytes) -> None:
        """
        A host has said something.

        @raise PeerError: if it makes no sense.
        """
        try:
            said = json.loads(data)
            host = Host(**said.pop("host"))
            hears = self._hears[said.pop("kind")]
            self._presence.heard(host, self._reactor.seconds())
            hears(host, said)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PeerError(f"what makes no sense of a host: {error!r}") from error

    # To be told to reload.

    def _told(self, host: Host, said: dict[str, Any]) -> None:
        """
        A host that has the lease tells another one to reload.
        """
        run, token = str(said["run"]), int(said["token"])
        if said["to"] != self.me.id or token < self._lastToken:
            return
        self._lastToken = token
        self.log.info("host {host} has this one reload", host=host)
        self._say("begun", run=run)

        def step(event: Event) -> None:
            if isinstance(event, ReloadStepped) and event.phase is Phase.REPLACED:
                self._say("stepped", run=run, **_fieldsOf(event))

        unsubscribe = self._cluster.events.subscribe(step)
        done: Deferred[int] = maybeDeferred(self._cluster.reload)
        done.addBoth(self._ended, run, unsubscribe)

    def _ended(self, result: Any, run: str, unsubscribe: Callable[[], None]) -> None:
        unsubscribe()
        if not isinstance(result, Failure):
            self._say("reloaded", run=run, generation=result)
            return
        error = result.value
        if not isinstance(error, ClusterError):
            self.log.failure("the reload failed", result)
        traceback = error.traceback if isinstance(error, AppError) else ""
        self._say(
            "failed",
            run=run,
            ofApp=isinstance(error, AppError),
            reason=str(error)[:MAX_TEXT],
            traceback=traceback[-MAX_TEXT:],
        )

    # To hear how it goes.

    def _begun(self, host: Host, said: dict[str, Any]) -> None:
        run = self._runs.get(said["run"])
        if run is not None:
            run.begun = True

    def _stepped(self, host: Host, said: dict[str, Any]) -> None:
        run = self._runs.get(said.pop("run"))
        if run is not None:
            run.tell(said)

    def _reloaded(self, host: Host, said: dict[str, Any]) -> None:
        run = self._runs.get(said["run"])
        if run is not None and not run.done.called:
            run.done.callback(int(said["generation"]))

    def _failed(self, host: Host, said: dict[str, Any]) -> None:
        run = self._runs.get(said["run"])
        if run is None:
            return
        reason = f"host {host}: {said['reason']}"
        if said["ofApp"]:
            run.fail(ReloadFailed(reason, str(said["traceback"])))
        else:
            run.fail(_refusal(reason, "see to that host, then reload all again"))

    # To have all reload.

    def reloadAll(self, tell: Tell) -> Deferred[int]:
        """
        Have all hosts reload, one after another.

        @param tell: Called with each step.
        @return: A Deferred of how many hosts there were.  It fails with
            L{ReloadFailed} or L{OperatorError} at the first host that fails.
        """
        return ensureDeferred(self._reloadAll(tell))

    async def _reloadAll(self, tell: Tell) -> int:
        if not self._isShared:
            raise ReloadRefused(
                "reload all hosts",
                "the state is in this master's memory, so it knows of no other host",
                "run the masters with --state redis://..., or reload each by itself",
            )
        try:
            await self._publishWord("who")
            lease = await self._leases.wait(LEASE, LEASE_TIMEOUT)
        except LeaseTimedOut:
            raise _refusal("somebody else reloads all hosts now", "wait for the end") from None
        except StateUnavailable as error:
            raise _refusal("the hosts can't talk to each other", str(error)) from None
        try:
            await deferLater(self._reactor, ROLL_CALL)
            return await self._eachInTurn(order(self.present(), self.me), lease, tell)
        finally:
            await lease.release()

    async def _eachInTurn(self, hosts: tuple[Host, ...], lease: Lease, tell: Tell) -> int:
        for done, host in enumerate(hosts):
            account = f"{done} of {len(hosts)} hosts were reloaded"

            def show(phase: Phase, host: Host = host, done: int = done, **more: Any) -> None:
                tell(HostStepped(self._now(), str(host), phase, done, len(hosts), **more))

            show(Phase.BEGUN)
            try:
                generation = await self._reloadOne(host, lease, show)
            except ReloadFailed as error:
                show(Phase.ABORTED, reason=str(error))
                raise ReloadFailed(f"{error}; {account}", error.traceback) from None
            except OperatorError as error:
                show(Phase.ABORTED, reason=error.cause)
                raise _refusal(f"{error.cause}; {account}", error.remedy) from None
            show(Phase.DONE, done=done + 1, generation=generation)
        return len(hosts)

    async def _reloadOne(self, host: Host, lease: Lease, show: Callable[..., None]) -> int:
        number = uuid.uuid4().hex

        def stepped(said: dict[str, Any]) -> None:
            show(
                Phase.REPLACED,
                slot=int(said["slot"]),
                generation=int(said["generation"]),
                slotsDone=int(said["done"]),
                slotsTotal=int(said["total"]),
            )

        run = self._runs[number] = _Run(host, stepped)
        late = self._reactor.callLater(ANSWER_TIMEOUT, self._checkBegun, run)
        # A later run adds to the same Deferred, hence the result is passed on.
        lease.lost.addCallback(self._leaseLost, run)
        if not lease.held:
            run.fail(_refusal("the lease was lost", "see whether Redis is there, and try again"))
        self._say("reload", to=host.id, run=number, token=lease.token)
        try:
            return await run.done
        finally:
            del self._runs[number]
            if late.active():
                late.cancel()

    def _leaseLost(self, reason: str, run: _Run) -> str:
        cause = f"the lease was lost while host {run.host} reloaded: {reason}"
        run.fail(_refusal(cause, "see whether Redis is there, and try again"))
        return reason

    def _checkBegun(self, run: _Run) -> None:
        if not run.begun:
            cause = f"host {run.host} has not begun within {ANSWER_TIMEOUT:g} s"
            run.fail(_refusal(cause, "see whether it is stopped or stuck"))


def _refusal(cause: str, remedy: str) -> ReloadRefused:
    return ReloadRefused("reload all hosts", cause, remedy)


def _fieldsOf(event: ReloadStepped) -> dict[str, Any]:
    return {
        "slot": event.slot,
        "generation": event.generation,
        "done": event.done,
        "total": event.total,
    }
