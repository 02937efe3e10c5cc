"""
Tests of whole clusters: real processes, real sockets, real clients.
"""
