"""
The hello app for WSGI servers.
"""

import os


def application(environ, startResponse):
    body = b"%d" % os.getpid() if environ["PATH_INFO"] == "/pid" else b"hello\n"
    startResponse("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
