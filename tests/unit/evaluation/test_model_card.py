"""The model card: valid YAML and Markdown, for any names of labels, and what it says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from job.config.settings import STAGES, AugmentationSettings, Settings
from job.evaluation.model_card import TABLE_LABELS, Subject, card, escaped

ODD = (
    *("a|b", "- x", "#", "# x", "yes", "null", "1.", "1) x", "+ y", "=", '"quoted"', "it's", "a: b", "{x}", "[x](y)"),
    *("*bold*", "__init__", "`code`", "<b>", "&amp;", "~~no~~", "back\\slash", "$x$", "!", "...", "قطط", "猫", "é"),
)


def settings(**weights: str) -> Settings:
    """Return the default settings with other weights."""
    return Settings.model_validate({"model": weights})


def metrics(labels: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """Return what the card needs of metrics.json."""
    counts = {label: {"train": 240, "validation": 60, "test": 0} for label in labels}
    unavailable = dict.fromkeys(("train", "validation", "test"), "report.label_errors is false")
    return {
        "validation": {"images": 120, "accuracy": 0.975, "loss": 0.08},
        "test": None,
        "kept": {"stage": "fine_tuning", "epoch": 3, "val_loss": 0.1, "val_accuracy": 0.9, "epoch_total": 13},
        "data": {"labels": counts, "quarantined": 3, "duplicates": {"leaking": 2}},
        "label_errors": {**dict.fromkeys(unavailable), "unavailable": unavailable},
        **changes,
    }


def subject(labels: tuple[str, ...] = ("cats", "dogs"), **changes: Any) -> Subject:
    """Return what a card is about."""
    values = {"settings": settings(), "metrics": metrics(labels), "weights": {"digest": "d1"}, **changes}
    return Subject(run_id="pets-1f", labels=labels, version="0.1.0", **values)


def parts(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the Markdown of a card."""
    empty, front_matter, markdown = text.split("---\n", 2)
    assert "" == empty
    return yaml.safe_load(front_matter), markdown


def shown(markdown: str) -> dict[str, list[str]]:
    """Return what a reader sees: heading -> the texts of its table cells, list items and paragraphs."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline":
            kinds = {"text", "code_inline", "softbreak", "text_special", "strong_open", "strong_close"}
            assert {child.type for child in token.children or []} <= kinds, token.content
            text = "".join(" " if child.type == "softbreak" else child.content for child in token.children or [])
            if before.type == "heading_open":
                current = sections[text] = []
            else:
                current.append(text)
    return sections


def test_front_matter() -> None:
    """The front matter has Hugging Face's fields; what the owner has to decide is not decided for them."""
    front_matter, _ = parts(card(subject()))

    assert ("other", "keras") == (front_matter["license"], front_matter["library_name"])
    assert "image-classification" == front_matter["pipeline_tag"]
    assert ["accuracy", "loss"] == front_matter["metrics"]
    [model] = front_matter["model-index"]
    [result] = model["results"]
    assert "pets-1f" == model["name"]
    assert "validation" == result["dataset"]["split"]
    assert {"type": "accuracy", "name": "accuracy", "value": 0.975} in result["metrics"]


def test_odd_labels() -> None:
    """Every label is shown as it is, in Markdown and in YAML."""
    scores = {label: {"support": 1, "precision": None, "recall": 0.5, "f1": None} for label in ODD}
    changed = metrics(ODD)
    changed["validation"]["labels"] = scores
    front_matter, markdown = parts(card(subject(ODD, metrics=changed)))

    sections = shown(markdown)
    cells = [sections["Data"][1:][column * 4] for column in range(1, 1 + len(ODD))]
    assert list(ODD) == cells
    assert f"An image classifier with {len(ODD)} labels: {', '.join(ODD)}." in sections["pets-1f"][0]
    values = front_matter["model-index"][0]["results"][0]["metrics"]
    assert [f"recall of {label}" for label in ODD] == [value["name"] for value in values if value["type"] == "recall"]


@pytest.mark.parametrize("text", ODD)
def test_escaped(text: str) -> None:
    """Escaped text is shown as it is at the start of a line, in a list, in a table and in a heading."""
    plain = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for template in ("{}\n", "- {}\n", "# {}\n", "|{}|\n|---|\n| x |\n"):
        token = next(token for token in plain.parse(template.format(escaped(text))) if token.type == "inline")
        assert text == "".join(child.content for child in token.children or [])


def test_metrics_with_intervals() -> None:
    """Every score that is known is in the table, with its interval where there is one; the loss is there once."""
    scores = {
        "images": 120,
        "accuracy": 0.975,
        "loss": 0.08,
        "log_loss": 0.08,
        "roc_auc": None,
        "intervals": {"accuracy": [0.95, 0.99], "log_loss": None},
    }
    test = {"images": 50, "accuracy": 0.96, "loss": 0.1, "log_loss": 0.1}

    sections = shown(parts(card(subject(metrics=metrics(("a",), validation=scores, test=test))))[1])

    intro, *cells = sections["Metrics"]
    assert "120 validation images and 50 test images" in intro
    assert "intervals of 95 %" in intro
    rows = [cells[n : n + 3] for n in range(0, 9, 3)]
    assert [["", "validation", "test"], ["accuracy", "0.975 (0.950 to 0.990)", "0.960"]] == rows[:2]
    assert ["log loss", "0.080", "0.100"] == rows[2]


def test_class_weights() -> None:
    """Where the loss was weighted, the card has the weights, and says that the metrics are not weighted."""
    labels = ("cats", "dogs")
    _, body = parts(card(subject(metrics=metrics(labels, class_weights={"cats": 0.5, "dogs": 1.5}))))
    _, plain = parts(card(subject()))

    assert "Class weights (none) in the training loss, not in the metrics above: cats 0.5, dogs 1.5." in body
    assert "Class weights" not in plain


@pytest.mark.parametrize(("decay", "optimizer"), [((0, 0), "Adam"), ((1, 1), "AdamW"), ((0, 1), "Adam and AdamW")])
def test_optimizer(decay: tuple[float, float], optimizer: str) -> None:
    """It is AdamW in the stages that have weight decay."""
    stages = {stage: {"weight_decay": value} for stage, value in zip(STAGES, decay, strict=True)}
    _, body = parts(card(subject(settings=Settings.model_validate(stages))))

    assert f"\n{optimizer}, cross-entropy, seed 7." in body


def test_limits() -> None:
    """What was seen in the data is listed: warnings, the majority, the gate, suspected labels, unusable images."""
    seen = {
        "warnings": [{"code": "one_answer", "text": "every image gets the label a|b"}],
        "gate": {"passed": False},
        "majority": {"label": "- x", "validation": 0.9, "test": None},
        "label_errors": {
            "train": {"images": 480, "suspected": 21},
            "validation": {"images": 120, "suspected": 0},
            "test": None,
            "unavailable": {"test": "there is no test split"},
        },
    }

    limits = shown(parts(card(subject(metrics=metrics(("a",), **seen))))[1])["Limits"]

    assert "every image gets the label a|b" == limits[0]
    assert "Always answering - x has an accuracy of 0.900." in limits
    assert "Labels that may be wrong: 21 train (data/label_errors.jsonl)." in limits
    assert any("below its quality gate" in limit for limit in limits)
    assert any(limit.startswith("3 images could not be used") for limit in limits)
    assert any(limit.startswith("2 held-out images are, or look like, images it was trained on") for limit in limits)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("imagenet", "non-commercial"),
        ("none", "random weights"),
        ("gs://bucket/w_1.h5", "gs://bucket/w_1.h5: see the licence of these weights"),
    ],
)
def test_licence(weights: str, expected: str) -> None:
    """The licence of the first weights is named; that of the model is its owner's to choose."""
    sections = shown(parts(card(subject(settings=settings(weights=weights))))[1])

    assert any(expected in text for text in sections["Licence"])
    assert "To be chosen by the owner" in sections["Licence"][0]
    assert "To be written by the owner" in sections["Intended use"][0]


def test_warm_start() -> None:
    """A card names the run that its model started from, and what of its head was taken over."""
    weights = {"source": "gs://b/runs/old_1", "digest": "d1", "run": {"head": "taken over"}}
    sections = shown(parts(card(subject(settings=settings(weights="latest"), weights=weights)))[1])

    assert any("gs://b/runs/old_1 (its head: taken over)" in text for text in sections["Licence"])


def test_one_column_of_two_labels() -> None:
    """Only for two labels there is something to say about the one column of model.keras: whose probability it is."""
    two, three = (shown(parts(card(subject(labels)))[1])["How to load it"] for labels in (("a", "b_c"), tuple("abc")))

    assert any("the probability of the second label, b_c" in text for text in two)
    assert not any("one column" in text for text in three)


def test_many_labels() -> None:
    """The tables of a thousand labels end after the first ones, and say so."""
    labels = tuple(f"label{number:04}" for number in range(1000))

    sections = shown(parts(card(subject(labels)))[1])

    assert f"And {1000 - TABLE_LABELS} more labels." in sections["Data"]
    assert "label0050" not in sections["Data"]
    assert f"and {1000 - TABLE_LABELS} more." in sections["pets-1f"][0]


def test_augmentation() -> None:
    """The changes of the training images are named, if there are any."""
    augmentation = AugmentationSettings(flip="horizontal", rotation=15, mixup=0.2)
    with_it = settings().model_copy(update={"augmentation": augmentation})
    sections = [shown(parts(card(subject(settings=chosen)))[1])["Training"] for chosen in (with_it, settings())]

    assert any("augmented: flip horizontal, rotation 15, mixup 0.2." in text for text in sections[0])
    assert not any("augmented" in text for text in sections[1])


@pytest.mark.parametrize(
    ("backbone", "licence", "origin"),
    [
        ("MobileNetV2", "Apache License 2.0", "tensorflow/models"),
        ("ResNet50", "MIT License", "KaimingHe"),
        ("DenseNet121", "BSD 3-Clause License", "DenseNet"),
    ],
)
def test_backbone(backbone: str, licence: str, origin: str) -> None:
    """The card names the backbone, and the origin and licence of its ImageNet weights."""
    front_matter, body = parts(card(subject(settings=settings(backbone=backbone))))
    [text] = [text for text in shown(body)["Licence"] if "ImageNet weights" in text]

    assert backbone.lower() in front_matter["tags"]
    assert all(part in text for part in (backbone, licence, origin))
    assert ("(alpha 1, 224 pixels)" in body) == (backbone == "MobileNetV2")


def test_a_trained_top_is_named() -> None:
    """Where stage 2 trained the top of the backbone alone, the table of the training names its first layer."""
    changed = Settings.model_validate({"fine_tuning": {"from_layer": "block_13_expand"}})

    assert any(
        "from block_13_expand on" in text for text in shown(parts(card(subject(settings=changed)))[1])["Training"]
    )
