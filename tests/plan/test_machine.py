from dataclasses import replace

from shapes import DESKTOP, GAMING

from weitiao.plan.cost import default_rates, measure_rates
from weitiao.plan.machine import Gpu, cgroup_memory, cpu_bf16, probe, usable_cores


def test_this_machine(tmp_path):
    machine = probe(tmp_path / "not" / "there", torch_allowed=False)
    assert machine.cores >= 1
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert machine.disk_free_bytes > 0
    assert machine.gpus == ()


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_container_limits_version_2(tmp_path):
    root = written(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": "4000\n",
            "sys/fs/cgroup/pod/memory.current": "3000\n",
            "sys/fs/cgroup/pod/memory.stat": "anon 1000\ninactive_file 1500\n",
            "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
        },
    )
    assert cgroup_memory(root) == (4000, 1500)
    assert usable_cores(root) == 1


def test_container_limits_version_1(tmp_path):
    root = written(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "5000\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "800\n",
            "sys/fs/cgroup/cpu,cpuacct/box/x": "",
        },
    )
    assert cgroup_memory(root) == (5000, 800)


def test_no_container(tmp_path):
    assert cgroup_memory(tmp_path) == (None, 0)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nowhere") >= 1


def test_bf16_flags(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("model name : x\nflags : fpu avx512_bf16 avx2\n")
    assert cpu_bf16(info) == "fast"
    info.write_text("Features : fp asimd bf16 i8mm\n")
    assert cpu_bf16(info) == "fast"
    info.write_text("flags : fpu avx2\n")
    assert cpu_bf16(info) == "emulated"
    assert cpu_bf16(tmp_path / "none") == "none"


def test_default_rates():
    four = replace(DESKTOP, cores=4)
    assert default_rates(four, "cpu").fp32 == 2 * default_rates(DESKTOP, "cpu").fp32
    slow = default_rates(replace(DESKTOP, cpu_bf16="emulated"), "cpu")
    assert slow.half < slow.fp32 < default_rates(DESKTOP, "cpu").half
    h100 = replace(GAMING, gpus=(Gpu("NVIDIA H100 80GB HBM3", 80, 80, bf16=True),))
    assert default_rates(h100, "cuda").half > 10 * default_rates(GAMING, "cuda").half


def test_measured_rates_are_of_the_right_size():
    measured = measure_rates(DESKTOP, "cpu", 256)
    assert 1e8 < measured.fp32 < 1e14
    assert 1e8 < measured.half < 1e14
    emulated = measure_rates(replace(DESKTOP, cpu_bf16="emulated"), "cpu", 64)
    assert emulated.half == emulated.fp32 / 2
