"""Labels and splits from folders: what is read, and what is refused because it may be read in two ways."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from job.data.folders import Layout
from job.data.labels import TEST, TRAIN, VALIDATION
from job.errors import DataError


def put(*folders: str) -> list[str]:
    """Return the names of five images in each folder."""
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(5)]


def test_classes_are_the_first_folders() -> None:
    """The label is the first folder, however deep an image lies in it; an image in the root has none."""
    names = ["cats/1.jpg", "dogs/2020/05/2.jpg", "3.jpg", "/4.jpg"]

    assert [("cats", 0), ("dogs", 0), None, None] == list(map(Layout.detect(names).parse, names))


def test_splits_are_above_the_classes() -> None:
    """Where all folders are called like splits, the label is the folder below; what lies above it has none."""
    names = ["Train/cats/1.jpg", "val/dogs/a/2.jpg", "valid/cats/3.jpg", "Testing/cats/4.jpg", "Train/5.jpg", "6.jpg"]

    read = list(map(Layout.detect(names).parse, names))

    expected = [("cats", TRAIN), ("dogs", VALIDATION), ("cats", VALIDATION), ("cats", TEST), None, None]
    assert expected == read


@pytest.mark.parametrize(
    ("train", "held_out", "code"),
    [
        ("train", "test", TEST),
        ("Training", "Validation", VALIDATION),
        ("training_set", "test_set", TEST),
        ("seg_train", "seg_test", TEST),
        ("cars_train", "cars_test", TEST),
        ("trainset", "testset", TEST),
        ("train2017", "val2017", VALIDATION),
        ("train_256", "val_256", VALIDATION),
        ("TrainData", "TestData", TEST),
        ("images-train", "images-dev", VALIDATION),
        ("train_images", "evaluation images", VALIDATION),
    ],
)
def test_names_of_splits_in_public_data_sets(train: str, held_out: str, code: int) -> None:
    """Split words count with numbers, with words such as "set" and with words that both have; the log says so."""
    names = put(*(f"{split}/{label}" for split in (train, held_out) for label in ("cats", "dogs")))

    with capture_logs() as logs:
        layout = Layout.detect(names)

    assert {train: TRAIN, held_out: code} == layout.splits
    assert ("cats", code) == layout.parse(f"{held_out}/cats/1.jpg")
    assert [log["event"] for log in logs] == ["input.splits_found"] * ((train, held_out) != ("train", "test"))


@pytest.mark.parametrize("inner", ["training_set", "train", "images"])
def test_doubled_split_folders(inner: str) -> None:
    """As archives unpack, the class folders of a split may lie in one more folder."""
    names = put(f"training_set/{inner}/cats", f"training_set/{inner}/dogs", "test_set/cats", "test_set/dogs")

    layout = Layout.detect(names)

    assert {("cats", TRAIN), ("dogs", TRAIN), ("cats", TEST), ("dogs", TEST)} == set(map(layout.parse, names))


@pytest.mark.parametrize(
    "folders",
    [
        ["cats", "dogs"],
        ["train", "bus", "car"],
        ["training", "running", "resting"],
        ["valid", "invalid"],
        ["test_tube", "train_station"],
        ["cats/2023", "dogs/2023"],
        ["cats/2023-01", "cats/2023-02", "dogs/2023-01", "dogs/2023-02"],
        ["cats/batch1", "dogs/batch1"],
        ["cats/images", "dogs/images"],
        ["cats/indoor", "cats/outdoor", "dogs/alone", "dogs/together"],
        ["cats/cats", "dogs/dogs"],
        ["cats/persian", "cats/siam", "dogs/poodle", "dogs/hound", "birds"],
    ],
)
def test_classes(folders: list[str]) -> None:
    """Classes may be called like splits, and may hold folders, where that can mean nothing else."""
    names = put(*folders)

    assert [(name.split("/")[0], 0) for name in names] == list(map(Layout.detect(names).parse, names))


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["fit/cats", "fit/dogs", "holdout/cats", "holdout/dogs"], ["fit", "holdout", "cats", "dogs"]),
        (["siteA/cats", "siteA/dogs", "siteA/birds", "siteB/Cats"], ["siteA", "siteB", "cats"]),
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], ["fold1", "fold2"]),
        (["siteA/2020/pos", "siteA/2021/neg", "siteB/2020/pos", "siteB/2021/neg"], ["siteA", "siteB", "pos", "neg"]),
        (["rps/paper", "rps/rock", "rps-test-set/paper", "rps-test-set/rock"], ["rps", "rps-test-set"]),
        (["train/siteA/a", "train/siteA/b", "train/siteB/a", "train/siteB/b", "test/siteA/a"], ["siteA", "siteB"]),
        (["validation/a", "validation/b", "test/a", "test/b"], ["test", "validation", "none to train on"]),
        (["train/cats", "train/dogs", "extra/cats"], ["train", "extra"]),
        (["train", "extra"], ["train", "extra"]),
        (["cats", "dogs", "test"], ["test", "cats", "dogs"]),
        (["seg_train/a", "seg_train/b", "seg_test/a", "seg_pred"], ["seg_train", "seg_pred"]),
        (["Train/0", "Train/1", "Test", "Meta"], ["Train", "Meta"]),
        (["train", "test1"], ["test1", "labels seem to be in their names"]),
        (["train/a", "train/b", "test1"], ["test1", "labels seem to be in their names"]),
        (["train/images", "valid/images"], ["train/images", "labels seem to be in their names"]),
        (["a_train/a_train/x", "a_train/a_train/y", "a_test/a_test"], ["a_test/a_test", "labels seem to be"]),
        (["train"], ["train", "labels seem to be in their names"]),
        (["A", "B", "all/A", "all/B"], ["all", "copy"]),
        (["Parasitized", "Uninfected", "cell_images/parasitized", "cell_images/uninfected"], ["cell_images", "copy"]),
        (["train/A", "train/B", "train/all/A", "train/all/B"], ["train/all", "copy"]),
        (["flowers/cats", "flowers/dogs"], ["flowers", "one folder holds all"]),
        (["test/cats", "test/dogs"], ["test", "one folder holds all"]),
        (["images", "masks"], ["images", "masks"]),
        (["COVID/images", "COVID/masks", "Normal/images", "Normal/masks"], ["COVID/images", "COVID/masks"]),
        (["train/images", "train/labels"], ["train/images", "train/labels"]),
    ],
)
def test_what_is_no_class_is_refused(folders: list[str], named: list[str]) -> None:
    """Splits, sites, copies, masks and folders around all others are never trained as classes: the tree is shown."""
    with pytest.raises(DataError) as raised:
        Layout.detect(put(*folders), where="gs://b/d")

    assert "gs://b/d" in raised.value.message
    assert [] == [text for text in named if text not in raised.value.message]
    assert "input.layout=classes" in raised.value.remedy or "did you mean" in raised.value.remedy


def test_the_folder_that_is_meant_is_named() -> None:
    """Where folders lie around the data, the URI of the innermost is given."""
    with pytest.raises(DataError) as raised:
        Layout.detect(put("x/y/train/a", "x/y/train/b", "x/y/test/a"), where="gs://b/d")

    assert "did you mean gs://b/d/x/y?" == raised.value.remedy


def test_message() -> None:
    """The message draws two levels with their counts and says what they were taken for; the remedy is a setting."""
    with pytest.raises(DataError) as raised:
        Layout.detect(["1.jpg", *put("train/cats", "train/dogs", "extra")], where="/data")

    assert raised.value.message == (
        "the folders under /data cannot be read as classes: beside folders that are called like splits ('train') there "
        "are others ('extra'). Found:\n"
        "  1 images outside folders\n"
        "  extra/  5 images\n"
        "  train/  10 images: cats/ 5, dogs/ 5"
    )
    assert raised.value.remedy == (
        "leave out what is neither: --input.exclude 'extra/'; rename splits (known: train, training; validation, "
        "valid, val, eval, dev; test, testing; also as train_images, testset, seg_train); if the top folders are "
        "the classes all the same, say so: input.layout=classes"
    )


def test_layout_by_hand() -> None:
    """The setting settles what the folders are, either way."""
    names = put("train/cats", "train/dogs", "validation/cats", "validation/dogs")

    assert {"train", "validation"} == {Layout.detect(names, "classes").parse(name)[0] for name in names}  # type: ignore[index]
    assert {("cats", TRAIN), ("dogs", TRAIN), ("cats", VALIDATION), ("dogs", VALIDATION)} == set(
        map(Layout.detect(names, "splits").parse, names)
    )
    assert Layout.detect(put("images", "masks"), "classes").splits == {}
    with pytest.raises(DataError, match=r"input\.layout is splits, but 'holdout' is called like none"):
        Layout.detect(put("train/cats", "train/dogs", "holdout/cats"), "splits")
