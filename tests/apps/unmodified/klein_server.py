"""
A Klein app that runs itself: C{klein_server.py PORT}.
"""

import sys

from klein import Klein

app = Klein()


@app.route("/")
def hello(request):
    return b"hello\n"


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]))
