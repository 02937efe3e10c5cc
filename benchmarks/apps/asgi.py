"""
The hello app for ASGI servers.
"""

import os


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError("only HTTP is served here")
    body = b"%d" % os.getpid() if scope["path"] == "/pid" else b"hello\n"
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
