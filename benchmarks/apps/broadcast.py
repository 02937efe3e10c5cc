"""
Workers that take what the master says, and the service that says it.

The service listens on the UNIX socket C{control} in the working directory for
commands: lines of JSON such as C{{"do": "rate", "count": 20000}}, each answered
by a line of JSON.  C{benchmarks/peers/node_broadcast.js} understands the same.
"""

import json
import time

from twisted.application.internet import UNIXServer
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineOnlyReceiver

import twisted_cluster
from benchmarks.apps import hello
from twisted_cluster.service import ClusterService

PATIENCE = 60.0
"""Seconds to wait for the answer of a worker that has much to read."""

resource = hello.resource
here = twisted_cluster.current()
blocks = 0
delays: list[int] = []

# In the workers.


@here.handle("block")
def block(message):
    global blocks
    blocks += 1


@here.handle("stamp")
def stamp(message):
    delays.append(time.monotonic_ns() - message.value)


@here.handle("echo")
def echo(message):
    return message.value


@here.handle("report")
def report(message):
    """
    What has come since the last report.
    """
    global blocks, delays
    found = {"blocks": blocks, "delays": delays}
    blocks, delays = 0, []
    return found


@here.handle("size")
async def size(message):
    """
    How many characters there are in the state, read when it is that of the
    mark that the message has.
    """
    marked: Deferred[None] = Deferred()
    if here.state.get("mark") != message.value:
        forget = here.state.watch("mark", lambda key, mark: marked.callback(None))
        await marked
        forget()
    return sum(len(value) for value in here.state.values() if isinstance(value, str))


# In the master.


class Control(LineOnlyReceiver):
    """
    Carries commands out.
    """

    delimiter = b"\n"

    def __init__(self, service):
        self.service = service

    def lineReceived(self, line):
        command = json.loads(line)
        do = getattr(self.service, "do_" + command.pop("do"))
        done = ensureDeferred(do(**command))
        done.addErrback(lambda failure: {"error": failure.getTraceback()})
        done.addCallback(lambda answer: self.sendLine(json.dumps(answer).encode()))


class Broadcaster(ClusterService):
    """
    Does what the measurement wants done.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        factory = Factory.forProtocol(lambda: Control(self))
        factory.noisy = False
        UNIXServer("control", factory).setServiceParent(self)

    async def do_rate(self, count):
        """
        Broadcasts in a loop, until all workers have all of them.
        """
        clocks = Clocks()
        value = {"v": "x" * 1000}
        for _ in range(count):
            self.tell("block", value)
        return await self._blocks(clocks)

    async def do_steady(self, rate, seconds):
        """
        The same at a steady rate.
        """
        clocks = Clocks()
        value = {"v": "x" * 1000}
        told = 0
        while told < rate * seconds:
            for _ in range(int(clocks.seconds() * rate) - told):
                self.tell("block", value)
                told += 1
            await self._pause(0.001)
        return {**await self._blocks(clocks), "told": told}

    async def do_large(self, size):
        """
        One large broadcast.
        """
        clocks = Clocks()
        self.tell("block", bytes(size))
        return await self._blocks(clocks)

    async def do_stamps(self, count, interval):
        """
        Broadcasts of what time it is.
        """
        for _ in range(count):
            self.tell("stamp", time.monotonic_ns())
            await self._pause(interval)
        return [delay for one in await self._ask("report") for delay in one["delays"]]

    async def do_calls(self, count, interval):
        """
        One worker after the other is called.
        """
        slots = sorted(self.workers)
        delays = []
        for number in range(count):
            began = time.monotonic_ns()
            await self.call(slots[number % len(slots)], "echo", began)
            delays.append(time.monotonic_ns() - began)
            await self._pause(interval)
        return delays

    async def do_state(self, keys, size, mark):
        """
        A state that all workers are to have, and to read.
        """
        items = {f"key {number}": chr(65 + mark % 26) * size for number in range(keys)}
        clocks = Clocks()
        sizes = self._ask("size", mark)
        await self.state.update({**items, "mark": mark})
        return clocks.read(sizes=await sizes)

    def _ask(self, topic, value=None):
        return gatherResults(
            [self.call(slot, topic, value, PATIENCE) for slot in sorted(self.workers)]
        )

    async def _blocks(self, clocks):
        reports = await self._ask("report")
        return clocks.read(blocks=[one["blocks"] for one in reports])

    def _pause(self, seconds):
        return deferLater(self._reactor, seconds)


class Clocks:
    """
    The time and the CPU time of this process, from now on.
    """

    def __init__(self):
        self._began, self._cpu = time.monotonic(), time.process_time()

    def seconds(self):
        return time.monotonic() - self._began

    def read(self, **more):
        return {"seconds": self.seconds(), "cpu": time.process_time() - self._cpu, **more}
