"""
State, cache and leases as apps see them: the same in each worker and in the
master.  They read what is local, and leave the rest to an L{IDesk}: in a worker
that is the channel, in the master the backend.
"""
