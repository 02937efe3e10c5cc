"""
A WSGI callable.
"""


def application(environ, startResponse):
    startResponse("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from " + environ["REQUEST_METHOD"].encode("ascii") + b"\n"]
