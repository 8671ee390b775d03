"""The formulas of docs/scaling.md."""

from __future__ import annotations

import dataclasses

import pytest
import scaling
from paths import ROOT

INPUTS = scaling.Inputs(
    stage_1=10_000,
    stage_2=100,
    validation_share=0.2,
    batch=50,
    list_ms=0.5,
    objects_per_second=500,
    decode_ms=4,
    documents_ms=0.1,
    metrics_ms=1,
    label_errors=1,
    fixed_seconds=60,
    image_bytes=10_000,
    image_size=100,
    gpus_per_pod=64,
    cores_per_gpu=2,
    cache_terabytes=1,
    network_gigabytes=1,
    latency_ms=0,
)


def test_forward_rate() -> None:
    """The columns of gpu-check give the forward pass: 4 images at 100/s are 80 % of the epoch, 1 image is the rest."""
    assert pytest.approx(100) == INPUTS.forward
    assert pytest.approx(300) == dataclasses.replace(INPUTS, validation_share=1 / 13).forward


def test_one_gpu() -> None:
    """Each phase of a run on one GPU, worked out by hand: nothing is communicated, and all pixels are cached."""
    expected = {
        "list": 0.5,
        "read": 10.0,  # the forward pass at 100/s; downloads take 2 s, decoding on two cores as well
        "stage 1": 2.0,  # with the search for label errors, which takes as long as the epochs
        "stage 2": 10 * (8.0 + 2.0),
        "score": 2 * 2.0 + 0.2,
        "documents": 0.1,
        "fixed": 60.0,
    }

    found = scaling.costs(1_000, 1, INPUTS)

    assert expected == pytest.approx(found)


def test_more_gpus_communicate() -> None:
    """Two GPUs halve a step of 50 images each, and add the time in which each sends and receives the gradients once."""
    all_reduce = scaling.GRADIENT_BYTES / 1e9

    found = scaling.costs(1_000, 2, INPUTS)

    assert pytest.approx(all_reduce) == scaling.communication(2, INPUTS)
    assert pytest.approx(10 * (8.0 / 2 + 800 / 100 * all_reduce + 2.0 / 2)) == found["stage 2"]
    assert pytest.approx(5.0) == found["read"]
    assert scaling.costs(1_000, 1, INPUTS)["list"] == found["list"]


def test_several_pods() -> None:
    """Four Pods of two GPUs read and train on eight, send each other the features, and score on one."""
    pods = dataclasses.replace(INPUTS, gpus_per_pod=2)

    found, one_pod = (scaling.costs(1_000, 8, inputs) for inputs in (pods, INPUTS))

    assert one_pod["stage 2"] == found["stage 2"]
    assert pytest.approx(1_000 * (1 / 800 + 1.5 * 2 * (scaling.FEATURE_BYTES - 4) / 1e9)) == found["read"]
    assert scaling.costs(1_000, 1, INPUTS)["score"] == pytest.approx(found["score"])


def test_images_of_other_shares() -> None:
    """A Pod of four reads a quarter in the pass; three quarters are downloaded later, and new ones decoded."""
    slow = dataclasses.replace(INPUTS, gpus_per_pod=2, network_gigabytes=1e6)
    slow_store, slow_cores = (
        scaling.costs(1_000, 8, dataclasses.replace(slow, **limit))
        for limit in ({"objects_per_second": 1}, {"decode_ms": 4_000})
    )

    assert pytest.approx(1_000 / 4) == slow_store["read"]
    assert pytest.approx(750 - slow_store["stage 1"]) == slow_store["stage 2"]
    decoding = 4 / (8 * 2)
    assert pytest.approx(sum(1_000 * decoding * 0.75**epoch for epoch in range(1, 11))) == slow_cores["stage 2"]


def test_what_grows_alone_ends_the_gain() -> None:
    """With many GPUs the downloads limit the reading, which no further GPU makes faster."""
    few, many = (scaling.costs(1_000, gpus, INPUTS)["read"] for gpus in (32, 64))

    assert 2.0 == pytest.approx(few) == pytest.approx(many)


def test_pixels_that_do_not_fit_are_decoded_again() -> None:
    """Without room for the pixels, stage 2 and the scoring decode each image in every epoch, if that takes longer."""
    small = dataclasses.replace(INPUTS, cache_terabytes=20e6 / 1e12, decode_ms=100)

    found = scaling.costs(1_000, 1, small)

    assert ("pixels", "encoded") == (scaling.cached(1_000, INPUTS), scaling.cached(1_000, small))
    assert "nothing" == scaling.cached(10_000, small)
    assert pytest.approx(10 * 1_000 * 0.1 / 2) == found["stage 2"]


def test_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    """A reader's rates, images and GPUs are those of the tables that are printed."""
    scaling.main(["--stage_2", "123", "--images", "500", "--gpus", "2"])

    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| 500 |")]
    assert ["| 500 | 2 ", "| 500 | 0."] == [row[:10] for row in rows]
    assert "| `stage_2` | 123.0 | images/s |" in printed


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.04, "2.0 s"), (99, "99 s"), (600, "10 min"), (36_000, "10 h"), (864_000, "10 d")]
)
def test_durations(seconds: float, text: str) -> None:
    """Times have two digits and the unit that a person would use."""
    assert text == scaling.duration(seconds)


def test_page_explains_each_column() -> None:
    """docs/scaling.md has the formula of every phase of the table."""
    page = (ROOT / "docs/scaling.md").read_text()

    assert [] == [name for name in scaling.costs(1, 1, INPUTS) if f"| {name} | " not in page]
