"""The checks of this machine: software, GPU, CPU, memory and disk."""

from __future__ import annotations

import platform
import re
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job import __version__
from job.errors import AccessError, DeviceError
from job.runtime import device, gpu, limits
from job.runtime.checks import Check, Finding, Group

if TYPE_CHECKING:
    from job.config.settings import Settings

GIB = 2**30

CPU_MEMORY, GPU_MEMORY = 1 * GIB, 4 * GIB
"""Less memory than this is probably too little: benchmarks/RESULTS.md on the CPU, helm/values.yaml with CUDA."""

DISK, SHARED_MEMORY = 1 * GIB, 1 * GIB

COMPUTE_SECONDS = 120.0
"""Time limit for importing TensorFlow and compiling the first operations for a GPU."""

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "google-cloud-storage", "obstore")

_NODE = "See what nvidia-smi reports on the node, or use another one."


def software() -> str:
    """Return the versions of this program, of Python and of what it depends on most."""
    installed = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in metadata.distributions()}
    packages = [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    return ", ".join([f"finetune {__version__}", f"Python {platform.python_version()}", *packages])


def gpu_checks(settings: Settings, root: Path = Path("/")) -> Group:
    """Return the checks of the GPU. TensorFlow is imported only if there is one.

    Args:
        settings: all of them; without ``device.require_gpu`` nothing about a GPU is a failure.
        root: parent of ``dev`` and ``proc``.
    """
    checks = _GpuChecks(settings, root)
    return Group(
        [
            Check("gpu", checks.look, _NODE),
            Check("gpu driver", checks.driver),
            Check("gpu libraries", checks.libraries),
            Check("gpu memory", checks.memory),
            Check("gpu computes", checks.compute, _NODE, COMPUTE_SECONDS),
        ]
    )


class _GpuChecks:
    """The checks of the GPU, the first of which finds it."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._found: gpu.Found | None = None

    def look(self) -> str | Finding:
        if not self._settings.device.require_gpu and not gpu.device_files(self._root):
            return Finding("skipped", "no GPU here: training uses the CPU", "--device.require_gpu requires one")
        count = self._settings.device.gpus
        try:
            visible = gpu.look(self._root, count=None if count == "all" else count)
        except DeviceError as error:
            return self._unusable(error)
        self._found = device.first_gpus(visible, count)
        used, *others = self._found.gpus
        more = f", and {len(others)} more that train with it" if others else ""
        unused = len(visible.gpus) - len(self._found.gpus)
        more += f", and {unused} that training does not use" if unused else ""
        return f"{used.name}, compute capability {'.'.join(map(str, used.compute_capability))}{more}"

    def driver(self) -> str | Finding:
        if self._found is None:
            return _no_gpu()
        return f"{self._found.driver or 'version unknown'}, supports CUDA up to {self._found.driver_cuda}"

    def libraries(self) -> str | Finding:
        if self._found is None:
            return _no_gpu()
        return f"CUDA {self._found.cuda or 'unknown'}, cuDNN {self._found.cudnn or 'unknown'}: all can be opened"

    def memory(self) -> str | Finding:
        if self._found is None:
            return _no_gpu()
        return readable(self._found.gpus[0].memory_bytes)

    def compute(self) -> str | Finding:
        if self._found is None:
            return _no_gpu()
        device.prepare()
        try:
            used = device.configure(self._settings)
        except DeviceError as error:
            return self._unusable(error)
        if used.kind != "gpu":
            return Finding("warning", f"TensorFlow {used.tensorflow} does not use it: training uses the CPU", _NODE)
        return f"convolutions and gradients are correct in {used.precision}, XLA {'on' if used.xla else 'off'}"

    def _unusable(self, error: DeviceError) -> Finding:
        if self._settings.device.require_gpu:
            raise error
        return Finding("warning", f"{error.message}: training uses the CPU", error.remedy)


def _no_gpu() -> Finding:
    return Finding("skipped", "no usable GPU")


def checks(settings: Settings) -> Group:
    """Return the checks of CPU, memory and disks."""
    cache = Path(settings.cache.dir) if settings.cache.dir else None
    hangs = "See to the disk or the mount that does not respond."
    return Group(
        [
            Check("cpu", check_cpu),
            Check("memory", partial(check_memory, needs_gpu=settings.device.require_gpu)),
            Check("shared memory", check_shared_memory),
            Check("cache disk", partial(check_cache, cache, settings.cache.max_bytes), hangs),
            Check("temporary files", partial(check_temporary, settings.cache.dir), hangs),
            Check(
                "ephemeral storage",
                partial(check_ephemeral, settings.cache.volume_limit_bytes, settings.cache.max_bytes),
            ),
        ]
    )


def check_cpu(cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """Check the CPUs that this process may use."""
    cpus = device.cpu_quota(cgroup)
    return f"{cpus} {'CPU' if cpus == 1 else 'CPUs'} by quota and affinity, {device.cpu_name()}"


def check_memory(found: limits.Memory | None = None, *, needs_gpu: bool = False) -> str | Finding:
    """Check that the memory suffices for a run: TensorFlow, and with a GPU, CUDA."""
    found = found or limits.memory()
    limit = "limit of the cgroup" if found.of_cgroup else "of the machine"
    detail = f"{readable(found.limit)} {limit}, {readable(found.available)} available"
    needed = GPU_MEMORY if needs_gpu else CPU_MEMORY
    if found.available < needed:
        remedy = "Raise resources.limits.memory in the chart, --memory with docker, or end other processes."
        return Finding("warning", f"{detail}; a run takes about {readable(needed)}", remedy)
    return detail


def check_shared_memory(size: int | None = None, *, gpus: int | None = None) -> str | Finding:
    """Check the shared memory, through which several GPUs exchange data."""
    size = limits.shared_memory() if size is None else size
    gpus = len(gpu.device_files()) if gpus is None else gpus
    detail = "there is no /dev/shm" if size is None else f"{readable(size)} in /dev/shm"
    if gpus > 1 and (size or 0) < SHARED_MEMORY:
        remedy = "Use the chart's Pod, which mounts 1 GiB where it has several GPUs; --shm-size=1g with docker."
        return Finding("warning", f"{detail}; NCCL needs more for {gpus} GPUs", remedy)
    return detail


def check_cache(folder: Path | None, max_bytes: int | None) -> str | Finding:
    """Check that the cache can be written, and that its budget fits on the disk.

    Raises:
        AccessError: it cannot be written.
    """
    if folder is None:
        return Finding("skipped", "cache.dir is not set: the cache is a temporary folder", "--cache.dir FOLDER")
    found = limits.disk(folder)
    if not found.writable:
        raise AccessError(
            f"cache.dir = {str(folder)!r} cannot be written: {str(found.folder)!r} is read-only or another user's",
            remedy="Mount a writable volume there (securityContext.fsGroup in Kubernetes), or name another folder.",
        )
    if max_bytes is not None and max_bytes > found.free:
        detail = f"{_space(found)}, less than cache.max_bytes = {readable(max_bytes)}"
        return Finding("warning", detail, "Free some space, use a larger volume, or lower cache.max_bytes.")
    budget = readable(found.free // 2 if max_bytes is None else max_bytes)
    return _low(found) or f"{_space(found)}; the cache takes at most {budget}"


def check_temporary(cache_dir: str) -> str | Finding:
    """Check the folder for temporary files, which holds the exported model for a while.

    Raises:
        SettingsError: there is none.
    """
    device.ensure_temp_dir(cache_dir)
    found = limits.disk(Path(tempfile.gettempdir()))
    return _low(found) or _space(found)


def check_ephemeral(limit: int | None, budget: int | None) -> str | Finding:
    """Check that the Pod's limit of ephemeral storage has room for the cache: above it the Pod is evicted.

    Args:
        limit: in bytes; None: not known.
        budget: of the cache in bytes; None: no limit.
    """
    if limit is None:
        return Finding("skipped", "the limit is not known", "the chart gives it to its Pods whose cache is an emptyDir")
    if budget is None:
        remedy = "Set cache.sizeLimit in the chart, or config.cache.max_bytes."
        return Finding("warning", f"{readable(limit)}, and the cache has no limit of its own", remedy)
    if budget + DISK > limit:
        detail = f"{readable(limit)}, and cache.max_bytes = {readable(budget)}: the Pod may be evicted"
        return Finding("warning", detail, "Raise resources.limits.ephemeral-storage, or lower cache.sizeLimit.")
    return f"{readable(limit)}, of which the cache takes at most {readable(budget)}"


class _Unit(NamedTuple):
    name: str
    size: int


_UNITS = (_Unit("TiB", 2**40), _Unit("GiB", GIB), _Unit("MiB", 2**20), _Unit("KiB", 2**10))


def readable(size: int) -> str:
    """Return a number of bytes with two or three significant digits: "1.5 GiB"."""
    for unit in _UNITS:
        if size >= unit.size:
            value = size / unit.size
            return f"{value:.1f} {unit.name}" if value < 100 else f"{value:.0f} {unit.name}"
    return f"{size} bytes"


def _space(found: limits.Disk) -> str:
    return f"{found.folder}: {readable(found.free)} of {readable(found.total)} free"


def _low(found: limits.Disk) -> Finding | None:
    if found.free >= DISK:
        return None
    return Finding("warning", f"{_space(found)}, which is little", "Free some space, or use a larger volume.")
