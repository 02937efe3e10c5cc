"""
Listens only when its database, as it were, is there; and gives each client a
port of its own, as FTP does: C{late_ports.py PORT}.
"""

import os
import sys

from twisted.internet import protocol, reactor
from twisted.protocols.basic import LineOnlyReceiver


class Echo(LineOnlyReceiver):
    delimiter = b"\n"

    def lineReceived(self, line):
        self.sendLine(b"%d %s" % (os.getpid(), line))


class Control(Echo):
    def lineReceived(self, line):
        if line != b"PASV":
            super().lineReceived(line)
            return
        data = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
        self.sendLine(b"%d %d" % (os.getpid(), data.getHost().port))


control = protocol.Factory.forProtocol(Control)
port = int(sys.argv[1])
reactor.callLater(0.1, reactor.listenTCP, port, control, interface="127.0.0.1")
reactor.run()
