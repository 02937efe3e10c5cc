"""
What operators and their tools talk to: the admin socket of the master, and the
C{twisted-cluster} command.
"""
