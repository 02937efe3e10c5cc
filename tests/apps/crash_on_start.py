"""
Can't be started in slot 1; runs well in any other.
"""

from hello import resource

import twisted_cluster


def app():
    if twisted_cluster.current().slot == 1:
        raise RuntimeError("this slot is cursed")
    return resource
