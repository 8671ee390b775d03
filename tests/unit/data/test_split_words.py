"""Folders that are called like splits."""

from __future__ import annotations

import pytest

from job.data.labels import TEST, TRAIN, VALIDATION
from job.data.split_words import split_codes


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("train", TRAIN),
        ("TRAINING", TRAIN),
        ("Train Data", TRAIN),
        ("train_set_2", TRAIN),
        ("valid", VALIDATION),
        ("val2017", VALIDATION),
        ("dev-set", VALIDATION),
        ("eval", VALIDATION),
        ("test1", TEST),
        ("TestImages", TEST),
        ("testing.data", TEST),
    ],
)
def test_alone(name: str, code: int) -> None:
    """A split word counts alone, with numbers and with words for a set of images."""
    assert {name: code} == split_codes([name])


@pytest.mark.parametrize(
    "name", ["trains", "contest", "test_tube", "detrain", "latest", "values", "train_test", "", "42"]
)
def test_no_splits(name: str) -> None:
    """Words that only hold a split word, and names with two of them or with other words, are none."""
    assert {} == split_codes([name])


def test_words_that_two_splits_share() -> None:
    """Other words count where a sibling of another split has them too."""
    assert {"seg_train": TRAIN, "seg_test": TEST} == split_codes(["seg_train", "seg_test", "seg_pred", "my_train"])
    assert {} == split_codes(["steel_training", "steel_train", "rust_test"])
