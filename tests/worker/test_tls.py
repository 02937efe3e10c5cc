"""
TLS in the worker, on the genuine reactor: Twisted's TLS has a clock of its
own.
"""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
import tempfile
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support import socketPair
from tests.worker.case import FakeBinder, FakeMaster
from tests.worker.test_session import GET
from twisted_cluster.sources import Source, SourceKind
from twisted_cluster.wire import commands
from twisted_cluster.wire.channel import ChannelTransport
from twisted_cluster.wire.preamble import ListenerPlan, Preamble
from twisted_cluster.worker.intercept import Interception
from twisted_cluster.worker.session import WorkerSession


def certificate(directory: str) -> str:
    """
    The path of a file with a fresh key and a certificate for it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = os.path.join(directory, "server.pem")
    with open(path, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.write(made.public_bytes(serialization.Encoding.PEM))
    return path


class Awaited(Resource):
    """
    Tells of its one request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.request: Deferred[Any] = Deferred()

    def render_GET(self, request: Any) -> object:
        """Tell."""
        self.request.callback(request)
        return NOT_DONE_YET


class AwaitedMaster(FakeMaster):
    """
    Tells when the worker is drained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drained: Deferred[None] = Deferred()

    @commands.Drained.responder
    def _drained(self) -> dict[str, Any]:
        self.drained.callback(None)
        return {}


class TLSTests(TestCase):
    """
    The master passes plain sockets; the worker does the TLS.
    """

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        path = certificate(directory)
        name = f"ssl:0:privateKey={path}"
        plan = ListenerPlan(name, int(socket.AF_INET), self.listening.getsockname())
        ours, theirs = socketPair(self)
        self.master = AwaitedMaster()
        ChannelTransport(ours, self.master, reactor)
        preamble = Preamble(
            0, 1, Source(SourceKind.APP, "hello:app"), (), (plan,), 2.0, 16, 1.0, 30.0
        )
        interception = Interception(FakeBinder())  # type: ignore[arg-type]
        self.session = WorkerSession(reactor, preamble, interception)
        ChannelTransport(theirs, self.session, reactor)
        self.resource = Awaited()
        self.session.begin(Site(self.resource))
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        End both, before their sockets are closed.
        """
        self.session._exit(0)
        self.session.transport.abort()
        self.master.transport.abort()

    def client(self) -> ssl.SSLSocket:
        """
        A client whose handshake is still to be made; its socket has been
        handed to the worker.
        """
        plain = socket.create_connection(self.listening.getsockname(), 10)
        accepted, _ = self.listening.accept()
        self.addCleanup(accepted.close)
        self.master.hand([accepted.fileno()])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wrapped = context.wrap_socket(plain, do_handshake_on_connect=False)
        self.addCleanup(wrapped.close)
        return wrapped

    async def test_drain(self) -> None:
        """
        A request over TLS is answered during a drain, with C{Connection:
        close}; an idle connection ends with TLS's own goodbye.
        """
        busy, idle = self.client(), self.client()

        def ask(client: ssl.SSLSocket, text: bytes) -> bytes:
            parts = []
            client.do_handshake()
            client.sendall(text)
            # Without a close_notify of the server this would raise.
            while part := client.recv(65_536):
                parts.append(part)
            client.close()
            return b"".join(parts)

        answers = [deferToThread(ask, busy, GET), deferToThread(ask, idle, b"")]
        request = await self.resource.request
        self.master.callRemote(commands.Drain, grace=0.05, migrate=True)
        self.assertEqual(await answers[1], b"")
        request.write(b"hello")
        request.finish()
        answer = await answers[0]
        self.assertIn(b"200 OK", answer)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"hello\r\n0\r\n\r\n"))
        await self.master.drained
        self.assertEqual(self.master.offers, [])
