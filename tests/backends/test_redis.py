"""
Tests for L{twisted_cluster.backends.redis}, against a real server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.backends.contract import BackendContract, Listener
from tests.backends.server import RedisServer, freePort, reactor, until
from tests.support import Lines
from tests.worker.test_tls import certificate
from twisted_cluster.backends import redis
from twisted_cluster.backends.redis import RedisBackend
from twisted_cluster.backends.scripts import pack
from twisted_cluster.errors import AppError, StateUnavailable
from twisted_cluster.interfaces import IStateBackend, Write
from twisted_cluster.stateurl import StateUrl, parseStateUrl


class ContractTests(BackendContract, TestCase):
    """
    It does what every backend does.
    """

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        self.server = RedisServer(self)
        return ensureDeferred(self.server.start())

    def makeBackend(self) -> IStateBackend:
        """
        One that shares with nobody.
        """
        return RedisBackend(reactor, self.server.url())

    async def wait(self, seconds: float) -> None:
        """
        Let the time pass.
        """
        await deferLater(reactor, seconds)

    async def until(self, happened: Any) -> None:
        """
        Wait for what comes over the network.
        """
        await until(happened)


class _Case(TestCase):
    """
    A server, and masters that use it.
    """

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        self.server = RedisServer(self)
        return ensureDeferred(self.server.start())

    def make(self, url: StateUrl | None = None, timeout: float = 30.0) -> tuple[Any, Listener]:
        """
        A backend that is about to start, and who listens to it.
        """
        backend, listener = RedisBackend(reactor, url or self.server.url(), timeout), Listener()
        self.addCleanup(backend.stop)
        self.started = backend.start(listener)
        self.started.addErrback(lambda failure: failure.trap(StateUnavailable) and None)
        return backend, listener

    async def begin(self, url: StateUrl | None = None, timeout: float = 30.0) -> Any:
        """
        A backend that runs, and who listens to it.
        """
        made = self.make(url, timeout)
        await self.started
        return made

    def hurry(self) -> None:
        """
        Let a silence be noticed soon.
        """
        self.patch(redis, "BEAT", 0.05)
        self.patch(redis, "SILENCE", 0.5)


class SharingTests(_Case):
    """
    Several masters on one server.
    """

    async def test_changes(self) -> None:
        """
        Each hears the steps of the others, in their order.
        """
        one, first = await self.begin()
        await one.write(Write("1", sets={"a": b"bx"}))
        two, second = await self.begin()
        self.assertEqual(two.snapshot(), one.snapshot())
        await two.write(Write("2", sets={"a": None, "b": b"by"}))
        await one.write(Write("3", increments={"n": 5}))
        await until(lambda: two.snapshot().version == 3)
        self.assertEqual(first.changes[1:], second.changes)
        self.assertEqual(two.snapshot(), one.snapshot())
        self.assertEqual((first.snapshots, second.snapshots), ([], []))

    async def test_names(self) -> None:
        """
        Clusters of another name share nothing.
        """
        one, first = await self.begin()
        two, _ = await self.begin(self.server.url("other"))
        await one.write(Write("1", sets={"a": b"bx"}))
        await one.cacheSet("k", b"bx", None)
        await two.publish("t", b"x")
        self.assertEqual(dict(two.snapshot().items), {})
        self.assertIsNone(await two.cacheGet("k"))
        self.assertIsNotNone(await one.acquire("n", "a", 9.0))
        self.assertIsNotNone(await two.acquire("n", "b", 9.0))
        self.assertEqual(first.publications, [])

    async def test_increments(self) -> None:
        """
        Sums of several masters are exact, though connections are lost
        meanwhile: what was acknowledged counts once.
        """
        one, _ = await self.begin()
        two, _ = await self.begin()
        done = []
        for number in range(1000):
            for name, backend in (("one", one), ("two", two)):
                done.append(backend.write(Write(f"{name}{number}", increments={"n": 1})))
            if number % 200 == 0:
                self.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        written = await gatherResults(done)
        self.assertEqual(len(written), 2000)
        totals = sorted(int(one.items["n"][1:]) for one in written)
        self.assertEqual(totals, list(range(1, 2001)))

    async def test_leases(self) -> None:
        """
        Of two masters one has a lease; the other hears that it is free.
        """
        one, _ = await self.begin()
        two, second = await self.begin()
        token = await one.acquire("n", "a", 60.0)
        self.assertIsNone(await two.acquire("n", "b", 60.0))
        await one.release("n", "a")
        await until(lambda: second.freed == ["n"])
        self.assertGreater(await two.acquire("n", "b", 60.0), token)

    async def test_publish(self) -> None:
        """
        All hear what one publishes; what is too large is refused.
        """
        one, first = await self.begin()
        _, second = await self.begin()
        await one.publish("t", b"x")
        await until(lambda: first.publications == second.publications == [("t", b"x")])
        with self.assertRaisesRegex(AppError, "can't publish 4194305 bytes to all hosts: "):
            await one.publish("t", bytes(redis.MAX_PUBLISHED + 1))

    async def test_largeStep(self) -> None:
        """
        A step that is too large to be published is taken with the snapshot,
        by the one who wrote it before the write is answered.
        """
        one, first = await self.begin()
        two, _ = await self.begin()
        value = bytes(redis.MAX_INLINE)
        await one.write(Write("1", sets={"a": value, "b": b"bx"}))
        self.assertEqual(one.snapshot().items["a"], value)
        self.assertEqual(first.snapshots[0].version, 1)
        await until(lambda: two.snapshot().version == 1)
        self.assertEqual(two.snapshot(), one.snapshot())

    async def test_stateLimit(self) -> None:
        """
        The state has a limit, and can always be made smaller.
        """
        self.patch(redis, "MAX_STATE", 100)
        one, _ = await self.begin()
        await one.write(Write("1", sets={"a": bytes(60)}))
        with self.assertRaisesRegex(AppError, "it would have 127 bytes, more than the 100 "):
            await one.write(Write("2", sets={"b": bytes(33)}))
        await one.write(Write("3", sets={"a": bytes(10)}))
        await one.write(Write("4", sets={"b": bytes(33)}))
        self.assertEqual(one.describe()["bytes"], 77)

    async def test_bothInOne(self) -> None:
        """
        A write can't set a key and increment it.
        """
        one, _ = await self.begin()
        with self.assertRaisesRegex(AppError, "can't increment 'a': the same write sets it; "):
            await one.write(Write("1", sets={"a": b"i1"}, increments={"a": 1}))


class ReachingTests(_Case):
    """
    How the server is reached.
    """

    async def test_unixSocket(self) -> None:
        """
        By a UNIX socket too, in any database.
        """
        url = parseStateUrl(f"unix://{self.server.socket}?db=3&name=test")
        one, _ = await self.begin(url)
        await one.write(Write("1", sets={"a": b"bx"}))
        two, _ = await self.begin()
        self.assertEqual(dict(two.snapshot().items), {})
        self.assertEqual(one.describe()["server"], f"Redis at {self.server.socket}")

    async def test_password(self) -> None:
        """
        With a password, which the log does not show; a wrong one is said to be
        wrong, and tried again.
        """
        self.server.command("CONFIG", "SET", "requirepass", "s3:cret")
        lines = Lines(self)
        wrong, listener = self.make(
            parseStateUrl(f"redis://:nope@127.0.0.1:{self.server.port}?name=test")
        )
        await until(lambda: listener.reached)
        self.assertIn("WRONGPASS", wrong.describe()["reason"])
        self.assertFalse(wrong.describe()["up"])
        right, _ = await self.begin(
            parseStateUrl(f"redis://:s3%3Acret@127.0.0.1:{self.server.port}?name=test")
        )
        self.assertTrue(right.describe()["up"])
        self.assertEqual([line for line in lines.all() if "nope" in line or "cret" in line], [])

    async def test_narrowAccess(self) -> None:
        """
        The access that the documentation recommends is enough.
        """
        rules = ("~twisted_cluster:{test}:*", "&twisted_cluster:{test}:*")
        more = ("+@all", "-@admin", "-@dangerous")
        self.server.command("ACL", "SETUSER", "app", "on", ">s3cret", *rules, *more)
        text = f"redis://app:s3cret@127.0.0.1:{self.server.port}/0?name=test"
        backend, listener = await self.begin(parseStateUrl(text))
        await backend.write(Write("1", sets={"a": b"bx"}, increments={"n": 1}))
        await backend.cacheSet("k", b"i1", 9.0)
        self.assertEqual(await backend.cacheIncrement("k", 1, None), 2)
        self.assertTrue(await backend.cacheDelete("k"))
        self.assertIsNotNone(await backend.acquire("l", "a", 9.0))
        self.assertTrue(await backend.renew("l", "a", 9.0))
        self.assertTrue(await backend.release("l", "a"))
        await backend.publish("t", b"x")
        await until(lambda: listener.publications and listener.freed)

    async def test_tls(self) -> None:
        """
        Over TLS, if the certificate is that of an authority to trust.
        """
        path = certificate(self.server.directory)
        await self.server.kill()
        tls = freePort()
        await self.server.start(
            *("--tls-port", str(tls), "--tls-cert-file", path, "--tls-key-file", path),
            *("--tls-ca-cert-file", path, "--tls-auth-clients", "no"),
        )
        text = f"rediss://localhost:{tls}/0?name=test"
        trusting, _ = await self.begin(parseStateUrl(f"{text}&ca={path}"))
        await trusting.write(Write("1", sets={"a": b"bx"}))
        careful, listener = self.make(parseStateUrl(text))
        await until(lambda: listener.reached)
        self.assertIn("certificate verify failed", careful.describe()["reason"])

    async def test_lateServer(self) -> None:
        """
        A server that is not there yet is waited for.
        """
        await self.server.kill()
        backend, listener = self.make()
        await until(lambda: listener.reached == [False])
        self.assertIn("refused", backend.describe()["reason"])
        self.assertFalse(self.started.called)
        await self.server.start()
        await self.started
        self.assertTrue(backend.describe()["up"])

    async def test_stopWhileAway(self) -> None:
        """
        To stop does not take a server; what waits fails.
        """
        await self.server.kill()
        backend = RedisBackend(reactor, self.server.url())
        started = backend.start(Listener())
        done = backend.write(Write("1", sets={"a": b"bx"}))
        await backend.stop()
        with self.assertRaises(StateUnavailable):
            await started
        with self.assertRaisesRegex(StateUnavailable, "can't write the state: .*; "):
            await done


class FaultTests(_Case):
    """
    Servers that go, hang, come back, and forget.
    """

    async def test_away(self) -> None:
        """
        Without a server reads go on, and what can't wait any longer fails
        clearly; who wants a lease hears so at once.
        """
        backend, listener = await self.begin(timeout=0.3)
        await backend.write(Write("1", sets={"a": b"bx"}))
        await self.server.kill()
        await until(lambda: listener.reached == [False])
        self.assertEqual(dict(backend.snapshot().items), {"a": b"bx"})
        self.assertFalse(backend.describe()["up"])
        for done, what in (
            (backend.write(Write("2", sets={"a": b"by"})), "write the state"),
            (backend.cacheGet("k"), "get 'k' from the cache"),
            (backend.publish("t", b"x"), "publish to all hosts"),
        ):
            with self.assertRaisesRegex(StateUnavailable, f"can't {what}: Redis at .*; try again"):
                await done
        self.failureResultOf(backend.acquire("n", "a", 9.0), StateUnavailable)
        self.failureResultOf(backend.renew("n", "a", 9.0), StateUnavailable)

    async def test_back(self) -> None:
        """
        What waits is done when the server is back; the loss of its data is
        noticed, and versions begin anew.
        """
        backend, listener = await self.begin()
        await backend.write(Write("1", sets={"a": b"bx"}))
        before = backend.snapshot().epoch
        await self.server.kill()
        await until(lambda: listener.reached == [False])
        waiting = backend.write(Write("2", increments={"n": 1}))
        await self.server.start()
        self.assertEqual((await waiting).items, {"n": b"i1"})
        self.assertEqual(listener.reached, [False, True])
        self.assertNotEqual(backend.snapshot().epoch, before)
        self.assertEqual(dict(backend.snapshot().items), {"n": b"i1"})
        self.assertEqual(len(listener.snapshots), 1)

    async def test_backWithData(self) -> None:
        """
        A server that has saved everything goes on where it was, and there is
        nothing to take anew.
        """
        await self.server.kill()
        await self.server.start("--appendonly", "yes", "--appendfsync", "always")
        backend, listener = await self.begin()
        token = await backend.acquire("n", "a", 60.0)
        await backend.write(Write("1", increments={"n": 1}))
        before = backend.snapshot()
        await self.server.kill()
        await until(lambda: listener.reached == [False])
        await self.server.start()
        await until(lambda: listener.reached == [False, True])
        self.assertEqual(await backend.acquire("n", "a", 60.0), token)
        again = await backend.write(Write("1", increments={"n": 1}))
        self.assertEqual(again.items, {"n": b"i1"})
        self.assertEqual(backend.snapshot(), before)
        self.assertEqual(listener.snapshots, [])

    async def test_hangs(self) -> None:
        """
        A server that hangs is given up; what it was asked is asked again, and
        takes effect once.
        """
        self.hurry()
        backend, listener = await self.begin()
        self.server.signal("STOP")
        waiting = [backend.write(Write(f"{n}", increments={"n": 1})) for n in range(20)]
        await until(lambda: listener.reached == [False])
        self.assertIn("silent", backend.describe()["reason"])
        self.server.signal("CONT")
        written = await gatherResults(waiting)
        self.assertEqual(listener.reached, [False, True])
        self.assertEqual(sorted(int(one.items["n"][1:]) for one in written), [*range(1, 21)])
        self.assertEqual(dict(backend.snapshot().items), {"n": b"i20"})

    async def test_hungForLong(self) -> None:
        """
        What it was asked and does not answer in time fails, and the error says
        that it may be done all the same.
        """
        backend, _ = await self.begin(timeout=0.3)
        self.server.signal("STOP")
        with self.assertRaisesRegex(StateUnavailable, "not answered for 0.3 s; it may have been"):
            await backend.write(Write("1", increments={"n": 1}))

    async def test_missedSteps(self) -> None:
        """
        Steps that were published while nobody listened are taken with a
        snapshot.
        """
        one, first = await self.begin()
        two, _ = await self.begin()
        self.server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await two.write(Write("1", sets={"a": b"bx"}))
        await until(lambda: one.snapshot().version == 1)
        self.assertEqual(one.snapshot(), two.snapshot())
        await until(lambda: first.reached == [False, True])

    async def test_gap(self) -> None:
        """
        If a step is missing the replica is taken anew; one that was told
        before is passed over.
        """
        backend, listener = await self.begin()
        await backend.write(Write("1", sets={"a": b"bx"}))
        epoch = backend.snapshot().epoch.encode()
        channel = self.server.url().prefix + "changes"
        self.server.command("PUBLISH", channel, pack([epoch, b"1", b"a", b"by"]))
        self.server.command("HSET", self.server.url().prefix + "meta", "version", "7")
        self.server.command("HSET", self.server.url().prefix + "state", "b", "bz")
        self.server.command("PUBLISH", channel, pack([epoch, b"7", b"b", b"bz"]))
        await until(lambda: listener.snapshots)
        self.assertEqual(backend.snapshot().version, 7)
        self.assertEqual(dict(backend.snapshot().items), {"a": b"bx", "b": b"bz"})

    async def test_rollBack(self) -> None:
        """
        A server that has gone back to older data behind a connection that
        lives on is noticed.
        """
        self.hurry()
        backend, listener = await self.begin()
        for number in range(3):
            await backend.write(Write(f"{number}", increments={"n": 1}))
        prefix = self.server.url().prefix
        self.server.command("HSET", prefix + "state", "n", "i1")
        self.server.command("HSET", prefix + "meta", "version", "1")
        await until(lambda: backend.snapshot().version == 1)
        self.assertEqual(dict(listener.snapshots[0].items), {"n": b"i1"})

    async def test_flushed(self) -> None:
        """
        If somebody deletes everything, the state is empty in an epoch of its
        own; scripts that were forgotten are given again.
        """
        self.hurry()
        backend, listener = await self.begin()
        await backend.write(Write("1", sets={"a": b"bx"}))
        self.server.command("SCRIPT", "FLUSH")
        self.server.command("FLUSHALL")
        await until(lambda: listener.snapshots)
        self.assertEqual(listener.snapshots[0].version, 0)
        self.server.command("SCRIPT", "FLUSH")
        written = await backend.write(Write("2", increments={"n": 1}))
        self.assertEqual((written.version, written.items), (1, {"n": b"i1"}))
        self.assertEqual(dict(backend.snapshot().items), {"n": b"i1"})

    async def test_tokensGrow(self) -> None:
        """
        Fencing tokens grow even if the data are lost.
        """
        backend, _ = await self.begin()
        token = await backend.acquire("n", "a", 9.0)
        self.server.command("FLUSHALL")
        self.assertGreater(await backend.acquire("n", "b", 9.0), token)
        self.assertFalse(await backend.renew("n", "a", 9.0))

    async def test_full(self) -> None:
        """
        What the server says is passed on.
        """
        backend, _ = await self.begin()
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        with self.assertRaisesRegex(StateUnavailable, "can't cache 'k': Redis at .* says: OOM "):
            await backend.cacheSet("k", b"bx", None)

    async def test_nonsense(self) -> None:
        """
        Nonsense on a channel costs a line in the log.
        """
        backend, listener = await self.begin()
        lines = Lines(self)
        for rest, data in (
            ("changes", b"x"),
            ("changes", pack([b"e", b"not a number"])),
            ("published", pack([b"\xff", b"x", b"y"])),
            ("freed", b"\xff"),
        ):
            self.server.command("PUBLISH", self.server.url().prefix + rest, data)
        await backend.write(Write("1", sets={"a": b"bx"}))
        await until(lambda: len(lines.containing("published nonsense")) >= 3)
        self.assertEqual(len(listener.changes), 1)
