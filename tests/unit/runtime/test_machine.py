"""The checks of this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from job import __version__
from job.config.load import load_settings
from job.errors import AccessError, DeviceError
from job.runtime import checks, device, gpu, limits, machine
from job.runtime.device import Device

if TYPE_CHECKING:
    from pathlib import Path

    from job.config.settings import Settings
    from job.runtime.checks import Finding

GIB = 2**30
GPU_NAMES = ["gpu", "gpu driver", "gpu libraries", "gpu memory", "gpu computes"]
FOUND = gpu.Found(
    gpus=(gpu.Gpu(name="NVIDIA L4", compute_capability=(8, 9), memory_bytes=24 * GIB),) * 2,
    driver="580.65.06",
    driver_cuda="13.0",
    cuda="12.9.79",
    cudnn="9.1",
)
DEVICE = Device(
    kind="gpu", name="NVIDIA L4", cpu="c", threads=1, onednn=True, tensorflow="2.21", precision="bfloat16", xla=True
)


def settings(*flags: str) -> Settings:
    """Return settings."""
    return load_settings(flags, {}).settings


def gpu_findings(tmp_path: Path, *flags: str) -> dict[str, Finding]:
    """Carry out the checks of the GPU where /dev has none."""
    found: dict[str, Finding] = {}
    checks.carry_out([machine.gpu_checks(settings(*flags), tmp_path)], 30, found.__setitem__)
    assert GPU_NAMES == list(found)
    return found


def fail(error: Exception) -> None:
    """Fail as a function of the job."""
    raise error


def test_software() -> None:
    """The versions of the job, of Python and of TensorFlow are named."""
    text = machine.software()

    assert text.startswith(f"finetune {__version__}, Python 3.")
    assert re.search(r"tensorflow(-cpu)? 2\.\d+", text)


def test_no_gpu(tmp_path: Path) -> None:
    """Where none is there and none is required, it is skipped, and TensorFlow is not asked."""
    found = gpu_findings(tmp_path)

    assert ["skipped"] * 5 == [finding.verdict for finding in found.values()]
    assert "--device.require_gpu" in found["gpu"].remedy


def test_a_required_gpu_that_is_not_there(tmp_path: Path) -> None:
    """What is missing is named, with exit code 4."""
    found = gpu_findings(tmp_path, "--device.require_gpu")

    assert ["failed", *["skipped"] * 4] == [finding.verdict for finding in found.values()]
    assert (4, True) == (found["gpu"].exit_code, "/dev/nvidia" in found["gpu"].detail)


def test_a_gpu_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is required a run uses the CPU: a warning."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    monkeypatch.setattr(gpu, "look", lambda _, **__: fail(DeviceError("old driver", remedy="update it")))

    found = gpu_findings(tmp_path)["gpu"]

    assert ("warning", "update it", 0) == (found.verdict, found.remedy, found.exit_code)
    assert "old driver: training uses the CPU" == found.detail


def test_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line has its facts; TensorFlow computes on the GPU as a run does."""
    monkeypatch.setattr(gpu, "look", lambda _, **__: FOUND)
    monkeypatch.setattr(device, "configure", lambda _: DEVICE)

    found = gpu_findings(tmp_path, "--device.require_gpu")

    assert ["ok"] * 5 == [finding.verdict for finding in found.values()]
    facts = [["NVIDIA L4", "8.9", "1 more"], ["580.65.06", "13.0"], ["12.9.79", "9.1"], ["24.0 GiB"], ["bfloat16"]]
    for finding, expected in zip(found.values(), facts, strict=True):
        assert [] == [fact for fact in expected if fact not in finding.detail]


def test_some_of_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line counts those that training does not use; fewer than device.gpus are a failure with exit code 4."""
    monkeypatch.setattr(gpu, "look", lambda _, **__: FOUND)
    monkeypatch.setattr(device, "configure", lambda _: DEVICE)

    found = gpu_findings(tmp_path, "--device.require_gpu", "--device.gpus=1")["gpu"]
    missing = gpu_findings(tmp_path, "--device.require_gpu", "--device.gpus=3")["gpu"]

    assert "1 that training does not use" in found.detail
    assert ("failed", 4) == (missing.verdict, missing.exit_code)


def test_a_gpu_that_computes_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorFlow fails on has exit code 4."""
    monkeypatch.setattr(gpu, "look", lambda _, **__: FOUND)
    monkeypatch.setattr(device, "configure", lambda _: fail(DeviceError("wrong results", remedy="another node")))

    found = gpu_findings(tmp_path, "--device.require_gpu")["gpu computes"]

    assert ("failed", "wrong results", 4) == (found.verdict, found.detail, found.exit_code)


def test_the_checks_of_the_machine(tmp_path: Path) -> None:
    """All of them are carried out on this machine without a failure."""
    found = checks.carry_out([machine.checks(settings("--cache.dir", str(tmp_path / "new")))], 30, lambda *_: None)

    assert 6 == len(found)
    assert [] == [finding for finding in found if finding.verdict == "failed"]
    assert [] == list(tmp_path.iterdir())


def test_memory() -> None:
    """Too little memory for TensorFlow, or with a GPU for CUDA, is a warning that names it."""
    tight = limits.Memory(2 * GIB, 2 * GIB, of_cgroup=True)

    assert "2.0 GiB limit of the cgroup, 2.0 GiB available" == machine.check_memory(tight)
    found = machine.check_memory(tight, needs_gpu=True)
    assert not isinstance(found, str)
    assert ("warning", True) == (found.verdict, "4.0 GiB" in found.detail)


@pytest.mark.parametrize(
    ("size", "gpus", "verdict"), [(64 * 2**20, 1, None), (64 * 2**20, 2, "warning"), (GIB, 2, None)]
)
def test_shared_memory(size: int, gpus: int, verdict: str | None) -> None:
    """A container's default is too little for several GPUs."""
    found = machine.check_shared_memory(size, gpus=gpus)

    assert verdict == (None if isinstance(found, str) else found.verdict)


def test_cache(tmp_path: Path) -> None:
    """A budget above the free space is a warning; a folder that cannot be written is an error; none is skipped."""
    fits, too_large = machine.check_cache(tmp_path, 1000), machine.check_cache(tmp_path, 2**60)
    (tmp_path / "file").touch()

    assert isinstance(fits, str)
    assert "at most 1000 bytes" in fits
    assert not isinstance(too_large, str)
    assert ("warning", True) == (too_large.verdict, "cache.max_bytes" in too_large.detail)
    unset = machine.check_cache(None, None)
    assert not isinstance(unset, str)
    assert "skipped" == unset.verdict
    with pytest.raises(AccessError, match=r"cache\.dir"):
        machine.check_cache(tmp_path / "file/cache", None)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little space is a warning, for the cache and for temporary files."""
    monkeypatch.setattr(limits, "disk", lambda folder: limits.Disk(folder, 2**20, GIB, writable=True))

    for found in (machine.check_cache(tmp_path, None), machine.check_temporary("")):
        assert not isinstance(found, str)
        assert ("warning", True) == (found.verdict, "1.0 MiB of 1.0 GiB" in found.detail)


@pytest.mark.parametrize(
    ("limit", "budget", "verdict"),
    [(None, None, "skipped"), (25 * GIB, 15 * GIB, None), (25 * GIB, 25 * GIB, "warning"), (25 * GIB, None, "warning")],
)
def test_ephemeral_storage(limit: int | None, budget: int | None, verdict: str | None) -> None:
    """A cache that outgrows the Pod's limit gets the Pod evicted."""
    found = machine.check_ephemeral(limit, budget)

    assert verdict == (None if isinstance(found, str) else found.verdict)


def test_readable() -> None:
    """Bytes have a unit that people read."""
    assert ["0 bytes", "1.0 KiB", "1.5 MiB", "200 GiB", "2.0 TiB"] == [
        machine.readable(size) for size in (0, 1024, 3 * 2**19, 200 * GIB, 2**41)
    ]
