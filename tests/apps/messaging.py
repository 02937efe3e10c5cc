"""
Two workers that speak with each other as the path of a request says.
"""

import os
import signal

from twisted.internet.defer import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster
from twisted_cluster.errors import CallFailed

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


async def call(other, topic):
    """
    Call the other one.
    """
    try:
        return await here.call(other, topic)
    except CallFailed as error:
        return str(error)


ACTIONS = {"large": large, "flood": flood, "call": call}


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


resource = Messaging()
