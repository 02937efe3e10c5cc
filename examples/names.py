"""
A line protocol whose users keep their connection, and their name, across
reloads.

Run it from this directory, and talk to it with C{nc localhost 8007}::

    twistd -n cluster --app names:factory --listen tcp:8007

Say C{name Ada}, then C{who}; reload with C{twisted-cluster reload}; C{who}
again: a worker of the next generation answers, on the same connection.
"""

from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

import twisted_cluster
from twisted_cluster.interfaces import IMigratable


@implementer(IMigratable)
class Names(LineReceiver):
    """
    Knows the name of the user at the other end.
    """

    delimiter = b"\n"

    def __init__(self) -> None:
        self.user = "stranger"

    def connectionMade(self) -> None:
        """A new user: greet."""
        self.say("who are you?")

    def lineReceived(self, line: bytes) -> None:
        """One command."""
        command, _, argument = line.decode("utf-8", "replace").strip().partition(" ")
        if command == "name":
            self.user = argument
        here = twisted_cluster.current()
        self.say(f"{self.user}: slot {here.slot} generation {here.generation}")

    def say(self, text: str) -> None:
        """Send a line."""
        self.sendLine(text.encode("utf-8"))

    def isIdle(self) -> bool:
        """Half a line is more than the next worker could know of."""
        return not self._buffer

    def migrationState(self) -> dict[str, Any]:
        """The name is all there is to know."""
        return {"user": self.user}

    def resume(self, state: dict[str, Any]) -> None:
        """The same user, in another process: no greeting."""
        self.user = state["user"]


factory = Factory.forProtocol(Names)
