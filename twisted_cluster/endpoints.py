"""
The endpoint C{cluster:}, for those who prefer to say that a port is shared:
C{cluster:tcp:8080} is C{tcp:8080}, bound by the master of the cluster.  Usable
in any process; outside of a cluster the prefix changes nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from twisted_cluster import context


@implementer(IStreamServerEndpoint)
class ClusterEndpoint:
    """
    Listens like another endpoint, and shares the port with all workers even
    where that is not the rule: with port 0 after start-up.
    """

    def __init__(self, inner: Any) -> None:
        """
        @param inner: The endpoint to listen with.
        """
        self._inner = inner

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        See L{IStreamServerEndpoint.listen}.
        """
        here = context.current()
        before, here.sharing = here.sharing, True
        try:
            listening: Deferred[Any] = self._inner.listen(protocolFactory)
            return listening
        finally:
            here.sharing = before


def parse(reactor: Any, arguments: tuple[str, ...], options: dict[str, str]) -> ClusterEndpoint:
    """
    The endpoint that a string describes, less its prefix.

    @raise ValueError: if it is none.
    """
    words = [quoteStringArgument(word).replace("=", "\\=") for word in arguments]
    words += [f"{name}={quoteStringArgument(value)}" for name, value in options.items()]
    return ClusterEndpoint(serverFromString(reactor, ":".join(words)))
