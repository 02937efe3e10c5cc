"""
Can't be imported in slot 1; runs well in any other.
"""

import twisted_cluster
from hello import resource

if twisted_cluster.current().slot == 1:
    raise RuntimeError("this slot is cursed")

__all__ = ["resource"]
