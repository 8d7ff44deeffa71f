"""How many cores are used, and how much memory there is: what bounds a process is found wherever it is written."""

from __future__ import annotations

import os
import socket
import sys

import pytest
from threadpoolctl import threadpool_limits

import lstm_np
from lstm_np.backends import cgroups, cores, memory
from lstm_np.backends.blas_threads import blas_threads, libraries

MOUNTS = {
    # as on a machine with version 2 alone
    "v2": "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
    # version 1, several controllers mounted together; the names of folders are escaped
    "v1": (
        "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n"
    ),
    # a container without a namespace of its own: it sees its group as the top of the mount
    "container": (
        "33 31 0:30 /docker/ab /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    ),
    # both at once, as systemd's "hybrid"
    "hybrid": (
        "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    ),
}


def tree(root, kind, groups, files):
    """A root folder with the files of /proc and /sys/fs/cgroup that are read."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\nbroken\n" + MOUNTS[kind])
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


QUOTAS = [
    ("v2", "0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
    ("v2", "0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, None),
    ("v2", "0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "cpu.max": ""}, 2.0),
    ("v2", "0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
    ("v2", "0::/\n", {"cpu.max": "300000 100000\n"}, 3.0),
    ("v2", "0::/../other\n", {"cpu.max": "300000 100000\n"}, 3.0),
    ("v2", "0::/a\n", {}, None),
    ("v2", "0::/a\n", {"a/cpu.max": "nonsense\n"}, None),
    ("v1", "4:cpu,cpuacct:/job\n0::/x\n", {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
                                           "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}, 2.5),
    ("v1", "4:cpu,cpuacct:/job\n", {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n",
                                    "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}, None),
    ("container", "4:cpu:/docker/ab\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ("container", "4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ("hybrid", "4:cpu:/j\n0::/j\n", {"cpu/j/cpu.cfs_quota_us": "200000\n", "cpu/j/cpu.cfs_period_us": "100000\n",
                                     "unified/j/cpu.max": "100000 100000\n"}, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "groups", "files", "expected"), QUOTAS)
def test_the_quota_of_every_group_around_the_process_counts(tmp_path, kind, groups, files, expected):
    assert cgroups.cpu_quota(tree(tmp_path, kind, groups, files)) == expected


MEMORY = [
    ("v2", "0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1000000\n", "a/memory.current": "300000\n",
                         "a/memory.stat": "anon 5\ninactive_file 100000\n"}, 800_000),
    ("v2", "0::/a\n", {"a/memory.max": "1000\n", "a/memory.current": "3000\n"}, 0),
    ("v2", "0::/a\n", {"a/memory.max": "1000\n", "memory.max": "900\n"}, 900),
    ("v1", "4:memory:/job\n", {"my memory/job/memory.limit_in_bytes": "9000\n",
                               "my memory/job/memory.usage_in_bytes": "4000\n",
                               "my memory/job/memory.stat": "total_inactive_file 500\n"}, 5_500),
    ("container", "4:memory:/docker/ab\n", {"memory/memory.limit_in_bytes": "7000\n"}, 7_000),
    ("hybrid", "4:cpu:/j\n0::/j\n", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "groups", "files", "expected"), MEMORY)
def test_the_memory_of_every_group_around_the_process_counts(tmp_path, kind, groups, files, expected):
    root = tree(tmp_path, kind, groups, files)
    assert cgroups.free_memory(root) == expected
    (root / "proc/meminfo").write_text("MemTotal: 40 kB\nMemAvailable:       6 kB\n")
    assert memory.available_memory(root) == min(6 << 10, 6 << 10 if expected is None else expected)


def test_without_proc_there_are_no_limits_and_memory_is_the_machines(tmp_path):
    assert cgroups.cpu_quota(tmp_path) is None
    assert cgroups.free_memory(tmp_path) is None
    assert memory.available_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- cores


@pytest.fixture
def sixteen(monkeypatch):
    """A machine with 16 cores, no limits and a linear algebra library that uses them all."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "allowed_threads", lambda: 16)


@pytest.mark.parametrize(
    ("quota", "environment", "expected"),
    [
        (None, {}, (16, "the cores that this process may run on")),
        ("200000 100000", {}, (2, "a CPU quota of 2 cores")),
        ("150000 100000", {}, (2, "a CPU quota of 1.5 cores")),
        ("10000 100000", {}, (1, "a CPU quota of 0.1 cores")),
        ("9900000 100000", {}, (16, "the cores that this process may run on")),
        (None, {"OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS")),
        (None, {"OMP_NUM_THREADS": "4,2"}, (4, "OMP_NUM_THREADS")),
        (None, {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "2"}, (2, "OPENBLAS_NUM_THREADS")),
        (None, {"MKL_NUM_THREADS": " 1 "}, (1, "MKL_NUM_THREADS")),
        (None, {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "many", "OPENBLAS_NUM_THREADS": "0"}, (16, None)),
        ("300000 100000", {"OMP_NUM_THREADS": "8"}, (3, "a CPU quota of 3 cores")),
    ],
)
def test_the_smallest_bound_decides(tmp_path, sixteen, quota, environment, expected):
    root = tree(tmp_path, "v2", "0::/\n", {} if quota is None else {"cpu.max": quota})
    found = cores.usable_cores(root, environment)
    assert found.number == expected[0]
    assert expected[1] in (found.decided_by, None)


def test_affinity_decides(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    backend = lstm_np.get_backend("numpy")
    assert (backend.cores, backend.processes) == (1, 1)
    assert backend.decided_by == "the cores that this process may run on"


@pytest.mark.skipif(not libraries(), reason="threadpoolctl does not know this BLAS")
def test_a_limit_of_the_threads_decides_but_not_one_of_our_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    with threadpool_limits(limits=16):
        free = cores.usable_cores(cgroups.Path("/nowhere"), {})
        with blas_threads(1):
            assert cores.usable_cores(cgroups.Path("/nowhere"), {}) == free
        with threadpool_limits(limits=1):
            found = cores.usable_cores(cgroups.Path("/nowhere"), {})
    assert found == (1, "the threads that the linear algebra library may use")
    assert free.number > 1


def test_the_number_is_decided_once_when_the_backend_is_made(monkeypatch, sixteen):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backend = lstm_np.get_backend("numpy")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert (backend.cores, backend.decided_by) == (1, "OMP_NUM_THREADS")


def test_a_number_that_the_user_gives_is_taken(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backend = lstm_np.get_backend("numpy", threads=5)
    assert (backend.cores, backend.processes, backend.decided_by) == (5, 5, "the user")


@pytest.mark.parametrize(
    ("where", "name", "value"), [(sys, "frozen", True), (sys, "platform", "emscripten"), (sys, "executable", None)]
)
def test_where_this_python_cannot_be_started_again_there_is_one_core(monkeypatch, where, name, value):
    monkeypatch.setattr(where, name, value, raising=False)
    backend = lstm_np.get_backend("numpy")
    assert (backend.cores, backend.processes) == (1, 1)
    assert backend.decided_by == "this Python cannot start worker processes"
    assert lstm_np.get_backend("numpy", threads=2).processes == 1


def test_without_sockets_that_carry_descriptors_one_process_computes_all_parts(monkeypatch, sixteen):
    monkeypatch.delattr(socket, "send_fds", raising=False)
    backend = lstm_np.get_backend("numpy", threads=4)
    assert (backend.cores, backend.processes) == (4, 1)
