"""
Makes C{cluster} a command of twistd and twist, and a prefix of endpoints.
"""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer

twistedCluster = ServiceMaker(
    "Twisted cluster",
    "twisted_cluster.tap",
    "Serve an app from several processes that share its listening sockets.",
    "cluster",
)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _EndpointParser:
    """
    C{cluster:} and then another endpoint, such as C{cluster:tcp:8080}.
    """

    prefix = "cluster"

    def parseStreamServer(self, reactor, *arguments, **options):
        """See L{IStreamServerEndpointStringParser.parseStreamServer}."""
        from twisted_cluster.endpoints import parse

        return parse(reactor, arguments, options)


clusterEndpoint = _EndpointParser()
