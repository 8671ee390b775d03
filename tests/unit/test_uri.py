"""job/uri.py: one form for each place, and a hint for what people paste instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posix_locale import output_of

from job.uri import Location, is_bucket_name, is_inside, locale_problem, parse

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20)
GS_PATHS = st.lists(NAMES, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gs://bkt", Location("gs", "bkt", "")),
        ("gs://bkt/", Location("gs", "bkt", "")),
        ("gs://bkt/d/", Location("gs", "bkt", "d")),
        ("gs://my.domain-1_x/a b/%20#?", Location("gs", "my.domain-1_x", "a b/%20#?")),
        ("gs://bkt/a//b", Location("gs", "bkt", "a//b")),
        ("/data/flowers/", Location("file", "", "/data/flowers")),
        ("//data", Location("file", "", "/data")),
        ("file:///data/a%20b", Location("file", "", "/data/a b")),
        ("/", Location("file", "", "/")),
    ],
)
def test_parse(text: str, expected: Location) -> None:
    """A URI or path is split into its parts, verbatim but for the slashes around it."""
    assert expected == parse(text)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from the current folder, one with ~ from the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    assert f"{tmp_path}/bkt/d" == str(parse("bkt/d"))
    assert "/home/someone/d" == str(parse("~/d"))


@pytest.mark.parametrize("text", ['"gs://bkt/d"', "'/data'", '"gs://bkt/d', "“data”"])
def test_values_with_quotes(text: str) -> None:
    """A value that begins with a quote is refused, as it is; a quote elsewhere belongs to the name."""
    with pytest.raises(ValueError, match="the quotes are part of the value") as raised:
        parse(text)

    assert repr(text) in str(raised.value)
    assert Location("gs", "bkt", 'a "b"') == parse('gs://bkt/a "b"')


@settings(deadline=None)  # the machine may be busy
@given(GS_PATHS)
def test_written_and_read_again(path: str) -> None:
    """What a location is written as is read as the same location."""
    for location in (Location("gs", "bkt", path.rstrip("/")), parse(f"/{path}/x")):
        if str(location) == str(location).strip():
            assert location == parse(str(location))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("gs:/bkt/d", "gs://bkt/d"),
        ("gs:bkt/d", "gs://bkt/d"),
        ("gs//bkt/d", "gs://bkt/d"),
        ("GS://bkt/d", "gs://bkt/d"),
        ("gs:///bkt/d", "gs://bkt/d"),
        ("gcs://bkt/d/", "gs://bkt/d"),
        ("https://console.cloud.google.com/storage/browser/bkt/d", "gs://bkt/d"),
        ("https://console.cloud.google.com/storage/browser/bkt/d;tab=objects?prefix=&project=p", "gs://bkt/d"),
        ("https://console.cloud.google.com/storage/browser/_details/bkt/d/a%20b;tab=live_object", "gs://bkt/d/a b"),
        ("https://storage.googleapis.com/bkt/d", "gs://bkt/d"),
        ("https://storage.cloud.google.com/bkt/d?authuser=1", "gs://bkt/d"),
        ("https://bkt.storage.googleapis.com/d/e", "gs://bkt/d/e"),
    ],
)
def test_what_people_paste(text: str, meant: str) -> None:
    """A misspelt URI or a link is refused, with the value and the URI that was meant."""
    with pytest.raises(ValueError, match="did you mean") as raised:
        parse(text)

    assert repr(text) in str(raised.value)
    assert str(raised.value).endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected gs://BUCKET/PATH or a local path"),
        (" gs://bkt/d", "without blanks"),
        ("gs://bkt/d\n", "without blanks"),
        ("/data\0", "NUL"),
        ("s3://bkt/d", "s3:// is not supported"),
        ("https://example.com/d", "https:// is not supported"),
        ("file://data", "three slashes"),
        ("gs://", "'' is not a bucket's name"),
        ("gs:////", "'' is not a bucket's name"),
        ("gs://B/d", "'B' is not a bucket's name"),
        ("~nobody-of-this-name/d", "write the whole path"),
    ],
)
def test_what_is_no_place(text: str, expected: str) -> None:
    """A text that is neither URI nor path is rejected with the value and what was expected."""
    with pytest.raises(ValueError, match=re.escape(expected)) as raised:
        parse(text)

    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("child", "parent", "expected"),
    [
        ("gs://bkt/d", "gs://bkt/d", True),
        ("gs://bkt/d/", "gs://bkt/d", True),
        ("gs://bkt/d/e", "gs://bkt/d", True),
        ("gs://bkt/d", "gs://bkt", True),
        ("gs://bkt/d_old", "gs://bkt/d", False),
        ("gs://bkt", "gs://bkt/d", False),
        ("gs://bkt2/d", "gs://bkt", False),
        ("/d/e", "/d", True),
        ("/d/../e", "/d", False),
        ("/d_old", "/d", False),
        ("/bkt/d", "gs://bkt", False),
        ("/d", "/", True),
    ],
)
def test_is_inside(child: str, parent: str, *, expected: bool) -> None:
    """A place is inside itself and inside what it lies under; a longer name of a sibling is not."""
    assert expected == is_inside(child, parent)


def test_is_inside_follows_links(tmp_path: Path) -> None:
    """A link into a folder lies inside that folder, also where its last part does not exist yet."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pictures")

    assert is_inside(f"{tmp_path}/link/new/output", f"{tmp_path}/pictures")
    assert is_inside(f"{tmp_path}/pictures", f"{tmp_path}/link")


def test_is_bucket_name() -> None:
    """Bucket names are those that Cloud Storage takes."""
    assert ["bkt", "a.b-c_1"] == [
        name for name in ("bkt", "a.b-c_1", "B", "ab", "-ab", "abc\n") if is_bucket_name(name)
    ]


@pytest.mark.parametrize("name", ["café", "caf\udcc3\udca9", "/data/猫", "\ud800"])
def test_no_locale_problem(name: str) -> None:
    """Where names of files are UTF-8, no name is the locale's fault."""
    assert locale_problem(name) is None


@pytest.mark.parametrize(
    ("name", "is_at_fault"), [("caf\\udcc3\\udca9", True), ("caf\\xe9", True), ("cafe", False), ("caf\\udce9", False)]
)
def test_posix_locale(name: str, is_at_fault: bool) -> None:
    """Names that UTF-8 could read are the POSIX locale's fault; bytes that are not UTF-8 are the name's own."""
    problem = output_of(f"from job import uri; print(ascii(uri.locale_problem('{name}')))")

    assert is_at_fault == ("the locale's encoding of file names is 'ascii'" in problem.replace("\\'", "'"))
    assert is_at_fault != ("None" in problem)


def test_paths_under_the_posix_locale() -> None:
    """A path that cannot be used blames the locale, with the remedy; one that the disk named is used as it is."""
    assert "the locale's" in output_of("from job import uri; uri.parse('/caf\\xe9')")
    assert "PYTHONUTF8=1" in output_of("from job import uri; uri.parse('/caf\\xe9')")
    assert "/caf?\n" == output_of(
        "from job import uri; print(str(uri.parse('/caf\\udce9')).encode('ascii', 'replace').decode())"
    )


def test_path_that_is_no_text() -> None:
    """A lone surrogate that stands for no byte is no name in any locale."""
    with pytest.raises(ValueError, match="is not Unicode text"):
        parse("/data/\ud800")
