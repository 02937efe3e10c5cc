"""
Tests for L{twisted_cluster.master.signals}.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.master.signals import Signals
from twisted_cluster.testing import FakeReactor

USED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class SignalsTests(SynchronousTestCase):
    """
    The handlers only enqueue; what follows happens in the reactor.
    """

    def setUp(self) -> None:
        for number in USED:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactors: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.reactorsOwn)
        self.reactor = FakeReactor()
        self.stops: list[str] = []
        self.reloads: list[str] = []
        self.signals = Signals(self.reactor, self.stops.append, self.reloads.append)

    def reactorsOwn(self, number: int, frame: Any) -> None:
        """
        The handler that was there before.
        """
        self.reactors.append(number)

    def send(self, number: int) -> None:
        """
        Get a signal.
        """
        os.kill(os.getpid(), number)

    def told(self) -> tuple[list[int], list[str], list[str]]:
        """
        What has come of it once the reactor has run.
        """
        self.reactor.settle()
        return self.reactors, self.stops, self.reloads

    def test_stop(self) -> None:
        """
        The first stops as the reactor would have done, so that twistd sees it.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self.setUp()
            self.signals.install()
            self.send(number)
            self.assertEqual(self.told(), ([number], [], []))

    def test_second(self) -> None:
        """
        A second one of either kind stops at once.
        """
        self.signals.install()
        self.send(signal.SIGTERM)
        self.send(signal.SIGINT)
        self.assertEqual(self.stops, [])
        self.assertEqual(self.told(), ([signal.SIGTERM], ["a second SIGINT"], []))

    def test_reload(self) -> None:
        """
        SIGHUP and SIGUSR2 reload, in the reactor and not in the handler.
        """
        self.signals.install()
        self.send(signal.SIGHUP)
        self.send(signal.SIGUSR2)
        self.assertEqual(self.reloads, [])
        self.assertEqual(self.told(), ([], [], ["SIGHUP", "SIGUSR2"]))

    def test_restore(self) -> None:
        """
        In the end everybody has their signals back.
        """
        before = [signal.getsignal(number) for number in USED]
        self.signals.install()
        self.assertNotEqual([signal.getsignal(number) for number in USED], before)
        self.signals.restore()
        self.signals.restore()
        self.assertEqual([signal.getsignal(number) for number in USED], before)
