"""
The least that a web app can do: C{hello}, or at C{/pid} the process.
"""

import os

from twisted.web.resource import Resource


class Hello(Resource):
    """
    Answers every path.
    """

    isLeaf = True

    def render_GET(self, request):
        if request.path == b"/pid":
            return b"%d" % os.getpid()
        return b"hello\n"


resource = Hello()
