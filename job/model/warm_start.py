"""A warm start: training begins with the weights of a published model instead of a pretrained backbone and a new head.

The backbone is always taken over. The head is taken over if it has the same hidden layer and every label of the
published model is still there: the output's weights are matched by label, and a label that the published model does not
know starts from new weights. Otherwise the whole head is new.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from job.errors import DataError
from job.model import backbones
from job.model.weights import Provenance, arrays_of, digest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from job.model.classifier import Arrays, Network
    from job.observability.progress import Progress


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A published model on the local disk, verified.

    Attributes:
        uri: of its run.
        manifest_sha256: of the run's manifest.json, which has the checksums of all its files.
        labels: the class names, in the order of the probabilities.
        path: of ``model.keras``.
        trained_on: size and checksum, as one number, of each image that the run trained on: uint64 [n].
    """

    uri: str
    manifest_sha256: str
    labels: tuple[str, ...]
    path: Path
    trained_on: NDArray[np.uint64]


def load_into(network: Network, labels: tuple[str, ...], published: PublishedModel, progress: Progress) -> Provenance:
    """Set the variables of a network to those of a published model.

    Args:
        network: with new weights, which the part of the head that is not taken over keeps.
        labels: the class names of the network.
        published: the model to start from.
        progress: receives an event that says what was taken over.

    Raises:
        DataError: model.keras cannot be loaded, or is of another backbone or width.
    """
    found = _read(published)
    base = {variable.path: variable for variable in network.base_model.variables}
    if differing := [path for path, variable in base.items() if _shape(found, path) != tuple(variable.shape)]:
        path, expected = differing[0], tuple(base[differing[0]].shape)
        raise DataError(
            f"{published.uri}: {path} of its model has the shape {_shape(found, path)}, expected {expected}: it has "
            "another backbone or width",
            remedy="set model.backbone and model.alpha to those in config.json of that run",
        )
    for path, variable in base.items():
        variable.assign(found[path])
    head, new = _load_head(network.model, labels, found, published.labels)
    provenance = Provenance(
        published.uri,
        digest(arrays_of(network.base_model)),
        verified=False,
        run={"manifest_sha256": published.manifest_sha256, "head": head, "new_labels": list(new)},
    )
    progress.event("weights.loaded", source=provenance.source, digest=provenance.digest, verified=False, head=head)
    return provenance


def _load_head(
    model: keras.Model, labels: tuple[str, ...], found: Arrays, known: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Take over the head, as far as it fits.

    Returns:
        What was taken over, and the labels whose weights are new.
    """
    variables = {variable.path: variable for variable in model.variables if variable.path.split("/")[0] in _HEAD}
    hidden = {path: variable for path, variable in variables.items() if not path.startswith("output/")}
    if missing := [label for label in known if label not in labels]:
        return f"new: the published model has the label {missing[0]!r}, and the data have not", labels
    kernel, bias = variables["output/kernel"], variables["output/bias"]
    had_hidden = "fc1/kernel" in found
    if had_hidden != bool(hidden) or any(_shape(found, path) != tuple(v.shape) for path, v in hidden.items()):
        return "new: its hidden layer has another size than that of the published model", labels
    for path, variable in hidden.items():
        variable.assign(found[path])
    if labels == known:
        kernel.assign(found["output/kernel"])
        bias.assign(found["output/bias"])
        return "taken over", ()
    columns = [labels.index(label) for label in known]
    new_kernel, new_bias = np.array(kernel.numpy()), np.array(bias.numpy())
    new_kernel[:, columns] = _column_per_label(found["output/kernel"], known)
    new_bias[columns] = _column_per_label(found["output/bias"], known)
    kernel.assign(new_kernel)
    bias.assign(new_bias)
    return "taken over by label", tuple(label for label in labels if label not in known)


_HEAD = ("fc1", "output")


def _column_per_label(array: NDArray[Any], labels: tuple[str, ...]) -> NDArray[Any]:
    """Return weights of the output, [..., labels]. Those of two labels, [..., 1], have the logit of the second one.

    Half of the logit for one label and minus half for the other give the same probabilities by softmax.
    """
    return np.concatenate([-array / 2, array / 2], axis=-1) if len(labels) == 2 else array


def _read(published: PublishedModel) -> Arrays:
    """Return the variables of a published model: path -> value."""
    try:
        model = keras.models.load_model(published.path, compile=False).get_layer("finetune")
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{published.uri}: its model/model.keras cannot be loaded: {error}",
            remedy="name a run that this version of finetune, or an older one, has published",
        ) from error
    backbones.name_variables(model)
    return {variable.path: np.array(variable.numpy()) for variable in model.weights}


def _shape(arrays: Arrays, path: str) -> tuple[int, ...] | None:
    return arrays[path].shape if path in arrays else None
