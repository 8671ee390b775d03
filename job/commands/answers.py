"""Prints what a model answers for images: as a table, JSON Lines or CSV, a line for each image."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from job.export.predictor import Answer

Format = Literal["table", "json", "csv"]

_LABEL_WIDTH = 40


class Printer:
    """Makes the lines of a result.

    Args:
        form: of the lines.
        labels: of the model, in the order of the probabilities.
        top_k: labels for each image, the most probable ones first; at most all.
    """

    def __init__(self, form: Format, labels: Sequence[str], top_k: int) -> None:
        self._form = form
        self._labels = labels
        self._top_k = min(top_k, len(labels))
        self._width = min(_LABEL_WIDTH, max(map(len, labels)))

    def header(self) -> Iterator[str]:
        """Yield the line before the first image, if there is one."""
        if self._form == "csv":
            ranks = ["", *(f"_{rank}" for rank in range(2, self._top_k + 1))]
            yield _csv_line(
                ["uri", *(f"{name}{rank}" for rank in ranks for name in ("label", "probability")), *_REASON]
            )

    def line(self, answer: Answer) -> str:
        """Return the line of an image, without its end."""
        top = self._top(answer)
        match self._form:
            case "json":
                predictions = [{"label": label, "probability": probability} for label, probability in top]
                document = {"uri": answer.uri, "predictions": predictions, "reason": answer.reason}
                return json.dumps(document | {"detail": answer.detail or None}, ensure_ascii=False)
            case "csv":
                columns = [text for label, probability in top for text in (label, f"{probability:.9g}")]
                columns += [""] * (2 * self._top_k - len(columns))
                return _csv_line([answer.uri, *columns, answer.reason or "", answer.detail])
            case "table":
                if not top:
                    return f"{'-':6}  {answer.reason or '':{self._width}}  {answer.uri}  {answer.detail}"
                cells = (f"{probability:.4f}  {label:{self._width}}" for label, probability in top)
                return f"{'  '.join(cells)}  {answer.uri}"

    def _top(self, answer: Answer) -> list[tuple[str, float]]:
        """Return the most probable labels with their probabilities; of equal ones the first in the model's order."""
        if answer.probabilities is None:
            return []
        order = (-answer.probabilities).argsort(kind="stable")[: self._top_k].tolist()
        # as many digits as float32 has
        return [(self._labels[index], float(f"{answer.probabilities[index]:.9g}")) for index in order]


_REASON = ("reason", "detail")


def _csv_line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
