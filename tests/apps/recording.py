"""
Appends a line to the file C{record} before a connection is first read, and
another one when all of the response has gone out.
"""

import os

from hello import QuietSite, resource
from twisted.internet.error import ConnectionDone
from twisted.web.http import HTTPChannel

record = os.open("record", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class RecordingChannel(HTTPChannel):
    def connectionMade(self):
        super().connectionMade()
        read = self.transport.doRead

        def doRead():
            os.write(record, b"read\n")
            del self.transport.doRead
            return read()

        self.transport.doRead = doRead

    def connectionLost(self, reason):
        super().connectionLost(reason)
        if reason.check(ConnectionDone):
            os.write(record, b"done\n")


site = QuietSite(resource)
site.protocol = RecordingChannel
