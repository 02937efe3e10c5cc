"""
Fails when it is told to stop.
"""

from twisted.web.server import Site

from hello import resource


class Stubborn(Site):
    def stopFactory(self):
        raise RuntimeError("not now")


site = Stubborn(resource)
