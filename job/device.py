"""The machine a run works on: threads, oneDNN, determinism, GPU.

`prepare` runs before TensorFlow is imported, since TensorFlow reads these settings only then; `configure` after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from job import config, errors, gpu, log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import tensorflow as tf

    from job.config import DeviceSettings, Settings

Precision = Literal["float32", "bfloat16", "float16"]
"""What can be computed in."""


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
    config.set_environment_default("TF_ENABLE_ONEDNN_OPTS", "1")
    config.set_environment_default("TF_CPP_MIN_LOG_LEVEL", "3")
    # note: Keras picks its backend from a file in the user's home unless told otherwise
    config.set_environment_default("KERAS_BACKEND", "tensorflow")


def configure(settings: Settings, *, before: Mapping[str, Any] = MappingProxyType({})) -> Device:
    """Import TensorFlow, set its threads and determinism, and say what the run computes on.

    Args:
        settings: all of them.
        before: the `Device.facts` of an earlier start of this run. Its threads are kept, and its precision and XLA where
            this device can: the bits depend on them.

    Raises:
        errors.DeviceError: ``device.require_gpu`` is set and no GPU can be used; the message says why.
        errors.SettingsError: there is no folder for temporary files.
    """
    have_temporary_folder(settings.cache.dir)
    found = find_gpus(required=settings.device.require_gpu)
    with _quiet_stderr():
        import tensorflow as tf

    threads = before.get("threads") or settings.device.threads or cpu_quota()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # With more than one inter-op thread, two identical runs on the CPU end in different weights, op determinism or not.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if settings.run.reproducible:
        tf.config.experimental.enable_op_determinism()
    # TensorFloat-32 changes probabilities by up to 0.01: float32 means float32, on a GPU too. Before the first operation,
    # since functions that are traced keep what they were traced with.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    machine = Device(
        kind="cpu",
        name=cpu_name(),
        cpu=cpu_name(),
        threads=threads,
        onednn=config.get_environment("TF_ENABLE_ONEDNN_OPTS") == "1",
        tensorflow=tf.__version__,
        precision=precision(settings.device, found.gpus if found else (), before.get("precision")),
        xla=bool(settings.device.xla),
    )
    if found is None:
        tf.config.set_visible_devices([], "GPU")  # one that cannot be used fails later, and says less
        return machine
    return _configure_gpus(machine, found, settings.device, before)


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
        config.set_environment_default("TMPDIR", cache_dir)  # for child processes


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
        log.get().warning("device.gpu_ignored", why=error.message, note="the run goes on, on the CPU")
        return None


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


def wants_xla(settings: DeviceSettings, before: Mapping[str, Any]) -> bool:
    """Return whether a GPU's training step is compiled with XLA, unless XLA turns out not to work there.

    Args:
        settings: what is asked for; null: as an earlier start did on a GPU, else yes.
        before: the `Device.facts` of an earlier start of this run.
    """
    if settings.xla is not None:
        return settings.xla
    return bool(before["xla"]) if before.get("gpu") else True


def convolve(device: str, dtype: Precision, *, xla: bool) -> None:
    """Run one convolution, to see that the device computes at all.

    Args:
        device: TensorFlow's name of it, "GPU:0".
        dtype: of its numbers.
        xla: compiled with XLA, which needs more of CUDA than TensorFlow does.

    Raises:
        errors.DeviceError: it failed, or its result is wrong.
    """
    import tensorflow as tf

    def convolution() -> tf.Tensor:
        return tf.nn.conv2d(tf.ones((1, 8, 8, 3), dtype), tf.ones((3, 3, 3, 4), dtype), strides=1, padding="VALID")

    seen = ""
    try:
        with tf.device(device):
            result = tf.function(convolution, jit_compile=xla)()
        if not result.device.endswith(device):  # TensorFlow takes the CPU in silence where there is no such device
            seen = f"it ran on {result.device}"
        elif (wrong := tf.cast(result, tf.float32).numpy() != 27).any():  # 3 x 3 pixels of 3 channels, all of them 1
            seen = f"{wrong.mean():.0%} of its result is wrong"
    except tf.errors.OpError as error:
        seen = error.message.strip().partition("\n")[0]
    if seen:
        raise errors.DeviceError(
            f"a convolution on {device}{' with XLA' if xla else ''} failed: {seen}",
            remedy="see what nvidia-smi says on the node, or run on another one"
            + (", or set device.xla=false" if xla else ""),
        )


def _configure_gpus(
    machine: Device, found: gpu.Found, settings: DeviceSettings, before: Mapping[str, Any]
) -> Device:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        raise errors.DeviceError(
            f"the driver offers {len(found.gpus)} GPUs ({found.gpus[0].name}), and TensorFlow takes none of them",
            remedy="set TF_CPP_MIN_LOG_LEVEL=0 to see what TensorFlow says about them",
        )
    memory_growth = settings.memory_growth is not False
    for one in devices:
        tf.config.experimental.set_memory_growth(one, memory_growth)
    names = [f"GPU:{number}" for number in range(len(devices))]
    xla = wants_xla(settings, before)
    for name in names:
        convolve(name, machine.precision, xla=False)
        try:
            if xla:
                convolve(name, machine.precision, xla=True)
        except errors.DeviceError as error:
            if settings.xla:
                raise
            log.get().warning("device.xla_ignored", why=error.message)
            xla = False
    return dataclasses.replace(
        machine,
        kind="gpu",
        name=found.gpus[0].name,
        xla=xla,
        memory_growth=memory_growth,
        gpus=found.gpus,
        driver=found.driver,
        cuda=found.cuda,
        cudnn=found.cudnn,
    )


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
