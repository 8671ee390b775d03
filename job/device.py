"""The machine a run works on: threads, oneDNN, determinism, GPU.

`prepare` runs before TensorFlow is imported, since TensorFlow reads these settings only then; `configure` after it.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job import config, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.config import Settings


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


def prepare() -> None:
    """Set what TensorFlow reads from the environment at its import; what the user has set stays.

    TensorFlow leaves oneDNN off on some CPUs, where it makes a training step 1.5 times faster. The C++ log is reduced
    to errors: it is not JSON.
    """
    config.set_environment_default("TF_ENABLE_ONEDNN_OPTS", "1")
    config.set_environment_default("TF_CPP_MIN_LOG_LEVEL", "2")
    # note: Keras picks its backend from a file in the user's home unless told otherwise
    config.set_environment_default("KERAS_BACKEND", "tensorflow")


def configure(settings: Settings) -> Device:
    """Import TensorFlow, set its threads and determinism, and say what the run computes on.

    Raises:
        errors.DeviceError: ``device.require_gpu`` is set and TensorFlow sees no GPU.
    """
    with _quiet_stderr():
        import tensorflow as tf

    threads = settings.device.threads or cpu_quota()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # With more than one inter-op thread, two identical runs on the CPU end in different weights, op determinism or not.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if settings.run.reproducible:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    if settings.device.require_gpu and not gpus:
        raise errors.DeviceError(
            "device.require_gpu is set, and TensorFlow sees no GPU",
            remedy="give the container a GPU (nvidia.com/gpu in the chart, --gpus all with docker) "
            "and an image built with ACCELERATOR=gpu; or set device.require_gpu=false",
        )
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else cpu_name()
    return Device(
        kind="gpu" if gpus else "cpu",
        name=name,
        cpu=cpu_name(),
        threads=threads,
        onednn=config.get_environment("TF_ENABLE_ONEDNN_OPTS") == "1",
    )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what C++ code writes to standard error out of the log, which is JSON, unless the block fails.

    TensorFlow announces oneDNN, twice, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    with tempfile.TemporaryFile() as captured:
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
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
