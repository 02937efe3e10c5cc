"""
Keeps a descriptor of each request for ever.
"""

import os

from twisted.web.resource import Resource

kept = []


class Leaking(Resource):
    isLeaf = True

    def render_GET(self, request):
        kept.append(os.dup(0))
        return b"%d\n" % len(kept)


resource = Leaking()
