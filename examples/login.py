"""
Log in to one worker, and be known to all of them.

From this directory::

    twistd -n cluster --app login:site --listen tcp:8080 --workers 4

Then http://localhost:8080/ asks for a name.  Whichever worker answers the next
request, it knows who you are, and how often you have been here.
"""

from html import escape
from typing import Any

from twisted.python.components import registerAdapter
from twisted.web.resource import Resource
from twisted.web.server import Session
from twisted.web.util import redirectTo
from zope.interface import Attribute, Interface, implementer

import twisted_cluster
from twisted_cluster.sessions import ClusterSite


class IVisitor(Interface):
    """
    What the site knows of a visitor.
    """

    name = Attribute("str: who it is; empty before the login.")
    visits = Attribute("int: how many pages were shown.")


@implementer(IVisitor)
class Visitor:
    """
    A component of a session, as twisted.web has had them for ever: what its
    attributes hold goes from worker to worker.
    """

    def __init__(self, session: Session) -> None:
        self.name = ""
        self.visits = 0


registerAdapter(Visitor, Session, IVisitor)


class Home(Resource):
    """
    Greets whoever has logged in.
    """

    def getChild(self, path: bytes, request: Any) -> Resource:
        """The root is this page too."""
        return self if path == b"" else super().getChild(path, request)

    def render_GET(self, request: Any) -> bytes:
        """Show the visitor's name, or a form that asks for it."""
        visitor = IVisitor(request.getSession())
        if not visitor.name:
            return (
                b"<form method=post action=/login><input name=name><button>Log in</button></form>"
            )
        visitor.visits += 1
        slot = twisted_cluster.current().slot
        return f"Hello {escape(visitor.name)}, visit {visitor.visits}, slot {slot}\n".encode()


class Login(Resource):
    """
    Takes the name.
    """

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        """Remember who it is."""
        name = request.args.get(b"name", [b""])[0].decode("utf-8", "replace")
        IVisitor(request.getSession()).name = name
        return redirectTo(b"/", request)


class Logout(Resource):
    """
    Forgets the name.
    """

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """End the session, in all workers."""
        request.getSession().expire()
        return redirectTo(b"/", request)


home = Home()
home.putChild(b"login", Login())
home.putChild(b"logout", Logout())
site = ClusterSite(home)
