"""
Answers when the test says so: each request connects to the UNIX socket
C{gate} in the current directory, tells its path and this process there, and
answers with what it gets back, chunk by chunk until the gate closes.
"""

import os

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET


class Waiting(Protocol):
    def __init__(self, request):
        self.request = request

    def dataReceived(self, data):
        self.request.write(data)

    def connectionLost(self, reason):
        if not self.request._disconnected:
            self.request.finish()


class Gated(Resource):
    isLeaf = True

    def render_GET(self, request):
        waiting = connectProtocol(UNIXClientEndpoint(reactor, "gate"), Waiting(request))
        line = b"%s %d\n" % (request.path, os.getpid())
        waiting.addCallback(lambda protocol: protocol.transport.write(line))
        return NOT_DONE_YET


resource = Gated()
