"""
Tests of the decisions: no reactor, no process, no clock.
"""
