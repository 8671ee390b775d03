"""model_card.md: what the model is, what it can do and how to load it, in the format of Hugging Face's model cards.

Front matter in YAML with the fields of https://huggingface.co/docs/hub/model-cards, then Markdown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from job.config.backbones import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from job.config.settings import AugmentationSettings, Settings

Document = dict[str, Any]

TABLE_LABELS = 50
"""Labels that the card has in its tables; the others are in metrics.json."""

SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "loss": "loss",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "brier": "Brier score",
    "expected_calibration_error": "expected calibration error",
}
"""Field of a split in metrics.json -> its name. The card has those that are there."""

_LOADING = """\
Run in the folder of this card. All forms take pixels as they are, 0 to 255, and resize them as training did.

From encoded images (JPEG, PNG, GIF, BMP, WebP), decoded as training did:

```python
import tensorflow as tf

model = tf.saved_model.load("model/saved_model")
with open("picture.jpg", "rb") as file:
    answer = model.signatures["serve_bytes"](image_bytes=tf.constant([file.read()]))
print(dict(zip(answer["labels"].numpy()[0], answer["probabilities"].numpy()[0])))
```

From pixels, uint8 [n, height, width, 3]:

```python
import tensorflow as tf

model = tf.saved_model.load("model/saved_model")
with open("picture.jpg", "rb") as file:
    pixels = model.decode(tf.constant(file.read()))
answer = model.signatures["serving_default"](pixels=pixels[None])
print(dict(zip(answer["labels"].numpy()[0], answer["probabilities"].numpy()[0])))
```

In Keras 3.12 and newer:

```python
import keras
import numpy as np
from PIL import Image

with open("model/labels.txt", encoding="utf-8") as file:
    labels = file.read().splitlines()
model = keras.models.load_model("model/model.keras")
pixels = np.asarray(Image.open("picture.jpg").convert("RGB"))
probabilities = np.asarray(model(pixels[None]))
if probabilities.shape[1] == 1:
    probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
print(dict(zip(labels, probabilities[0])))
```
"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about.

    Attributes:
        run_id: of the run.
        labels: in the order of the probabilities.
        settings: of the run.
        metrics: metrics.json.
        weights: where the first weights came from, as in manifest.json.
        version: of finetune.
    """

    run_id: str
    labels: Sequence[str]
    settings: Settings
    metrics: Document
    weights: Document
    version: str


def card(subject: Subject) -> str:
    """Return model_card.md."""
    front_matter = yaml.safe_dump(_front_matter(subject), allow_unicode=True, sort_keys=False, width=10_000)
    sections = {
        f"# {escaped(subject.run_id)}": _summary(subject),
        "## Intended use": _intended_use(),
        "## Data": _data(subject),
        "## Metrics": _metrics(subject),
        "## Limits": _limits(subject),
        "## How to load it": _loading(subject),
        "## Training": _training(subject),
        "## Licence": _licence(subject),
    }
    body = "\n\n".join(heading + "\n\n" + "\n".join(lines).strip() for heading, lines in sections.items())
    return f"---\n{front_matter}---\n\n{body}\n"


def escaped(text: str) -> str:
    r"""Return text that Markdown shows as it is, also in a table: `a|b` becomes `a\|b`.

    A backslash before ASCII punctuation is that character (https://spec.commonmark.org/0.31.2/#backslash-escapes).
    """
    inline = re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=:.)])", r"\1\\\2", inline)  # what begins a list at the start of a line


def _front_matter(subject: Subject) -> Document:
    return {
        "license": "other",
        "license_name": "not-chosen-yet",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "tensorflow", "keras", subject.settings.model.backbone.lower(), "fine-tuned"],
        "metrics": list(_scores_of(subject.metrics["validation"])),
        "model-index": [{"name": subject.run_id, "results": list(_results(subject))}],
    }


def _results(subject: Subject) -> Iterator[Document]:
    """Yield the results of each split, as the field model-index has them."""
    for split in ("validation", "test"):
        if scores := subject.metrics.get(split):
            by_label = scores.get("labels") or {}
            recalls = [(label, values["recall"]) for label, values in by_label.items() if values["recall"] is not None]
            yield {
                "task": {"type": "image-classification", "name": "Image classification"},
                "dataset": {"type": "imagefolder", "name": "the run's own images", "split": split},
                "metrics": [
                    {"type": kind, "name": name, "value": value}
                    for kind, name, value in (
                        *((name, SCORES[name], value) for name, value in _scores_of(scores).items()),
                        *(("recall", f"recall of {label}", recall) for label, recall in recalls[:TABLE_LABELS]),
                    )
                ],
            }


def _scores_of(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a split that are known; the loss under its usual name only."""
    known = {name: scores[name] for name in SCORES if scores.get(name) is not None}
    return {name: value for name, value in known.items() if name != "loss" or "log_loss" not in known}


def _summary(subject: Subject) -> list[str]:
    labels, model = list(map(escaped, subject.labels)), subject.settings.model
    shown = ", ".join(labels[:TABLE_LABELS])
    more = f" and {len(labels) - TABLE_LABELS} more" if len(labels) > TABLE_LABELS else ""
    width = f"alpha {model.alpha:g}, " if BACKBONES[model.backbone].alphas else ""
    return [
        f"An image classifier with {len(labels)} labels: {shown}{more}.",
        f"{model.backbone} ({width}{model.image_size} pixels), trained by finetune {subject.version}.",
        "The probabilities are in the order of `model/labels.txt`. Every image gets one of these labels, also one that",
        "shows something else.",
    ]


def _intended_use() -> list[str]:
    return [
        "> **To be written by the owner of the model.** What is it for, on which images, who decides with it, and what",
        "> must it not be used for? The job that trained it does not know.",
    ]


def _data(subject: Subject) -> list[str]:
    splits, data = ("train", "validation", "test"), subject.metrics["data"]
    totals = {split: sum(counts[split] for counts in data["labels"].values()) for split in splits}
    rows = [(escaped(label), *(f"{counts[split]:,}" for split in splits)) for label, counts in data["labels"].items()]
    return [
        f"{sum(totals.values()):,} images; {data['quarantined']:,} more could not be used (`data/quarantine.jsonl`).",
        "",
        *_table(("label", *splits), [*rows[:TABLE_LABELS], ("all", *(f"{totals[split]:,}" for split in splits))]),
        *_more(len(rows)),
    ]


def _metrics(subject: Subject) -> list[str]:
    metrics = subject.metrics
    found = {split: metrics[split] for split in ("validation", "test") if metrics.get(split)}
    rows = [
        (title, *(_with_interval(scores, name) for scores in found.values()))
        for name, title in SCORES.items()
        if any(name in _scores_of(scores) for scores in found.values())
    ]
    on = " and ".join(f"{scores['images']:,} {split} images" for split, scores in found.items())
    chosen = " The weights were chosen by the loss on the validation images." if subject.settings.keep == "best" else ""
    intervals = any(scores.get("intervals") for scores in found.values())
    brackets = " In brackets: bootstrap intervals of 95 %." if intervals else ""
    lines = [
        f"On {on}, which the model was not trained on.{chosen}{brackets}",
        "",
        *_table(("", *found), rows),
    ]
    if by_label := metrics["validation"].get("labels"):
        columns = ("support", "precision", "recall", "f1")
        label_rows = [
            (escaped(label), *(_figure(values.get(column)) for column in columns)) for label, values in by_label.items()
        ]
        lines += ["", *_table(("label, validation", *columns), label_rows[:TABLE_LABELS]), *_more(len(label_rows))]
    return [*lines, "", "`metrics/metrics.json` has all of them."]


def _limits(subject: Subject) -> list[str]:
    metrics, items = subject.metrics, []
    items += [escaped(str(warning["text"])) for warning in metrics.get("warnings") or []]
    if (gate := metrics.get("gate")) and gate.get("passed") is False:
        items.append("The model is below its quality gate.")
    if majority := metrics.get("majority"):
        share = _figure(majority.get("validation"))
        items.append(f"Always answering {escaped(str(majority['label']))} has an accuracy of {share}.")
    suspected = {
        split: values["suspected"]
        for split, values in metrics["label_errors"].items()
        if split in ("train", "validation", "test") and values and values["suspected"]
    }
    if suspected:
        counts = ", ".join(f"{count:,} {split}" for split, count in suspected.items())
        items.append(f"Labels that may be wrong: {counts} (`data/label_errors.jsonl`).")
    if unusable := metrics["data"]["quarantined"]:
        items.append(f"{unusable:,} images could not be used, so that what they show may be missing.")
    if leaking := metrics["data"]["duplicates"]["leaking"]:
        items.append(
            f"{leaking:,} held-out images are, or look like, images it was trained on: the metrics are too good."
        )
    items.append("Measured on images from the same source as those it was trained on: on others it may do worse.")
    return [f"- {item}" for item in items]


def _loading(subject: Subject) -> list[str]:
    note = ""
    if len(subject.labels) == 2:
        second = escaped(subject.labels[1])
        note = (
            f"`model.keras` answers with **one column**: the probability of the second label, {second}; the last lines "
            "above make two of it. Both signatures of the SavedModel have a column for each label."
        )
    return [_LOADING, note]


def _training(subject: Subject) -> list[str]:
    settings, kept = subject.settings, subject.metrics["kept"]
    rows = [
        (stage, trained, str(values.epochs), f"{values.learning_rate:g}", str(values.batch_size))
        for stage, trained, values in (
            ("feature\\_extraction", "the head", settings.feature_extraction),
            ("fine\\_tuning", _fine_tuned(settings.fine_tuning.from_layer), settings.fine_tuning),
        )
    ]
    return [
        *_table(("stage", "trained", "epochs", "learning rate", "batch size"), rows),
        "",
        *_class_weights(subject),
        f"{_optimizer(settings)}, cross-entropy, seed {settings.run.seed}. `config.json` has all settings.",
        f"Published: {escaped(kept['stage'])}, epoch {kept['epoch']} (keep = {settings.keep}).",
        *_augmentation(settings.augmentation),
    ]


def _optimizer(settings: Settings) -> str:
    """Return the optimizer: that of both stages, or of each if they differ."""
    decays = {settings.feature_extraction.weight_decay > 0, settings.fine_tuning.weight_decay > 0}
    return "AdamW" if decays == {True} else "Adam" if decays == {False} else "Adam and AdamW"


def _class_weights(subject: Subject) -> list[str]:
    """Return a sentence on the weights of the labels; nothing if all images counted the same."""
    if not (weights := subject.metrics.get("class_weights")):
        return []
    shown = ", ".join(f"{escaped(label)} {weight:.3g}" for label, weight in [*weights.items()][:TABLE_LABELS])
    more = f" and {len(weights) - TABLE_LABELS} more" if len(weights) > TABLE_LABELS else ""
    kind = subject.settings.train.class_weight
    return [f"Class weights ({kind}) in the training loss, not in the metrics above: {shown}{more}.", ""]


def _augmentation(settings: AugmentationSettings) -> list[str]:
    changed = {name: value for name, value in settings.model_dump().items() if value not in ("none", 0)}
    if not changed:
        return []
    values = ", ".join(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in changed.items())
    return ["", f"The training images were augmented: {values}."]


def _fine_tuned(from_layer: str) -> str:
    if not from_layer:
        return "everything except BatchNormalization"
    return f"the head, and the backbone from {escaped(from_layer)} on except BatchNormalization"


def _licence(subject: Subject) -> list[str]:
    source, backbone = subject.settings.model.weights, subject.settings.model.backbone
    if source == "imagenet":
        facts = BACKBONES[backbone]
        origin = (
            f"The backbone, {backbone}, started from the ImageNet weights of keras.applications. They come from "
            f"{facts.weights_origin}, under {facts.weights_license}; see there. They were trained on ImageNet, whose "
            "terms of access allow non-commercial research and education only; whether that binds a model trained on "
            "it is not settled."
        )
    elif source == "none":
        origin = f"The backbone, {backbone}, started from random weights."
    elif run := subject.weights.get("run"):
        origin = (
            f"The model started from the published model of {escaped(subject.weights['source'])} (its head: "
            f"{escaped(run['head'])}): see the model card there for the licence of its weights."
        )
    else:
        origin = f"The backbone, {backbone}, started from {escaped(source)}: see the licence of these weights."
    return [
        "> **To be chosen by the owner of the model**, who knows the rights in the images: `license` and",
        "> `license_name` in the front matter.",
        "",
        origin,
        f"Their digest: `{subject.weights['digest']}`.",
    ]


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = (scores.get("intervals") or {}).get(name)
    brackets = f" ({_figure(interval[0])} to {_figure(interval[1])})" if interval else ""
    return _figure(scores.get(name)) + brackets


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _more(rows: int) -> list[str]:
    return ["", f"And {rows - TABLE_LABELS:,} more labels."] if rows > TABLE_LABELS else []


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
