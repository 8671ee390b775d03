"""Checks a device with the operations that training needs: convolutions, depthwise ones too, and their gradients.

The operands are arguments of the compiled functions: TensorFlow and XLA fold constants, so with constant operands the
result would be computed on the CPU during compilation, which proves nothing about the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job.errors import DeviceError

if TYPE_CHECKING:
    import tensorflow as tf
    from numpy.typing import NDArray

_OUTPUTS = ("result", "gradient for the input", "gradient for the kernel")
_TOLERANCE = 0.25
"""All expected values are integers, so a larger error is not rounding. Fast algorithms (Winograd, FFT) do round."""


class Case(NamedTuple):
    """A 3 x 3 convolution with stride 1 and padding "same", of small integers.

    Attributes:
        name: for messages.
        depthwise: whether each channel has its own kernel.
        inputs: [images, height, width, channels]; all arrays are float64.
        kernel: [3, 3, channels, outputs], or [3, 3, channels, 1] if depthwise.
        upstream: gradient of the result, [images, height, width, outputs].
    """

    name: str
    depthwise: bool
    inputs: NDArray[Any]
    kernel: NDArray[Any]
    upstream: NDArray[Any]

    def expected(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the result and the gradients of input and kernel, float64, computed by NumPy from the definition."""
        output = "c" if self.depthwise else "o"
        of_kernel = "abc" if self.depthwise else "abco"
        kernel = self.kernel[..., 0] if self.depthwise else self.kernel
        windows, upstream_windows = _windows(self.inputs), _windows(self.upstream)
        return (
            np.einsum(f"nhwcab,{of_kernel}->nhw{output}", windows, kernel),
            np.einsum(f"nhw{output}ab,{of_kernel}->nhwc", upstream_windows, kernel[::-1, ::-1]),
            np.einsum(f"nhwcab,nhw{output}->{of_kernel}", windows, self.upstream).reshape(self.kernel.shape),
        )

    def function(self, *, xla: bool, gradients: bool = True) -> tf.types.experimental.PolymorphicFunction:
        """Return a function of inputs, kernel and upstream that computes the values of `expected`.

        Args:
            xla: compile it with XLA.
            gradients: compute all three values; otherwise only the result.
        """
        import tensorflow as tf

        convolve = tf.nn.depthwise_conv2d if self.depthwise else tf.nn.conv2d

        def compute(inputs: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                result = convolve(inputs, kernel, strides=(1, 1, 1, 1), padding="SAME")
            if not gradients:
                return (result,)
            return result, *tape.gradient(result, [inputs, kernel], output_gradients=upstream)

        return tf.function(compute, autograph=False, jit_compile=xla or None)

    def operands(self, dtype: str) -> list[tf.Tensor]:
        """Return inputs, kernel and upstream as tensors of `dtype` in the CPU's memory."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            return [tf.cast(array, dtype) for array in (self.inputs, self.kernel, self.upstream)]


def cases() -> tuple[Case, Case]:
    """Return a convolution and a depthwise convolution.

    All operands are -1, 0 or 1, and every expected value is a sum of at most 144 products of two of them: an integer
    that float32, float16 and bfloat16 (exact up to 256) represent exactly.
    """
    draw = np.random.default_rng(0)

    def integers(*shape: int) -> NDArray[Any]:
        return draw.integers(-1, 2, shape).astype(np.float64)

    narrow, wide = (2, 8, 8, 8), (2, 8, 8, 16)
    return (
        Case("a convolution", False, integers(*narrow), integers(3, 3, 8, 16), integers(*wide)),
        Case("a depthwise convolution", True, integers(*narrow), integers(3, 3, 8, 1), integers(*narrow)),
    )


def check(device: str, dtype: str, *, xla: bool, gradients: bool = True) -> None:
    """Run a convolution and a depthwise convolution on `device`, and compare their results with the expected ones.

    Args:
        device: TensorFlow's name for it, "GPU:0".
        dtype: "float32", "bfloat16" or "float16".
        xla: compile with XLA, which needs more of CUDA than TensorFlow does.
        gradients: check the gradients of input and kernel too.

    Raises:
        DeviceError: one of them failed, ran on another device, or returned a wrong result.
    """
    for case in cases():
        problem, remedy = _run(case, device, dtype, xla=xla, gradients=gradients)
        if problem:
            raise DeviceError(
                f"{case.name} in {dtype} on {device}{' with XLA' if xla else ''} failed: {problem}",
                remedy=remedy + (", or set device.xla=false" if xla else ""),
            )


def _run(case: Case, device: str, dtype: str, *, xla: bool, gradients: bool) -> tuple[str, str]:
    """Return the problem, "" if there is none, and its remedy."""
    import tensorflow as tf

    remedy = "see what nvidia-smi reports on the node, or run on another one"
    operands = case.operands(dtype)
    try:
        with tf.device(device):
            outputs = case.function(xla=xla, gradients=gradients)(*operands)
        for name, output, expected in zip(_OUTPUTS, outputs, case.expected(), strict=False):
            if not output.device.endswith(device):  # TensorFlow silently uses the CPU if there is no such device
                return f"it ran on {output.device}", remedy
            # note: not >, which is false for NaN
            wrong = ~(np.abs(tf.cast(output, tf.float64).numpy() - expected) <= _TOLERANCE)
            if wrong.any():
                return f"{wrong.mean():.0%} of its {name} is wrong", remedy
    except tf.errors.UnimplementedError as error:
        remedy = "TensorFlow has no such kernel for this device; it may have one with run.reproducible=false"
        return _first_line(error), remedy
    except tf.errors.OpError as error:
        return _first_line(error), remedy
    return "", ""


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).strip().partition("\n")[0]


def _windows(maps: NDArray[Any]) -> NDArray[Any]:
    """Return the zero-padded 3 x 3 window around each pixel, [n, h, w, c, 3, 3], of maps [n, h, w, c]."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
