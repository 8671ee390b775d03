"""A bucket of Google Cloud Storage, or of an emulator if ``STORAGE_EMULATOR_HOST`` is set.

Two clients: google-cloud-storage lists, writes and makes verified reads; obstore reads in bulk, four times as many
objects a second for a fifth of the CPU, but without checksums, and does not support every name. An object that obstore
does not deliver intact at the first try is read again by google-cloud-storage, with retries and precise errors.
"""

from __future__ import annotations

import base64
import mimetypes
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
import obstore.exceptions
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials, Credentials

from job.config import certificates, environment
from job.errors import DataError, FinetuneError, SettingsError, UnavailableError
from job.observability import log
from job.storage.gcs_clients import TIMEOUT, bulk_client, find_credentials, json_client
from job.storage.google_calls import Calls, DamagedError, no_checksum
from job.storage.lookup import stat_by_folder, stat_each
from job.storage.objects import CHUNK_BYTES, Entry, LostObject, ObjectInfo, PreconditionFailed, RetryPolicy, crc32c
from job.storage.parallel import UNPACKED_BYTES, in_parallel

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from google.cloud import storage

    from job.storage.objects import FoundFolder

MULTIPART_BYTES = 8 * 2**20
"""google-cloud-storage uploads more than this in a resumable session of several requests."""

NOT_FOUND, GONE = 404, 410
SESSION_LOST, SESSION_TRIES = (NOT_FOUND, GONE), 3
"""https://cloud.google.com/storage/docs/resumable-uploads#handling_errors"""

PAGE_FIELDS = "items(name,size,crc32c,generation,contentEncoding),nextPageToken"
FOLDER_FIELDS = "prefixes,nextPageToken"


def open_bucket(
    bucket: str, prefix: str, *, retry: RetryPolicy, user_project: str | None = None, anonymous: bool = False
) -> GoogleStore:
    """Open a folder of a bucket with Application Default Credentials; a public bucket or an emulator without any.

    Raises:
        AccessError: no credentials were found.
        SettingsError: the prefix has an empty part, or the bundle of certificates cannot be read.
    """
    if "" in prefix.split("/")[:-1]:
        normalized = "/".join(filter(None, (bucket, *prefix.split("/"))))
        raise SettingsError(
            f"'gs://{bucket}/{prefix}' has two slashes in a row", remedy=f"Did you mean gs://{normalized}?"
        )
    certificates.use_one_bundle()
    host = environment.get("STORAGE_EMULATOR_HOST")
    endpoint = host if not host or "://" in host else f"http://{host}"
    credentials = AnonymousCredentials() if host or anonymous else find_credentials(retry)
    project = None if anonymous else user_project  # a request without credentials cannot bill a project
    return GoogleStore(bucket, prefix, credentials, retry, endpoint=endpoint, user_project=project)


class _Page(NamedTuple):
    """A page of a listing: its objects, and with a delimiter the full names of folders."""

    items: tuple[Any, ...]
    prefixes: frozenset[str]


class GoogleStore:
    """One folder of one bucket.

    Args:
        bucket: its name.
        prefix: the folder, without a trailing slash; empty: the whole bucket.
        credentials: for reading and writing.
        retry: the policy for every request.
        endpoint: of the service; None: Google's.
        user_project: the project billed for requests to a requester-pays bucket.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        credentials: Credentials,
        retry: RetryPolicy,
        *,
        endpoint: str | None = None,
        user_project: str | None = None,
    ) -> None:
        self._root = f"{prefix}/" if prefix else ""
        self._bucket_uri = f"gs://{bucket}"
        self.uri = f"{self._bucket_uri}/{prefix}".rstrip("/")
        self._calls = Calls(retry, bucket, credentials)
        self._client = json_client(credentials, endpoint)
        # Not get_bucket: object roles lack storage.buckets.get.
        self._bucket = self._client.bucket(bucket, user_project=user_project)
        self._bulk = bulk_client(bucket, credentials, endpoint, user_project)
        self._bulk_failure_logged = False
        self._missing_checksums_logged = False

    def uri_of(self, name: str) -> str:
        """Return the full URI of an object."""
        return f"{self._bucket_uri}/{self._root}{name}"

    def list(
        self, prefix: str = "", *, recursive: bool = True, found_folder: FoundFolder = str
    ) -> Iterator[ObjectInfo]:
        """Yield the objects below a folder, page by page; see Store. Skips folder markers.

        A listing has no checksums of objects under customer-managed keys. The metadata of each of those is requested.
        """
        for page in self._pages(prefix, recursive=recursive, found_folder=found_folder):
            incomplete = [name for name, blob in page.items() if blob.crc32c is None]
            if incomplete and not self._missing_checksums_logged:
                self._missing_checksums_logged = True
                note = "the listing has no checksums (customer-managed keys): one more request for each object"
                log.get().warning("storage.checksums_requested", uri=self.uri, note=note, minutes_per_million=45)
            looked_up = {info.name: info for _, info in stat_each(self, incomplete, range(len(incomplete)))}
            for name, blob in page.items():
                info = _info(name, blob) if blob.crc32c is not None else looked_up.get(name)
                if info is not None:
                    yield info

    def generations(self, prefix: str) -> dict[str, int]:
        """Return the generation of every object below a folder; see Store."""
        return {name: entry.generation for name, entry in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, Entry]:
        """Return size and generation of every object below a folder; see Store."""
        return {
            name: Entry(int(blob.size), int(blob.generation))
            for page in self._pages(prefix, recursive=True)
            for name, blob in page.items()
        }

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the folders directly below a folder; see Store. A page has up to 1,000."""
        folder, found, token = self._folder(prefix), set[str](), None
        while True:
            page, token = self._request_page(folder, token, delimiter="/", fields=FOLDER_FIELDS)
            found |= {name.removeprefix(folder).rstrip("/") for name in page.prefixes}
            if not token:
                return sorted(found - {""})

    def stat(self, name: str) -> ObjectInfo | None:
        """Return the metadata of an object; see Store."""
        if not _can_exist(self._root + name):
            return None
        blob = self._calls(
            lambda _: self._bucket.get_blob(self._root + name, timeout=TIMEOUT, retry=None),
            permission="storage.objects.get",
            uri=self.uri_of(name),
        )
        if blob is not None and blob.crc32c is None:
            raise no_checksum(self.uri_of(name))
        return None if blob is None else _info(name, blob)

    def updated(self, name: str) -> float | None:
        """Return when an object was written; see Store."""
        blob = self._calls(
            lambda _: self._bucket.get_blob(self._root + name, timeout=TIMEOUT, retry=None),
            permission="storage.objects.get",
            uri=self.uri_of(name),
        )
        return None if blob is None or blob.updated is None else blob.updated.timestamp()

    def stat_many(self, names: Sequence[str]) -> Iterator[tuple[int, ObjectInfo]]:
        """See `Store`."""
        return stat_by_folder(self, names)

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return an object's bytes and matching metadata; see Store."""

        def attempt(_: int) -> tuple[bytes, ObjectInfo]:
            blob = self._bucket.blob(self._root + name)
            data = _download(blob)
            self._ensure_checksum(blob)
            info = _info(name, blob, size=len(data))  # the response's headers have the rest
            _check(data, info)
            return _content(data, info), info

        if not _can_exist(self._root + name):
            return None
        try:
            return self._calls(attempt, permission="storage.objects.get", uri=self.uri_of(name))
        except exceptions.NotFound:
            return None

    def read_many(self, objects: Sequence[ObjectInfo]) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read listed objects in parallel; see Store."""
        return in_parallel(self.read_listed, objects)

    def read_listed(self, info: ObjectInfo, closed: threading.Event) -> bytes | LostObject:
        """Read one listed object; see Store."""
        name = self._root + info.name
        if info.gzip or not _obstore_supports(name):
            return self._read_verified(info, closed)
        try:
            response = obstore.get(self._bulk, name, options={"version": str(info.generation)})
            data = bytes(response.bytes())
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError) and not self._bulk_failure_logged:
                self._bulk_failure_logged = True
                reason = str(error).partition("\n")[0]
                log.get().warning("storage.bulk_read_failed", uri=self.uri_of(info.name), error=reason)
            return self._read_verified(info, closed)
        # A mismatch may be a transmission error; the verified read finds out.
        return data if crc32c(data) == info.crc32c else self._read_verified(info, closed)

    def read_heads(
        self, objects: Sequence[ObjectInfo], size: int
    ) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read the first bytes of listed objects in parallel; see Store."""

        def read(info: ObjectInfo, closed: threading.Event) -> bytes | LostObject:
            name = self._root + info.name
            if info.size <= size or info.gzip or not _obstore_supports(name):
                return self.read_listed(info, closed)
            try:
                found = obstore.get(self._bulk, name, options={"version": str(info.generation), "range": (0, size)})
                return bytes(found.bytes())
            except (obstore.exceptions.BaseError, OSError, ValueError):
                return self.read_listed(info, closed)  # whole: it retries, and says what is wrong

        return in_parallel(read, objects)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the stored bytes of a listed object; see Store."""
        blob = self._bucket.blob(self._root + info.name, generation=info.generation)

        def attempt(start: int, size: int, _: int) -> bytes:
            data: bytes = blob.download_as_bytes(
                start=start, end=start + size - 1, raw_download=True, checksum=None, timeout=TIMEOUT, retry=None
            )
            if len(data) != size:
                raise DamagedError(f"{len(data)} bytes from byte {start}, expected {size}")
            return data

        for start in range(0, info.size, CHUNK_BYTES):
            read = partial(attempt, start, min(CHUNK_BYTES, info.size - start))
            try:
                yield self._calls(read, permission="storage.objects.get", uri=self.uri_of(info.name))
            except exceptions.NotFound as error:
                raise FileNotFoundError(self.uri_of(info.name)) from error

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Store bytes or a file under a name; see Store."""
        size, checksum = _measure(data)
        condition, lost_sessions = if_generation_match, 0

        def attempt(tries: int) -> ObjectInfo:
            nonlocal condition, lost_sessions
            blob = self._bucket.blob(self._root + name)
            try:
                _upload(blob, data, condition)
            except exceptions.PreconditionFailed:
                # An earlier try may have succeeded and only its response got lost: then the object is ours.
                stored = self.stat(name) if tries > 1 else None
                if stored is None or (stored.size, stored.crc32c) != (size, checksum):
                    raise
                return stored
            except exceptions.GoogleAPICallError as error:
                # The session of a resumable upload may get lost (404 or 410); a new one fixes it.
                if error.code not in SESSION_LOST or size <= MULTIPART_BYTES:
                    raise
                lost_sessions += 1
                if lost_sessions >= SESSION_TRIES:
                    raise self._session_lost(name, error) from error
                raise ConnectionAbortedError(f"the upload has to start again: {error.message}") from error
            self._ensure_checksum(blob)
            info = _info(name, blob)
            if (info.size, info.crc32c) != (size, checksum):
                condition = None if if_generation_match is None else info.generation
                raise DamagedError(f"{size} bytes with crc32c {checksum:08x} were sent, {info} is stored")
            return info

        try:
            return self._calls(attempt, permission="storage.objects.create", uri=self.uri_of(name))
        except exceptions.PreconditionFailed as error:
            raise PreconditionFailed(self.uri_of(name)) from error
        except exceptions.NotFound as error:
            raise self._no_bucket() from error

    def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object; see Store."""

        def attempt(_: int) -> None:
            blob = self._bucket.blob(self._root + name)
            blob.delete(if_generation_match=if_generation_match, timeout=TIMEOUT, retry=None)

        try:
            self._calls(attempt, permission="storage.objects.delete", uri=self.uri_of(name))
        except exceptions.NotFound:
            return
        except exceptions.PreconditionFailed as error:
            raise PreconditionFailed(self.uri_of(name)) from error

    def delete_empty_folder(self, prefix: str) -> None:
        """Delete the markers of a folder and of those below it; see Store."""
        markers: list[str] = []
        if not any(self._pages(prefix, recursive=True, found_folder=markers.append)):
            for name in (*reversed(markers), prefix.strip("/")):
                self.delete(f"{name}/")

    def _pages(
        self, prefix: str, *, recursive: bool, found_folder: FoundFolder = str
    ) -> Iterator[dict[str, storage.Blob]]:
        """Yield name -> object, page by page."""
        folder, token = self._folder(prefix), None
        while True:
            page, token = self._request_page(folder, token, delimiter=None if recursive else "/", fields=PAGE_FIELDS)
            blobs = {blob.name.removeprefix(self._root): blob for blob in page.items}
            # The console creates a folder as an empty object whose name ends in a slash.
            markers = {name for name, blob in blobs.items() if not name or (name.endswith("/") and blob.size == 0)}
            for name in sorted(markers - {""}):
                found_folder(name.rstrip("/"))
            yield {name: blob for name, blob in blobs.items() if name not in markers}
            if not token:
                return

    def _folder(self, prefix: str) -> str:
        """Return the full name of a folder, with a slash at its end; empty for the whole bucket."""
        return f"{self._root}{prefix.strip('/')}/" if prefix.strip("/") else self._root

    def _request_page(
        self, folder: str, token: str | None, *, delimiter: str | None, fields: str
    ) -> tuple[_Page, str | None]:
        """Return one page of a listing (up to 1,000 objects and folders) and the token of the next."""

        def attempt(_: int) -> tuple[_Page, str | None]:
            response = self._client.list_blobs(
                self._bucket,
                prefix=folder,
                delimiter=delimiter,
                page_token=token,
                fields=fields,
                timeout=TIMEOUT,
                retry=None,
            )
            items = tuple(next(response.pages))
            return _Page(items, frozenset(response.prefixes)), response.next_page_token

        try:
            return self._calls(attempt, permission="storage.objects.list", uri=f"{self._bucket_uri}/{folder}")
        except exceptions.NotFound as error:
            raise self._no_bucket() from error

    def _read_verified(self, listed: ObjectInfo, closed: threading.Event) -> bytes | LostObject:
        """Read an object at its listed generation, or at a later one with the same bytes."""
        info = listed

        def attempt(_: int) -> bytes:
            data = _download(self._bucket.blob(self._root + info.name, generation=info.generation))
            _check(data, info)
            return _content(data, info)

        for _ in range(2):
            try:
                return self._calls(attempt, permission="storage.objects.get", uri=self.uri_of(info.name), closed=closed)
            except exceptions.NotFound:
                found = self.stat(info.name)
            if found is None:
                return LostObject("missing")
            if (found.size, found.crc32c) != (listed.size, listed.crc32c):
                break
            info = found
        return LostObject("changed")

    def _ensure_checksum(self, blob: storage.Blob) -> None:
        """Request an object's metadata if a response did not contain its checksum."""
        if blob.crc32c is None:
            blob.reload(timeout=TIMEOUT, retry=None)
        if blob.crc32c is None:
            raise no_checksum(f"{self._bucket_uri}/{blob.name}")

    def _session_lost(self, name: str, error: exceptions.GoogleAPICallError) -> FinetuneError:
        """Return the error for an upload whose sessions were all lost; 404 may also mean that there is no bucket."""
        if error.code == NOT_FOUND:
            return self._no_bucket()
        return UnavailableError(
            f"{self.uri_of(name)} cannot be uploaded: its session was lost {SESSION_TRIES} times: {error.message}",
            remedy="Start the job again: it resumes.",
        )

    def _no_bucket(self) -> DataError:
        return DataError(f"there is no bucket {self._bucket_uri}", remedy="Check the bucket's name, or create it.")


def _obstore_supports(name: str) -> bool:
    """Whether obstore requests this exact name: it strips slashes and rejects empty parts, dots and control characters.

    Conservative: some supported names are excluded, such as those with a no-break space.
    """
    return name.isprintable() and not {"", ".", ".."}.intersection(name.split("/"))


def _can_exist(name: str) -> bool:
    """Whether Cloud Storage allows a name: 1 to 1,024 bytes of UTF-8."""
    try:
        return 1 <= len(name.encode()) <= 1024
    except UnicodeEncodeError:
        return False


def _info(name: str, blob: storage.Blob, *, size: int | None = None) -> ObjectInfo:
    return ObjectInfo(
        name=name,
        size=int(blob.size) if size is None else size,
        crc32c=int.from_bytes(base64.b64decode(blob.crc32c), "big"),
        generation=int(blob.generation),
        gzip=blob.content_encoding == "gzip",
    )


def _download(blob: storage.Blob) -> bytes:
    """Return the stored bytes, not decompressed if gzip-encoded: the store's checksum covers these."""
    data: bytes = blob.download_as_bytes(raw_download=True, checksum=None, timeout=TIMEOUT, retry=None)
    return data


def _upload(blob: storage.Blob, data: bytes | Path, if_generation_match: int | None) -> None:
    upload = blob.upload_from_string if isinstance(data, bytes) else blob.upload_from_filename
    upload(
        data,
        content_type=mimetypes.guess_type(blob.name)[0] or "application/octet-stream",
        if_generation_match=if_generation_match,
        checksum="crc32c",
        timeout=TIMEOUT,
        retry=None,
    )


def _measure(data: bytes | Path) -> tuple[int, int]:
    """Return the size and crc32c of the data to write."""
    if isinstance(data, bytes):
        return len(data), crc32c(data)
    size = checksum = 0
    with data.open("rb") as file:
        while chunk := file.read(1024**2):
            size, checksum = size + len(chunk), crc32c(chunk, checksum)
    return size, checksum


def _check(data: bytes, info: ObjectInfo) -> None:
    if (checksum := crc32c(data)) != info.crc32c:
        raise DamagedError(f"{len(data)} bytes with crc32c {checksum:08x}, expected {info.size} with {info.crc32c:08x}")


def _content(data: bytes, info: ObjectInfo) -> bytes:
    """Return an object's content, decompressed if gzip-encoded.

    Data that is not gzip although it is declared so, or decompresses to more than UNPACKED_BYTES, is returned
    unchanged: the reader detects what it is.
    """
    if not info.gzip:
        return data
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = decompressor.decompress(data, UNPACKED_BYTES)
    except zlib.error:
        return data
    return content if decompressor.eof else data
