"""What is said of a GPU, or of what is missing: on a machine that has none, with a file system and a driver made up."""

from __future__ import annotations

import ctypes
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from job.errors import DeviceError
from job.runtime import gpu

REAL_LIBRARY = next(Path(sys.base_prefix).rglob("lib-dynload/_ctypes.*.so"))
"""Any library that opens in this process."""

OUT_OF_MEMORY, NO_DEVICE = 2, 100  # CUresult


class Driver:
    """The functions of ``libcuda.so.1`` that are called, as ctypes calls them.

    Args:
        cuda: what it knows: 12080 is CUDA 12.8.
        gpus: how many it drives.
        usable: how many of them, the first ones, can be allocated.
        results: function -> what it fails with.
    """

    def __init__(self, cuda: int = 12080, gpus: int = 2, usable: int = 2, **results: int) -> None:
        self.cuda, self.gpus, self.usable, self.results = cuda, gpus, usable, results
        self.contexts = 0

    def __getattr__(self, function: str) -> Any:
        return partial(self._call, function)

    def _call(self, function: str, *arguments: Any) -> int:  # noqa: C901, PLR0912  # a case for each function
        if function in self.results:
            return self.results[function]
        match function, *arguments:
            case "cuDriverGetVersion", version:
                version._obj.value = self.cuda
            case "cuInit", 0:
                pass
            case "cuDeviceGetCount", count:
                count._obj.value = self.gpus
            case "cuDeviceGet", device, number:
                device._obj.value = number
            case "cuDeviceGetName", name, size, device:
                name.value = f"NVIDIA L{device.value}".encode()[:size]
            case "cuDeviceTotalMem_v2", memory, device:
                memory._obj.value = (24 + device.value) * 2**30
            case "cuDeviceGetAttribute", value, attribute, _:
                value._obj.value = {75: 8, 76: 9}[attribute]
            case "cuDevicePrimaryCtxRetain", context, device:
                if device.value >= self.usable:
                    return OUT_OF_MEMORY
                context._obj.value = device.value + 1
                self.contexts += 1
            case "cuDevicePrimaryCtxRelease_v2", _:
                self.contexts -= 1
            case "cuGetErrorString", code, text:
                text._obj.value = {OUT_OF_MEMORY: b"out of memory", NO_DEVICE: b"no CUDA-capable device"}[code]
            case _:
                raise AttributeError(function)
        return 0


class Machine:
    """A machine with GPUs: its file system, and its packages; ``driver`` is what its driver's library is."""

    def __init__(self, root: Path) -> None:
        self.root, self.packages = root, root / "packages"
        self.driver: Driver | None = Driver()
        for path in ("dev/nvidia0", "dev/nvidiactl", "proc/driver/nvidia/version"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        (root / "proc/driver/nvidia/version").write_text(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.172.08  Tue Jul  8 18:31:14 UTC 2025\n"
            "GCC version:  gcc version 13.3.0\n"
        )
        self.install("tensorflow", "2.21.0")
        self.install("nvidia-cuda-runtime-cu12", "12.9.79")
        self.install("nvidia-cudnn-cu12", "9.28.0.42")
        self.library("cudnn/lib/libcudnn.so.9")

    def install(self, name: str, version: str) -> None:
        """Install a package's metadata."""
        folder = self.packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def library(self, name: str, content: bytes | None = None) -> None:
        """Put a library there, one that opens unless it gets other contents."""
        path = self.packages / "nvidia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(REAL_LIBRARY.read_bytes() if content is None else content)

    def load(self, name: str) -> Any:
        """Open a library as this machine would."""
        if name == gpu.DRIVER_LIBRARY and self.driver:
            return self.driver
        return ctypes.CDLL(name.replace("libcuda.", "libcuda-of-no-machine."))

    def look(self) -> gpu.Found:
        """Look at its GPUs."""
        return gpu.look(self.root, packages=self.packages, load=self.load)

    def failure(self) -> DeviceError:
        """Return the error of looking at GPUs that are unusable."""
        with pytest.raises(DeviceError) as raised:
            self.look()
        return raised.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine whose GPU is usable."""
    return Machine(tmp_path)


def test_gpus_are_reported(machine: Machine) -> None:
    """Name, compute capability and memory of each GPU, and the versions of driver, CUDA and cuDNN."""
    found = machine.look()

    assert ("570.172.08", "12.8", "12.9.79", "9.28.0.42") == (found.driver, found.driver_cuda, found.cuda, found.cudnn)
    assert ["NVIDIA L0", "NVIDIA L1"] == [one.name for one in found.gpus]
    assert gpu.Gpu(name="NVIDIA L1", compute_capability=(8, 9), memory_bytes=25 * 2**30) == found.gpus[1]


def test_memory_of_the_gpus_is_given_back(machine: Machine) -> None:
    """Looking leaves nothing allocated on a GPU."""
    machine.look()

    assert machine.driver
    assert 0 == machine.driver.contexts


def test_no_gpu_in_the_container(machine: Machine) -> None:
    """No /dev/nvidia*: the container was given none, and the remedy is to give it one. nvidiactl alone is no GPU."""
    (machine.root / "dev/nvidia0").unlink()

    error = machine.failure()

    assert 4 == error.exit_code
    assert "/dev/nvidia*" in error.message
    assert "nvidia.com/gpu" in error.remedy
    assert "libcuda" not in error.message


def test_driver_is_not_mounted(machine: Machine) -> None:
    """A device without the driver's library: the message names libcuda.so.1, the remedy the container toolkit."""
    machine.driver = None

    error = machine.failure()

    assert "driver's library" in error.message
    assert "libcuda" in error.message
    assert "toolkit" in error.remedy
    assert "/dev" not in error.message


def test_broken_library_is_named(machine: Machine) -> None:
    """Of all libraries of CUDA, the one that cannot be opened is named, and no other."""
    machine.library("cublas/lib/libcublas.so.12", b"half a download")
    machine.library("nccl/lib/libnccl.so.2")

    error = machine.failure()

    assert "libcublas.so.12" in error.message
    assert "libnccl" not in error.message
    assert "libcudnn" not in error.message


def test_library_that_needs_the_drivers(machine: Machine) -> None:
    """Where the driver's library is missing, a library of CUDA that needs it is not called broken."""

    def load(_: str) -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")

    assert [] == gpu.broken(machine.packages, load)


def test_everything_missing_is_said_at_once(machine: Machine) -> None:
    """An image for the CPU on a node without a GPU: both are said, each with its remedy."""
    shutil.rmtree(machine.root / "dev")
    machine.driver = None
    machine.install("tensorflow-cpu", "2.21.0")

    error = machine.failure()

    for text in ("CPU alone", "/dev/nvidia*", "libcuda"):
        assert text in error.message
    for text in ("ACCELERATOR=gpu", "nvidia.com/gpu", "toolkit", "device.require_gpu=false"):
        assert text in error.remedy


def test_driver_is_too_old(machine: Machine) -> None:
    """A driver that knows only an older CUDA is named with its version, the CUDA here, and the oldest that will do."""
    machine.driver = Driver(cuda=11080)
    machine.library("cudnn/lib/libcudnn_engines.so.9", b"would not open with it")

    error = machine.failure()

    assert "libcudnn" not in error.message
    assert "570.172.08 is too old: it knows CUDA up to 11.8, and this is CUDA 12.9.79" in error.message
    assert "525.60.13" in error.remedy


def test_older_driver_of_the_same_major_version_will_do(machine: Machine) -> None:
    """CUDA 12.9 runs on every driver for CUDA 12."""
    machine.driver = Driver(cuda=12000)

    assert "12.0" == machine.look().driver_cuda


def test_gpu_of_somebody_else(machine: Machine) -> None:
    """A GPU that is there and cannot be allocated is named, with what the driver says."""
    machine.driver = Driver(usable=0)

    error = machine.failure()

    assert "GPU 0 (NVIDIA L0)" in error.message
    assert "out of memory" in error.message


def test_second_gpu_of_somebody_else(machine: Machine) -> None:
    """A GPU behind those in use that cannot be allocated is no failure; one of those in use is."""
    machine.driver = Driver(usable=1)

    found = gpu.look(machine.root, packages=machine.packages, load=machine.load, count=1)

    assert ["NVIDIA L0", "NVIDIA L1"] == [one.name for one in found.gpus]
    assert "GPU 1 (NVIDIA L1)" in machine.failure().message


def test_hidden_gpus(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If CUDA_VISIBLE_DEVICES may be the reason, the message names it beside the driver's error."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine.driver = Driver(cuInit=NO_DEVICE)

    message = machine.failure().message

    assert "no CUDA-capable device" in message
    assert "CUDA_VISIBLE_DEVICES=''" in message


def test_driver_without_gpus(machine: Machine) -> None:
    """A driver that counts none is no GPU."""
    machine.driver = Driver(gpus=0)

    assert "offers none" in machine.failure().message


def test_kernel_that_tells_no_version(machine: Machine) -> None:
    """GPUs are found even if /proc has no driver version."""
    (machine.root / "proc/driver/nvidia/version").unlink()

    found = machine.look()

    assert found.driver is None
    assert 2 == len(found.gpus)


BUILT_FOR = ("sm_60", "sm_70", "sm_80", "sm_89", "compute_90")


def with_capability(major: int, minor: int) -> gpu.Gpu:
    """Return a GPU of this compute capability."""
    return gpu.Gpu(name="NVIDIA X1", compute_capability=(major, minor), memory_bytes=2**34)


@pytest.mark.parametrize(
    ("capability", "built_for", "expected"),
    [
        ((8, 0), BUILT_FOR, False),
        ((8, 6), BUILT_FOR, False),  # runs the machine code for 8.0
        ((9, 0), BUILT_FOR, False),  # compute_90 is machine code for 9.0 as well
        ((10, 0), BUILT_FOR, True),
        ((12, 0), BUILT_FOR, True),
        ((7, 5), ("7.0", "8.0"), False),  # an older TensorFlow's spelling
        ((9, 0), ("7.0", "8.0"), True),
        ((9, 0), ("compute_80", "sm_90a"), False),
        ((9, 1), ("compute_80", "sm_90a"), True),  # sm_90a is for 9.0 alone
        ((12, 0), ("compute_80", "compute_90a"), True),
        ((10, 3), ("compute_80", "sm_100f"), False),  # of one family
        ((12, 1), ("sm_80", "sm_120"), False),
    ],
)
def test_form_of_the_kernels(capability: tuple[int, int], built_for: tuple[str, ...], expected: bool) -> None:
    """Kernels are compiled at first use where the build has PTX for the GPU, and no machine code that it runs."""
    assert expected == gpu.compiled_at_first_use(with_capability(*capability), built_for)


@pytest.mark.parametrize("built_for", [None, (), ("",), ("gfx90a",), ("sm_89", "later")])
def test_build_that_says_nothing_about_the_gpu(built_for: tuple[str, ...] | None) -> None:
    """Where the build information is missing or not understood, nothing is claimed."""
    assert not gpu.compiled_at_first_use(with_capability(10, 0), built_for)


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        ((5, 2), BUILT_FOR),
        ((8, 0), ("sm_70", "sm_86")),  # of its major version, but too new
        ((10, 0), ("sm_89", "sm_90a", "compute_90a")),
        ((9, 0), ("sm_80",)),
    ],
)
def test_gpu_without_kernels(capability: tuple[int, int], built_for: tuple[str, ...]) -> None:
    """A GPU that no kernels are for is exit code 4; the message has its capability and what there are kernels for."""
    with pytest.raises(DeviceError) as raised:
        gpu.compiled_at_first_use(with_capability(*capability), built_for)

    assert 4 == raised.value.exit_code
    assert f"NVIDIA X1 has compute capability {capability[0]}.{capability[1]}" in raised.value.message
    assert ", ".join(built_for) in raised.value.message
    assert "device.require_gpu=false" in raised.value.remedy
