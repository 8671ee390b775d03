"""Why an image cannot be used: a closed list of reasons, each explained."""

from __future__ import annotations

from typing import get_args

from job.data.quarantine import REASONS, Reason, UnreadableImage


def test_every_reason_is_explained() -> None:
    """The explanations are those of the type, in its order."""
    assert list(get_args(Reason)) == list(REASONS)
    assert all(REASONS.values())


def test_unreadable_image() -> None:
    """The finding has its reason, and reads as its detail."""
    error = UnreadableImage("corrupt", "cut off after 7 bytes")

    assert ("corrupt", "cut off after 7 bytes", "cut off after 7 bytes") == (error.reason, error.detail, str(error))
