"""
Tests for L{twisted_cluster.stateurl}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.stateurl import EXAMPLE, StateUrl, parseStateUrl, withoutSecret


class UrlTests(SynchronousTestCase):
    """
    What a URL stands for.
    """

    def test_good(self) -> None:
        """
        All that can be said.
        """
        for text, expected in (
            ("redis://h", StateUrl("h")),
            (EXAMPLE, StateUrl("10.0.0.5", 6379, name="shop")),
            ("redis://h:1/2", StateUrl("h", 1, database=2)),
            ("redis://:p%40ss@h?db=3", StateUrl("h", database=3, password="p@ss")),
            ("redis://u:p@[::1]:7", StateUrl("::1", 7, username="u", password="p")),
            ("rediss://h?ca=/c.pem", StateUrl("h", secure=True, authority="/c.pem")),
            ("unix:///run/r.sock?db=3", StateUrl(path="/run/r.sock", database=3)),
            ("unix://:p@/r", StateUrl(path="/r", password="p")),
        ):
            self.assertEqual(parseStateUrl(text), expected, text)

    def test_bad(self) -> None:
        """
        What it can't be, and why.
        """
        for text, why in (
            ("", "begins with none of redis://, rediss://, unix://"),
            ("http://h", "begins with none of"),
            ("redis://", "no host"),
            ("redis://h:0", "its port"),
            ("redis://h:x", "its port"),
            ("redis://h:99999", "its port"),
            ("redis://h/x", "its database is 'x', not a number"),
            ("redis://h?db=-1", "its database is '-1'"),
            ("redis://h?nam=x", "a parameter 'nam'; those that exist are ca, db, name"),
            ("redis://h?name=", "its name"),
            ("redis://h?name=a}b", "its name"),
            ("redis://h?ca=x", "for rediss:// only"),
            ("redis://h#x", "a #"),
            ("unix://run/r.sock", "no absolute path"),
            ("unix://", "no absolute path"),
            ("redis://[::1", "Invalid IPv6 URL"),
        ):
            with self.assertRaises(ValueError) as caught:
                parseStateUrl(text)
            self.assertIn(why, str(caught.exception), text)

    def test_shown(self) -> None:
        """
        Neither log nor error shows a password.
        """
        url = parseStateUrl("redis://u:s3cret@h:1")
        self.assertEqual(str(url), "Redis at h:1")
        self.assertNotIn("s3cret", repr(url))
        self.assertEqual(str(parseStateUrl("redis://[::1]")), "Redis at [::1]:6379")
        for text in ("redis://u:s3cret@h", "redis://:s3cret@h/x", "unix://:s3cret@/r"):
            self.assertNotIn("s3cret", withoutSecret(text))
            self.assertIn(":***@", withoutSecret(text))

    def test_prefix(self) -> None:
        """
        What keys begin with is the same slot for all of them.
        """
        self.assertEqual(StateUrl("h", name="a").prefix, "twisted_cluster:{a}:")
