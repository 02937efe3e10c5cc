"""
Computes once, and has a job that one worker does: it tells which one in the
state.
"""

import json
import os

from twisted.internet.defer import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster
from twisted_cluster.singleton import runOnce

here = twisted_cluster.current()
seen = []
here.state.watch("computed", lambda key, value: seen.append(value))
runOnce("job", 0.1, lambda: here.state.set("doing", os.getpid()))


async def answer(request):
    await here.cache.getOrCompute("sum", lambda: here.state.increment("computed"))
    found = {"doing": here.state.get("doing"), "seen": seen}
    request.write(json.dumps(found).encode())
    request.finish()


class Once(Resource):
    isLeaf = True

    def render_GET(self, request):
        ensureDeferred(answer(request))
        return NOT_DONE_YET


resource = Once()
