"""The GPU: what it is where there is one, and what is missing where there is none.

TensorFlow only says that it skips GPUs. So everything that one needs is looked at here, piece by piece and without
TensorFlow: files in ``/dev``, the driver's library, each of CUDA's, the driver's version, and the devices themselves
through the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api).
"""

from __future__ import annotations

import ctypes
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from job.config import environment
from job.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

Load = Callable[[str], Any]
"""Opens a shared library by its name or path. Raises OSError."""

DRIVER_LIBRARY = "libcuda.so.1"
"""Comes from the node with the driver, never with the image."""

OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
"""CUDA's major version -> the oldest driver for it on Linux (CUDA release notes, "minor version compatibility")."""

_GIVE_GPU = "give the container a GPU: nvidia.com/gpu in the chart, --gpus all with docker"
_INSTALL_DRIVER = "see that the node has NVIDIA's driver and container toolkit, which mounts the driver's libraries"
_REBUILD = "use an image that is built with ACCELERATOR=gpu"
_OTHER_NODE = "see what nvidia-smi says on the node, or run on another one"

_ARCHITECTURE = re.compile(r"(?:(sm|compute)_)?(\d+)\.?(\d)([af]?)")
"""sm_89: machine code for 8.9 and later of the same major version. compute_90, or 9.0 in older builds: that, and PTX,
which the driver can compile for any later version. The suffix a: for exactly this version; f: for its family.
(CUDA C++ Programming Guide, "Application Compatibility"; TensorFlow's cuda_configure.bzl for what compute_90 builds)"""

_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU that can be used."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """The GPUs of this machine, and what drives them."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    """The driver's version, "580.65.06"; None where the kernel does not tell."""
    driver_cuda: str
    """The newest CUDA that the driver knows, "13.0"."""
    cuda: str | None
    """CUDA beside TensorFlow, "12.9.79"; None where it is not from the Python package index."""
    cudnn: str | None


class _Finding(NamedTuple):
    what: str
    remedy: str


def look(root: Path = Path("/"), *, packages: Path | None = None, load: Load = ctypes.CDLL) -> Found:
    """Look at everything that a GPU needs, and at the GPUs.

    Args:
        root: where ``dev`` and ``proc`` are.
        packages: where Python's packages are; those of this process by default.
        load: opens a library.

    Raises:
        DeviceError: no GPU can be used; the message names everything that is found missing, and broken libraries.
    """
    versions = installed(packages)
    findings = []
    if "tensorflow-cpu" in versions:
        findings.append(_Finding("the TensorFlow here is the one for the CPU alone", _REBUILD))
    if not device_files(root):
        findings.append(_Finding("there is no /dev/nvidia*", _GIVE_GPU))
    cuda = None
    try:
        cuda = load(DRIVER_LIBRARY)
    except OSError as error:
        findings.append(_Finding(f"the driver's library cannot be opened ({error})", _INSTALL_DRIVER))
    driver, toolkit = _driver_version(root), versions.get("nvidia-cuda-runtime-cu12")
    too_old = _too_old(cuda, driver, toolkit) if cuda and toolkit else []
    # An old driver lacks what some of the libraries ask it for: that is no fault of theirs.
    findings += too_old or [
        _Finding(f"a library of CUDA cannot be opened ({text})", _REBUILD) for text in broken(packages, load)
    ]
    if findings:
        raise _error(findings)
    return Found(
        gpus=_gpus(cuda),
        driver=driver,
        driver_cuda=_dotted(_driver_cuda(cuda)),
        cuda=toolkit,
        cudnn=versions.get("nvidia-cudnn-cu12"),
    )


def compiled_at_first_use(gpu: Gpu, built_for: Sequence[str] | None) -> bool:
    """Return whether TensorFlow has kernels for `gpu` only in a form (PTX) that the driver compiles at first use.

    Args:
        gpu: the one to use.
        built_for: the architectures in TensorFlow's build information, as NVIDIA's compilers name them; None, or with
            a name that is not understood: if no other one matches, nothing is known, and the answer is no.

    Raises:
        DeviceError: TensorFlow has no kernels for it in any form.
    """
    capability = gpu.compute_capability
    compiled = ptx = False
    unknown = not built_for
    for name in built_for or ():
        found = _ARCHITECTURE.fullmatch(name)
        if not found:
            unknown = True
            continue
        kind, major, minor, variant = found.groups()
        architecture = (int(major), int(minor))
        same_major = capability[0] == architecture[0]
        compiled |= capability == architecture or (capability > architecture and same_major and variant != "a")
        ptx |= capability > architecture and kind != "sm" and not variant
    if not (compiled or ptx or unknown):
        raise _error(
            [
                _Finding(
                    f"{gpu.name} has compute capability {_dotted(capability)}, and this TensorFlow has kernels "
                    f"only for {', '.join(built_for or ())}",
                    "use a GPU that TensorFlow has kernels for",
                )
            ]
        )
    return ptx and not compiled


def device_files(root: Path = Path("/")) -> list[Path]:
    """Return the GPUs' files in ``/dev``: ``nvidia0`` and so on; ``dxg`` under Windows."""
    return sorted([*root.glob("dev/nvidia[0-9]*"), *root.glob("dev/dxg")])


def installed(packages: Path | None = None) -> dict[str, str]:
    """Return name -> version of the installed Python packages that a GPU has to do with."""
    distributions = metadata.distributions(path=[str(packages)]) if packages else metadata.distributions()
    versions = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in distributions}
    return {name: version for name, version in versions.items() if name.startswith(("tensorflow", "nvidia-"))}


def broken(packages: Path | None = None, load: Load = ctypes.CDLL) -> list[str]:
    """Return what is said of each library of CUDA that cannot be opened, though it may have the driver's."""
    folder = packages or Path(sysconfig.get_path("purelib"))
    said = []
    for library in sorted(folder.glob("nvidia/*/lib/*.so*")):
        try:
            load(str(library))
        except OSError as error:
            text = str(error)
            if not text.startswith(DRIVER_LIBRARY):  # some of cuDNN needs it; that it is missing is said once
                said.append(text if library.name in text else f"{library.name}: {text}")
    return said


def _too_old(cuda: Any, driver: str | None, toolkit: str) -> list[_Finding]:
    knows, major = _driver_cuda(cuda), int(toolkit.partition(".")[0])
    if knows[0] >= major:
        return []
    return [
        _Finding(
            f"the driver {driver or 'of the node'} is too old: it knows CUDA up to {_dotted(knows)}, "
            f"and this is CUDA {toolkit}",
            f"update the node's driver to {OLDEST_DRIVER.get(major, 'one for this CUDA')} or newer",
        )
    ]


def _error(findings: list[_Finding]) -> DeviceError:
    remedies = dict.fromkeys(finding.remedy for finding in findings)
    return DeviceError(
        f"no GPU can be used: {'; '.join(finding.what for finding in findings)}",
        remedy=f"{'; '.join(remedies)}. Or set device.require_gpu=false to use the CPU.",
    )


def _driver_version(root: Path) -> str | None:
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    return found[0] if (found := re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)) else None


def _driver_cuda(cuda: Any) -> tuple[int, int]:
    number = ctypes.c_int()
    _call(cuda, "cuDriverGetVersion", ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def _gpus(cuda: Any) -> tuple[Gpu, ...]:
    _call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise _error([_Finding("the driver offers none", _GIVE_GPU)])
    gpus = tuple(_gpu(cuda, number) for number in range(count.value))
    _try_first(cuda, gpus[0].name)
    return gpus


def _try_first(cuda: Any, name: str) -> None:
    """Use the first GPU, which is the only one that a run uses."""
    # A GPU that another process has for itself alone, or has filled, is there all the same: only this tells.
    device, context, of = ctypes.c_int(), ctypes.c_void_p(), f" of GPU 0 ({name})"
    _call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    _call(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device, of=of)
    _call(cuda, "cuDevicePrimaryCtxRelease_v2", device, of=of)


def _gpu(cuda: Any, number: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), number)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = [ctypes.c_int(), ctypes.c_int()]
    for value, attribute in zip(capability, _COMPUTE_CAPABILITY, strict=True):
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return Gpu(
        name=name.value.decode(),
        compute_capability=(capability[0].value, capability[1].value),
        memory_bytes=memory.value,
    )


def _call(cuda: Any, function: str, *arguments: object, of: str = "") -> None:
    """Call a function of the driver; every one returns a CUresult."""
    code = getattr(cuda, function)(*arguments)
    if code == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    visible = "" if hidden is None else f", with CUDA_VISIBLE_DEVICES={hidden!r}"
    said = (text.value or b"unknown error").decode(errors="replace")
    raise _error([_Finding(f"the driver says {said!r} ({function}{of}: error {code}{visible})", _OTHER_NODE)])


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
