"""
Says hello at C{/}, and at C{/who} which worker answers.  C{quiet} does so
without a log line for each request.
"""

import os

from twisted.web.resource import Resource
from twisted.web.server import Site

import twisted_cluster


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request):
        if request.path != b"/who":
            return b"hello\n"
        place = twisted_cluster.current()
        return b"%d %d %d\n" % (place.slot, place.generation, os.getpid())

    def render_POST(self, request):
        return b"%d\n" % len(request.content.read())


class QuietSite(Site):
    def log(self, request):
        """Say nothing."""


resource = Hello()
quiet = QuietSite(resource)
