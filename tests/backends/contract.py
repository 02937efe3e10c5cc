"""
What every backend has to do, whatever it holds things in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_cluster.errors import AppError, StateUnavailable
from twisted_cluster.interfaces import (
    Change,
    IBackendListener,
    IStateBackend,
    Snapshot,
    Write,
)

if TYPE_CHECKING:
    _Base = TestCase
else:
    _Base = object


@implementer(IBackendListener)
class Listener:
    """
    Remembers what it is told.

    @ivar changes: The steps.
    @ivar snapshots: The snapshots.
    @ivar freed: The names of leases that became free.
    @ivar publications: Topics and what was published under them.
    @ivar reached: Whether the backend could be reached, each time it was told.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.snapshots: list[Snapshot] = []
        self.freed: list[str] = []
        self.publications: list[tuple[str, bytes]] = []
        self.reached: list[bool] = []

    def changed(self, change: Change) -> None:
        """See L{IBackendListener.changed}."""
        self.changes.append(change)

    def resynced(self, snapshot: Snapshot) -> None:
        """See L{IBackendListener.resynced}."""
        self.snapshots.append(snapshot)

    def leaseFreed(self, name: str) -> None:
        """See L{IBackendListener.leaseFreed}."""
        self.freed.append(name)

    def published(self, topic: str, data: bytes) -> None:
        """See L{IBackendListener.published}."""
        self.publications.append((topic, data))

    def availability(self, up: bool, reason: str) -> None:
        """See L{IBackendListener.availability}."""
        self.reached.append(up)


class BackendContract(_Base):
    """
    To be mixed into a test case that says how a backend is made, and how time
    passes for it.
    """

    backend: IStateBackend
    listener: Listener

    def makeBackend(self) -> IStateBackend:
        """
        A backend that holds nothing.
        """
        raise NotImplementedError

    async def wait(self, seconds: float) -> None:
        """
        Let time pass for the backend.
        """
        raise NotImplementedError

    async def until(self, happened: Any) -> None:
        """
        Wait until C{happened} returns something true, which may be at once.
        """
        self.assertTrue(happened())

    async def begin(self) -> Any:
        """
        Start a backend.

        @return: The same; it is typed loosely since the Deferreds of an
            interface are those of whoever implements it.
        """
        self.backend = self.makeBackend()
        self.listener = Listener()
        await self.backend.start(self.listener)
        self.addCleanup(lambda: self.backend.stop())
        return self.backend

    async def test_interface(self) -> None:
        """
        It provides what it says.
        """
        backend = await self.begin()
        verifyObject(IStateBackend, backend)
        verifyObject(IBackendListener, self.listener)

    async def test_write(self) -> None:
        """
        The listener has been told of a write before it is answered, and the
        snapshot has it.
        """
        backend = await self.begin()
        before = backend.snapshot()
        version = before.version
        self.assertEqual(dict(before.items), {})
        written = await backend.write(Write("1", sets={"a": b"j1", "b": b"bx"}))
        self.assertEqual(self.listener.changes, [Change(version + 1, {"a": b"j1", "b": b"bx"})])
        self.assertEqual((written.applied, written.version), (True, version + 1))
        await backend.write(Write("2", sets={"a": None}))
        self.assertEqual(self.listener.changes[1:], [Change(version + 2, {"a": None})])
        after = backend.snapshot()
        self.assertEqual(dict(after.items), {"b": b"bx"})
        self.assertEqual((after.epoch, after.version), (before.epoch, version + 2))

    async def test_expects(self) -> None:
        """
        All that is expected has to hold, else nothing is done.
        """
        backend = await self.begin()
        await backend.write(Write("1", sets={"a": b"i1"}))
        cases: tuple[tuple[dict[str, bytes | None], bool], ...] = (
            ({"a": b"i2"}, False),
            ({"a": b"i1", "b": b"i1"}, False),
            ({"a": None}, False),
            ({"a": b"i1", "b": None}, True),
        )
        for number, (expects, holds) in enumerate(cases):
            write = Write(f"e{number}", sets={"b": b"bx"}, expects=expects)
            self.assertEqual((await backend.write(write)).applied, holds)
        self.assertEqual(dict(backend.snapshot().items), {"a": b"i1", "b": b"bx"})
        self.assertEqual(len(self.listener.changes), 2)

    async def test_increments(self) -> None:
        """
        The sum is answered, exact in all of 64 bits.
        """
        backend = await self.begin()
        for number, (by, total) in enumerate(
            ((5, b"i5"), (-7, b"i-2"), (2**63 - 1, b"i9223372036854775805"))
        ):
            written = await backend.write(Write(f"i{number}", increments={"n": by}))
            self.assertEqual(written.items["n"], total)
        with self.assertRaises(AppError):
            await backend.write(Write("beyond", increments={"n": 10}))
        await backend.write(Write("text", sets={"t": b'j"x"'}))
        with self.assertRaisesRegex(AppError, "can't increment 't': it holds no integer"):
            await backend.write(Write("wrong", sets={"a": b"i1"}, increments={"t": 1}))
        self.assertEqual(
            dict(backend.snapshot().items), {"n": b"i9223372036854775805", "t": b'j"x"'}
        )

    async def test_repeatedWrite(self) -> None:
        """
        A write that is repeated takes effect once, and has the same answer.
        """
        backend = await self.begin()
        first = await backend.write(Write("1", increments={"n": 1}))
        await backend.write(Write("2", increments={"n": 1}))
        again = await backend.write(Write("1", increments={"n": 1}))
        self.assertEqual((again.applied, again.version), (True, first.version))
        self.assertEqual(again.items["n"], b"i1")
        self.assertEqual(backend.snapshot().items["n"], b"i2")

    async def test_noEffect(self) -> None:
        """
        A write that changes no value takes no step.
        """
        backend = await self.begin()
        await backend.write(Write("1", sets={"a": b"i1"}))
        version = backend.snapshot().version
        written = await backend.write(Write("2", sets={"a": b"i1", "b": None}))
        self.assertEqual((written.applied, written.version), (True, version))
        self.assertEqual(len(self.listener.changes), 1)

    async def test_cache(self) -> None:
        """
        The cache holds what was set, until it is deleted or expires.
        """
        backend = await self.begin()
        self.assertIsNone(await backend.cacheGet("a"))
        await backend.cacheSet("a", b"b\0\xff", None)
        self.assertEqual(await backend.cacheGet("a"), b"b\0\xff")
        self.assertTrue(await backend.cacheDelete("a"))
        self.assertFalse(await backend.cacheDelete("a"))
        self.assertIsNone(await backend.cacheGet("a"))
        await backend.cacheSet("t", b"bx", 0.1)
        self.assertEqual(await backend.cacheGet("t"), b"bx")
        await self.wait(0.2)
        self.assertIsNone(await backend.cacheGet("t"))

    async def test_cacheIncrement(self) -> None:
        """
        A counter in the cache has the ttl of its first increment.
        """
        backend = await self.begin()
        self.assertEqual(await backend.cacheIncrement("n", 2, 0.4), 2)
        await self.wait(0.1)
        self.assertEqual(await backend.cacheIncrement("n", -3, 99.0), -1)
        self.assertEqual(await backend.cacheGet("n"), b"i-1")
        await self.wait(0.4)
        self.assertIsNone(await backend.cacheGet("n"))
        self.assertEqual(await backend.cacheIncrement("n", 1, None), 1)
        await backend.cacheSet("t", b'j"x"', None)
        with self.assertRaisesRegex(AppError, "can't increment 't': it holds no integer"):
            await backend.cacheIncrement("t", 1, None)

    async def test_leases(self) -> None:
        """
        A lease has one holder; tokens grow; whoever waits hears that it was
        released.
        """
        backend = await self.begin()
        token = await backend.acquire("n", "a", 60.0)
        self.assertEqual(await backend.acquire("n", "a", 60.0), token)
        self.assertIsNone(await backend.acquire("n", "b", 60.0))
        self.assertFalse(await backend.release("n", "b"))
        self.assertFalse(await backend.renew("n", "b", 60.0))
        self.assertTrue(await backend.renew("n", "a", 60.0))
        self.assertTrue(await backend.release("n", "a"))
        await self.until(lambda: self.listener.freed == ["n"])
        self.assertFalse(await backend.release("n", "a"))
        self.assertGreater(await backend.acquire("n", "b", 60.0), token)

    async def test_expiredLease(self) -> None:
        """
        One that is not renewed can be had by others, and then is lost.
        """
        backend = await self.begin()
        token = await backend.acquire("n", "a", 0.1)
        await self.wait(0.2)
        self.assertGreater(await backend.acquire("n", "b", 60.0), token)
        self.assertFalse(await backend.renew("n", "a", 60.0))
        self.assertFalse(await backend.release("n", "a"))

    async def test_publish(self) -> None:
        """
        What is published comes back as well.
        """
        backend = await self.begin()
        await backend.publish("topic", b"\0data")
        await self.until(lambda: self.listener.publications == [("topic", b"\0data")])

    async def test_describe(self) -> None:
        """
        Status says what it is, and whether it can be reached.
        """
        backend = await self.begin()
        self.assertTrue(backend.describe()["up"])
        self.assertIsInstance(backend.describe()["kind"], str)

    async def test_stopped(self) -> None:
        """
        When it has stopped, writes fail, and reads go on.
        """
        backend = await self.begin()
        await backend.write(Write("1", sets={"a": b"i1"}))
        await backend.stop()
        with self.assertRaisesRegex(StateUnavailable, "can't write the state: .*; "):
            await backend.write(Write("2", sets={"a": b"i2"}))
        self.assertEqual(dict(backend.snapshot().items), {"a": b"i1"})
