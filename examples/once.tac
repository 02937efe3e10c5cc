"""
An echo server with a job that only one of its processes is to do.

From this directory, on its own and on four processes::

    twistd -ny once.tac
    twistd -n cluster --workers 4 --tac once.tac
"""

from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Application
from twisted.application.strports import service
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.wire import Echo

import twisted_cluster

log = Logger()


class Once(TimerService):
    """
    Runs in slot 0, or where there is no cluster.
    """

    def startService(self) -> None:
        """Asked here and not at import, where no slot has been decided yet."""
        if twisted_cluster.current().slot in (0, None):
            super().startService()

    def stopService(self) -> Any:
        """What has not been started need not be stopped."""
        return super().stopService() if self.running else None


def sweep() -> None:
    """Something that must not happen four times."""
    log.info("sweeping in slot {slot}", slot=twisted_cluster.current().slot)


application = Application("once")
Once(60, sweep).setServiceParent(application)
service("tcp:8007", ServerFactory.forProtocol(Echo)).setServiceParent(application)
