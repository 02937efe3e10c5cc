"""
Waits for something that does not happen.
"""

from twisted.internet.defer import Deferred


def app():
    return Deferred()
