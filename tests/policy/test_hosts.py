"""
Tests for L{twisted_cluster.policy.hosts}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.hosts import EXPIRY, Host, Presence, order

A, B, C = (Host(name, 1, name * 3) for name in "abc")


class PresenceTests(SynchronousTestCase):
    """
    Which hosts there are.
    """

    def test_heard(self) -> None:
        """
        Those that were heard of lately, by name.
        """
        presence = Presence()
        presence.heard(B, 0.0)
        presence.heard(A, 5.0)
        presence.heard(B, 3.0)
        self.assertEqual(presence.hosts(3.0 + EXPIRY), (A, B))
        self.assertEqual(presence.hosts(3.1 + EXPIRY), (A,))
        self.assertEqual(presence.hosts(0.0), (A,))

    def test_gone(self) -> None:
        """
        Who says that it ends is forgotten at once.
        """
        presence = Presence()
        presence.heard(A, 0.0)
        presence.gone(A)
        presence.gone(B)
        self.assertEqual(presence.hosts(0.0), ())


class OrderTests(SynchronousTestCase):
    """
    Who reloads when.
    """

    def test_first(self) -> None:
        """
        The host that was asked comes first, heard or not; then all by name.
        """
        self.assertEqual(order((A, B, C), B), (B, A, C))
        self.assertEqual(order((C, A), B), (B, A, C))
        self.assertEqual(order((), B), (B,))

    def test_shown(self) -> None:
        """
        A host is shown as people know it.
        """
        self.assertEqual(str(Host("web1", 7, "x")), "web1 (pid 7)")
