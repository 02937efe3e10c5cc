"""
Makes C{cluster} a command of twistd and twist.
"""

from twisted.application.service import ServiceMaker

twistedCluster = ServiceMaker(
    "Twisted cluster",
    "twisted_cluster.tap",
    "Serve an app from several processes that share its listening sockets.",
    "cluster",
)
