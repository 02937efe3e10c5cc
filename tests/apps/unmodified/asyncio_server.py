"""
Runs on asyncio's loop, which it installs itself, and answers with the help of
a coroutine: C{asyncio_server.py PORT}.
"""

import asyncio
import os
import sys

from twisted.internet import asyncioreactor

asyncioreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.protocols.basic import LineOnlyReceiver  # noqa: E402


class Slow(LineOnlyReceiver):
    delimiter = b"\n"

    def lineReceived(self, line):
        Deferred.fromFuture(asyncio.ensure_future(self.answer(line)))

    async def answer(self, line):
        await asyncio.sleep(0.001)
        self.sendLine(b"%d %s" % (os.getpid(), line))


port = int(sys.argv[1])
reactor.listenTCP(port, protocol.Factory.forProtocol(Slow), interface="127.0.0.1")
reactor.run()
