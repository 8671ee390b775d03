"""Configures the machine that a run computes on: threads, oneDNN, determinism, GPU.

`prepare` runs before TensorFlow is imported, since TensorFlow reads its environment only then; `configure` imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import platform
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from job import errors
from job.config import environment
from job.observability import log
from job.runtime import gpu, imports, native_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from job.config.settings import DeviceSettings, Settings

Precision = Literal["float32", "bfloat16", "float16"]
"""Data types of a training step."""


class Notify(Protocol):
    """Receives an event, as `Progress.event` does."""

    def __call__(self, name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
        """Receive an event: its name, severity and facts."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that the run computes on.

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
    """Of the backbone during a training step of stage 2; everything else is float32."""
    xla: bool = False
    """Whether the training step is compiled with XLA."""
    memory_growth: bool = False
    """Whether GPU memory is allocated on demand."""
    gpus: tuple[gpu.Gpu, ...] = ()
    """The GPUs in use; empty on the CPU."""
    replicas: int = 1
    """Devices that train together: the GPUs in use, or 1."""
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None

    def numerics(self) -> dict[str, object]:
        """Return the facts that determine the last bits of a float32 computation."""
        names = ("name", "cpu", "threads", "onednn", "tensorflow", "cuda", "cudnn")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return the facts that a later start of this run needs.

        It keeps the number of threads and, if its device supports them, precision and XLA. `cpu`, `gpu` (the GPU's
        name, or None) and `replicas` may change.
        """
        gpu_name = self.name if self.kind == "gpu" else None
        return {
            "threads": self.threads,
            "precision": self.precision,
            "xla": self.xla,
            "cpu": self.cpu,
            "gpu": gpu_name,
            "replicas": self.replicas,
        }

    def changes(self, before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the differences from the facts of an earlier start: ``{"before": {…}, "now": {…}}``, or ``{}``."""
        now = self.facts()
        changed = [name for name in now if name in before and before[name] != now[name]]
        if not changed:
            return {}
        return {"before": {name: before[name] for name in changed}, "now": {name: now[name] for name in changed}}


def prepare() -> None:
    """Set the environment variables that TensorFlow reads when imported; keep those that the user has set.

    TensorFlow disables oneDNN on some CPUs where it makes a training step 1.5 times faster. The C++ log is limited to
    fatal messages: it is not JSON, reports errors that are none, and real errors are raised as exceptions as well.
    """
    environment.set_default("TF_ENABLE_ONEDNN_OPTS", "1")
    environment.set_default("TF_CPP_MIN_LOG_LEVEL", "3")
    # note: otherwise Keras reads its backend from a file in the user's home
    environment.set_default("KERAS_BACKEND", "tensorflow")


def import_tensorflow() -> None:
    """Import TensorFlow, and drop what it writes to stderr meanwhile. Call `prepare` before."""
    with _quiet_stderr(), imports.fast():
        import tensorflow  # noqa: F401, ICN001


def log_event(name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
    """Write an event to the log, for use without a stream of events."""
    log.get().bind(**facts).log(getattr(logging, severity.upper()), name)


def configure(
    settings: Settings,
    *,
    before: Mapping[str, Any] = MappingProxyType({}),
    notify: Notify = log_event,
    single: bool = False,
    connect: Callable[[], int] = lambda: 1,
) -> Device:
    """Import TensorFlow, set its threads and determinism, and return the device that the run computes on.

    Each logical CPU device that the process has configured before (tf.config.set_logical_device_configuration) counts
    as a replica on the CPU.

    Args:
        settings: all of them.
        before: the `Device.facts` of an earlier start of this run. Its threads are kept and, if this device supports
            them, its precision and XLA: the bits depend on them.
        notify: receives the events; the log by default.
        single: use one device, for work that is not spread over several.
        connect: called before TensorFlow's first operation: connects the run's workers, and returns their number.

    Raises:
        errors.DeviceError: ``device.require_gpu`` is set and no GPU can be used; the message has the reason. Or there
            are fewer GPUs than ``device.gpus``.
        errors.SettingsError: there is no directory for temporary files.
    """
    ensure_temp_dir(settings.cache.dir)
    set_kernel_cache(settings.cache.dir)
    count = 1 if single else settings.device.gpus
    found = find_gpus(count, required=settings.device.require_gpu)
    import_tensorflow()
    import tensorflow as tf

    if found:
        built_for = tf.sysconfig.get_build_info().get("cuda_compute_capabilities")
        if not have_kernels(found, built_for, required=settings.device.require_gpu, notify=notify):
            found = None
    threads = before.get("threads") or settings.device.threads or cpu_quota()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # With more than one inter-op thread, identical runs on the CPU give different weights, even with op determinism.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if settings.run.reproducible:
        tf.config.experimental.enable_op_determinism()
    # TensorFloat-32 changes probabilities by up to 0.01: float32 means float32, on a GPU too. It is disabled before the
    # first operation, so that it affects none.
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
        tf.config.set_visible_devices([], "GPU")  # an unusable GPU would fail later, with a worse message
        [cpu] = tf.config.list_physical_devices("CPU")
        logical = tf.config.get_logical_device_configuration(cpu) or [cpu]
        workers = connect()
        return dataclasses.replace(machine, replicas=workers * (1 if single or workers > 1 else len(logical)))
    return _configure_gpus(machine, found, settings.device, before, notify, connect)


def set_kernel_cache(cache_dir: str) -> None:
    """Set the driver's cache of compiled kernels: its default, ~/.nv, rarely outlives a container.

    Call it before TensorFlow is imported.

    Args:
        cache_dir: of the settings; empty: leave the default.
    """
    if cache_dir:
        environment.set_default("CUDA_CACHE_PATH", str(Path(cache_dir).absolute() / "cuda-kernels"))


def ensure_temp_dir(cache_dir: str) -> None:
    """Ensure that a directory for temporary files exists: TensorFlow's import needs it, and a container may have none.

    Args:
        cache_dir: used if there is no other one.

    Raises:
        errors.SettingsError: there is none, and `cache_dir` is empty.
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


def find_gpus(count: int | Literal["all"], *, required: bool, root: Path = Path("/")) -> gpu.Found | None:
    """Return the GPUs to compute on; None: the CPU.

    Args:
        count: how many, the first of those that are visible.
        required: fail instead of using the CPU.
        root: parent of ``dev`` and ``proc``.

    Raises:
        errors.DeviceError: a GPU is required, and none can be used; or fewer than `count` are visible.
    """
    if not required and not gpu.device_files(root):
        return None
    try:
        found = gpu.look(root, count=None if count == "all" else count)
    except errors.DeviceError as error:
        if required:
            raise
        _ignore_gpu(error)
        return None
    return first_gpus(found, count)


def first_gpus(found: gpu.Found, count: int | Literal["all"]) -> gpu.Found:
    """Return `found` with only the first GPUs.

    Raises:
        errors.DeviceError: there are fewer.
    """
    if count == "all":
        return found
    if len(found.gpus) < count:
        raise errors.DeviceError(
            f"device.gpus is {count}, and {len(found.gpus)} are visible",
            remedy=f"give the container {count} GPUs, or set device.gpus to all",
        )
    return dataclasses.replace(found, gpus=found.gpus[:count])


def _ignore_gpu(error: errors.DeviceError) -> None:
    log.get().warning("device.gpu_ignored", why=error.message, note="the run uses the CPU")


def have_kernels(found: gpu.Found, built_for: Sequence[str] | None, *, required: bool, notify: Notify) -> bool:
    """Return whether TensorFlow has kernels for all GPUs; if not, the run uses the CPU.

    Args:
        found: the GPUs to compute on.
        built_for: the architectures that TensorFlow has kernels for; None: unknown.
        required: fail instead of using the CPU.
        notify: receives ``device.kernels_compiled_at_first_use``.

    Raises:
        errors.DeviceError: a GPU is required, and TensorFlow has no kernels for one of these.
    """
    try:
        late = [used for used in found.gpus if gpu.compiled_at_first_use(used, built_for)]
    except errors.DeviceError as error:
        if required:
            raise
        _ignore_gpu(error)
        return False
    if late:
        notify(
            "device.kernels_compiled_at_first_use",
            severity="warning",
            gpu=late[0].name,
            compute_capability=late[0].compute_capability,
            built_for=built_for,
            note="TensorFlow has no compiled kernels for this GPU, so the driver compiles each one when it is first "
            "used. This can take 30 minutes or longer",
        )
    return True


def precision(settings: DeviceSettings, gpus: Sequence[gpu.Gpu], before: Precision | None = None) -> Precision:
    """Return the precision of a training step of stage 2.

    Args:
        settings: the requested one; ``auto``: `before` if these GPUs support it, else the first of `precisions`.
        gpus: the GPUs in use; empty: the CPU.
        before: the precision of an earlier start of this run.
    """
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    offered = precisions(gpus)
    return before if before in offered else offered[0]


def precisions(gpus: Sequence[gpu.Gpu]) -> tuple[Precision, ...]:
    """Return the precisions that all GPUs support in hardware, the preferred one first; only float32 on the CPU.

    Tensor cores support float16 from compute capability 7.0, and bfloat16, which needs no loss scaling, from 8.0
    (CUDA C++ Programming Guide, "Compute Capabilities").
    """
    lowest = min((used.compute_capability for used in gpus), default=(0, 0))
    if lowest >= (8, 0):
        return "bfloat16", "float16", "float32"
    return ("float16", "float32") if lowest >= (7, 0) else ("float32",)


def memory_peaks(machine: Device) -> dict[str, int | None]:
    """Return the peak memory so far in bytes: of the GPU with the highest (None on the CPU) and of the process."""
    import tensorflow as tf

    peaks = [tf.config.experimental.get_memory_info(f"GPU:{number}")["peak"] for number, _ in enumerate(machine.gpus)]
    on_device = max(peaks, default=None)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"device_peak_bytes": on_device, "resident_peak_bytes": resident}


def requested_xla(
    settings: DeviceSettings, before: Mapping[str, Any], replicas: int = 1, notify: Notify = log_event
) -> bool | None:
    """Return whether to compile a GPU's training step with XLA; None: if XLA works on the device.

    Args:
        settings: the requested value; null: no if an earlier start on a GPU did without, since the bits depend on it,
            and no with several replicas: TensorFlow has open bugs there (tensorflow#90686, tensorflow#120579).
        before: the `Device.facts` of an earlier start of this run.
        replicas: devices that train together.
        notify: receives ``device.xla_off``.
    """
    if settings.xla is None and replicas > 1:
        notify("device.xla_off", replicas=replicas, note="several replicas train without XLA unless device.xla is true")
        return False
    if settings.xla is None and before.get("gpu") and not before.get("xla"):
        return False
    return settings.xla


def _configure_gpus(
    machine: Device,
    found: gpu.Found,
    settings: DeviceSettings,
    before: Mapping[str, Any],
    notify: Notify,
    connect: Callable[[], int],
) -> Device:
    import tensorflow as tf

    gpus = len(found.gpus)
    devices = tf.config.list_physical_devices("GPU")
    if len(devices) < gpus:
        raise errors.DeviceError(
            f"the driver offers {gpus} GPUs ({found.gpus[0].name}), and TensorFlow takes {len(devices)}",
            remedy="set TF_CPP_MIN_LOG_LEVEL=0 to see what TensorFlow says about it",
        )
    # Only those in use are visible: TensorFlow would initialize the others too, and allocate memory on each.
    tf.config.set_visible_devices(devices[:gpus], "GPU")
    memory_growth = settings.memory_growth is not False
    for device in devices[:gpus]:
        tf.config.experimental.set_memory_growth(device, memory_growth)
    replicas = connect() * gpus
    xla = requested_xla(settings, before, replicas, notify)
    for number in range(gpus):
        xla = check(f"GPU:{number}", machine.precision, xla=xla)
    return dataclasses.replace(
        machine,
        kind="gpu",
        name=found.gpus[0].name,
        xla=bool(xla),
        memory_growth=memory_growth,
        gpus=found.gpus,
        replicas=replicas,
        driver=found.driver,
        cuda=found.cuda,
        cudnn=found.cudnn,
    )


def check(device: str, dtype: Precision, *, xla: bool | None) -> bool:
    """Check that the device computes the operations of training, and return whether XLA is used.

    The forward pass is never compiled with XLA; the training step, in `dtype`, is compiled according to `xla`. Without
    XLA and with op determinism, TensorFlow may have no kernel for the gradient of a depthwise convolution, so gradients
    are checked only in the mode that training uses.

    Args:
        device: TensorFlow's name for it, "GPU:0".
        dtype: precision of the training step.
        xla: whether the training step is compiled with XLA; None: if XLA works on the device.

    Raises:
        errors.DeviceError: a computation failed or returned a wrong result.
    """
    from job.runtime import device_check  # note: imports NumPy, which would delay the report of invalid settings

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
    """Drop what C++ code writes to stderr, unless the block fails: the log is JSON.

    TensorFlow announces oneDNN twice, regardless of TF_CPP_MIN_LOG_LEVEL.
    """
    with native_stderr.open_memory_file() as captured:
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

    TensorFlow counts the host's cores, so a container with a quota would be throttled.

    Args:
        cgroup: mount point of the cgroup file system, version 1 or 2.
    """
    cpus = len(os.sched_getaffinity(0))
    quota, period = _quota(cgroup)
    return max(1, min(cpus, math.ceil(quota / period)) if quota > 0 else cpus)


def _quota(cgroup: Path) -> tuple[int, int]:
    """Return the quota and its period in microseconds; a quota of -1 means no limit."""
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
