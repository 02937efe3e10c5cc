"""
A protocol with long connections that knows how to end them in good order: it
echoes lines, and answers C{hold} only when the next line comes.
"""

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from twisted_cluster.interfaces import IDrainable


@implementer(IDrainable)
class Conversation(LineReceiver):
    holding = False

    def lineReceived(self, line):
        self.holding = line == b"hold"
        if not self.holding:
            self.sendLine(line)

    def drain(self):
        self.sendLine(b"going away")

    def isIdle(self):
        return not self.holding


factory = Factory.forProtocol(Conversation)
