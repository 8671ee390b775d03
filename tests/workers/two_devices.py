"""The job on two logical CPU devices, which train as two GPUs of one process do: as a program, ``finetune``."""

import sys

from job.runtime import device, signals

signals.install()
device.prepare()

import tensorflow as tf  # noqa: E402  # it reads its environment when it is imported

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from job import __main__  # noqa: E402

sys.exit(__main__.main())
