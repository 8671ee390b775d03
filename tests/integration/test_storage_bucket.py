"""What only buckets have: their odd objects, their refusals, and a network in between that makes trouble."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fault_proxy import HANG_UP, LOSE_THE_ANSWER, Fault, reply
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError
from structlog.testing import capture_logs

from job import storage
from job.config.settings import StorageSettings
from job.errors import AccessError, DataError, SettingsError, UnavailableError
from job.storage import LostObject, PreconditionFailed, RetryPolicy, Store, open_store
from job.storage.gcs import GoogleStore
from job.storage.parallel import UNPACKED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from pathlib import Path

    from fault_proxy import Proxy, Seen

QUICK = RetryPolicy(seconds=1.0, credential_seconds=0.3, first_wait=0.01, longest_wait=0.05)
PATIENT = RetryPolicy(seconds=30.0, first_wait=0.01, longest_wait=0.1)


@pytest.fixture
def store(bucket: str) -> Store:
    """Return a store on an empty bucket."""
    return open_store(f"gs://{bucket}", retry=QUICK)


def read_all(store: Store) -> dict[str, bytes | LostObject]:
    """Read everything that the store lists."""
    objects = list(store.list())
    return {objects[index].name: data for index, data in store.read_many(objects)}


def upload(emulator: str, bucket: str, name: str, data: bytes, encoding: str) -> None:
    """Store an object with a content encoding."""
    url = f"{emulator}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}&contentEncoding={encoding}"
    request = urllib.request.Request(url, data, {"Content-Type": "image/jpeg"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


def test_folder_markers_are_no_objects(store: Store, bucket: str) -> None:
    """The empty objects of the console, whose names end in a slash, are reported as folders; others are listed."""
    for name in ("d/", "d/cats/", "d/birds/", "d/cats/empty.jpg"):
        store.write(name, b"")

    folders: list[str] = []
    assert ["d/cats/empty.jpg"] == [info.name for info in store.list(found_folder=folders.append)]
    assert ["d", "d/birds", "d/cats"] == folders
    assert ["cats/empty.jpg"] == [info.name for info in open_store(f"gs://{bucket}/d").list()]


def test_names_that_no_path_can_have(store: Store) -> None:
    """Names with leading, trailing or double slashes or with dots are read under just those names."""
    names = ["/a", "a//b", "a/", "../a", "a/../b", "./a", "a/."]
    for name in names:
        store.write(name, name.encode())

    assert {name: name.encode() for name in names} == read_all(store)


def test_gzip_encoded_objects_are_read_unpacked(store: Store, emulator: str, bucket: str) -> None:
    """An object with Content-Encoding gzip is checked as stored and read as what is inside."""
    content = os.urandom(1000) * 3
    upload(emulator, bucket, "a.jpg", gzip.compress(content), "gzip")

    assert {"a.jpg": content} == read_all(store)
    found = store.read("a.jpg")
    assert found is not None
    assert found == (content, store.stat("a.jpg"))
    assert found[1].gzip


@pytest.mark.parametrize("stored", [b"\xff\xd8 not gzip", gzip.compress(bytes(UNPACKED_BYTES + 1))])
def test_what_only_seems_gzip_encoded_is_read_as_it_is(store: Store, emulator: str, bucket: str, stored: bytes) -> None:
    """An object wrongly called gzip is its bytes, and so is one that would unpack to more than the bound."""
    upload(emulator, bucket, "a.jpg", stored, "gzip")

    assert {"a.jpg": stored} == read_all(store)


def test_listings_of_many_pages(store: Store, proxy: Proxy, bucket: str) -> None:
    """A listing continues over all pages."""
    for number in range(30):
        store.write(f"{number:02}", b"")

    def ten_a_page(request: Seen) -> Fault | None:
        if request.path.endswith("maxResults=10") or "/o?" not in request.path:
            return None
        return reply(307, Location=f"{request.path}&maxResults=10")

    proxy.fault = ten_a_page
    listed = [info.name for info in open_store(f"gs://{bucket}", retry=QUICK).list()]

    assert [f"{number:02}" for number in range(30)] == listed
    assert sum("pageToken" in request.path and "maxResults" not in request.path for request in proxy.seen) >= 2


def test_a_bucket_that_does_not_exist(emulator: str, bucket: str) -> None:
    """Listing or writing names the bucket that is not there; reading finds nothing."""
    assert emulator
    store = open_store(f"gs://{bucket}-typo/d", retry=QUICK)

    with pytest.raises(DataError, match=f"there is no bucket gs://{bucket}-typo"):
        list(store.list())
    with pytest.raises(DataError, match=f"there is no bucket gs://{bucket}-typo"):
        store.write("a", b"", if_generation_match=0)
    assert store.read("a") is None


def test_only_objects_are_asked_for(proxy: Proxy, bucket: str) -> None:
    """No request needs a permission on the bucket itself: object roles lack storage.buckets.get."""
    store = open_store(f"gs://{bucket}/d", retry=QUICK)
    store.write("a", b"1")
    read_all(store)
    store.read("a")
    store.delete("a")
    time.sleep(0.2)  # for requests from threads of the library's own

    paths = [urllib.parse.unquote(request.path.partition("?")[0]) for request in proxy.seen]
    assert f"/storage/v1/b/{bucket}" not in paths
    assert [] == [path for path in paths if "/o" not in path and not path.startswith(f"/{bucket}/d")]


def test_the_paying_project_is_named_in_every_request(proxy: Proxy, bucket: str) -> None:
    """With user_project each list, read and write of both clients names the billed project."""
    store = open_store(f"gs://{bucket}", retry=QUICK, user_project="payer-1")
    store.write("a", b"1")
    store.write("/b", b"1")
    store.stat("a")
    read_all(store)
    store.read("a")
    store.delete("a")

    assert any(request.is_bulk for request in proxy.seen)
    assert [] == [
        request
        for request in proxy.seen
        if "userProject=payer-1" not in request.path and request.headers.get("x-goog-user-project") != "payer-1"
    ]


def test_a_requester_pays_bucket_names_the_setting(proxy: Proxy, bucket: str) -> None:
    """A malformed request is not retried; the error names the setting that may fix it."""
    message = b'{"error": {"code": 400, "message": "Bucket is a requester pays bucket but no user project provided."}}'
    proxy.fault = lambda _: reply(400, message, **{"Content-Type": "application/json"})

    with pytest.raises(SettingsError, match="requester pays") as caught:
        list(open_store(f"gs://{bucket}", retry=QUICK).list())

    assert "storage.user_project" in caught.value.remedy
    assert 1 == len(proxy.seen)


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("storage.objects.list", lambda store: list(store.list())),
        ("storage.objects.get", lambda store: store.read("a")),
        ("storage.objects.get", lambda store: store.stat("a")),
        ("storage.objects.create", lambda store: store.write("a", b"")),
        ("storage.objects.delete", lambda store: store.delete("a")),
    ],
)
def test_a_missing_permission_is_named(
    proxy: Proxy, bucket: str, permission: str, call: Callable[[Store], object]
) -> None:
    """403 ends at once with who lacks which permission on what, and the command that grants it."""
    proxy.fault = lambda _: reply(403)

    with pytest.raises(AccessError, match=f"anonymous lacks {permission} on gs://{bucket}/d/") as caught:
        call(open_store(f"gs://{bucket}/d", retry=QUICK))

    assert f"add-iam-policy-binding gs://{bucket} " in caught.value.remedy
    assert 1 == len(proxy.seen)


NO_CHECKSUMS = Fault(replace=('"crc32c"', '"absent"'))


def is_listing(request: Seen) -> bool:
    """Whether a request lists a bucket."""
    return request.method == "GET" and request.path.partition("?")[0].endswith("/o")


def test_listing_under_customer_managed_keys(store: Store, proxy: Proxy, bucket: str) -> None:
    """Where the listing has no checksums, each object's own metadata is requested; generations need none."""
    written = [store.write(f"{n:02}", bytes([n])) for n in range(25)]
    proxy.fault = lambda request: NO_CHECKSUMS if is_listing(request) else None
    store = open_store(f"gs://{bucket}", retry=QUICK)

    assert written == list(store.list())
    assert list(enumerate(written)) == sorted(store.stat_many([info.name for info in written]))
    seen = len(proxy.seen)
    assert {info.name: info.generation for info in written} == store.generations("")
    assert 1 == len(proxy.seen) - seen


def test_condition_of_a_deletion(store: Store, proxy: Proxy, bucket: str) -> None:
    """A conditional deletion sends its condition, which the emulator ignores; a refusal deletes nothing."""
    written = store.write("a", b"1")
    proxy.fault = lambda request: refusal(412, "At least one of the pre-conditions") if is_deletion(request) else None

    with pytest.raises(PreconditionFailed):
        open_store(f"gs://{bucket}", retry=QUICK).delete("a", if_generation_match=7)

    [sent] = filter(is_deletion, proxy.seen)
    assert "ifGenerationMatch=7" in sent.path
    assert written == store.stat("a")


def is_deletion(request: Seen) -> bool:
    """Whether a request deletes an object."""
    return request.method == "DELETE"


def test_responses_under_customer_managed_keys(store: Store, proxy: Proxy, bucket: str) -> None:
    """A write whose response has no checksum is compared with the object's metadata."""
    proxy.fault = lambda request: NO_CHECKSUMS if request.method == "POST" else None

    assert open_store(f"gs://{bucket}", retry=QUICK).write("a", b"1") == store.stat("a")


@pytest.mark.parametrize("call", [lambda store: list(store.list()), lambda store: store.stat("a")])
def test_customer_supplied_key(store: Store, proxy: Proxy, bucket: str, call: Callable[[Store], object]) -> None:
    """An object without any checksum cannot be verified, and the message says why that is."""
    store.write("a", b"1")
    proxy.fault = lambda request: NO_CHECKSUMS if request.method == "GET" else None

    with pytest.raises(AccessError, match=rf"gs://{bucket}/a.*\(CSEK\)") as caught:
        call(open_store(f"gs://{bucket}", retry=QUICK))
    assert "--clear-encryption-key" in caught.value.remedy


def refusal(code: int, message: str, reason: str = "") -> Fault:
    """Return an error as the store reports it."""
    errors = [{"reason": reason, "message": message}] if reason else []
    body = json.dumps({"error": {"code": code, "message": message, "errors": errors}}).encode()
    return reply(code, body, **{"Content-Type": "application/json"})


def test_read_with_a_customer_supplied_key(proxy: Proxy, bucket: str) -> None:
    """Reading such an object is an AccessError, not a SettingsError."""
    fault = refusal(400, "The target object is encrypted.", "resourceIsEncryptedWithCustomerEncryptionKey")
    proxy.fault = lambda _: fault

    with pytest.raises(AccessError, match=f"gs://{bucket}/a is encrypted with a key supplied by the customer"):
        open_store(f"gs://{bucket}", retry=QUICK).read("a")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Object 'b/a' is subject to bucket's retention policy.", ""),
        ("Object 'b/a' is under active Temporary hold.", ""),
        ("It cannot be overwritten.", "retentionPolicyNotMet"),
        ("It cannot be deleted.", "objectUnderActiveHold"),
    ],
)
def test_locked_object(proxy: Proxy, bucket: str, message: str, reason: str) -> None:
    """A refusal because of a retention policy or a hold is not reported as a missing permission."""
    proxy.fault = lambda _: refusal(403, message, reason)

    with pytest.raises(AccessError, match=f"gs://{bucket}/a is locked by a retention policy or a hold") as caught:
        open_store(f"gs://{bucket}", retry=QUICK).write("a", b"1")
    assert "add-iam-policy-binding" not in caught.value.remedy


def test_permission_that_the_store_names(proxy: Proxy, bucket: str) -> None:
    """Overwriting an object needs the permission to delete it: the message names the one that is missing."""
    message = "job@p.iam.gserviceaccount.com does not have storage.objects.delete access to the object."
    proxy.fault = lambda _: refusal(403, message)

    with pytest.raises(AccessError, match=f"lacks storage.objects.delete on gs://{bucket}/a"):
        open_store(f"gs://{bucket}", retry=QUICK).write("a", b"1")


def test_object_written_again_with_the_same_bytes(store: Store) -> None:
    """Its listed generation is gone, and the later one is read; other bytes are a change."""
    objects = [store.write(name, b"1") for name in ("/same", "other", "same")]
    for name, data in (("/same", b"1"), ("other", b"2"), ("same", b"1")):
        store.write(name, data)

    assert {0: b"1", 1: LostObject("changed"), 2: b"1"} == dict(store.read_many(objects))


def test_anonymous_store_has_no_credentials_and_bills_nobody(
    proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public bucket is read without a key file being looked for; the output is opened with credentials."""
    settings = StorageSettings(user_project="payer-1", anonymous=True)
    store = storage.opener(settings)(f"gs://{bucket}")
    list(store.list())
    assert proxy.seen
    assert not [request for request in proxy.seen if "payer-1" in f"{request.path} {request.headers}"]

    storage.open_output(f"gs://{bucket}", settings).write("a", b"1")
    assert "userProject=payer-1" in proxy.seen[-1].path
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
    assert f"gs://{bucket}" == storage.opener(settings)(f"gs://{bucket}").uri
    with pytest.raises(AccessError, match="/nonexistent"):
        storage.open_output(f"gs://{bucket}", settings)


def test_a_missing_permission_in_bulk_is_named(store: Store, proxy: Proxy, bucket: str) -> None:
    """Also where it is the bulk reader that is refused."""
    objects = [store.write("a", b"1")]
    proxy.fault = lambda _: reply(403)

    with pytest.raises(AccessError, match=f"lacks storage.objects.get on gs://{bucket}/a"):
        list(open_store(f"gs://{bucket}", retry=QUICK).read_many(objects))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(proxy: Proxy, bucket: str, status: int) -> None:
    """Temporary errors are retried, in every operation of both clients."""
    tries: dict[str, int] = {}

    def twice(request: Seen) -> Fault | None:
        key = f"{request.method} {request.path}"
        tries[key] = tries.get(key, 0) + 1
        return reply(status) if tries[key] <= 2 else None

    proxy.fault = twice
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    written = store.write("a", b"1")
    assert {"a": b"1"} == read_all(store)
    assert (b"1", written) == store.read("a")
    store.delete("a")
    assert store.stat("a") is None


def test_the_store_says_how_long_to_wait(proxy: Proxy, bucket: str) -> None:
    """Retry-After is honoured where it is longer than the wait would be."""
    moments: list[float] = []

    def busy(_: Seen) -> Fault | None:
        moments.append(time.monotonic())
        return reply(429, **{"Retry-After": "1"}) if len(moments) == 1 else None

    proxy.fault = busy
    open_store(f"gs://{bucket}", retry=PATIENT).write("a", b"1")

    assert 2 == len(moments)
    assert moments[1] - moments[0] >= 1


def test_a_store_that_stays_away_ends_the_run(proxy: Proxy, bucket: str) -> None:
    """After the policy's seconds the error names the object and the attempts; retries are logged meanwhile."""
    proxy.fault = lambda _: HANG_UP

    with (
        capture_logs() as lines,
        pytest.raises(UnavailableError, match=rf"gs://{bucket}/d/a is unreachable after \d+ tries in 1 s"),
    ):
        open_store(f"gs://{bucket}/d", retry=QUICK).read("a")

    assert len(proxy.seen) > 3
    assert ["storage.retried"] == [line["event"] for line in lines]  # not one line a try


def test_a_store_that_comes_up_late_is_waited_for(bucket: str, proxy: Proxy) -> None:
    """Refused connections are waited out: a service mesh may be ready later than the job."""
    proxy.listen(yes=False)
    retried = threading.Event()
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    def notice(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event["event"] == "storage.retried":
            retried.set()
        return event

    with capture_logs(processors=[notice]), ThreadPoolExecutor() as pool:
        written = pool.submit(store.write, "a", b"1")
        assert retried.wait(60)
        assert not written.done()
        proxy.listen(yes=True)
        assert 1 == written.result(60).size


@pytest.mark.parametrize("cut_to", [0, 0.5])
@pytest.mark.parametrize("reset", [False, True])
def test_a_body_that_breaks_off_is_read_again(
    store: Store, proxy: Proxy, bucket: str, cut_to: float, reset: bool
) -> None:
    """A connection closed or reset in mid-body never gives a short object, in neither client."""
    data = os.urandom(1000)
    store.write("a", data)
    tries: dict[bool, int] = {}

    def break_off(request: Seen) -> Fault | None:
        tries[request.is_bulk] = tries.get(request.is_bulk, 0) + 1
        return Fault(cut_to=cut_to, reset=reset) if tries[request.is_bulk] == 1 else None

    objects = list(store.list())
    proxy.fault = break_off
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    assert [(0, data)] == list(store.read_many(objects))
    assert {True: 1, False: 2} == tries
    tries.clear()
    assert (data, objects[0]) == store.read("a")


def test_a_flipped_bit_is_noticed(store: Store, proxy: Proxy, bucket: str) -> None:
    """Bytes that arrive changed are read again, by both clients."""
    objects = [store.write("a", b"abc")]
    flipped: set[bool] = set()

    def flip(request: Seen) -> Fault | None:
        if request.is_bulk in flipped:
            return None
        flipped.add(request.is_bulk)
        return Fault(flip=True)

    proxy.fault = flip
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    assert [(0, b"abc")] == list(store.read_many(objects))
    assert {True, False} == flipped
    flipped.clear()
    assert (b"abc", objects[0]) == store.read("a")


def test_bytes_that_never_arrive_whole_end_the_run(store: Store, proxy: Proxy, bucket: str) -> None:
    """After three damaged copies the error names the object: it is neither used nor taken for a bad image."""
    objects = [store.write("a", b"abc")]
    proxy.fault = lambda _: Fault(flip=True)

    with pytest.raises(UnavailableError, match=f"gs://{bucket}/a arrived corrupted in 3 tries"):
        list(open_store(f"gs://{bucket}", retry=PATIENT).read_many(objects))


def test_an_upload_that_arrives_damaged_is_sent_again(proxy: Proxy, bucket: str) -> None:
    """What the store says that it holds is compared with what was sent."""
    proxy.fault = lambda _: Fault(replace=('"crc32c":"', '"crc32c":"AAAB')) if len(proxy.seen) == 1 else None
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    written = store.write("a", b"abc", if_generation_match=0)

    assert 2 == len(proxy.seen)
    assert (b"abc", written) == store.read("a")


@pytest.mark.parametrize("statuses", [(404,), (410,), (503, 503, 503, 404)])
def test_a_lost_upload_session(proxy: Proxy, bucket: str, statuses: tuple[int, ...]) -> None:
    """A large upload whose session is lost starts again, also after other errors; no bucket is called missing."""
    lost = []

    def lose_the_session(request: Seen) -> Fault | None:
        if "uploadType=resumable" not in request.path or len(lost) == len(statuses):
            return None
        lost.append(request)
        return reply(statuses[len(lost) - 1])

    proxy.fault = lose_the_session
    data = os.urandom(9 * 2**20)
    store = open_store(f"gs://{bucket}", retry=PATIENT)
    written = store.write("large.bin", data)

    assert len(statuses) == len(lost)
    assert (data, written) == store.read("large.bin")


def test_a_lost_answer_is_not_a_lost_race(proxy: Proxy, bucket: str) -> None:
    """A conditional write whose response was lost succeeds at its retry; one that another writer won fails."""
    proxy.fault = lambda _: LOSE_THE_ANSWER if len(proxy.seen) == 1 else None
    store = open_store(f"gs://{bucket}", retry=PATIENT)

    written = store.write("_SUCCESS", b"mine", if_generation_match=0)

    assert written == store.stat("_SUCCESS")
    for theirs in (b"not mine", b"mine"):  # note: two writers of the same bytes are still two writers
        with pytest.raises(PreconditionFailed):
            store.write("_SUCCESS", theirs, if_generation_match=0)


def test_a_dead_network_does_not_hold_up_the_end(store: Store, proxy: Proxy, bucket: str) -> None:
    """A reader in the middle of its retries can be closed at once."""
    objects = [store.write(f"{number}", b"1") for number in range(3)]
    failed = threading.Semaphore(0)

    def hang_up(request: Seen) -> Fault | None:
        if request.path.endswith(str(objects[0].generation)):
            return None
        failed.release()
        return HANG_UP

    proxy.fault = hang_up
    reader = open_store(f"gs://{bucket}", retry=RetryPolicy(seconds=600, first_wait=600, longest_wait=600)).read_many(
        objects
    )
    assert (0, b"1") == next(reader)
    for _ in objects[1:]:
        assert failed.acquire(timeout=60)

    started = time.monotonic()
    reader.close()

    assert time.monotonic() - started < 60
    assert "storage" not in [thread.name for thread in threading.enumerate()]


class Token(Credentials):  # type: ignore[misc]  # google-auth has no types
    """Credentials as they are given out: a token, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        """Be given out, or raise ``error``."""
        super().__init__()
        self.service_account_email = "trainer@project.iam.gserviceaccount.com"
        self._error = error

    def refresh(self, _: Any) -> None:
        """Fetch the token."""
        if self._error:
            raise self._error
        self.token = "token-1"  # noqa: S105  # no secret


def test_both_clients_use_the_same_credentials(proxy: Proxy, bucket: str) -> None:
    """Every request of either client carries the token of the credentials."""
    store = GoogleStore(bucket, "", Token(), QUICK, endpoint=proxy.url)
    store.write("a", b"1")

    assert {"a": b"1"} == read_all(store)
    assert {True, False} == {request.is_bulk for request in proxy.seen}
    assert {"Bearer token-1"} == {request.headers.get("authorization") for request in proxy.seen}


def test_credentials_that_are_not_given_out(store: Store, proxy: Proxy, bucket: str) -> None:
    """Missing credentials are retried, then the run ends with an AccessError that names the principal."""
    objects = [store.write("a", b"1")]
    refused = GoogleStore(bucket, "", Token(RefreshError("metadata server says no")), QUICK, endpoint=proxy.url)
    who = r"trainer@project.iam.gserviceaccount.com has no valid credentials"

    with pytest.raises(
        AccessError, match=rf"{who} for gs://{bucket}/a after \d+ tries in 0 s: metadata server says no"
    ):
        refused.read("a")
    with pytest.raises(AccessError, match=who):
        list(refused.read_many(objects))


def run_outside(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that no emulator, no credentials and no cluster is known to."""
    known = {"STORAGE_EMULATOR_HOST", "KUBERNETES_SERVICE_HOST", "GOOGLE_APPLICATION_CREDENTIALS"}
    kept = {name: value for name, value in os.environ.items() if name not in known}
    return subprocess.run(
        [sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_no_credentials_at_all(tmp_path: Path) -> None:
    """Without credentials the error says how to get them; there is no fallback to anonymous access."""
    key = str(tmp_path / "no-such-key.json")

    ended = run_outside(
        "from job.storage import open_store; open_store('gs://bucket/d')", GOOGLE_APPLICATION_CREDENTIALS=key
    )

    assert "job.errors.AccessError: this process has no valid credentials for Google Cloud" in ended.stderr
    assert key in ended.stderr


def test_workload_identity(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    """In a Pod credentials come from the metadata server, which may come up later; errors name the account."""
    account = {"email": "pod@project.iam.gserviceaccount.com", "scopes": [], "aliases": ["default"]}
    token = {"access_token": "token-2", "expires_in": 3600, "token_type": "Bearer"}
    answers = {
        "": "",
        "universe-domain": "googleapis.com",
        "project-id": "project",
        "default": json.dumps(account),
        "pod@project.iam.gserviceaccount.com": json.dumps(account),
        "token": json.dumps(token),
    }

    def is_metadata(request: Seen) -> bool:
        return request.path == "/" or request.path.startswith("/computeMetadata/")

    def answer(request: Seen) -> Fault | None:
        if not is_metadata(request):
            return reply(403) if request.method == "DELETE" else None
        if len(proxy.seen) <= 2:
            return reply(503)
        body = answers[request.path.partition("?")[0].rstrip("/").rpartition("/")[2]]
        kind = "application/json" if body.startswith("{") else "application/text"
        return reply(200, body.encode(), **{"Metadata-Flavor": "Google", "Content-Type": kind})

    proxy.fault = answer
    script = f"""
from job.storage import RetryPolicy, gcs, gcs_clients
retry = RetryPolicy(first_wait=0.01, credential_seconds=20)
store = gcs.GoogleStore({bucket!r}, "", gcs_clients.find_credentials(retry), retry, endpoint={proxy.url!r})
store.write("a", b"1")
print(list(store.read_many(list(store.list()))))
store.delete("a")
"""

    ended = run_outside(
        script,
        GCE_METADATA_HOST=proxy.url.removeprefix("http://"),
        GCE_METADATA_IP=proxy.url.removeprefix("http://"),
        KUBERNETES_SERVICE_HOST="10.0.0.1",
        CLOUDSDK_CONFIG=str(tmp_path),
    )

    assert "[(0, b'1')]" in ended.stdout
    assert "AccessError: pod@project.iam.gserviceaccount.com lacks storage.objects.delete" in ended.stderr
    requests = [request for request in proxy.seen if not is_metadata(request)]
    assert {"Bearer token-2"} == {request.headers.get("authorization") for request in requests}
    assert {True, False} == {request.is_bulk for request in requests}


def test_another_key_file_does_not_disturb_the_emulator(
    store: Store, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an emulator no key file is read: obstore would fail on the kinds that it does not know."""
    (tmp_path / "key.json").write_text('{"type": "external_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    store.write("a", b"1")

    assert {"a": b"1"} == read_all(open_store(f"gs://{bucket}", retry=QUICK))


def test_two_slashes_in_a_prefix(bucket: str) -> None:
    """A prefix with an empty part is rejected with the URI that was meant."""
    with pytest.raises(SettingsError) as caught:
        open_store(f"gs://{bucket}//d")

    assert f"gs://{bucket}/d?" in caught.value.remedy
