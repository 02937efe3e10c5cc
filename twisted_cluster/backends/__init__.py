"""
Where state, cache and leases are held.  Each module has one kind; all of it
lives in the master.
"""
