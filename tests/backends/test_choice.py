"""
Tests for L{twisted_cluster.backends.choice}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.backends.choice import makeBackend
from twisted_cluster.backends.memory import MemoryBackend
from twisted_cluster.backends.redis import RedisBackend
from twisted_cluster.config import ClusterConfig
from twisted_cluster.errors import ConfigError


class ChoiceTests(SynchronousTestCase):
    """
    What is made.
    """

    def test_memory(self) -> None:
        """
        The memory of the master, with the configured cache.
        """
        backend = makeBackend(Clock(), ClusterConfig("hello:app", cacheSize=123456))
        self.assertIsInstance(backend, MemoryBackend)
        self.assertEqual(backend.describe()["cacheLimit"], 123456)

    def test_redis(self) -> None:
        """
        A Redis server, which is not asked for anything yet.
        """
        config = ClusterConfig("hello:app", state="redis://h:1/2?name=shop")
        backend = makeBackend(Clock(), config)
        self.assertIsInstance(backend, RedisBackend)
        described = backend.describe()
        self.assertEqual((described["server"], described["name"]), ("Redis at h:1", "shop"))

    def test_noClient(self) -> None:
        """
        Without a client library the error says how to get it, and shows no
        password.
        """
        config = ClusterConfig("hello:app", state="redis://:s3cret@h")
        with self.assertRaises(ConfigError) as caught:
            makeBackend(Clock(), config, "no_such_client")
        self.assertEqual(
            str(caught.exception),
            "can't use --state redis://:***@h: no_such_client is not installed;"
            " install it with: pip install twisted_cluster[redis]",
        )

    def test_authority(self) -> None:
        """
        Certificates that can't be read are told before anything starts.
        """
        config = ClusterConfig("hello:app", state="rediss://h?ca=/no/such.pem")
        with self.assertRaisesRegex(ConfigError, "can't reach Redis at h:6379 over TLS: /no/such"):
            makeBackend(Clock(), config)
