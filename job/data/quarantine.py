"""Images that cannot be used, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Reason = Literal[
    "missing",
    "changed",
    "conflicting_labels",
    "conflicting_splits",
    "conflicting_groups",
    "empty",
    "not_an_image",
    "unsupported_format",
    "too_large",
    "corrupt",
    "damaged",
]
"""Why an image is quarantined: a closed list, explained in `REASONS`."""

REASONS: Final = MappingProxyType[Reason, str](
    {
        "missing": "listed or named, but not there when it was read",
        "changed": "other bytes than listed, or bytes that do not fit their checksum",
        "conflicting_labels": "named by a manifest under several labels",
        "conflicting_splits": "named by a manifest in several splits",
        "conflicting_groups": "named by a manifest in several groups (input.group_column)",
        "empty": "a file of zero bytes",
        "not_an_image": "something else: a web page, an error message, an archive, unknown bytes",
        "unsupported_format": "an image that cannot be decoded here: convert it to JPEG or PNG",
        "too_large": "more pixels than input.max_pixels",
        "corrupt": "an image that is cut off or damaged, and cannot be decoded",
        "damaged": "a JPEG that can be decoded, but libjpeg warns about it, with input.damaged: quarantine",
    }
)


class UnreadableImage(Exception):  # noqa: N818 - a finding about a file, not a program error
    """An image cannot be used.

    Args:
        reason: the kind, one of `REASONS`.
        detail: a sentence about this file, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Quarantined:
    """An image that cannot be used.

    Attributes:
        uri: text that UTF-8 can encode.
        label: its class.
        size: bytes; 0 if empty or unknown.
        reason: one of `REASONS`.
        detail: a sentence, for people.
    """

    uri: str
    label: str
    size: int
    reason: Reason
    detail: str
