"""The document of `finetune validate`, and its table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from surveys import prepared, survey

from job.config import ineffective
from job.config.settings import Settings
from job.data import estimates, validation
from job.data.labels import TRAIN, VALIDATION
from job.data.quarantine import Quarantined
from job.errors import AccessError, DataError

if TYPE_CHECKING:
    from job.data.prepare import Prepared
    from job.data.survey import Survey

SPLITS = [VALIDATION if number % 5 == 0 else TRAIN for number in range(200)]
SETTINGS = Settings.model_validate({"input": {"uri": "gs://box/d"}, "cache": {"max_bytes": 10**9}})
BAD = [Quarantined("gs://box/d/x.jpg", "dogs", 3, "corrupt", "cut off")]


def build(
    found: Survey,
    bad: list[Quarantined],
    data: Prepared | DataError,
    settings: Settings = SETTINGS,
    *,
    decoded: bool = False,
) -> validation.Validation:
    """Return the document of a survey."""
    return validation.build(settings, found, bad, data, estimates.estimate(settings, found.manifest), decoded=decoded)


def test_document() -> None:
    """Counts by class and split, formats, sizes, what is unusable and what it takes."""
    found = survey([number % 2 for number in range(200)])
    found.orientation[:3] = 6

    document = build(found, BAD, prepared(found, SPLITS))

    assert [("cats", 80, 20, 0, 0), ("dogs", 80, 20, 0, 1)] == [
        (row.label, row.train, row.validation, row.test, row.unusable) for row in document.classes
    ]
    assert ({"jpeg": 200}, 3, {"corrupt": 1}) == (document.formats, document.rotated, document.unusable)
    assert ((300, 200), (396, 200)) == (document.sides.smallest, document.sides.largest)  # type: ignore[union-attr]
    assert document.failure is None
    assert document == validation.Validation.model_validate_json(document.model_dump_json())


def test_groups() -> None:
    """Groups are counted, with the largest and those of several classes; the table has a line about them."""
    found = survey([number % 2 for number in range(200)])
    found.manifest = dataclasses.replace(found.manifest, group=np.array([0] * 10 + [7] * 190, np.uint64))
    groups = [*range(100, 110), *[7] * 30, *[8 + number % 2 for number in range(160)]]

    document = build(found, [], prepared(found, SPLITS, groups))

    assert validation.Groups(
        count=13, ungrouped=10, largest=80, largest_example="gs://box/d/40.jpg", across_labels=1, across_splits=3
    ) == (document.groups)
    assert "groups    13, 10 images without one are groups of their own; 1 with several classes" in validation.table(
        document
    )


def test_damaged_images() -> None:
    """Damaged images that are used are counted and named once all are decoded; without that nothing is known."""
    found = survey([number % 2 for number in range(200)])
    found.damaged[::2] = True
    found.warnings = dict.fromkeys(range(0, 200, 2), "libjpeg warns: Corrupt JPEG data")

    decoded = build(found, [], prepared(found, SPLITS), decoded=True)
    headers = build(survey([0, 1] * 100), [], prepared(found, SPLITS))

    assert (100, 20) == (decoded.damaged, len(decoded.damaged_images))
    assert ("gs://box/d/2.jpg", "cats") == (decoded.damaged_images[1].uri, decoded.damaged_images[1].label)
    assert (None, []) == (headers.damaged, headers.damaged_images)


def test_data_that_cannot_be_split() -> None:
    """Where the run would end, the counts are reported as well as its exit code and remedy."""
    found = survey([0] * 5)
    error = DataError("two classes or more are needed", remedy="add one")

    document = build(found, [], error)

    assert (3, "add one") == (document.failure.exit_code, document.failure.remedy)  # type: ignore[union-attr]
    assert ("cats", 5) == (document.classes[0].label, document.classes[0].train)


def test_settings_without_effect() -> None:
    """They are listed with the reason, as a run warns of them; those of the labels only where the data can be split."""
    found = survey([number % 2 for number in range(200)])
    settings = SETTINGS.model_copy(
        update={
            "train": SETTINGS.train.model_copy(update={"class_weight": "balanced"}),
            "fine_tuning": SETTINGS.fine_tuning.model_copy(update={"min_delta": 0.1}),
        }
    )

    document = build(found, [], prepared(found, SPLITS), settings)
    unsplit = build(found, [], DataError("two classes or more are needed", remedy="add one"), settings)

    assert ineffective.find(settings, [80, 80]) == document.without_effect
    assert ["fine_tuning.min_delta", "train.class_weight"] == list(document.without_effect)
    assert ["fine_tuning.min_delta"] == list(unsplit.without_effect)
    lines = validation.table(document).splitlines()
    start = lines.index("settings without effect:")
    assert "  fine_tuning.min_delta: fine_tuning.patience is 0" == lines[start + 1]
    assert {} == build(found, [], prepared(found, SPLITS)).without_effect
    assert "settings without effect:" not in validation.table(build(found, [], prepared(found, SPLITS)))


def test_too_little_cache() -> None:
    """A cache that holds neither features nor images ends the run, before anything is downloaded."""
    found = survey([number % 2 for number in range(200)])
    small = SETTINGS.model_copy(update={"cache": SETTINGS.cache.model_copy(update={"max_bytes": 1000})})

    document = build(found, [], prepared(found, SPLITS), small)

    assert document.failure is not None
    assert "cache.max_bytes" in document.failure.remedy


def test_table() -> None:
    """A line for each class, the sums, what cannot be used and what to look at."""
    found = survey([number % 2 for number in range(200)])
    text = validation.table(build(found, BAD, prepared(found, SPLITS)))

    lines = text.splitlines()
    assert "gs://box/d: 200 images, 200 kB, 2 classes" == lines[0]
    assert "class     train  validation     test  unusable" == lines[2]
    assert "dogs         80          20        0         1" == lines[4]
    assert "in all      160          40        0         1" == lines[5]
    assert "  gs://box/d/x.jpg: cut off" in lines
    assert max(map(len, lines)) <= 100
    assert "a run can train on these data" == lines[-1]


def test_table_of_many_classes() -> None:
    """Of many classes the smallest and the largest are shown."""
    labels = tuple(f"class {number:03}" for number in range(100))
    label = [number for number in range(100) for _ in range(number + 2)]
    found = survey(label, labels=labels)

    lines = validation.table(build(found, [], prepared(found, [TRAIN] * len(label)))).splitlines()

    assert "… 60 classes of sizes between these …" in lines
    assert lines[3].startswith("class 000")
    assert any(line.startswith("class 099") for line in lines)
    assert not any(line.startswith("class 050") for line in lines)


def test_schema_is_published() -> None:
    """docs/ holds the schema of the document."""
    path = Path(__file__).parents[3] / "docs/validate.schema.json"

    assert validation.schema() == json.loads(path.read_text("utf-8"))


def test_time_and_memory() -> None:
    """The table has a line for the time where it was measured, and says where memory was not."""
    found = survey([number % 2 for number in range(200)])
    plain = estimates.estimate(SETTINGS, found.manifest)
    seconds = estimates.Seconds(
        device="NVIDIA L4", startup=9.6, ingest=59.9, feature_extraction=4, fine_tuning=7300, evaluation=30
    )
    memory = plain.memory.model_copy(update={"gpu_bytes": 5_000_000_000, "measured": True})
    measured = plain.model_copy(update={"seconds": seconds, "memory": memory})

    before, after = (
        validation.table(validation.build(SETTINGS, found, [], prepared(found, SPLITS), known)).splitlines()
        for known in (plain, measured)
    )

    assert any("(estimated for the CPU)" in line for line in before)
    assert not any("time  " in line or "the GPU" in line for line in before)
    assert "          5 GB of the GPU" in after
    assert "time      2 h 3 min on NVIDIA L4:" in after
    assert "          start 10 s, pass over the data 60 s, stage 1 4 s, stage 2 2 h 2 min, evaluation 30 s" in after
    assert max(map(len, [*before, *after])) <= 100


def test_refused() -> None:
    """An input that cannot be listed has a document as well, with the exit code."""
    document = validation.refused("gs://box/d", AccessError("no permission", remedy="grant it"))

    assert (0, [], None) == (document.images, document.classes, document.estimates)
    assert document.failure is not None
    assert (5, "no permission", "grant it") == (*vars(document.failure).values(),)
