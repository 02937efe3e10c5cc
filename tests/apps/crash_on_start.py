"""
Can't be started in slot 1; runs well in any other.
"""

import twisted_cluster
from hello import resource


def app():
    if twisted_cluster.current().slot == 1:
        raise RuntimeError("this slot is cursed")
    return resource
