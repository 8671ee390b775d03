"""Object stores behind one small protocol: ``gs://`` buckets and local folders.

``open_store(uri)`` is the way in. Read ``objects.py`` for the protocol, then ``gcs.py`` and ``local.py`` for the two
stores; ``google_calls.py`` is where a request is tried again and its errors become ours. Google's libraries, obstore
and google-crc32c are imported in this package only, and not before a bucket is opened: a mistake in the settings is
known long before.
"""

from __future__ import annotations

from job import uri as uris
from job.errors import SettingsError
from job.storage.local import LocalStore
from job.storage.objects import LostObject, ObjectInfo, PreconditionFailed, RetryPolicy, Store, crc32c

__all__ = ["LostObject", "ObjectInfo", "PreconditionFailed", "RetryPolicy", "Store", "crc32c", "open_store"]

_DEFAULT_RETRY = RetryPolicy()


def open_store(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY, user_project: str | None = None) -> Store:
    """Open the store at a URI. Nothing is asked of a bucket yet, nor is a local folder made.

    Args:
        uri: ``gs://BUCKET[/PREFIX]`` or a local path. A prefix is a folder: ``gs://b/d`` never means ``gs://b/d_old``.
        retry: for how long a request that fails is tried again.
        user_project: the Google Cloud project that pays for the requests, where the bucket is requester-pays.

    Raises:
        SettingsError: the URI is not one of these; the message has the one that was meant where that can be told.
        AccessError: there are no credentials for Google Cloud.
    """
    try:
        place = uris.parse(uri)
    except ValueError as error:
        raise SettingsError(str(error), remedy="Give gs://BUCKET/PREFIX or a local path.") from None
    match place.scheme:
        case "gs":
            from job.storage.gcs import open_bucket  # a second of imports that a local run is spared

            return open_bucket(place.bucket, place.path, retry=retry, user_project=user_project or None)
        case "file":
            return LocalStore(place.path)
