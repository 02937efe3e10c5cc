"""
A worker's session with the master's end of its channel in the hands of the
test.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet import tcp, udp, unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import StandardIOEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support import closeIfOpen, socketPair
from twisted_cluster.interfaces import Snapshot
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.testing import FakeReactor
from twisted_cluster.wire import commands, sharing
from twisted_cluster.wire.channel import (
    Channel,
    ChannelTransport,
    DescriptorGroup,
    numberFrom,
)
from twisted_cluster.wire.messages import MASTER, Envelope, Kind, decode
from twisted_cluster.wire.parts import STATE_LANE, Inbox, Packet
from twisted_cluster.wire.preamble import ListenerPlan, Preamble
from twisted_cluster.worker.binder import Bound
from twisted_cluster.worker.intercept import Interception
from twisted_cluster.worker.session import WorkerSession


class FakeBinder:
    """
    Binds sockets itself, where a worker would ask the master.

    @ivar asked: What it was asked for, in order: kind, address, port, order.
    @ivar unbound: What is wanted no more.
    @ivar failure: What it raises instead.
    @ivar first: The number of the first listener that it makes.
    """

    def __init__(self, first: int = 10) -> None:
        self.asked: list[tuple[str, str, int, int]] = []
        self.unbound: list[int] = []
        self.failure: OSError | None = None
        self.first = first

    def bind(
        self,
        kind: str,
        address: str,
        port: int,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
        order: int = 0,
    ) -> Bound:
        """See L{Binder.bind}."""
        if self.failure is not None:
            raise CannotListenError(address, port, self.failure)
        number = self.first + len(self.asked)
        self.asked.append((kind, address, port, order))
        return Bound(number, self._socket(kind, address, port))

    def unbind(self, listener: int) -> None:
        """See L{Binder.unbind}."""
        self.unbound.append(listener)

    def _socket(self, kind: str, address: str, port: int) -> socket.socket:
        if kind == "descriptor":
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            made.bind(("127.0.0.1", 0))
        elif kind == "unix":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.bind(address)
        else:
            type = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, type)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address or "127.0.0.1", port))
        made.setblocking(False)
        if kind != "udp":
            made.listen()
        return made


def keepPorts(case: SynchronousTestCase) -> None:
    """
    Have Twisted's classes of ports as they were when the test is over.
    """
    names = {
        tcp.Port: ("startListening", "connectionLost", "_fromListeningDescriptor"),
        unix.Port: ("startListening", "connectionLost", "_fromListeningDescriptor"),
        udp.Port: ("_bindSocket", "connectionLost", "startReading"),
        StandardIOEndpoint: ("listen",),
    }
    for kind, attributes in names.items():
        for name in attributes:
            if name in kind.__dict__:
                # As it is, since a class method that was looked up is bound.
                case.addCleanup(setattr, kind, name, kind.__dict__[name])
            else:
                case.addCleanup(_forget, kind, name)


def _forget(kind: Any, name: str) -> None:
    if name in kind.__dict__:
        delattr(kind, name)


def snapshotBox() -> bytes:
    """
    What a master says first: that the state is empty.
    """
    data = sharing.encodeSnapshot(Snapshot("epoch", 0, {}))
    envelope = Envelope(Kind.MESSAGE, 0, MASTER, 0, 0.0, sharing.SNAPSHOT, data)
    return Packet(STATE_LANE, envelope.encode()).box(0)


class FakeMaster(Channel):
    """
    The master's end.

    @ivar heard: The names of the commands from the worker, in order, without
        heartbeats.
    @ivar received: The last account of sockets that have arrived.
    @ivar closed: The last account of connections that are over.
    @ivar touched: All numbers that were acknowledged, in order.
    @ivar refused: What was refused, with the reasons.
    @ivar offers: Each offer: numbers, listeners, states and descriptors.
    @ivar listeners: What the worker listens on.
    """

    listeners: list[int] | None = None
    transport: ChannelTransport

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.received = 0
        self.closed = 0
        self.accounts = 0
        self.beats = 0
        self.touched: list[int] = []
        self.refused: list[tuple[list[int], str]] = []
        self.failures: list[tuple[str, str, str]] = []
        self.offers: list[tuple[list[int], list[int], list[bytes], list[int]]] = []
        self.sent = 0
        self.lost = False
        self._groups: list[DescriptorGroup] = []
        self.said: list[Envelope] = []
        self.boxes[b"Part"] = Inbox(self._said).receive
        self.boxes[b"Ack"] = self._ack
        self.boxes[b"Beat"] = self._beat

    def makeConnection(self, transport: Any) -> None:
        """Begin with the state, as a master does."""
        super().makeConnection(transport)
        self.transport.write(snapshotBox())

    def _said(self, lane: int, parts: Sequence[bytes]) -> None:
        self.said.append(decode(b"".join(parts)))

    def hand(self, descriptors: Sequence[int], listener: int = 0) -> None:
        """
        Hand sockets over.
        """
        box = commands.encodeHandoff(self.sent, [listener] * len(descriptors))
        self.sent += len(descriptors)
        self.transport.writeWithDescriptors(box, descriptors)

    def descriptorsReceived(self, group: DescriptorGroup) -> None:
        """Keep a group until its box comes."""
        self._groups.append(group)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember."""
        super().connectionLost(reason)
        self.lost = True

    def _ack(self, box: Any) -> None:
        self.accounts += 1
        self.received = numberFrom(box, b"received")
        self.closed = numberFrom(box, b"closed")
        self.touched += commands.unpackNumbers(box[b"touched"])

    def _beat(self, box: Any) -> None:
        self.beats += 1

    @commands.Ready.responder
    def _ready(self, listeners: list[int] | None) -> dict[str, Any]:
        self.heard.append("Ready")
        self.listeners = listeners
        return {}

    @commands.Leaving.responder
    def _leaving(self) -> dict[str, Any]:
        self.heard.append("Leaving")
        return {}

    @commands.Drained.responder
    def _drained(self) -> dict[str, Any]:
        self.heard.append("Drained")
        return {}

    @commands.Throttle.responder
    def _throttle(self, paused: int) -> dict[str, Any]:
        self.heard.append(f"Throttle {paused}")
        return {}

    @commands.Refuse.responder
    def _refuse(self, sockets: list[int], reason: str) -> dict[str, Any]:
        self.heard.append("Refuse")
        self.refused.append((sockets, reason))
        return {}

    @commands.BootFailed.responder
    def _bootFailed(self, fault: str, reason: str, traceback: str) -> dict[str, Any]:
        self.heard.append("BootFailed")
        self.failures.append((fault, reason, traceback))
        return {}

    @commands.Offer.responder
    def _offer(
        self, numbers: list[int], listeners: list[int], states: list[bytes]
    ) -> dict[str, Any]:
        self.heard.append("Offer")
        descriptors = self._groups.pop(0).descriptors
        self.offers.append((numbers, listeners, states, descriptors))
        return {}


class Slow(Resource):
    """
    Answers when told to.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render_GET(self, request: Any) -> object:
        """Keep the request."""
        self.requests.append(request)
        return NOT_DONE_YET


class SessionTestCase(SynchronousTestCase):
    """
    Has a session of slot 1.
    """

    app: Any
    families: tuple[socket.AddressFamily, ...] = (socket.AF_INET,)

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.listening: list[socket.socket] = []
        plans = []
        for number, family in enumerate(self.families):
            plans.append(self.listen(number, family))
        self.plan = Preamble(
            1, 4, Source(SourceKind.APP, "hello:app"), (), tuple(plans), 2.0, 16, 1.0, 30.0
        )
        ours, theirs = socketPair(self)
        self.master = FakeMaster()
        ChannelTransport(ours, self.master, self.reactor)
        self.interception = Interception(FakeBinder())  # type: ignore[arg-type]
        self.session = WorkerSession(self.reactor, self.plan, self.interception)
        self.exits: list[int] = []
        self.session.onExit = self.exits.append
        ChannelTransport(theirs, self.session, self.reactor)
        self.addCleanup(self.end)

    def listen(self, number: int, family: socket.AddressFamily) -> ListenerPlan:
        """
        A listening socket, and its plan.
        """
        listening = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(listening.close)
        addresses: dict[int, Any] = {
            socket.AF_INET: ("127.0.0.1", 0),
            socket.AF_INET6: ("::1", 0),
            socket.AF_UNIX: os.path.join(self.directory, f"s{number}"),
        }
        listening.bind(addresses[family])
        listening.listen()
        self.listening.append(listening)
        names = {socket.AF_INET: "tcp:0", socket.AF_INET6: "tcp6:0", socket.AF_UNIX: "unix:s"}
        return ListenerPlan(names[family], int(family), listening.getsockname())

    def end(self) -> None:
        """
        End both, and whatever is still open.
        """
        for transport in list(self.session._open):
            transport.abortConnection()
        self.session._exit(0)
        for channel in (self.session, self.master):
            if channel.transport.connected:
                channel.transport.abort()
        for _, _, _, descriptors in self.master.offers:
            for descriptor in descriptors:
                closeIfOpen(descriptor)

    def begin(self, app: Any) -> None:
        """
        Run an app.
        """
        self.session.begin(app)
        self.reactor.settle()

    def site(self, resource: Any = None) -> Site:
        """
        A site on the reactor of the test.
        """
        return Site(resource or Slow(), reactor=self.reactor)

    def connect(
        self, count: int = 1, listener: int = 0, send: bytes = b"", number: int | None = None
    ) -> list[socket.socket]:
        """
        Connect clients, have them say something, and hand the sockets over.

        @param number: What the worker knows the listener by; its index if
            L{None}.

        @return: The clients' ends.
        """
        listening = self.listening[listener]
        clients, accepted = [], []
        for _ in range(count):
            client = socket.socket(listening.family, socket.SOCK_STREAM)
            self.addCleanup(client.close)
            client.settimeout(10)
            client.connect(listening.getsockname())
            if send:
                client.sendall(send)
            clients.append(client)
            accepted.append(listening.accept()[0])
        self.master.hand([one.fileno() for one in accepted], listener if number is None else number)
        self.reactor.turn()
        for one in accepted:
            one.close()
        return clients

    def read(self, client: socket.socket) -> bytes:
        """
        What has come to a client, if the other end is still open; else all,
        and C{b"<end>"}.
        """
        self.reactor.settle()
        client.setblocking(False)
        parts = []
        while True:
            try:
                part = client.recv(65_536)
            except BlockingIOError:
                break
            if not part:
                parts.append(b"<end>")
                break
            parts.append(part)
        client.settimeout(10)
        return b"".join(parts)

    def drain(self, grace: float = 1.0, migrate: bool = False) -> None:
        """
        Tell the worker to drain.
        """
        self.master.callRemote(commands.Drain, grace=grace, migrate=migrate)
        self.reactor.settle()

    def wait(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.reactor.elapse(seconds)


class EchoFactory(Factory):
    """
    Builds protocols of a class that a test names, and keeps them.
    """

    noisy = False

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.made: list[Any] = []
        self.started = 0

    def startFactory(self) -> None:
        """Count."""
        self.started += 1

    def stopFactory(self) -> None:
        """Count."""
        self.started -= 1

    def buildProtocol(self, addr: Any) -> Any:
        """Build one."""
        protocol = self.kind()
        protocol.factory = self
        protocol.address = addr
        self.made.append(protocol)
        return protocol


def fired(deferred: Deferred[Any]) -> bool:
    """
    Whether a Deferred has its result.
    """
    return bool(deferred.called)
