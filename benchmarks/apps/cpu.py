"""
Counts to a million for each request: all of the time goes to the CPU.
"""

from twisted.web.resource import Resource


def count():
    total = 0
    for _ in range(1_000_000):
        total += 1
    return total


class Counter(Resource):
    """
    Answers every path with the number it got to.
    """

    isLeaf = True

    def render_GET(self, request):
        return b"%d\n" % count()


resource = Counter()
