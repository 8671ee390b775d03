"""Names are compared by what they print as."""

from __future__ import annotations

import pytest

from job.data.lookalikes import has_invisible, printed, similar_form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "c\u0430t"),
        ("cat", "\uff43at"),
        ("cat", "cat\u200b"),
        ("cat", "\u00adcat"),
        ("cat", "\U0001d41cat"),
        ("COC", "\u0421\u041e\u0421"),
        ("no", "n\u03bf"),
        ("fine", "\ufb01ne"),
        ("a b", "a\u00a0b"),
        ("\uc77c", "\uc77c\u3164"),
    ],
)
def test_alike(one: str, other: str) -> None:
    """Characters without a shape, wide forms, ligatures and letters of other scripts print like others."""
    assert printed(one) == printed(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("m2", "m\u00b2"),
        ("\u0434\u043e\u043c", "\u0442\u043e\u043c"),
        ("l", "1"),
        ("\u043d", "h"),
        ("\u732b", "\u72ac"),
    ],
)
def test_different(one: str, other: str) -> None:
    """Letters that only resemble others are told apart."""
    assert printed(one) != printed(other)


def test_similar() -> None:
    """What a person confuses in many fonts has one form."""
    assert similar_form("l1I|") == similar_form("llll")
    assert similar_form("corn") == similar_form("com")
    assert similar_form("O") == similar_form("0")
    assert similar_form("cat") != similar_form("car")


def test_invisible() -> None:
    """A character without a shape is found, but not what joins the parts of an emoji."""
    assert [True, True, False, False] == list(
        map(has_invisible, ["cat\u200b", "\ufeffcat", "\U0001f469\u200d\U0001f52c", "cat"])
    )
