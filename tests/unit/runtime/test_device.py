"""What a run computes on: threads, precision, and a device that computes at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import pytest

from job.config.settings import DeviceSettings, Settings
from job.errors import DeviceError
from job.runtime import device, device_check, gpu

if TYPE_CHECKING:
    from pathlib import Path

CPUS = len(os.sched_getaffinity(0))


def with_capability(*capabilities: tuple[int, int]) -> list[gpu.Gpu]:
    """Return GPUs of these compute capabilities."""
    return [gpu.Gpu(name="NVIDIA", compute_capability=one, memory_bytes=2**34) for one in capabilities]


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("100000 100000", 1), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", CPUS), ("9999999 100000", CPUS)],
)
def test_cpu_quota_of_version_2(tmp_path: Path, quota: str, cpus: int) -> None:
    """Threads are the quota rounded up, and never more than the CPUs there are."""
    (tmp_path / "cpu.max").write_text(quota + "\n")

    assert min(cpus, CPUS) == device.cpu_quota(tmp_path)


@pytest.mark.parametrize(("quota", "cpus"), [("100000", 1), ("-1", CPUS)])
def test_cpu_quota_of_version_1(tmp_path: Path, quota: str, cpus: int) -> None:
    """The older file system of cgroups has quota and period in two files; -1 is no quota."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")

    assert cpus == device.cpu_quota(tmp_path)


def test_no_cgroup(tmp_path: Path) -> None:
    """Where there are no cgroups there is no quota."""
    assert CPUS == device.cpu_quota(tmp_path)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], "float32"),
        ([(6, 1)], "float32"),
        ([(7, 0)], "float16"),
        ([(7, 5)], "float16"),
        ([(8, 0)], "bfloat16"),
        ([(12, 0)], "bfloat16"),
        ([(9, 0), (7, 5)], "float16"),
    ],
)
def test_automatic_precision(capabilities: list[tuple[int, int]], expected: str) -> None:
    """What the weakest of the GPUs was made for; float32 on the CPU."""
    assert expected == device.precision(DeviceSettings(), with_capability(*capabilities))


@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("before", [None, "float32", "float16", "bfloat16"])
def test_precision_by_name(wanted: device.Precision, before: device.Precision | None) -> None:
    """What is asked for is used, on any GPU and after a start in any precision."""
    settings = DeviceSettings(mixed_precision=wanted)

    assert wanted == device.precision(settings, with_capability((8, 9)), before)
    assert wanted == device.precision(settings, [], before)


@pytest.mark.parametrize(
    ("before", "capabilities", "expected"),
    [
        ("float32", [], "float32"),
        ("float32", [(7, 5)], "float32"),
        ("float32", [(8, 0)], "float32"),
        ("float16", [], "float32"),
        ("float16", [(7, 5)], "float16"),
        ("float16", [(8, 0)], "float16"),
        ("bfloat16", [], "float32"),
        ("bfloat16", [(7, 5)], "float16"),
        ("bfloat16", [(8, 0)], "bfloat16"),
    ],
)
def test_precision_of_a_resumed_run(
    before: device.Precision, capabilities: list[tuple[int, int]], expected: str
) -> None:
    """A resumed run keeps its precision where the device was made for it."""
    assert expected == device.precision(DeviceSettings(), with_capability(*capabilities), before)


@pytest.mark.parametrize(
    ("asked", "before", "expected"),
    [
        (None, {}, None),
        (None, {"gpu": None, "xla": False}, None),
        (None, {"gpu": "NVIDIA L4", "xla": False}, False),
        (None, {"gpu": "NVIDIA L4", "xla": True}, None),
        (False, {"gpu": "NVIDIA L4", "xla": True}, False),
        (True, {"gpu": "NVIDIA L4", "xla": False}, True),
    ],
)
def test_xla_of_a_resumed_run(asked: bool | None, before: dict[str, object], expected: bool | None) -> None:
    """XLA stays as it was on a GPU, unless the setting says otherwise; it is tried (None) after a start on the CPU."""
    assert expected == device.requested_xla(DeviceSettings(xla=asked), before)


def test_without_a_gpu_it_is_the_cpu(tmp_path: Path) -> None:
    """Where none is required and none is there, nothing is looked for."""
    assert device.find_gpus("all", required=False, root=tmp_path) is None


def test_unusable_gpu_is_told_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A GPU that is there and cannot be used, where none is required: the CPU, and one warning with the reason."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()

    assert device.find_gpus("all", required=False, root=tmp_path) is None

    said = "".join(capsys.readouterr())
    assert "device.gpu_ignored" in said
    assert "libcuda.so.1" in said


def test_required_gpu_that_is_missing() -> None:
    """device.require_gpu on a machine without one ends with exit code 4, before TensorFlow is imported."""
    with pytest.raises(DeviceError) as raised:
        device.configure(Settings(device=DeviceSettings(require_gpu=True)))

    assert 4 == raised.value.exit_code
    assert "/dev/nvidia*" in raised.value.message


@pytest.mark.parametrize(("xla", "expected"), [(None, True), (True, True), (False, False)])
def test_device_that_computes(xla: bool | None, expected: bool) -> None:
    """A device that computes is used with XLA unless XLA is switched off."""
    assert expected == device.check("CPU:0", "float32", xla=xla)


def test_device_without_xla(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where XLA fails and is not asked for, a warning says why, and the gradients are checked without XLA instead."""
    checked, compute = [], device_check.check

    def check(name: str, dtype: str, *, xla: bool, gradients: bool = True) -> None:
        checked.append((dtype, xla, gradients))
        if xla:
            raise DeviceError("a convolution with XLA failed", remedy="")
        compute(name, dtype, xla=xla, gradients=gradients)

    monkeypatch.setattr(device_check, "check", check)

    assert not device.check("CPU:0", "bfloat16", xla=None)
    assert [
        ("float32", False, False),
        ("bfloat16", False, False),
        ("bfloat16", True, True),
        ("bfloat16", False, True),
    ] == checked
    assert "device.xla_ignored" in "".join(capsys.readouterr())

    with pytest.raises(DeviceError):
        device.check("CPU:0", "bfloat16", xla=True)


def found_gpus(*capabilities: tuple[int, int]) -> gpu.Found:
    """Return these GPUs as they are found on a machine."""
    gpus = tuple(with_capability(*capabilities))
    return gpu.Found(gpus=gpus, driver="580.65.06", driver_cuda="13.0", cuda="12.9.79", cudnn="9.28.0.42")


class Events:
    """Collects events: name -> facts."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, object]] = {}

    def __call__(self, name: str, /, *, severity: str = "info", **facts: object) -> None:
        """Receive an event."""
        self.facts[name] = {"severity": severity} | facts


@pytest.mark.parametrize(("count", "used"), [("all", 3), (3, 3), (2, 2), (1, 1)])
def test_number_of_gpus(count: int | Literal["all"], used: int) -> None:
    """All visible GPUs are used, or the first ones, as many as device.gpus says; the weakest decides the precision."""
    selected = device.first_gpus(found_gpus((8, 9), (8, 9), (7, 0)), count)

    assert used == len(selected.gpus)
    assert ("float16" if used == 3 else "bfloat16") == device.precision(DeviceSettings(), selected.gpus)


def test_fewer_gpus_than_asked_for() -> None:
    """device.gpus above the number of visible GPUs is exit code 4, with both numbers."""
    with pytest.raises(DeviceError, match=r"device\.gpus is 4, and 2 are visible") as raised:
        device.first_gpus(found_gpus((8, 9), (8, 9)), 4)

    assert 4 == raised.value.exit_code


@pytest.mark.parametrize(("asked", "expected"), [(None, False), (True, True), (False, False)])
def test_xla_of_several_replicas(asked: bool | None, *, expected: bool) -> None:
    """Several replicas train without XLA unless it is asked for; an event says so."""
    events = Events()

    assert expected == device.requested_xla(DeviceSettings(xla=asked), {}, 2, events)
    assert (["device.xla_off"] if asked is None else []) == list(events.facts)


def test_number_of_replicas_is_a_fact() -> None:
    """A resume on another number of replicas is a change; a checkpoint of a version without it is none."""
    machine = device.Device(kind="cpu", name="x", cpu="x", threads=2, onednn=True, tensorflow="2", replicas=2)

    assert {"before": {"replicas": 1}, "now": {"replicas": 2}} == machine.changes({"replicas": 1})
    assert {} == machine.changes({"threads": 2})


def test_one_gpu_that_tensorflow_is_built_for() -> None:
    """One GPU that there are compiled kernels for is no event."""
    events = Events()

    assert device.have_kernels(found_gpus((8, 9)), ["sm_80"], required=True, notify=events)
    assert {} == events.facts


def test_gpu_newer_than_the_kernels() -> None:
    """A GPU that kernels have to be compiled for is used, and an event says so before its first use."""
    events = Events()

    found = found_gpus((8, 9), (12, 0))

    assert device.have_kernels(found, ["sm_80", "compute_90"], required=True, notify=events)
    facts = events.facts["device.kernels_compiled_at_first_use"]
    assert ("warning", (12, 0)) == (facts["severity"], facts["compute_capability"])


def test_gpu_older_than_the_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    """A GPU without kernels is exit code 4 where one is required, else a warning, and the run uses the CPU."""
    with pytest.raises(DeviceError, match=r"compute capability 5\.2"):
        device.have_kernels(found_gpus((8, 9), (5, 2)), ["sm_80"], required=True, notify=Events())

    assert not device.have_kernels(found_gpus((8, 9), (5, 2)), ["sm_80"], required=False, notify=Events())
    said = "".join(capsys.readouterr())
    assert "device.gpu_ignored" in said
    assert "compute capability 5.2" in said


def test_event_without_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream of events, the log receives them."""
    device.log_event("device.xla_off", severity="warning", count=1)

    assert "device.xla_off" in "".join(capsys.readouterr())
