"""Object stores behind one small protocol: ``gs://`` buckets and local folders.

A run opens its sources by `opener` and its output by `open_output`, both as the settings say. ``objects.py`` has the
protocol, ``gcs.py`` and ``local.py`` implement it, and ``google_calls.py`` retries requests and converts their errors.
Google's libraries, obstore and google-crc32c are imported in this package only, and not before a bucket is opened, so
that invalid settings are reported at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from job import uri as uris
from job.errors import SettingsError
from job.storage.local import LocalStore
from job.storage.objects import Entry, LostObject, ObjectInfo, PreconditionFailed, RetryPolicy, Store, crc32c
from job.storage.parallel import in_parallel_by

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from job.config.settings import StorageSettings

__all__ = [
    "Entry",
    "LostObject",
    "ObjectInfo",
    "OpenStore",
    "PreconditionFailed",
    "RetryPolicy",
    "Store",
    "crc32c",
    "open_output",
    "open_store",
    "opener",
    "read_across",
]

_DEFAULT_RETRY = RetryPolicy()


OpenStore: TypeAlias = "Callable[[str], Store]"
"""Opens the store at a URI as the settings say."""


def opener(settings: StorageSettings, *, retry: RetryPolicy = _DEFAULT_RETRY) -> OpenStore:
    """Return the function that opens every store that a run reads: of the input and of the weights."""
    return partial(open_store, retry=retry, user_project=settings.user_project or None, anonymous=settings.anonymous)


def open_output(uri: str, settings: StorageSettings, *, retry: RetryPolicy = _DEFAULT_RETRY) -> Store:
    """Open the store that a run writes to: `settings.anonymous` does not apply to it."""
    return open_store(uri, retry=retry, user_project=settings.user_project or None)


def open_store(
    uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY, user_project: str | None = None, anonymous: bool = False
) -> Store:
    """Open the store at a URI. Sends no request to a bucket yet and does not create a local folder.

    Args:
        uri: ``gs://BUCKET[/PREFIX]`` or a local path. A prefix is a folder: ``gs://b/d`` never means ``gs://b/d_old``.
        retry: how long a failing request is retried.
        user_project: the Google Cloud project billed for requests to a requester-pays bucket.
        anonymous: send no credentials, and bill no project.

    Raises:
        SettingsError: the URI is neither; the message suggests the intended one if possible.
        AccessError: no credentials for Google Cloud were found.
    """
    try:
        location = uris.parse(uri)
    except ValueError as error:
        raise SettingsError(str(error), remedy="Give gs://BUCKET/PREFIX or a local path.") from None
    match location.scheme:
        case "gs":
            from job.storage.gcs import open_bucket  # a second of imports, which a local run avoids

            return open_bucket(
                location.bucket, location.path, retry=retry, user_project=user_project, anonymous=anonymous
            )
        case "file":
            return LocalStore(location.path)


def read_across(
    store_of: Callable[[int], Store], objects: Sequence[ObjectInfo]
) -> Generator[tuple[int, bytes | LostObject], None, None]:
    """Read listed objects of any number of stores in parallel, all together within the bounds of `Store.read_many`.

    Args:
        store_of: returns the store of the object at a position. Called in the reading threads.
        objects: those listed.

    Yields:
        As `Store.read_many` does.
    """
    return in_parallel_by(lambda position: store_of(position).read_listed, objects)
