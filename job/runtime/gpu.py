"""Detects GPUs, and reports what is missing if none can be used.

TensorFlow only reports that it skips GPUs. So everything that it needs is checked here, without TensorFlow: the files
in ``/dev``, the driver's library, each CUDA library, the driver's version, and the devices themselves through the CUDA
driver API (https://docs.nvidia.com/cuda/cuda-driver-api).
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
"""Opens a shared library by name or path. Raises OSError."""

DRIVER_LIBRARY = "libcuda.so.1"
"""Provided by the node's driver, never by the image."""

OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
"""CUDA's major version -> the oldest driver for it on Linux (CUDA release notes, "minor version compatibility")."""

_GIVE_GPU = "give the container a GPU: nvidia.com/gpu in the chart, --gpus all with docker"
_INSTALL_DRIVER = "see that the node has NVIDIA's driver and container toolkit, which mounts the driver's libraries"
_REBUILD = "use an image that is built with ACCELERATOR=gpu"
_OTHER_NODE = "see what nvidia-smi says on the node, or run on another one"

_ARCHITECTURE = re.compile(r"(?:(sm|compute)_)?(\d+)\.?(\d)([af]?)")
"""sm_89: machine code for 8.9 and later of the same major version. compute_90, or 9.0 in older builds: that plus PTX,
which the driver can compile for any later version. Suffix a: for exactly this version; f: for its family.
(CUDA C++ Programming Guide, "Application Compatibility"; what compute_90 builds: TensorFlow's cuda_configure.bzl)"""

_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A usable GPU."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """The GPUs of this machine, and the versions of their software."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    """The driver's version, "580.65.06"; None if the kernel does not report it."""
    driver_cuda: str
    """The newest CUDA version that the driver supports, "13.0"."""
    cuda: str | None
    """The CUDA version installed for TensorFlow, "12.9.79"; None if it is not from the Python package index."""
    cudnn: str | None


class _Problem(NamedTuple):
    text: str
    remedy: str


def look(
    root: Path = Path("/"), *, packages: Path | None = None, load: Load = ctypes.CDLL, count: int | None = None
) -> Found:
    """Check everything that a GPU needs, and query the GPUs.

    Args:
        root: parent of ``dev`` and ``proc``.
        packages: folder of the Python packages; by default that of this process.
        load: opens a library.
        count: how many of them the run uses, the first ones; None: all.

    Raises:
        DeviceError: a GPU that the run uses cannot be used; the message names everything that is missing or broken.
    """
    versions = installed(packages)
    problems = []
    if "tensorflow-cpu" in versions:
        problems.append(_Problem("the TensorFlow here is the one for the CPU alone", _REBUILD))
    if not device_files(root):
        problems.append(_Problem("there is no /dev/nvidia*", _GIVE_GPU))
    cuda = None
    try:
        cuda = load(DRIVER_LIBRARY)
    except OSError as error:
        problems.append(_Problem(f"the driver's library cannot be opened ({error})", _INSTALL_DRIVER))
    driver, toolkit = _driver_version(root), versions.get("nvidia-cuda-runtime-cu12")
    too_old = _check_driver_age(cuda, driver, toolkit) if cuda and toolkit else []
    # With an old driver some libraries cannot be opened though they are not broken.
    problems += too_old or [
        _Problem(f"a library of CUDA cannot be opened ({text})", _REBUILD) for text in broken(packages, load)
    ]
    if problems:
        raise _error(problems)
    return Found(
        gpus=_gpus(cuda, count),
        driver=driver,
        driver_cuda=_dotted(_driver_cuda(cuda)),
        cuda=toolkit,
        cudnn=versions.get("nvidia-cudnn-cu12"),
    )


def compiled_at_first_use(gpu: Gpu, built_for: Sequence[str] | None) -> bool:
    """Return whether TensorFlow has kernels for `gpu` only in a form (PTX) that the driver compiles at first use.

    Args:
        gpu: the GPU to use.
        built_for: the architectures in TensorFlow's build information, as named by NVIDIA's compilers. If it is None or
            has unknown names and nothing else matches, the answer is assumed to be no.

    Raises:
        DeviceError: TensorFlow has no kernels for it.
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
                _Problem(
                    f"{gpu.name} has compute capability {_dotted(capability)}, and this TensorFlow has kernels "
                    f"only for {', '.join(built_for or ())}",
                    "use a GPU that TensorFlow has kernels for",
                )
            ]
        )
    return ptx and not compiled


def device_files(root: Path = Path("/")) -> list[Path]:
    """Return the GPUs' files in ``/dev``: ``nvidia0`` and so on; ``dxg`` on WSL."""
    return sorted([*root.glob("dev/nvidia[0-9]*"), *root.glob("dev/dxg")])


def installed(packages: Path | None = None) -> dict[str, str]:
    """Return name -> version of the installed Python packages of TensorFlow and NVIDIA."""
    distributions = metadata.distributions(path=[str(packages)]) if packages else metadata.distributions()
    versions = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in distributions}
    return {name: version for name, version in versions.items() if name.startswith(("tensorflow", "nvidia-"))}


def broken(packages: Path | None = None, load: Load = ctypes.CDLL) -> list[str]:
    """Return the error of each CUDA library that cannot be opened, except for lack of the driver's library."""
    folder = packages or Path(sysconfig.get_path("purelib"))
    errors = []
    for library in sorted(folder.glob("nvidia/*/lib/*.so*")):
        try:
            load(str(library))
        except OSError as error:
            text = str(error)
            if not text.startswith(DRIVER_LIBRARY):  # needed by parts of cuDNN; that it is missing is reported once
                errors.append(text if library.name in text else f"{library.name}: {text}")
    return errors


def _check_driver_age(cuda: Any, driver: str | None, toolkit: str) -> list[_Problem]:
    supported, major = _driver_cuda(cuda), int(toolkit.partition(".")[0])
    if supported[0] >= major:
        return []
    return [
        _Problem(
            f"the driver {driver or 'of the node'} is too old: it knows CUDA up to {_dotted(supported)}, "
            f"and this is CUDA {toolkit}",
            f"update the node's driver to {OLDEST_DRIVER.get(major, 'one for this CUDA')} or newer",
        )
    ]


def _error(problems: list[_Problem]) -> DeviceError:
    remedies = dict.fromkeys(problem.remedy for problem in problems)
    return DeviceError(
        f"no GPU can be used: {'; '.join(problem.text for problem in problems)}",
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


def _gpus(cuda: Any, used: int | None) -> tuple[Gpu, ...]:
    _call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise _error([_Problem("the driver offers none", _GIVE_GPU)])
    gpus = tuple(_gpu(cuda, number) for number in range(count.value))
    for number, gpu in enumerate(gpus[:used]):
        _check_context(cuda, number, gpu.name)
    return gpus


def _check_context(cuda: Any, number: int, name: str) -> None:
    """Create a context on a GPU that the run uses."""
    # A GPU that another process uses exclusively or has filled is listed all the same: only a context shows it.
    device, context, suffix = ctypes.c_int(), ctypes.c_void_p(), f" of GPU {number} ({name})"
    _call(cuda, "cuDeviceGet", ctypes.byref(device), number)
    _call(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device, suffix=suffix)
    _call(cuda, "cuDevicePrimaryCtxRelease_v2", device, suffix=suffix)


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


def _call(cuda: Any, function: str, *arguments: object, suffix: str = "") -> None:
    """Call a driver function, all of which return a CUresult."""
    code = getattr(cuda, function)(*arguments)
    if code == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    selection = environment.get("CUDA_VISIBLE_DEVICES")
    visible = "" if selection is None else f", with CUDA_VISIBLE_DEVICES={selection!r}"
    message = (text.value or b"unknown error").decode(errors="replace")
    raise _error([_Problem(f"the driver says {message!r} ({function}{suffix}: error {code}{visible})", _OTHER_NODE)])


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
