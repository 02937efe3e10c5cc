"""
Tests for L{twisted_cluster.cpus}, on fake trees of files.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.cpus import affinityCount, cgroupQuota, usableCpus


class TreeCase(SynchronousTestCase):
    """
    Provides an empty root of a file system.
    """

    def setUp(self) -> None:
        self.root = self.mktemp()
        os.makedirs(self.root)

    def write(self, path: str, text: str) -> None:
        """
        Have a file with this text below the root.
        """
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as file:
            file.write(text)


class VersionTwoTests(TreeCase):
    """
    The unified hierarchy: C{cpu.max}.
    """

    def test_ownGroup(self) -> None:
        """The quota of the process's own cgroup counts."""
        self.write("proc/self/cgroup", "0::/box\n")
        self.write("sys/fs/cgroup/box/cpu.max", "250000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 2.5)

    def test_smallestAncestorWins(self) -> None:
        """A cgroup further up may be tighter than the process's own."""
        self.write("proc/self/cgroup", "0::/slice/box\n")
        self.write("sys/fs/cgroup/slice/box/cpu.max", "800000 100000\n")
        self.write("sys/fs/cgroup/slice/cpu.max", "150000 50000\n")
        self.assertEqual(cgroupQuota(self.root), 3.0)

    def test_tighterBelow(self) -> None:
        """A loose quota further up changes nothing."""
        self.write("proc/self/cgroup", "0::/slice/box\n")
        self.write("sys/fs/cgroup/slice/box/cpu.max", "100000 100000\n")
        self.write("sys/fs/cgroup/slice/cpu.max", "900000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 1.0)

    def test_unlimited(self) -> None:
        """The word max is no quota."""
        self.write("proc/self/cgroup", "0::/box\n")
        self.write("sys/fs/cgroup/box/cpu.max", "max 100000\n")
        self.assertIsNone(cgroupQuota(self.root))

    def test_pathOfTheHost(self) -> None:
        """
        A container that is told the path its host knows finds its quota at
        the root of what is mounted.
        """
        self.write("proc/self/cgroup", "0::/docker/0123\n")
        self.write("sys/fs/cgroup/cpu.max", "50000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 0.5)

    def test_pathAboveTheRoot(self) -> None:
        """A path that climbs above the root of the namespace stays inside."""
        self.write("cpu.max", "1 100000\n")
        self.write("proc/self/cgroup", "0::/../../..\n")
        self.write("sys/fs/cgroup/cpu.max", "400000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 4.0)

    def test_besideVersionOne(self) -> None:
        """Where both versions are mounted, version 2 is below unified."""
        self.write("proc/self/cgroup", "1:name=systemd:/box\n0::/box\n")
        self.write("sys/fs/cgroup/unified/box/cpu.max", "300000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 3.0)

    def test_malformed(self) -> None:
        """What makes no sense is no quota."""
        self.write("proc/self/cgroup", "0::/box\n")
        for text in (
            "",
            "\n",
            "100000",
            "lots 100000",
            "100000 often",
            "100000 0",
            "-1 100000",
            "0 100000",
            "1 2 3",
            "\0",
            "9" * 400 + " 1",
        ):
            self.write("sys/fs/cgroup/box/cpu.max", text)
            self.assertIsNone(cgroupQuota(self.root), repr(text))


class VersionOneTests(TreeCase):
    """
    The cpu controller: C{cpu.cfs_quota_us} by C{cpu.cfs_period_us}.
    """

    def quota(self, path: str, quota: str, period: str = "100000\n") -> None:
        """
        Have a cgroup with this quota.
        """
        self.write(f"sys/fs/cgroup/{path}/cpu.cfs_quota_us", quota)
        self.write(f"sys/fs/cgroup/{path}/cpu.cfs_period_us", period)

    def test_ownGroup(self) -> None:
        """The quota of the process's own cgroup counts."""
        self.write("proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n")
        self.quota("cpu,cpuacct/box", "150000\n")
        self.assertEqual(cgroupQuota(self.root), 1.5)

    def test_mountedByItsName(self) -> None:
        """The controller may be mounted without the one it is listed with."""
        self.write("proc/self/cgroup", "3:cpuacct,cpu:/box\n")
        self.quota("cpu/box", "200000\n")
        self.assertEqual(cgroupQuota(self.root), 2.0)

    def test_smallestAncestorWins(self) -> None:
        """A cgroup further up may be tighter than the process's own."""
        self.write("proc/self/cgroup", "3:cpu:/slice/box\n")
        self.quota("cpu/slice/box", "-1\n")
        self.quota("cpu/slice", "300000\n")
        self.quota("cpu", "700000\n")
        self.assertEqual(cgroupQuota(self.root), 3.0)

    def test_unlimited(self) -> None:
        """A quota of -1 is none."""
        self.write("proc/self/cgroup", "3:cpu:/\n")
        self.quota("cpu", "-1\n")
        self.assertIsNone(cgroupQuota(self.root))

    def test_otherControllers(self) -> None:
        """Only the cpu controller counts; cpuset and cpuacct have no quota."""
        self.write("proc/self/cgroup", "3:cpuset:/box\n2:cpuacct:/box\n")
        self.quota("cpuset/box", "100000\n")
        self.quota("cpuacct/box", "100000\n")
        self.assertIsNone(cgroupQuota(self.root))

    def test_malformed(self) -> None:
        """What makes no sense is no quota."""
        self.write("proc/self/cgroup", "3:cpu:/\n")
        for quota, period in (("", ""), ("x", "1"), ("1", "x"), ("100000", "0"), ("1", "")):
            self.quota("cpu", quota, period)
            self.assertIsNone(cgroupQuota(self.root), (quota, period))

    def test_bothVersions(self) -> None:
        """The tighter of both versions counts."""
        self.write("proc/self/cgroup", "3:cpu:/box\n0::/box\n")
        self.quota("cpu/box", "400000\n")
        self.write("sys/fs/cgroup/box/cpu.max", "200000 100000\n")
        self.assertEqual(cgroupQuota(self.root), 2.0)


class UsableCpusTests(TreeCase):
    """
    Affinity and quota together.
    """

    def limit(self, quota: int) -> None:
        """
        Have a quota in hundredths of a CPU.
        """
        self.write("proc/self/cgroup", "0::/\n")
        self.write("sys/fs/cgroup/cpu.max", f"{quota * 1000} 100000\n")

    def test_noFiles(self) -> None:
        """Without cgroups, the affinity alone counts."""
        self.assertEqual(usableCpus(self.root, 7), 7)

    def test_smallerQuota(self) -> None:
        """A quota below the affinity counts."""
        self.limit(200)
        self.assertEqual(usableCpus(self.root, 64), 2)

    def test_smallerAffinity(self) -> None:
        """An affinity below the quota counts."""
        self.limit(800)
        self.assertEqual(usableCpus(self.root, 3), 3)

    def test_roundedUp(self) -> None:
        """A share of a CPU needs a worker to use it."""
        self.limit(150)
        self.assertEqual(usableCpus(self.root, 64), 2)

    def test_atLeastOne(self) -> None:
        """However small the quota, there is one."""
        self.limit(1)
        self.assertEqual(usableCpus(self.root, 64), 1)

    def test_malformedMembership(self) -> None:
        """A membership file that makes no sense does not limit anything."""
        for text in ("\n\n", "0", "0:", "0::", "::::", "3:cpu", "\0:\0:\0", "0::/\0"):
            self.write("proc/self/cgroup", text)
            self.assertEqual(usableCpus(self.root, 5), 5, repr(text))

    def test_unreadable(self) -> None:
        """Files that can't be read do not limit anything."""
        os.makedirs(os.path.join(self.root, "proc/self/cgroup"))
        self.assertEqual(usableCpus(self.root, 5), 5)

    def test_realMachine(self) -> None:
        """On this machine the answer is between 1 and the affinity."""
        self.assertIn(usableCpus(), range(1, affinityCount() + 1))

    def test_affinityCount(self) -> None:
        """The affinity is asked of the kernel."""
        if hasattr(os, "sched_getaffinity"):
            self.patch(os, "sched_getaffinity", lambda pid: {3, 5, 8})
            self.assertEqual(affinityCount(), 3)

    def test_affinityUnknown(self) -> None:
        """Where the kernel can't tell, all CPUs count; or one, if even those are unknown."""
        if hasattr(os, "sched_getaffinity"):
            self.patch(os, "sched_getaffinity", None)
            del os.sched_getaffinity
        self.patch(os, "cpu_count", lambda: 6)
        self.assertEqual(affinityCount(), 6)
        self.patch(os, "cpu_count", lambda: None)
        self.assertEqual(affinityCount(), 1)
