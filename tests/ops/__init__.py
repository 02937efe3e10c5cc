"""
Tests of what operators and their tools talk to.
"""
