"""That the device itself computes the convolutions of the check, and that wrong results are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from job.errors import DeviceError
from job.runtime import device_check

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = pytest.mark.parametrize("case", device_check.cases(), ids=lambda case: case.name)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])


def executed(function: Callable[..., Any], operands: list[tf.Tensor]) -> set[str]:
    """Call `function` and return the operations of the graphs that were executed: those after all optimizations."""
    context.context().enable_run_metadata()
    context.context().export_run_metadata()  # note: graphs of earlier functions, which have waited for this
    try:
        function(*operands)
        metadata = context.context().export_run_metadata()
    finally:
        context.context().disable_run_metadata()
    graphs = [graph for functions in metadata.function_graphs for graph in functions.partition_graphs]
    return {node.op for graph in [*graphs, *metadata.partition_graphs] for node in graph.node}


def test_convolution_of_constants_is_not_executed() -> None:
    """TensorFlow computes a convolution of constants while it compiles: why the check takes arguments."""

    @tf.function
    def convolution() -> tf.Tensor:
        return tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 4)), strides=1, padding="VALID")

    operations = executed(convolution, [])

    assert operations
    assert not [name for name in operations if "Conv" in name]


@CASES
@DTYPES
def test_convolutions_are_executed(case: device_check.Case, dtype: str) -> None:
    """The executed graph has the convolution and both of its gradients."""
    operations = executed(case.function(xla=False), case.operands(dtype))

    kind = "DepthwiseConv2dNative" if case.depthwise else "Conv2D"
    for name in (kind, f"{kind}BackpropInput", f"{kind}BackpropFilter"):
        assert [found for found in operations if found.endswith(name)], operations


@CASES
@pytest.mark.parametrize("xla", [False, True])
def test_one_program_computes_from_its_operands(case: device_check.Case, xla: bool) -> None:
    """The program that is compiled once gives other values for other operands: none is computed by the compiler."""
    function = case.function(xla=xla)
    inputs, kernel, upstream = case.operands("float32")

    result, for_input, for_kernel = (value.numpy() for value in function(inputs, kernel, upstream))
    doubled = [value.numpy() for value in function(2 * inputs, kernel, upstream)]

    assert 1 == function.experimental_get_tracing_count()
    for expected, value in zip((2 * result, for_input, 2 * for_kernel), doubled, strict=True):
        np.testing.assert_array_equal(expected, value)


@CASES
@DTYPES
@pytest.mark.parametrize("xla", [False, True])
def test_expected_values(case: device_check.Case, dtype: str, xla: bool) -> None:
    """NumPy's values are TensorFlow's, exactly, in each precision: integers that bfloat16 holds."""
    outputs = case.function(xla=xla)(*case.operands(dtype))

    for expected, output in zip(case.expected(), outputs, strict=True):
        assert np.abs(expected).max() <= 256
        np.testing.assert_array_equal(expected, tf.cast(output, tf.float64).numpy())


@DTYPES
@pytest.mark.parametrize("gradients", [False, True])
def test_device_that_computes(dtype: str, gradients: bool) -> None:
    """A device that computes passes in silence; with XLA: tests/integration/test_device.py."""
    device_check.check("CPU:0", dtype, xla=False, gradients=gradients)


def test_device_that_does_not_exist() -> None:
    """A device for which TensorFlow takes the CPU instead, as it does in silence, is exit code 4."""
    with pytest.raises(DeviceError, match=r"a convolution in float32 on GPU:7 failed: .*CPU:0") as raised:
        device_check.check("GPU:7", "float32", xla=False)

    assert 4 == raised.value.exit_code


class Wrong(device_check.Case):
    """A convolution that is expected to give something else: one of its three values is off by one."""

    value = 0

    def expected(self) -> tuple[np.ndarray, ...]:
        """Return the values, one of them changed."""
        return tuple(array + (number == self.value) for number, array in enumerate(super().expected()))


@pytest.mark.parametrize(
    ("value", "name"), list(enumerate(["result", "gradient for the input", "gradient for the kernel"]))
)
def test_wrong_value(monkeypatch: pytest.MonkeyPatch, value: int, name: str) -> None:
    """A device whose result or gradients are wrong is exit code 4, and the message says which."""
    monkeypatch.setattr(Wrong, "value", value)
    convolution, depthwise = device_check.cases()
    monkeypatch.setattr(device_check, "cases", lambda: (convolution, Wrong(*depthwise)))

    with pytest.raises(DeviceError, match=f"a depthwise convolution in float32 .*100% of its {name} is wrong"):
        device_check.check("CPU:0", "float32", xla=False)


def test_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is not a number is wrong."""
    convolution, _ = device_check.cases()
    broken = convolution._replace(inputs=np.full_like(convolution.inputs, np.nan))
    monkeypatch.setattr(device_check, "cases", lambda: (broken,))

    with pytest.raises(DeviceError, match="100% of its result is wrong"):
        device_check.check("CPU:0", "float32", xla=False)
