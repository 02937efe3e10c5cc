"""
Echoes, and knows nothing of drains.
"""

from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

factory = Factory.forProtocol(Echo)
