"""
What no worker can run.
"""

number = 42


def returnsNumber():
    return 42


def raises():
    raise RuntimeError("no app today")
