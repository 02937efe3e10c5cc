"""
A cluster without processes, for tests of what talks to one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_cluster.errors import NoSuchSlot, OperatorError, ReloadFailed, ReloadRefused
from twisted_cluster.events import (
    Event,
    EventStream,
    HostStepped,
    ListenerState,
    Phase,
    ReloadStepped,
    State,
)
from twisted_cluster.interfaces import (
    Account,
    ClusterStatus,
    ICluster,
    ListenerStatus,
    RollingStatus,
    WorkerStatus,
)


@implementer(ICluster)
class FakeCluster:
    """
    Does what it is told in name only.

    A replacement goes on until the test calls L{finish} or L{abort}; a scaling
    or a stop until the test fires the Deferred in C{scaling} or C{stopping}.

    @ivar calls: What it was told, in order.
    @ivar failures: The events at which a subscriber raised.
    @ivar workers: What its status says of the workers.
    @ivar pid: The process id in its status.
    """

    def __init__(self, slots: int = 2) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failures: list[Event] = []
        self.events = EventStream(self.failures.append)
        self.pid = 4711
        self.generation = 1
        self.slots = slots
        self.workers = tuple(
            WorkerStatus(slot, 1, 5000 + slot, State.READY, 3 + slot, 1000.0)
            for slot in range(slots)
        )
        self.replacement: Deferred[int] | None = None
        self.slotsToReplace: tuple[int, ...] = ()
        self.scaling: Deferred[int] | None = None
        self.stopping: Deferred[None] | None = None
        self.hosts: Deferred[int] | None = None

    def status(self) -> ClusterStatus:
        """See L{ICluster.status}."""
        total = len(self.slotsToReplace)
        rolling = None if self.replacement is None else RollingStatus(self.generation, 0, total)
        return ClusterStatus(
            "0.1.0",
            self.pid,
            "hello:resource",
            "round-robin",
            "template",
            self.generation,
            self.slots,
            900.0,
            Account(10, 7, 1, 2),
            (ListenerStatus("tcp:8080", "0.0.0.0:8080", ListenerState.ACCEPTING, 10),),
            self.workers,
            rolling,
        )

    def reload(self) -> Deferred[int]:
        """See L{ICluster.reload}."""
        self.calls.append(("reload",))
        if self.replacement is not None:
            return self._busy("reload")
        self.generation += 1
        return self._replace(tuple(range(self.slots)))

    def reloadAll(self, tell: Callable[[HostStepped], object]) -> Deferred[int]:
        """See L{ICluster.reloadAll}."""
        self.calls.append(("reloadAll",))
        self.tell = tell
        self.hosts = Deferred()
        return self.hosts

    def restart(self, slot: int) -> Deferred[int]:
        """See L{ICluster.restart}."""
        self.calls.append(("restart", slot))
        if not 0 <= slot < self.slots:
            return fail(
                NoSuchSlot(
                    f"restart slot {slot}", f"there are slots 0 to {self.slots - 1}", "name one"
                )
            )
        if self.replacement is not None:
            return self._busy(f"restart slot {slot}")
        return self._replace((slot,))

    def scale(self, wanted: int) -> Deferred[int]:
        """See L{ICluster.scale}."""
        self.calls.append(("scale", wanted))
        if wanted < 1:
            return fail(
                ReloadRefused(f"scale to {wanted}", "that is no number of workers", "give another")
            )
        self.scaling = Deferred()
        return self.scaling

    def broadcast(self, text: str) -> int:
        """See L{ICluster.broadcast}."""
        self.calls.append(("broadcast", text))
        if text == "too long for this one":
            raise OperatorError("broadcast", "the text is too long", "send a shorter one")
        return self.slots

    def stop(self, now: bool = False) -> Deferred[None]:
        """See L{ICluster.stop}."""
        self.calls.append(("stop", now))
        self.stopping = Deferred()
        return self.stopping

    # What tests do with it.

    def step(self, phase: Phase, slot: int | None = None, done: int = 0, reason: str = "") -> None:
        """
        Publish one step of a replacement.
        """
        total = len(self.slotsToReplace)
        self.events.publish(ReloadStepped(1.0, self.generation, phase, slot, done, total, reason))

    def stepHost(self, phase: Phase, **more: Any) -> None:
        """
        Tell of one step of a reload of all hosts.
        """
        self.tell(HostStepped(1.0, "web1 (pid 7)", phase, 0, 2, **more))

    def endHosts(self, result: int | Exception) -> None:
        """
        End the reload of all hosts.
        """
        ended, self.hosts = self.hosts, None
        assert ended is not None
        if isinstance(result, int):
            ended.callback(result)
        else:
            ended.errback(result)

    def finish(self) -> None:
        """
        End the replacement well.
        """
        for done, slot in enumerate(self.slotsToReplace, 1):
            self.step(Phase.READY, slot, done - 1)
            self.step(Phase.REPLACED, slot, done)
        self.step(Phase.DONE, None, len(self.slotsToReplace))
        self._ended().callback(self.generation)

    def abort(self, reason: str, traceback: str = "") -> None:
        """
        End the replacement badly.
        """
        self.step(Phase.ABORTED, reason=reason)
        self._ended().errback(ReloadFailed(reason, traceback))

    def _replace(self, slots: tuple[int, ...]) -> Deferred[int]:
        self.slotsToReplace = slots
        self.replacement = Deferred()
        self.step(Phase.BEGUN)
        return self.replacement

    def _ended(self) -> Deferred[int]:
        assert self.replacement is not None
        ended, self.replacement = self.replacement, None
        return ended

    def _busy(self, what: str) -> Deferred[int]:
        return fail(ReloadRefused(what, "a replacement is under way", "try again later"))


class InstantCluster(FakeCluster):
    """
    Is done with everything at once.
    """

    def reload(self) -> Deferred[int]:
        """See L{ICluster.reload}."""
        done = super().reload()
        self.finish()
        return done

    def reloadAll(self, tell: Callable[[HostStepped], object]) -> Deferred[int]:
        """See L{ICluster.reloadAll}."""
        done = super().reloadAll(tell)
        self.stepHost(Phase.BEGUN)
        self.stepHost(Phase.REPLACED, slot=3, generation=7, slotsDone=1, slotsTotal=2)
        self.stepHost(Phase.DONE, generation=7)
        self.endHosts(2)
        return done

    def restart(self, slot: int) -> Deferred[int]:
        """See L{ICluster.restart}."""
        done = super().restart(slot)
        if self.replacement is not None:
            self.finish()
        return done

    def scale(self, wanted: int) -> Deferred[int]:
        """See L{ICluster.scale}."""
        done = super().scale(wanted)
        if self.scaling is not None:
            self.scaling.callback(wanted)
        return done

    def stop(self, now: bool = False) -> Deferred[None]:
        """See L{ICluster.stop}."""
        super().stop(now)
        return succeed(None)


def shortDirectory(test: SynchronousTestCase) -> str:
    """
    A directory whose path leaves room for that of a socket; removed with the
    test.
    """
    directory = os.path.realpath(tempfile.mkdtemp())
    test.addCleanup(shutil.rmtree, directory)
    return directory
