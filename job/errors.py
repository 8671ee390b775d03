"""Every way a run can end, and the exit code of each.

    FinetuneError                  also any exception that is not one of these
    ├── SettingsError              raised before anything is read or written
    ├── DataError
    ├── DeviceError
    ├── AccessError
    ├── GateError
    ├── NotFiniteError
    ├── DeviceMemoryError
    ├── InvariantError             the recipe was not followed: a bug in finetune
    ├── UnavailableError
    │   └── StallError
    └── StoppedError

Each class has its exit code, meaning and what the Kubernetes Job does about it. The tables in README.md and
docs/operations.md and the chart's podFailurePolicy are generated from them. Match on the types, never on the text of a
message.
"""

from __future__ import annotations

from typing import ClassVar, Literal

REPORT = "this is a bug in finetune: please report it with the log and the run's config.json"
"""The remedy where nothing that a user does would help."""

JobAction = Literal["Complete", "Count", "FailJob", "Ignore"]
"""What the Kubernetes Job does about an exit code, in the words of podFailurePolicy (Complete: it is not a failure)."""


class FinetuneError(Exception):
    """The base of every error that a user may see.

    Args:
        message: what happened: the value, and what was expected.
        remedy: what the user can do about it.
    """

    reason: ClassVar[str] = "Unexpected"
    """The error's name as one CamelCase word, as Kubernetes writes reasons: ``DataError`` is ``Data``."""
    exit_code: ClassVar[int] = 1
    meaning: ClassVar[str] = "unexpected"
    job_action: ClassVar[JobAction] = "Count"

    def __init_subclass__(cls) -> None:
        cls.reason = cls.__name__.removesuffix("Error")

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def facts(self) -> dict[str, object]:
        """What the log, status.json and the termination message say of it."""
        return {"reason": self.reason, "message": self.message, "remedy": self.remedy, "exit_code": self.exit_code}


class SettingsError(FinetuneError):
    """The settings are wrong. Raised before anything is read or written."""

    exit_code = 2
    meaning = "the settings are wrong"
    job_action = "FailJob"


class DataError(FinetuneError):
    """The data are wrong, or not there: another attempt on the same data would end the same."""

    exit_code = 3
    meaning = "the data are wrong, or not there"
    job_action = "FailJob"


class DeviceError(FinetuneError):
    """No usable GPU where one is required; another node may have one."""

    exit_code = 4
    meaning = "no usable GPU where one is required"
    job_action = "Count"


class AccessError(FinetuneError):
    """The store, or the disk, refused access."""

    exit_code = 5
    meaning = "no permission, or no credentials"
    job_action = "FailJob"


class GateError(FinetuneError):
    """The model is published under its run, and latest.json was not moved to it."""

    exit_code = 6
    meaning = "the quality gate failed"
    job_action = "FailJob"


class NotFiniteError(FinetuneError):
    """The loss became NaN or infinite."""

    exit_code = 7
    meaning = "the loss is not finite"
    job_action = "FailJob"


class DeviceMemoryError(FinetuneError):
    """Not even one image at a time fits into the device's memory."""

    exit_code = 8
    meaning = "out of memory at the smallest batch"
    job_action = "FailJob"


class InvariantError(FinetuneError):
    """Something that must hold in every run did not: the result must not be trusted, and is not published."""

    exit_code = 9
    meaning = "an invariant of the recipe was broken"
    job_action = "FailJob"


class UnavailableError(FinetuneError):
    """Storage or network did not answer, after all retries."""

    exit_code = 20
    meaning = "storage or network, after all retries; or no progress for too long"
    job_action = "Count"


class StallError(UnavailableError):
    """There was no progress for ``device.stall_minutes``."""


class StoppedError(FinetuneError):
    """Stopped by a signal, or superseded by another Pod of the same Job; the state is saved."""

    exit_code = 75
    meaning = "stopped by a signal, or superseded; the state is saved"
    job_action = "Ignore"


def all_errors() -> list[type[FinetuneError]]:
    """Return every class of the tree, each before its subclasses."""
    found: list[type[FinetuneError]] = [FinetuneError]
    for error in found:
        found += error.__subclasses__()
    return found


def exit_codes() -> dict[int, tuple[str, JobAction]]:
    """Return code -> (meaning, what the Job does), ascending."""
    codes: dict[int, tuple[str, JobAction]] = {0: ("published, or already published", "Complete")}
    for error in all_errors():
        codes.setdefault(error.exit_code, (error.meaning, error.job_action))
    return dict(sorted(codes.items()))
