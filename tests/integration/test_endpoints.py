"""
All kinds of listeners, and all kinds of apps on them.
"""

from __future__ import annotations

import datetime
import os
import socket
import sys

from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import SkipTest

from tests.integration.clients import body, connect, get, request, who
from tests.integration.harness import LOCAL, ClusterTestCase

AS_SYSTEMD = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""


class EndpointTests(ClusterTestCase):
    """
    Listeners of every kind.
    """

    async def test_severalListeners(self) -> None:
        """
        One cluster listens on IPv4, IPv6 and a path at once; the path is gone
        when it has stopped.
        """
        path = self.path("http.sock")
        listen = (LOCAL, r"tcp:0:interface=\:\:1", f"unix:{path}:mode=660")
        cluster = await self.cluster("hello:resource", listen=listen)
        self.assertEqual(await get(cluster.port), b"hello\n")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
        self.assertEqual({(await who(path))[0] for _ in range(4)}, {0, 1})
        with socket.create_connection(("::1", int(cluster.addresses[1].split(":")[-1]))):
            pass
        await cluster.stop()
        self.assertFalse(os.path.exists(path))

    async def test_tls(self) -> None:
        """
        C{ssl:} does TLS in the workers.
        """
        pem = self.selfSigned()
        cluster = await self.cluster(
            "hello:resource",
            listen=(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",),
        )
        places = {
            (await get(cluster.port, "/who", CertificateOptions())).split()[0] for _ in range(4)
        }
        self.assertEqual(places, {b"0", b"1"})

    def selfSigned(self) -> str:
        """
        The path of a key and its certificate.
        """
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise SkipTest("pip install twisted[tls] for TLS") from None
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        certificate = builder.sign(key, hashes.SHA256())
        encoding = serialization.Encoding.PEM
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(encoding, form, serialization.NoEncryption())
        text = secret + certificate.public_bytes(encoding)
        return self.write("both.pem", text.decode("ascii"))

    async def test_inheritedDescriptor(self) -> None:
        """
        C{fd:} takes a listening socket that the parent has bound; of a path it
        leaves the file alone.
        """
        path = self.path("inherited.sock")
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path)
            unix.listen()
            cluster = await self.cluster(
                "hello:resource",
                listen=("fd:5", "fd:6"),
                childFDs={5: tcp.fileno(), 6: unix.fileno()},
            )
            port = tcp.getsockname()[1]
        self.assertEqual(await get(port), b"hello\n")
        self.assertEqual(await get(path), b"hello\n")
        await cluster.stop()
        self.assertTrue(os.path.exists(path))

    async def test_systemd(self) -> None:
        """
        C{systemd:} takes the sockets that a service manager passes.
        """
        with socket.create_server(("127.0.0.1", 0)) as inherited:
            cluster = await self.cluster(
                "hello:resource",
                listen=("systemd:domain=INET:index=0",),
                childFDs={3: inherited.fileno()},
                env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
                wrapper=(sys.executable, "-c", AS_SYSTEMD),
            )
            port = inherited.getsockname()[1]
        self.assertEqual({(await who(port))[0] for _ in range(4)}, {0, 1})
        await cluster.stop()

    async def test_systemdOfApp(self) -> None:
        """
        An app that takes such a socket by itself gets it, in workers of either
        kind and in the next generation, and harms nothing by closing what it
        takes for its own descriptor.
        """
        with open(os.path.join(self.directory, "hello"), "w", encoding="ascii") as file:
            file.write("hello\n")
        for preload in ("--preload", "--no-preload"):
            with socket.create_server(("127.0.0.1", 0)) as inherited:
                cluster = self.launch(
                    *(preload, "--workers", "2", "web", "--listen", "systemd:domain=INET:index=0"),
                    *("--path", self.directory),
                    childFDs={3: inherited.fileno()},
                    env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
                    wrapper=(sys.executable, "-c", AS_SYSTEMD),
                )
                port = inherited.getsockname()[1]
            await cluster.allReady(2)
            self.assertEqual(await get(port, "/hello"), b"hello\n")
            self.assertEqual((await cluster.ctl("reload")).code, 0)
            self.assertEqual(await get(port, "/hello"), b"hello\n")
            await cluster.stop()

    async def test_addressInUse(self) -> None:
        """
        An address that is taken ends the command with exit code 1 and one
        line that says so.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for command in ("twistd", "twist"):
                endpoint = f"tcp:{port}:interface=127.0.0.1"
                cluster = self.launch(
                    "--app", "hello:resource", "--listen", endpoint, command=command
                )
                ended = await cluster.isExit()
                self.assertEqual((ended.code, ended.signal), (1, None), cluster.tail())
                self.assertTrue(cluster.matching("can't listen on .*Address already in use"))
                self.assertEqual(cluster.matching("Traceback"), [], cluster.tail())


class AppTests(ClusterTestCase):
    """
    Apps of every kind.
    """

    async def _post(self, port: int) -> bytes:
        client = await connect(port)
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
        return body(await client.end())

    async def test_wsgi(self) -> None:
        """
        A WSGI callable.
        """
        cluster = await self.cluster("wsgi_app:application")
        self.assertEqual(await get(cluster.port), b"hello from GET\n")
        self.assertEqual(await self._post(cluster.port), b"hello from POST\n")

    async def test_klein(self) -> None:
        """
        A Klein app, by its method that returns a resource.
        """
        try:
            import klein  # noqa: F401
        except ImportError:
            raise SkipTest("pip install klein for Klein") from None
        for attribute in ("resource", "app.resource"):
            cluster = await self.cluster(f"klein_app:{attribute}", workers=1)
            self.assertEqual(await get(cluster.port, "/world"), b"hello world\n")
            await cluster.stop()

    async def test_servicesThatListen(self) -> None:
        """
        A TCPServer, a service made by strports, and an Application that holds
        one: each listens at a port of the master's, which no worker holds
        itself.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        for attribute in ("tcp", "endpoint", "application"):
            cluster = await self.cluster(
                f"service_app:{attribute}",
                listen=(f"tcp:{port}:interface=127.0.0.1",),
                env={"APP_PORT": str(port)},
            )
            self.assertEqual({(await who(port))[0] for _ in range(4)}, {0, 1})
            await cluster.stop()

    async def test_hooks(self) -> None:
        """
        C{--service} runs a subclass, whose hooks are called; one file holds
        it and the app.
        """
        cluster = await self.cluster("hooks:resource", "--service", "hooks:Cluster")
        self.assertEqual({(await who(cluster.port))[0] for _ in range(3)}, {1})
        await cluster.stop()
        for slot in (0, 1):
            self.assertTrue(cluster.matching(f"hook: slot {slot} is ready"))
            self.assertTrue(cluster.matching(f"hook: slot {slot} ended: exit code 0, meant: True"))

    async def test_halfARequest(self) -> None:
        """
        A client that sends its request byte by byte, or closes its side after
        it, is answered.
        """
        cluster = await self.cluster("hello:resource", workers=1)
        client = await connect(cluster.port)
        for byte in request():
            client.send(bytes([byte]))
        self.assertTrue((await client.end()).endswith(b"hello\n"))
        client = await connect(cluster.port)
        client.send(request())
        client.transport.loseWriteConnection()
        self.assertTrue((await client.end()).endswith(b"hello\n"))
