"""Where things lie: ``gs://bucket/path`` or a local path, read once and written in one form.

Pure text, but for :func:`is_inside`, which follows links on the local disk. What people paste instead of a URI
(a link from the console, ``gs:/bucket``) is refused with the URI that was meant.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
"""https://cloud.google.com/storage/docs/buckets#naming"""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# What people paste instead of gs://BUCKET/PATH: each pattern takes the place out of its own spelling.
_GS_MISSPELT = re.compile(r"(?:gs|gcs)(?::/*|//+)(?P<place>.+)", re.IGNORECASE | re.DOTALL)
_GS_LINKS = (
    re.compile(
        r"https?://console\.cloud\.google\.com/storage/browser/(?:_details/)?(?P<place>[^;?#]+).*",
    ),
    re.compile(r"https?://storage\.(?:googleapis|cloud\.google)\.com/(?P<place>[^?#]+).*"),
)
_GS_HOST_LINK = re.compile(r"https?://(?P<bucket>[a-z0-9._-]+)\.storage\.googleapis\.com/?(?P<path>[^?#]*).*")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in an object store or on the local disk.

    Attributes:
        scheme: ``gs`` or ``file``.
        bucket: the bucket's name; empty for ``file``.
        path: for ``gs`` an object's name or a prefix, taken as it is, without a slash at its end (empty: the whole
            bucket); for ``file`` an absolute path, links not followed.
    """

    scheme: Literal["gs", "file"]
    bucket: str
    path: str

    def __str__(self) -> str:
        """The one form of this place: no slash at its end; a local path is plain, without ``file://``."""
        if self.scheme == "file":
            return self.path
        return f"gs://{self.bucket}/{self.path}" if self.path else f"gs://{self.bucket}"


def parse(uri: str) -> Location:
    """Read a URI or a local path.

    A local path is made absolute, ``~`` in front is the home folder, and ``file:///a%20b`` is ``/a b``. In ``gs://``
    nothing is decoded: every character but the slashes at the end belongs to the name.

    Raises:
        ValueError: it is neither; the message has what was given, and what was meant where that can be told.
    """
    if not uri or uri != uri.strip():
        raise ValueError(f"{uri!r}: expected gs://BUCKET/PATH or a local path, without blanks around it")
    if "\0" in uri:
        raise ValueError(f"{uri!r}: a name cannot hold a NUL character")
    if uri.startswith("gs://"):
        return _parse_gs(uri)
    if meant := _meant(uri):
        raise ValueError(f"{uri!r} is not a URI of this program: did you mean {meant}?")
    if match := _SCHEME.match(uri):
        if uri.startswith("file:///"):
            return _local(unquote(uri.removeprefix("file://")))
        if match[1].lower() == "file":
            raise ValueError(f"{uri!r}: a file URI has three slashes: file:///folder; or write the plain path")
        raise ValueError(
            f"{uri!r}: {match[1]}:// is not supported, only gs://BUCKET/PATH and local paths: "
            "copy the data to one of these first"
        )
    return _local(uri)


def is_inside(child: str, parent: str) -> bool:
    """Whether ``child`` is ``parent`` or lies under it; on the local disk with all links followed.

    Raises:
        ValueError: one of them is not a URI that :func:`parse` takes.
    """
    inner, outer = parse(child), parse(parent)
    if (inner.scheme, inner.bucket) != (outer.scheme, outer.bucket):
        return False
    if inner.scheme == "file":
        real = os.path.realpath(outer.path)
        return os.path.commonpath([os.path.realpath(inner.path), real]) == real
    return not outer.path or inner.path == outer.path or inner.path.startswith(f"{outer.path}/")


def is_bucket_name(text: str) -> bool:
    """Whether Cloud Storage would take this as a bucket's name."""
    return _BUCKET.fullmatch(text) is not None


def _parse_gs(uri: str) -> Location:
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    if not bucket and path.strip("/"):
        raise ValueError(f"{uri!r} has a slash too many: did you mean gs://{path.strip('/')}?")
    if not is_bucket_name(bucket):
        raise ValueError(
            f"{uri!r}: {bucket!r} is not a bucket's name: expected gs://BUCKET/PATH, "
            "the bucket 3 characters or more of a-z, 0-9, '-', '_' and '.'"
        )
    return Location("gs", bucket, path.rstrip("/"))


def _local(path: str) -> Location:
    try:
        absolute = Path(path).expanduser().absolute()
    except RuntimeError as error:  # there is no such user, or no home folder
        raise ValueError(f"{path!r}: {error}: write the whole path") from None
    # ".." stays: after a link it is not what stands before it. Two slashes in front would stay as well.
    return Location("file", "", f"/{str(absolute).lstrip('/')}")


def _meant(uri: str) -> str | None:
    """Return the gs:// URI behind a misspelt one or a link, None where there is none."""
    place = None
    if match := _GS_HOST_LINK.fullmatch(uri):
        place = f"{match['bucket']}/{unquote(match['path'])}"
    elif match := next(filter(None, (pattern.fullmatch(uri) for pattern in _GS_LINKS)), None):
        place = unquote(match["place"])
    elif match := _GS_MISSPELT.fullmatch(uri):
        place = match["place"]
    return f"gs://{place.strip('/')}" if place and place.strip("/") else None
