"""
Does with what is shared whatever the path of a request says.
"""

import json
import os

from twisted.internet.defer import ensureDeferred, succeed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster

here = twisted_cluster.current()
heard = []
leases = {}


@here.handle("told")
def told(message):
    heard.append(message.value)


async def lease(name):
    leases[name] = await here.lease(name, timeout=30)
    leases[name].lost.addCallback(lost, name)
    return leases[name].token


def lost(reason, name):
    leases.pop(name)
    print(f"lost {name}: {reason}")


def release(name):
    return leases.pop(name).release()


ACTIONS = {
    "who": lambda: succeed([here.slot, here.generation, os.getpid()]),
    "set": lambda key, value: here.state.set(key, value),
    "get": lambda key: succeed(here.state.get(key)),
    "add": lambda key: here.state.increment(key),
    "remember": lambda key, value: here.cache.set(key, value),
    "recall": lambda key: here.cache.get(key),
    "count": lambda key: here.cache.increment(key),
    "tell": lambda text: here.broadcast("told", text, everywhere=True),
    "heard": lambda: succeed(heard),
    "lease": lambda name: ensureDeferred(lease(name)),
    "release": release,
    "holds": lambda: succeed(sorted(leases)),
}


class Sharing(Resource):
    isLeaf = True

    def render_GET(self, request):
        name, *arguments = request.path.decode().strip("/").split("/")
        done = ACTIONS[name](*arguments)
        done.addCallback(lambda value: {"value": value})
        done.addErrback(lambda failure: {"error": str(failure.value)})
        done.addCallback(lambda answer: request.write(json.dumps(answer).encode()))
        done.addCallback(lambda _: request.finish())
        return NOT_DONE_YET


resource = Sharing()
