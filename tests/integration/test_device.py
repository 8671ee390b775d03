"""How TensorFlow is configured before it starts, in processes of their own; and its compiler, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from job.runtime import device, device_check

SEEN = """
import json, os, sys
from job.config.load import load_settings; from job.runtime import device
device.prepare()
machine = device.configure(load_settings(sys.argv[1:]).settings)
import tensorflow as tf
from tensorflow.python.framework import config as framework
threads = tf.config.threading
print(json.dumps({
    "inter_op": threads.get_inter_op_parallelism_threads(),
    "intra_op": [threads.get_intra_op_parallelism_threads(), machine.threads],
    "onednn": [os.environ["TF_ENABLE_ONEDNN_OPTS"], machine.onednn],
    "cuda_cache": os.environ.get("CUDA_CACHE_PATH"),
    "deterministic": framework.is_op_determinism_enabled(),
    "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
}))
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (
            (),
            {},
            {
                "inter_op": 1,
                "intra_op": [device.cpu_quota()] * 2,
                "onednn": ["1", True],
                "cuda_cache": None,
                "deterministic": True,
                "tf32": False,
            },
        ),
        (
            ("--run.reproducible", "false", "--device.threads", "1", "--cache.dir", "/volume"),
            {"TF_ENABLE_ONEDNN_OPTS": "0"},
            {
                "inter_op": 1,
                "intra_op": [1, 1],
                "onednn": ["0", False],
                "cuda_cache": "/volume/cuda-kernels",
                "deterministic": False,
                "tf32": False,
            },
        ),
    ],
)
def test_what_tensorflow_is_told(
    arguments: tuple[str, ...], environment: dict[str, str], expected: dict[str, object]
) -> None:
    """One inter-op thread, an intra-op thread for each CPU, oneDNN, determinism, and float32 that is float32.

    The driver's compiled kernels go to the cache volume, if there is one.
    """
    known = ("TF_ENABLE_ONEDNN_OPTS", "CUDA_CACHE_PATH")
    unset = {name: value for name, value in os.environ.items() if name not in known}
    command = [sys.executable, "-c", SEEN, *arguments]
    seen = subprocess.run(command, env=unset | environment, capture_output=True, text=True, check=True)

    assert expected == json.loads(seen.stdout.splitlines()[-1])


def test_xla_is_not_kept_on_the_cpu() -> None:
    """A run that was compiled with XLA on a GPU resumes without it on the CPU, with its number of threads."""
    before = {"gpu": "NVIDIA L4", "xla": True, "precision": "bfloat16", "threads": 1, "cpu": "another"}
    code = f"""
import json
from job.config.load import load_settings; from job.runtime import device
device.prepare()
machine = device.configure(load_settings([]).settings, before={before!r})
print(json.dumps([machine.facts(), machine.changes({before!r}), machine.changes(machine.facts())]))
"""
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts, changes, no_changes = json.loads(seen.stdout.splitlines()[-1])

    now = {"precision": "float32", "xla": False, "cpu": device.cpu_name(), "gpu": None}
    assert {"threads": 1, "replicas": 1, **now} == facts
    assert {"before": {name: before[name] for name in now}, "now": now} == changes
    assert {} == no_changes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("gradients", [False, True])
def test_device_that_computes_with_xla(dtype: str, gradients: bool) -> None:
    """A device that computes what XLA compiles passes without a warning."""
    device_check.check("CPU:0", dtype, xla=True, gradients=gradients)
