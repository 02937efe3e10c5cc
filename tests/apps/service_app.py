"""
Services that listen for themselves, at the port that the environment names.
"""

import os

from hello import resource
from twisted.application import service, strports
from twisted.application.internet import TCPServer
from twisted.web.server import Site

port = int(os.environ["APP_PORT"])
tcp = TCPServer(port, Site(resource))
endpoint = strports.service(f"tcp:{port}:interface=127.0.0.1", Site(resource))
application = service.Application("hello")
strports.service(f"tcp:{port}", Site(resource)).setServiceParent(application)
