"""The machine a run works on: threads, oneDNN, determinism, GPU.

`prepare` runs before TensorFlow is imported, since TensorFlow reads these settings only then; `configure` after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import platform
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from job import errors
from job.config import environment
from job.observability import log
from job.runtime import gpu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from job.config.settings import DeviceSettings, Settings

Precision = Literal["float32", "bfloat16", "float16"]
"""What can be computed in."""


class Notify(Protocol):
    """Receives an event, as `Progress.event` does."""

    def __call__(self, name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
        """Receive an event: its name, how much it matters, and its facts."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the run computes on.

    The bits of the result depend on `cpu` and `threads`, so both are recorded with the run.
    """

    kind: str
    """"gpu" or "cpu"."""
    name: str
    """The GPU's name, or the CPU's."""
    cpu: str
    threads: int
    """Intra-op threads."""
    onednn: bool
    tensorflow: str
    """Its version."""
    precision: Precision = "float32"
    """What the backbone computes in during a training step of stage 2; everything else is float32."""
    xla: bool = False
    """The training step is compiled with XLA."""
    memory_growth: bool = False
    """The GPU's memory is taken as it is needed."""
    gpus: tuple[gpu.Gpu, ...] = ()
    """The GPU that is used; empty on the CPU."""
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None

    def numerics(self) -> dict[str, object]:
        """Return what the last bits of a float32 computation depend on."""
        names = ("name", "cpu", "threads", "onednn", "tensorflow", "cuda", "cudnn")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return what a later start of this run must know of this one: what it keeps where its device can.

        The number of threads, the precision and XLA are kept; `cpu` and `gpu` (the GPU's name, or None) cannot be.
        """
        gpu_name = self.name if self.kind == "gpu" else None
        return {
            "threads": self.threads,
            "precision": self.precision,
            "xla": self.xla,
            "cpu": self.cpu,
            "gpu": gpu_name,
        }

    def changes(self, before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what differs from the facts of an earlier start: ``{"before": {…}, "now": {…}}``, or nothing."""
        now = self.facts()
        changed = [name for name in now if name in before and before[name] != now[name]]
        if not changed:
            return {}
        return {"before": {name: before[name] for name in changed}, "now": {name: now[name] for name in changed}}


def prepare() -> None:
    """Set what TensorFlow reads from the environment at its import; what the user has set stays.

    TensorFlow leaves oneDNN off on some CPUs, where it makes a training step 1.5 times faster. The C++ log is reduced
    to what ends the process: it is not JSON, calls errors what is none, and what is one is raised as well.
    """
    environment.set_default("TF_ENABLE_ONEDNN_OPTS", "1")
    environment.set_default("TF_CPP_MIN_LOG_LEVEL", "3")
    # note: Keras picks its backend from a file in the user's home unless told otherwise
    environment.set_default("KERAS_BACKEND", "tensorflow")


def log_event(name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
    """Write an event to the log, where there is no stream of events."""
    log.get().bind(**facts).log(getattr(logging, severity.upper()), name)


def configure(
    settings: Settings, *, before: Mapping[str, Any] = MappingProxyType({}), notify: Notify = log_event
) -> Device:
    """Import TensorFlow, set its threads and determinism, and say what the run computes on.

    Args:
        settings: all of them.
        before: the `Device.facts` of an earlier start of this run. Its threads are kept, and its precision and XLA
            where this device can: the bits depend on them.
        notify: receives the events; the log by default.

    Raises:
        errors.DeviceError: ``device.require_gpu`` is set and no GPU can be used; the message says why.
        errors.SettingsError: there is no folder for temporary files.
    """
    have_temporary_folder(settings.cache.dir)
    if settings.cache.dir:
        # Where the driver keeps the kernels that it compiles. Its default, ~/.nv, seldom outlives a container.
        # note: before the driver is loaded
        environment.set_default("CUDA_CACHE_PATH", str(Path(settings.cache.dir).absolute() / "cuda-kernels"))
    found = find_gpus(required=settings.device.require_gpu)
    with _quiet_stderr():
        import tensorflow as tf

    if found:
        built_for = tf.sysconfig.get_build_info().get("cuda_compute_capabilities")
        found = select_gpu(found, built_for, required=settings.device.require_gpu, notify=notify)
    threads = before.get("threads") or settings.device.threads or cpu_quota()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # With more than one inter-op thread, two identical runs on the CPU end in different weights, op determinism or not.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if settings.run.reproducible:
        tf.config.experimental.enable_op_determinism()
    # TensorFloat-32 changes probabilities by up to 0.01: float32 means float32, on a GPU too. It is switched off before
    # the first operation, so that all that is computed is alike.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    machine = Device(
        kind="cpu",
        name=cpu_name(),
        cpu=cpu_name(),
        threads=threads,
        onednn=environment.get("TF_ENABLE_ONEDNN_OPTS") == "1",
        tensorflow=tf.__version__,
        precision=precision(settings.device, found.gpus if found else (), before.get("precision")),
        xla=bool(settings.device.xla),
    )
    if found is None:
        tf.config.set_visible_devices([], "GPU")  # one that cannot be used fails later, and says less
        return machine
    return _configure_gpu(machine, found, settings.device, before)


def have_temporary_folder(cache_dir: str) -> None:
    """Have a folder for temporary files, without which TensorFlow cannot be imported: a container may have none.

    Args:
        cache_dir: serves where there is no other one.

    Raises:
        errors.SettingsError: it is not set, and there is no other one.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        if not cache_dir:
            raise errors.SettingsError(
                f"cache.dir is not set, and there is no other folder that can be written as uid {os.getuid()}: "
                "not even /tmp",
                remedy="mount a writable volume, and set cache.dir to it; or have /tmp: --tmpfs /tmp with docker",
            ) from error
        tempfile.tempdir = cache_dir
        environment.set_default("TMPDIR", cache_dir)  # for child processes


def find_gpus(*, required: bool, root: Path = Path("/")) -> gpu.Found | None:
    """Return the GPUs to compute on; None: the CPU.

    Args:
        required: the run is not to fall back to the CPU.
        root: where ``dev`` and ``proc`` are.

    Raises:
        errors.DeviceError: one is required, and none can be used.
    """
    if not required and not gpu.device_files(root):
        return None
    try:
        return gpu.look(root)
    except errors.DeviceError as error:
        if required:
            raise
        _ignore_gpu(error)
        return None


def _ignore_gpu(error: errors.DeviceError) -> None:
    log.get().warning("device.gpu_ignored", why=error.message, note="the run uses the CPU")


def select_gpu(
    found: gpu.Found, built_for: Sequence[str] | None, *, required: bool, notify: Notify
) -> gpu.Found | None:
    """Return `found` with the one GPU that the run uses, the first; None: the CPU.

    Args:
        found: all visible GPUs.
        built_for: the architectures that TensorFlow has kernels for; None: not known.
        required: fail instead of using the CPU.
        notify: receives ``device.gpus_unused`` and ``device.kernels_compiled_at_first_use``.

    Raises:
        errors.DeviceError: a GPU is required, and TensorFlow has no kernels for this one.
    """
    used, *unused = found.gpus
    try:
        compiled_at_first_use = gpu.compiled_at_first_use(used, built_for)
    except errors.DeviceError as error:
        if required:
            raise
        _ignore_gpu(error)
        return None
    if unused:
        notify(
            "device.gpus_unused",
            severity="warning",
            count=len(unused),
            used=used.name,
            note="training uses the first visible GPU only: request one GPU until several are supported",
        )
    if compiled_at_first_use:
        notify(
            "device.kernels_compiled_at_first_use",
            severity="warning",
            gpu=used.name,
            compute_capability=used.compute_capability,
            built_for=built_for,
            note="TensorFlow has no compiled kernels for this GPU, so the driver compiles each one when it is first "
            "used. This can take 30 minutes or longer",
        )
    return dataclasses.replace(found, gpus=(used,))


def precision(settings: DeviceSettings, gpus: Sequence[gpu.Gpu], before: Precision | None = None) -> Precision:
    """Return what a training step of stage 2 computes in.

    Args:
        settings: what is asked for; ``auto``: the earlier start's where these GPUs can, else the first of `precisions`.
        gpus: what is computed on; empty: the CPU.
        before: what an earlier start of this run computed in.
    """
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    offered = precisions(gpus)
    return before if before in offered else offered[0]


def precisions(gpus: Sequence[gpu.Gpu]) -> tuple[Precision, ...]:
    """Return what every one of the GPUs was made for, the preferred one first; float32 alone on the CPU.

    Tensor cores have float16 from compute capability 7.0 on, and bfloat16, which needs no loss scaling, from 8.0 on
    (CUDA C++ Programming Guide, "Compute Capabilities").
    """
    least = min((one.compute_capability for one in gpus), default=(0, 0))
    if least >= (8, 0):
        return "bfloat16", "float16", "float32"
    return ("float16", "float32") if least >= (7, 0) else ("float32",)


def memory_peaks(machine: Device) -> dict[str, int | None]:
    """Return the most bytes that were in use at once so far: on the GPU (None on the CPU), and of the process."""
    import tensorflow as tf

    on_device = tf.config.experimental.get_memory_info("GPU:0")["peak"] if machine.kind == "gpu" else None
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"device_peak_bytes": on_device, "resident_peak_bytes": resident}


def asked_xla(settings: DeviceSettings, before: Mapping[str, Any]) -> bool | None:
    """Return whether a GPU's training step is to be compiled with XLA; None: if XLA works there.

    Args:
        settings: what is asked for; null: no if an earlier start did without it on a GPU, since the bits depend on it.
        before: the `Device.facts` of an earlier start of this run.
    """
    if settings.xla is None and before.get("gpu") and not before.get("xla"):
        return False
    return settings.xla


def _configure_gpu(machine: Device, found: gpu.Found, settings: DeviceSettings, before: Mapping[str, Any]) -> Device:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        raise errors.DeviceError(
            f"the driver offers {found.gpus[0].name}, and TensorFlow does not take it",
            remedy="set TF_CPP_MIN_LOG_LEVEL=0 to see what TensorFlow says about it",
        )
    # Only the first is used: TensorFlow would initialize the others too, and take memory on each.
    tf.config.set_visible_devices(devices[:1], "GPU")
    memory_growth = settings.memory_growth is not False
    tf.config.experimental.set_memory_growth(devices[0], memory_growth)
    return dataclasses.replace(
        machine,
        kind="gpu",
        name=found.gpus[0].name,
        xla=check("GPU:0", machine.precision, xla=asked_xla(settings, before)),
        memory_growth=memory_growth,
        gpus=found.gpus,
        driver=found.driver,
        cuda=found.cuda,
        cudnn=found.cudnn,
    )


def check(device: str, dtype: Precision, *, xla: bool | None) -> bool:
    """Check that the device computes what training runs on it, and return whether it does so with XLA.

    The forward pass is never compiled with XLA; the training step, in `dtype`, is compiled as `xla` says. Without XLA
    and with op determinism, TensorFlow may have no kernel for the gradient of a depthwise convolution, so gradients are
    checked only in the way that they are computed.

    Args:
        device: TensorFlow's name for it, "GPU:0".
        dtype: what the training step computes in.
        xla: whether the training step is compiled with XLA; None: if XLA works on the device.

    Raises:
        errors.DeviceError: a computation failed or returned a wrong result.
    """
    from job.runtime import device_check  # note: with NumPy, which a mistake in the settings need not wait for

    for forward in dict.fromkeys(("float32", dtype)):
        device_check.check(device, forward, xla=False, gradients=False)
    if xla is not False:
        try:
            device_check.check(device, dtype, xla=True)
        except errors.DeviceError as error:
            if xla:
                raise
            log.get().warning("device.xla_ignored", why=error.message)
        else:
            return True
    device_check.check(device, dtype, xla=False)
    return False


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what C++ code writes to standard error out of the log, which is JSON, unless the block fails.

    TensorFlow announces oneDNN, twice, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    # In memory on Linux: a container may have no folder for temporary files, and that is said elsewhere.
    in_memory = sys.platform == "linux"
    with open(os.memfd_create("stderr"), "w+b") if in_memory else tempfile.TemporaryFile() as captured:  # noqa: PTH123
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: the smaller of its affinity and its cgroup's quota, rounded up.

    TensorFlow counts the host's cores, so that a container with a quota is throttled.

    Args:
        cgroup: where the cgroup file system is mounted; version 2 and version 1 are understood.
    """
    cpus = len(os.sched_getaffinity(0))
    quota, period = _quota(cgroup)
    return max(1, min(cpus, math.ceil(quota / period)) if quota > 0 else cpus)


def _quota(cgroup: Path) -> tuple[int, int]:
    """Return the quota and its period in microseconds; a quota of -1 is none."""
    try:
        if (cgroup / "cpu.max").exists():  # version 2
            quota, period = (cgroup / "cpu.max").read_text().split()
            return (-1, 1) if quota == "max" else (int(quota), int(period))
        cpu = cgroup / "cpu"  # version 1
        return int((cpu / "cpu.cfs_quota_us").read_text()), int((cpu / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return -1, 1


def cpu_name() -> str:
    """Return the CPU's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
