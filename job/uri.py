"""Locations: parses ``gs://bucket/path`` or a local path into one canonical form.

Pure text processing, except :func:`is_inside`, which follows symlinks on the local disk; which local names there can be
depends on the locale. Common mistakes (a console link, ``gs:/bucket``) are rejected with the URI that was probably
meant.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
"""https://cloud.google.com/storage/docs/buckets#naming"""

_QUOTES = tuple("\"'`“”‘’")  # noqa: RUF001  # also the typographic ones, which word processors insert

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# Common mistakes for gs://BUCKET/PATH. Each pattern captures BUCKET/PATH as "target".
_GS_TYPO = re.compile(r"(?:gs|gcs)(?::/*|//+)(?P<target>.+)", re.IGNORECASE | re.DOTALL)
_GS_LINKS = (
    re.compile(
        r"https?://console\.cloud\.google\.com/storage/browser/(?:_details/)?(?P<target>[^;?#]+).*",
    ),
    re.compile(r"https?://storage\.(?:googleapis|cloud\.google)\.com/(?P<target>[^?#]+).*"),
)
_GS_HOST_LINK = re.compile(r"https?://(?P<bucket>[a-z0-9._-]+)\.storage\.googleapis\.com/?(?P<path>[^?#]*).*")


@dataclass(frozen=True, slots=True)
class Location:
    """A location in an object store or on the local disk.

    Attributes:
        scheme: ``gs`` or ``file``.
        bucket: the bucket's name; empty for ``file``.
        path: for ``gs``, an object name or prefix, verbatim, without a trailing slash (empty: the whole bucket); for
            ``file``, an absolute path with symlinks unresolved.
    """

    scheme: Literal["gs", "file"]
    bucket: str
    path: str

    def __str__(self) -> str:
        """The canonical form: no trailing slash; a local path without ``file://``."""
        if self.scheme == "file":
            return self.path
        return f"gs://{self.bucket}/{self.path}" if self.path else f"gs://{self.bucket}"


def parse(uri: str) -> Location:
    """Parse a URI or a local path.

    A local path becomes absolute, a leading ``~`` is the home directory, and ``file:///a%20b`` is ``/a b``. ``gs://``
    URIs are not decoded: every character except trailing slashes belongs to the name.

    Raises:
        ValueError: it is neither; the message contains the value and, where it can be guessed, the intended URI.
    """
    check_unquoted(uri)
    if not uri or uri != uri.strip():
        raise ValueError(f"{uri!r}: expected gs://BUCKET/PATH or a local path, without blanks around it")
    if "\0" in uri:
        raise ValueError(f"{uri!r}: a name cannot hold a NUL character")
    if uri.startswith("gs://"):
        return _parse_gs(uri)
    if suggestion := _suggest(uri):
        raise ValueError(f"{uri!r} is not a URI of this program: did you mean {suggestion}?")
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


def check_unquoted(text: str) -> None:
    """Reject a value that begins with a quote.

    Shells and YAML remove the quotes around a value, but `docker --env-file` and many other sources of environment
    variables do not. A local path that does begin with a quote can be written as ``./"name``.

    Raises:
        ValueError: it begins with a quote.
    """
    if text.lstrip().startswith(_QUOTES):
        raise ValueError(f"{text!r}: the quotes are part of the value: write it without them")


LOCALE_REMEDY = "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"


def locale_problem(name: str) -> str | None:
    """Return why the locale keeps this process from reading or using a file's name; None if the locale is not at fault.

    Python takes names of files in the locale's encoding. With the POSIX locale and without Python's UTF-8 mode this is
    ASCII: other names from the disk arrive as lone surrogates, and other names from elsewhere cannot be used at all.
    """
    encoding = sys.getfilesystemencoding()
    if name.isascii() or encoding == "utf-8":
        return None
    try:
        name.encode("utf-8", "surrogateescape")  # not Unicode text in any locale if this fails
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return None  # bytes that are not UTF-8: a UTF-8 locale does not help
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            return None
    return f"the locale's encoding of file names is {encoding!r}, not UTF-8, so {name!r} cannot be read correctly"


def is_inside(child: str, parent: str) -> bool:
    """Return whether ``child`` is ``parent`` or below it; on the local disk, after resolving symlinks.

    Raises:
        ValueError: :func:`parse` rejects one of them.
    """
    inner, outer = parse(child), parse(parent)
    if (inner.scheme, inner.bucket) != (outer.scheme, outer.bucket):
        return False
    if inner.scheme == "file":
        outer_path = os.path.realpath(outer.path)
        return os.path.commonpath([os.path.realpath(inner.path), outer_path]) == outer_path
    return not outer.path or inner.path == outer.path or inner.path.startswith(f"{outer.path}/")


def is_bucket_name(text: str) -> bool:
    """Return whether Cloud Storage accepts this as a bucket name."""
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
        os.fsencode(absolute)
    except RuntimeError as error:  # unknown user, or no home directory
        raise ValueError(f"{path!r}: {error}: write the whole path") from None
    except UnicodeEncodeError:
        problem = locale_problem(path)
        raise ValueError(f"{problem}: {LOCALE_REMEDY}" if problem else f"{path!r} is not Unicode text") from None
    # Keep "..": after a symlink it is not the lexical parent. Collapse leading slashes: absolute() keeps two.
    return Location("file", "", f"/{str(absolute).lstrip('/')}")


def _suggest(uri: str) -> str | None:
    """Return the gs:// URI that a mistyped URI or a web link stands for, or None."""
    target = None
    if match := _GS_HOST_LINK.fullmatch(uri):
        target = f"{match['bucket']}/{unquote(match['path'])}"
    elif match := next(filter(None, (pattern.fullmatch(uri) for pattern in _GS_LINKS)), None):
        target = unquote(match["target"])
    elif match := _GS_TYPO.fullmatch(uri):
        target = match["target"]
    return f"gs://{target.strip('/')}" if target and target.strip("/") else None
