"""Conversion of the exported model to the formats of `export.formats`, each in a process of its own.

A conversion never fails the run: after an error, a crash, a hang or exhausted memory in its process, or if the result
answers differently, the format is left out with the reason.
"""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from job.data import split
from job.export.formats import FILES
from job.export.model_process import ModelProcess
from job.export.verification import TIME_LIMIT, TOLERANCE
from job.runtime import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from job.config.settings import ExportFormat
    from job.data.dataset import Dataset

AGREEMENT = 0.98
"""Minimum share of the images to which an int8 model must give the run's own label."""

INT8_TIE = 1 / 128
"""An int8 model cannot tell two labels apart whose probabilities differ by less than two of its steps of 1 / 256."""

CALIBRATION_IMAGES: Final[Mapping[ExportFormat, int]] = {"tflite_int8": 128}
"""Format -> images of the train split from which its scales are computed, if the split has as many."""

RESERVED = 256 * 2**20
"""Bytes of the available memory that are left to the other processes."""

_NO_MEMORY = (
    "MemoryError",
    "bad_alloc",
    "failed to map segment",
    "Cannot allocate memory",
    "cannot allocate memory",
    "Resource temporarily unavailable",
)
"""What C++, the loader and the kernel report where memory is refused."""


class ConversionError(Exception):
    """A format that could not be converted. The text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The result for one format.

    Attributes:
        file: its name in the run; None if it is left out.
        bytes: its size; None if there is none.
        max_difference: between its probabilities and the run's own; None if it has none, or they are not finite.
        agreement: share of the images that get the label of the run's own model, or one to which that model gives as
            high a probability, within the tolerance (int8: `INT8_TIE`); None if it has none.
        passed: whether it is published.
        reason: why it is left out; empty if it is published.
        seconds: of the conversion, without loading and scoring; None if it failed.
    """

    file: str | None = None
    bytes: int | None = None
    max_difference: float | None = None
    agreement: float | None = None
    passed: bool = False
    reason: str = ""
    seconds: float | None = None

    def document(self) -> dict[str, Any]:
        """Return its fields of metrics.json."""
        return vars(self) | {"seconds": None if self.seconds is None else round(self.seconds, 3)}


class Converter(ModelProcess):
    """A child process that converts an exported model, and scores images with the result. Use as a context manager.

    Its memory is limited to what is available: where a container exceeds its limit, the kernel may end all of its
    processes, and so the run.

    Args:
        name: the format.
        time_limit: seconds for loading the model, for the conversion, and for each image.
        memory: bytes that it may allocate; None: what is available.
    """

    def __init__(self, name: ExportFormat, time_limit: int = TIME_LIMIT, memory: int | None = None) -> None:
        super().__init__("job.export.converter", name, time_limit)
        self._time_limit = time_limit
        self._memory = max(0, limits.memory().available - RESERVED) if memory is None else memory
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = self._memory if hard == resource.RLIM_INFINITY else min(self._memory, hard)
        resource.prlimit(self._child.pid, resource.RLIMIT_DATA, (soft, hard))

    def convert(
        self, folder: Path, file: Path, encoded: Iterable[bytes], *, calibration: int = 0
    ) -> tuple[NDArray[Any], float]:
        """Convert the model in `folder`. Can be called once.

        Args:
            folder: what `saved_model.save` wrote.
            file: the new file.
            encoded: images, at least one to score.
            calibration: the first so many of them are for calibration, and are not scored.

        Returns:
            The probabilities of the scored images, float32 [n, labels], and the seconds of the conversion.

        Raises:
            ConversionError: it failed.
        """
        header = {"folder": str(folder), "file": str(file), "calibration": calibration}
        output = self._exchange(header, encoded)
        if self._child.returncode:
            raise ConversionError(self._reason(self._child.returncode, output))
        arrays = np.load(io.BytesIO(output), allow_pickle=False)
        return arrays["probabilities"], float(arrays["seconds"])

    def _reason(self, code: int, output: bytes) -> str:
        """Return the reason for an exit code; a negative one is the signal that killed the process."""
        if code == -signal.SIGALRM:  # from its own time limit
            return f"the conversion made no progress for {self._time_limit} seconds"
        if code == os.EX_SOFTWARE:
            return f"the conversion failed: {output.decode(errors='replace')[:300]}"
        if code == os.EX_OSERR or any(text in self._stderr() for text in _NO_MEMORY):
            return (
                f"the conversion ran out of memory, with {self._memory / 2**20:,.0f} MiB available: raise "
                "resources.limits.memory"
            )
        if code < 0:
            return f"the conversion was killed by {signal.Signals(-code).name}"
        last_line = self._stderr().rpartition("\n")[2]
        return f"the conversion ended with exit code {code}: {last_line[:300]}"


def convert(
    converter: Converter,
    name: ExportFormat,
    folder: Path,
    *,
    calibration: Sequence[int],
    images: Dataset,
    sample: tuple[Iterable[bytes], NDArray[Any]],
    advance: Callable[[], object] = int,
) -> Conversion:
    """Convert the exported model, and keep the file in `folder` if it answers as the run's own model does.

    Args:
        converter: converts.
        name: the format.
        folder: what `saved_model.save` wrote.
        calibration: rows of the images for calibration.
        images: the data.
        sample: the bytes of the images to score, and the run's own probabilities, float32 [n, labels].
        advance: called after each image.
    """
    encoded, own = sample
    new = folder.with_name(f"new-{FILES[name]}")

    def all_images() -> Iterator[bytes]:
        for data in itertools.chain(map(images.encoded, calibration), encoded):
            yield data
            advance()

    try:
        probabilities, seconds = converter.convert(folder, new, all_images(), calibration=len(calibration))
    except ConversionError as error:
        new.unlink(missing_ok=True)
        return Conversion(reason=str(error))
    conversion = judge(name, probabilities, own, size=new.stat().st_size, seconds=seconds)
    if conversion.passed:
        new.replace(folder / FILES[name])
    else:
        new.unlink()
    return conversion


def judge(
    name: ExportFormat, probabilities: NDArray[Any], own: NDArray[Any], *, size: int, seconds: float
) -> Conversion:
    """Compare a converted model's probabilities with the run's own, both float32 [n, labels].

    Args:
        name: the format.
        probabilities: of the converted model.
        own: the run's own.
        size: bytes of the file.
        seconds: of the conversion.
    """
    is_finite = bool(np.isfinite(probabilities).all())
    difference = float(np.abs(probabilities - own).max()) if is_finite else None
    tie = INT8_TIE if name == "tflite_int8" else TOLERANCE
    of_labels = np.take_along_axis(own, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    agreement = float((own.max(axis=1) - of_labels <= tie).mean())
    reason = ""
    if difference is None:
        reason = "its probabilities are not finite"
    elif name == "tflite_int8" and agreement < AGREEMENT:
        reason = f"{agreement:.3f} of {len(own)} images get the same label, expected at least {AGREEMENT:g}"
    elif name != "tflite_int8" and difference > TOLERANCE:
        reason = f"its probabilities differ by up to {difference:.2g}, expected at most {TOLERANCE:g}"
    return Conversion(
        file=None if reason else f"model/{FILES[name]}",
        bytes=size,
        max_difference=difference,
        agreement=agreement,
        passed=not reason,
        reason=reason,
        seconds=seconds,
    )


def calibration_rows(name: ExportFormat, images: Dataset, train: NDArray[Any]) -> list[int]:
    """Return the rows of the images for calibration: the first of the train split in hash order.

    Args:
        name: the format.
        images: the data.
        train: rows of the train split, int [n].
    """
    order = np.argsort(split.hashes(images.manifest)[train], kind="stable")
    rows: list[int] = train[order[: CALIBRATION_IMAGES.get(name, 0)]].tolist()
    return rows


def time_limit(stall_minutes: float) -> int:
    """Return the seconds for a conversion: a hang must end before the run does, for lack of progress."""
    return max(1, int(min(TIME_LIMIT, 60 * stall_minutes / 2)))
