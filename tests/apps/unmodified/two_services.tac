"""
Two services: one echoes lines on a TCP port, the other one in capitals on a
UNIX socket.
"""

import os

from twisted.application import internet, service
from twisted.internet import endpoints, protocol, reactor
from twisted.protocols.basic import LineOnlyReceiver


class Echo(LineOnlyReceiver):
    delimiter = b"\n"

    def lineReceived(self, line):
        self.sendLine(b"%d %s" % (os.getpid(), line))


class Shout(Echo):
    def lineReceived(self, line):
        super().lineReceived(line.upper())


application = service.Application("two services")
echo = protocol.Factory.forProtocol(Echo)
internet.TCPServer(0, echo, interface="127.0.0.1").setServiceParent(application)
unix = endpoints.serverFromString(reactor, "unix:shout.sock")
shout = protocol.Factory.forProtocol(Shout)
internet.StreamServerEndpointService(unix, shout).setServiceParent(application)
