"""
A cluster as a service among others, in plain code.

From this directory::

    twistd -ny embedded.tac

Ask it how it is with C{twisted-cluster status}, in the same directory.
"""

from twisted.application.service import Application

from twisted_cluster.config import ClusterConfig
from twisted_cluster.cpus import usableCpus
from twisted_cluster.service import ClusterService

config = ClusterConfig(
    app="hello:resource",
    listen=("tcp:8080",),
    workers=usableCpus(),
    drainTimeout=10.0,
)

application = Application("hello")
ClusterService(config).setServiceParent(application)
