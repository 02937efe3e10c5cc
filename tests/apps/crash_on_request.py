"""
Dies of a request: C{/abort} by a signal, C{/exit} by an exit that looks clean.
"""

import os

from twisted.web.resource import Resource


class Crashing(Resource):
    isLeaf = True

    def render_GET(self, request):
        if request.path == b"/abort":
            os.abort()
        if request.path == b"/exit":
            os._exit(0)
        return b"alive\n"


resource = Crashing()
