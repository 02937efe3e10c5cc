"""
Sends each datagram back, with the number of the process: C{udp_echo.py PORT}.
"""

import os
import sys

from twisted.internet import protocol, reactor


class Echo(protocol.DatagramProtocol):
    def datagramReceived(self, datagram, addr):
        self.transport.write(b"%d %s" % (os.getpid(), datagram), addr)


reactor.listenUDP(int(sys.argv[1]), Echo(), interface="127.0.0.1")
reactor.run()
