"""The checks of ``finetune doctor``, by group."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from job import storage
from job.commands.command import check_tensorflow
from job.config import certificates, environment
from job.export import formats
from job.runtime import machine
from job.runtime.checks import Check, Finding, Group
from job.storage.probe import OutputProbe, read_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import Settings

SKEW_SECONDS = 10.0
"""From this on a clock that differs is a warning: Google refuses tokens of a clock that is minutes off."""

_HANGING = (
    "Check that the server can be reached from here (network policy, proxy, service mesh, STORAGE_EMULATOR_HOST), or "
    "give it more time: --timeout SECONDS."
)


def _software(settings: Settings, _: float) -> list[Group]:
    return [Group([Check("versions", partial(_check_software, settings))])]


def _check_software(settings: Settings) -> str:
    check_tensorflow()
    formats.check_installed(settings.export.formats)
    return machine.software()


def _gpu(settings: Settings, _: float) -> list[Group]:
    return [machine.gpu_checks(settings)]


def _machine(settings: Settings, _: float) -> list[Group]:
    return [machine.checks(settings)]


def _storage(settings: Settings, seconds: float) -> list[Group]:
    retry = _retry(seconds)
    return [
        Group(
            [
                Check("CA bundle", _check_bundle),
                Check("credentials", partial(_check_credentials, settings, retry), _HANGING),
                Check("billing project", partial(_check_billing, settings)),
            ]
        ),
        Group([Check("input", partial(_check_input, settings, retry), _HANGING)]),
        _output(settings, retry),
    ]


def _weights(settings: Settings, seconds: float) -> list[Group]:
    return [Group([Check("weights", partial(_check_weights, settings, seconds), _HANGING)])]


def _retry(seconds: float) -> storage.RetryPolicy:
    return storage.RetryPolicy(seconds=seconds / 2, credential_seconds=seconds / 2)


def _uses_buckets(settings: Settings) -> bool:
    return any(uri.startswith("gs://") for uri in (settings.input.uri, settings.output.uri, settings.model.weights))


def _check_bundle() -> str:
    return certificates.use_one_bundle() or "none is set: each client uses its own or the system's"


def _check_credentials(settings: Settings, retry: storage.RetryPolicy) -> str | Finding:
    if not _uses_buckets(settings):
        return Finding("skipped", "no bucket is named", "--input.uri gs://… and --output.uri gs://…")
    if host := environment.get("STORAGE_EMULATOR_HOST"):
        return f"none are sent to the emulator, STORAGE_EMULATOR_HOST={host}"
    if settings.storage.anonymous and not settings.output.uri.startswith("gs://"):
        return "none are sent: storage.anonymous"
    from job.storage import gcs_clients  # imports Google's libraries

    return gcs_clients.describe_credentials(retry)


def _check_billing(settings: Settings) -> str | Finding:
    project = settings.storage.user_project
    if not project:
        return Finding("skipped", "only requester-pays buckets need one", "--storage.user_project PROJECT")
    if settings.storage.anonymous:
        return Finding(
            "warning",
            f"{project} is not billed for the input: requests without credentials cannot name it",
            "Set storage.anonymous=false if the input's bucket is requester-pays.",
        )
    return f"{project} is named in all requests to buckets"


def _check_input(settings: Settings, retry: storage.RetryPolicy) -> str | Finding:
    if not settings.input.uri:
        return Finding("skipped", "input.uri is not set: a run trains on its demo pictures", "--input.uri URI")
    return read_input(settings.input.uri, storage.opener(settings.storage, retry=retry))


def _output(settings: Settings, retry: storage.RetryPolicy) -> Group:
    """Return the checks of the output, which try every operation with one object."""
    uri = settings.output.uri
    probe = OutputProbe(partial(storage.open_output, uri, settings.storage, retry=retry))
    hanging = f"{_HANGING} {uri}/{probe.name} may be left: delete it."

    def create() -> str | Finding:
        return probe.create() if uri else Finding("skipped", "output.uri is not set", "--output.uri URI")

    def once_created(examine: Callable[[], str | Finding]) -> str | Finding:
        return examine() if probe.created else Finding("skipped", "needs the object that 'output create' creates")

    return Group(
        [
            Check("output create", create, hanging),
            Check("output precondition", partial(once_created, probe.refuse), hanging),
            Check("output overwrite", partial(once_created, probe.overwrite), hanging),
            Check("output read", partial(once_created, probe.read), hanging),
            Check("output clock", partial(once_created, partial(_check_clock, probe)), hanging),
            Check("output delete", partial(once_created, probe.delete), hanging),
        ],
        probe.clean_up,
    )


def _check_clock(probe: OutputProbe) -> str | Finding:
    skew = probe.clock_skew()
    if skew is None:
        detail = "not checked: the store does not report when an object was written"
        return Finding(
            "skipped", detail, "Check the clock of this machine with NTP: tokens and certificates depend on it."
        )
    if abs(skew) < SKEW_SECONDS:
        return f"this clock and the store's differ by less than {SKEW_SECONDS:g} s"
    direction = "behind" if skew > 0 else "ahead of"
    detail = f"this clock is {abs(skew):,.0f} s {direction} the store's"
    return Finding("warning", detail, "Set the clock of this machine, with NTP: tokens and certificates depend on it.")


def _check_weights(settings: Settings, seconds: float) -> str | Finding:
    from job.model import weights  # imports NumPy and h5py
    from job.runs.published import open_warm_start  # imports NumPy

    open_store = storage.opener(settings.storage, retry=_retry(seconds))
    if settings.model.is_warm_start:
        return f"the model of {open_warm_start(settings, open_store).uri}"
    location = weights.locate(settings.model, open_store, timeout=seconds / 2, tries=1)
    if location == "random":
        return Finding("warning", "random: nothing is pretrained", "Set model.weights=imagenet unless that is meant.")
    if location.startswith("https://"):
        return f"not on this machine; they can be downloaded from {location}"
    return location


GROUPS: dict[str, Callable[[Settings, float], list[Group]]] = {
    "software": _software,
    "gpu": _gpu,
    "machine": _machine,
    "storage": _storage,
    "weights": _weights,
}
"""Name -> function of the settings and a check's time limit in seconds, which returns the group's checks."""
