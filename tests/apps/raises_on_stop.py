"""
Fails when it is told to stop.
"""

from hello import resource
from twisted.web.server import Site


class Stubborn(Site):
    def stopFactory(self):
        raise RuntimeError("not now")


site = Stubborn(resource)
