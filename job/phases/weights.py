"""The weights that training starts from: pretrained, random, or those of a published model; the head's first bias."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import DataError
from job.phases.sharing import check_same_weights
from job.runs import download
from job.runs.download import KERAS_MODEL, LABELS
from job.runs.latest import MANIFEST, SPLIT, training_content
from job.runs.published import open_warm_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from job.config.settings import ModelSettings, Settings, TrainSettings
    from job.model.classifier import Classifier, Network
    from job.model.warm_start import PublishedModel
    from job.model.weights import Provenance
    from job.observability.progress import Progress
    from job.phases.context import RunContext
    from job.runtime.device import Device
    from job.storage import OpenStore
    from job.training.examples import Examples
    from job.training.state import TrainingState


def find_warm_start(settings: Settings, open_store: OpenStore, state: TrainingState) -> None:
    """Note in the state which run `model.weights` names: `latest` may name another one soon, also for other workers.

    Args:
        settings: of the run.
        open_store: opens the store of the published run.
        state: at the start of training.

    Raises:
        errors.DataError: there is no such run.
    """
    if settings.model.is_warm_start and not state.warm_start:
        state.warm_start = open_warm_start(settings, open_store).uri


@contextlib.contextmanager
def warm_start(settings: Settings, open_store: OpenStore, state: TrainingState) -> Iterator[PublishedModel | None]:
    """Yield the published model that training starts from; None if `model.weights` names none.

    Args:
        settings: of the run.
        open_store: opens the store of the published run.
        state: names that run; see `find_warm_start`.

    Raises:
        errors.DataError: there is no such run, or its model differs from what was published.
    """
    if not settings.model.is_warm_start:
        yield None
        return
    from job.model.warm_start import PublishedModel

    find_warm_start(settings, open_store, state)
    assert state.warm_start is not None
    store = open_store(state.warm_start)
    with tempfile.TemporaryDirectory(prefix="warm-start-") as scratch:
        folder = Path(scratch)
        download.download_files(store, (LABELS, KERAS_MODEL, SPLIT, MANIFEST), folder)
        try:
            with (folder / SPLIT).open("rb") as split, (folder / MANIFEST).open("rb") as rows:
                trained_on = training_content(split, rows)
        except ValueError as error:
            raise DataError(f"{store.uri}: {error}", remedy="start from a run of this version of finetune") from error
        yield PublishedModel(
            uri=store.uri,
            manifest_sha256=download.manifest_sha256(store),
            labels=tuple((folder / LABELS).read_text("utf-8").split("\n")[:-1]),
            path=folder / KERAS_MODEL,
            trained_on=trained_on,
        )


def build_classifier(
    context: RunContext,
    labels: tuple[str, ...],
    machine: Device,
    state: TrainingState,
    published: PublishedModel | None,
) -> tuple[Classifier, Provenance]:
    """Return the classifier, on every replica, with the weights of the state or those that a new run starts from.

    Several workers check that all of them start from the same ones.

    Args:
        context: of the run.
        labels: in the order of the probabilities.
        machine: the device.
        state: at the start of training.
        published: the model of a warm start.

    Returns:
        The classifier, and which weights a new run starts from.
    """
    from job.model import classifier as classifiers
    from job.training import strategy

    settings = context.loaded.settings
    with strategy.scope(context.replicas):
        classifier, weights = classifiers.build(
            settings,
            labels,
            resumed=state.weights,
            machine=machine,
            load_weights=weight_loader(settings.model, labels, published, context.open_store, context.progress),
        )
    check_same_weights(context, weights.digest)
    return classifier, weights


def weight_loader(
    settings: ModelSettings,
    labels: tuple[str, ...],
    published: PublishedModel | None,
    open_store: OpenStore,
    progress: Progress,
) -> Callable[[Network], Provenance]:
    """Return a function that sets the weights that a new run starts from.

    Args:
        settings: `weights`, and where those of ImageNet are.
        labels: in the order of the probabilities.
        published: the model of a warm start.
        open_store: opens the store of a weights file.
        progress: receives the events.
    """
    from job.model import warm_start, weights

    def load(network: Network) -> Provenance:
        if published:
            return warm_start.load_into(network, labels, published, progress)
        return weights.load_into(network.base_model, settings, open_store, progress)

    return load


def start_head(
    settings: TrainSettings, classifier: Classifier, examples: Examples, weights: Provenance, progress: Progress
) -> None:
    """Set the first bias of a new head to what `train.initial_bias` asks for; a head that was taken over keeps its own.

    Args:
        settings: of the loss and the head.
        classifier: of a new run.
        examples: of either stage.
        weights: which the run starts from.
        progress: receives the warning that the setting has no effect.
    """
    from job.training import imbalance

    if settings.initial_bias == "zero":
        return
    if weights.has_new_head:
        imbalance.set_initial_bias(classifier, examples)
    else:
        reason = {"train.initial_bias": "the head was taken over from the published model"}
        progress.event("settings.had_no_effect", severity="warning", **reason)
