"""
A plain Twisted server, which knows nothing of clusters: it sends lines back.

From this directory, in one process and in four::

    python echo.py 8007
    twistd -n cluster --workers 4 --script echo.py 8007
"""

import os
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver

reactor: Any = _reactor


class Echo(LineOnlyReceiver):
    """
    Sends each line back, with the number of its process.
    """

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """One line."""
        self.sendLine(b"%d %s" % (os.getpid(), line))


if __name__ == "__main__":
    port = reactor.listenTCP(int(sys.argv[1]), ServerFactory.forProtocol(Echo))
    print("listening on port", port.getHost().port)
    reactor.run()
