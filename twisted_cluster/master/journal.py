"""
Writes events to the log.  Runs in the master.
"""

from __future__ import annotations

from twisted.logger import Logger

from twisted_cluster.events import (
    ClusterStopping,
    ConnectionsShed,
    Event,
    ListenerChanged,
    ListenerState,
    MessagesDropped,
    Phase,
    ReloadStepped,
    State,
    StateReached,
    WorkerChanged,
    WorkerHung,
    WorkerOutput,
)


class Journal:
    """
    One log line for each event, by slot and generation, at the level that it
    deserves.
    """

    log = Logger("twisted_cluster")

    def write(self, event: Event) -> None:
        """
        Log C{event}.
        """
        if isinstance(event, WorkerOutput):
            self.log.info("[{name}] {line}", name=_name(event), line=event.line)
        elif isinstance(event, WorkerChanged):
            self._workerChanged(event)
        elif isinstance(event, WorkerHung):
            self.log.error(
                "[{name}] hung: no heartbeat for {silence:.1f} s; its stacks follow, it is killed",
                name=_name(event),
                silence=event.silence,
            )
        elif isinstance(event, ReloadStepped):
            self._reloadStepped(event)
        elif isinstance(event, ListenerChanged):
            self._listenerChanged(event)
        elif isinstance(event, ConnectionsShed):
            self.log.error(
                "{count} connections shed: {reason}", count=event.count, reason=event.reason
            )
        elif isinstance(event, MessagesDropped):
            self.log.error(
                "[{name}] does not read: {waiting} bytes wait, and messages for it are dropped",
                name=_name(event),
                waiting=event.waiting,
            )
        elif isinstance(event, StateReached):
            (self.log.info if event.up else self.log.error)("{reason}", reason=event.reason)
        elif isinstance(event, ClusterStopping):
            self.log.info("stopping: {reason}", reason=event.reason)

    def _workerChanged(self, event: WorkerChanged) -> None:
        tail = f": {event.reason}" if event.reason else ""
        text = "[{name}] {state}{tail}"
        values = {"name": _name(event), "state": event.after.value, "tail": tail}
        if event.after is State.FAILED:
            self.log.critical(
                text + "; its slot stays empty until a reload or a restart of the slot", **values
            )
        elif event.after is State.EXITED and not event.meant:
            self.log.error(text, **values)
        else:
            self.log.info(text, **values)

    def _reloadStepped(self, event: ReloadStepped) -> None:
        values = {"generation": event.generation, "done": event.done, "total": event.total}
        if event.phase is Phase.ABORTED:
            self.log.error(
                "replacement by generation {generation} aborted, {done} of {total} slots done:"
                " {reason}",
                reason=event.reason,
                **values,
            )
        elif event.slot is None:
            self.log.info(
                "replacement by generation {generation} {phase}, {done} of {total} slots done",
                phase=event.phase.value,
                **values,
            )

    def _listenerChanged(self, event: ListenerChanged) -> None:
        text = "listener {name} is {state}{tail}"
        tail = f": {event.reason}" if event.reason else ""
        level = self.log.warn if event.after is ListenerState.EXHAUSTED else self.log.info
        level(text, name=event.name, state=event.after.value, tail=tail)


def _name(event: WorkerOutput | WorkerChanged | WorkerHung | MessagesDropped) -> str:
    return f"slot {event.slot} generation {event.generation} pid {event.pid or '-'}"
