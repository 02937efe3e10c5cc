"""
Increments a number of the state, as often as the path of a request says, and
writes down each sum that it is told.
"""

import os

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

import twisted_cluster

OUTSTANDING = 20

here = twisted_cluster.current()
told = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def count(times):
    for _ in range(times):
        total = await here.state.increment("n")
        assert here.state["n"] >= total
        os.write(told, b"%d\n" % total)


class Counting(Resource):
    isLeaf = True

    def render_GET(self, request):
        share = int(request.path.strip(b"/")) // OUTSTANDING
        done = gatherResults([ensureDeferred(count(share)) for _ in range(OUTSTANDING)])
        done.addCallback(lambda _: request.write(b"%d" % here.state["n"]))
        done.addBoth(lambda _: request.finish())
        return NOT_DONE_YET


resource = Counting()
