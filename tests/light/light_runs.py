"""Whole runs without what makes them slow, for tests whose subject is neither the model nor its export.

The base model is MobileNetV2 with its first three blocks: the layers before and behind them are as they are, up to the
1,280 features. The exported SavedModel gives no answers, and no process verifies the exported model. Such a run takes a
quarter of the CPU time.

`here` makes the runs of this process light, and those of the processes that it starts: they have this folder on
``PYTHONPATH``, where Python finds `sitecustomize`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

FOLDER = Path(__file__).parent
BLOCKS = 3
VERIFIED = "LIGHT_RUNS_VERIFIED"
"""Environment variable of a process: if set, its models are exported and verified as those of whole runs."""


def shallow(mobilenet_v2: Any) -> dict[str, Any]:
    """Return the function of Keras's module that adds a block, for a model of few: the others add none."""
    add = mobilenet_v2._inverted_res_block

    def add_if_early(inputs: Any, *, block_id: int, **shape: Any) -> Any:
        return add(inputs, block_id=block_id, **shape) if block_id < BLOCKS else inputs

    return {"_inverted_res_block": add_if_early}


def unverified(verification: Any) -> dict[str, Any]:
    """Return what replaces the verification in its module: a process starts only where its scores are asked for."""
    start = verification.Scorer

    class Scorer(contextlib.ExitStack):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__()
            self._start = functools.partial(start, *arguments, **named)

        def score(self, *arguments: Any) -> Any:
            return self.enter_context(self._start()).score(*arguments)

    def verify(_scorer: Scorer, _folder: Path, _encoded: object, probabilities: Any) -> dict[str, Any]:
        images, keras_images = len(probabilities), min(len(probabilities), verification.KERAS_IMAGES)
        differences = {"max_difference": 0.0, "keras_max_difference": 0.0, "tolerance": verification.TOLERANCE}
        return {"images": images, "keras_images": keras_images, **differences}

    return {"Scorer": Scorer, "verify": verify}


def without_answers(saved_model: Any) -> dict[str, Any]:
    """Return what replaces the SavedModel in its module: the same variables, and a signature that returns nothing."""
    tf = saved_model.tf

    class ServedModel(tf.Module):  # type: ignore[misc,name-defined] # TensorFlow has no types
        def __init__(self, classifier: Any, **_: object) -> None:
            super().__init__()
            self._variables = [variable.value for variable in classifier.base_model.variables]
            pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, "pixels")
            nothing = tf.function(lambda _: {"probabilities": tf.zeros((0, 0))}, input_signature=[pixels])
            self.serving_default = self.serve_bytes = nothing

    return {"ServedModel": ServedModel}


SHALLOW = "keras.src.applications.mobilenet_v2"
"""The module with the base model."""

UNVERIFIED = "job.export.verification"
"""The module that verifies the exported model."""

CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    SHALLOW: shallow,
    UNVERIFIED: unverified,
    "job.export.saved_model": without_answers,
}
"""Module -> what of it is replaced, by name."""


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of `CHANGES`, and changes each after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification; None for every other module."""
        if fullname not in CHANGES or (fullname != SHALLOW and VERIFIED in os.environ):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            vars(module).update(CHANGES[fullname](module))

        spec.loader.exec_module = execute_and_change
        return spec


def everywhere() -> None:
    """Make the runs of this process light. Call it before the job is imported."""
    sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def here(*names: str) -> Iterator[None]:
    """Make the runs of this process light in the block, and those of the processes that are started in it.

    Args:
        names: the modules of `CHANGES` that are changed, in this process alone; none: all of them.
    """
    import pytest  # not in the processes that tests start

    with pytest.MonkeyPatch.context() as patch:
        if not names:
            patch.setenv("PYTHONPATH", str(FOLDER))
        for name in names or CHANGES:
            module = importlib.import_module(name)
            for attribute, replacement in CHANGES[name](module).items():
                patch.setattr(module, attribute, replacement)
        yield
