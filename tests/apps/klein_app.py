"""
A Klein app.
"""

from klein import Klein

app = Klein()


@app.route("/<name>")
def hello(request, name):
    return f"hello {name}\n"


resource = app.resource
