"""
At C{/python} it never returns to the reactor; at C{/c} it does not return to
the interpreter either, and keeps the GIL.
"""

import ctypes

from twisted.web.resource import Resource


def spinForEver():
    while True:
        pass


class Hanging(Resource):
    isLeaf = True

    def render_GET(self, request):
        if request.path == b"/python":
            print("hanging in Python")
            spinForEver()
        elif request.path == b"/c":
            print("hanging in C")
            ctypes.PyDLL(None).sleep(3600)
        return b"alive\n"


resource = Hanging()
