"""
Two workers that speak with each other as the path of a request says.
"""

import os
import signal

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster
from twisted_cluster.context import Role
from twisted_cluster.errors import CallFailed
from twisted_cluster.service import ClusterService

here = twisted_cluster.current()
heard = []


@here.handle("length")
def length(message):
    return len(message.value)


@here.handle("told")
def told(message):
    heard.append(len(message.value))


@here.handle("heard")
async def answer(message):
    return [len(heard), heard == heard[:1] * len(heard)]


@here.handle("pid")
def pid(message):
    return os.getpid()


@here.handle("lengths")
def lengths(message):
    return heard


@here.handle("drained")
def drained(message):
    done = Deferred()
    here.onDrain(lambda: done.callback(os.getpid()))
    print(f"slot {here.slot} waits until it drains", flush=True)
    return done


@here.handle("die")
def die(message):
    os.kill(os.getpid(), signal.SIGKILL)


@here.handle("raise")
def fail(message):
    raise ValueError("no such thing")


async def large(other, size):
    """
    Call the other one with much, again and again.
    """
    total = 0
    for _ in range(4):
        total += await here.call(other, "length", bytes(int(size)), timeout=60)
    return total


async def flood(other, size):
    """
    Send to the other one, which does not run, until there is no room; then let
    it run, and ask what it got.
    """
    process = await here.call(other, "pid")
    os.kill(process, signal.SIGSTOP)
    sent = 0
    try:
        while sent < 1000:
            await here.send(other, "told", bytes(int(size)))
            sent += 1
    except CallFailed as error:
        reason = str(error)
    finally:
        os.kill(process, signal.SIGCONT)
    return sent, await here.call(other, "heard", timeout=60), reason


async def deafen(other, size, count):
    """
    Tell the other one, which does not run, again and again; then let it run,
    and ask what it got.
    """
    process = await here.call(other, "pid")
    os.kill(process, signal.SIGSTOP)
    try:
        told = [await here.send(Role.WORKER, "told", bytes(int(size))) for _ in range(int(count))]
    finally:
        os.kill(process, signal.SIGCONT)
    return told, await here.call(other, "heard", timeout=60)


async def both(other):
    """
    Speak with everybody, and have the master speak back.
    """
    said = [
        await here.call(Role.MASTER, "back", "to me"),
        await here.send(Role.MASTER, "note", {"a": [1, None]}),
        await here.call(Role.MASTER, "notes"),
        await here.send(Role.WORKER, "told", b"1"),
        await here.broadcast("told", b"12"),
        await here.call(other, "lengths"),
        heard,
    ]
    return [os.getpid(), *said]


async def outlast(other):
    """
    Call the other one, which answers when it drains; then call its successor.
    """
    return [await here.call(other, "drained", timeout=60), await here.call(other, "pid")]


async def call(other, topic):
    """
    Call the other one.
    """
    try:
        return await here.call(other, topic)
    except CallFailed as error:
        return str(error)


ACTIONS = {
    "large": large,
    "flood": flood,
    "deafen": deafen,
    "both": both,
    "outlast": outlast,
    "call": call,
}


class Messaging(Resource):
    isLeaf = True

    def render_GET(self, request):
        action, *arguments = request.path.decode().strip("/").split("/")
        if not action:
            return b"hello\n"
        done = ensureDeferred(ACTIONS[action](1 - here.slot, *arguments))
        done.addBoth(lambda result: request.write(repr(result).encode()))
        done.addCallback(lambda _: request.finish())
        return NOT_DONE_YET


class Talking(ClusterService):
    """
    The master, for C{--service}.
    """

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.notes = []
        self.handle("note")(lambda message: self.notes.append(message.value))

    async def messageReceived(self, message):
        if message.topic == "notes":
            return self.notes
        await self.send(message.sender, "told", b"123")
        return [message.value, await self.call(message.sender, "pid")]


resource = Messaging()
