"""Every way a run can end, and the exit code of each.

    FinetuneError                  also any exception that is not one of these
    ├── SettingsError              the settings or the environment
    │   └── UsageError             a command line that selects nothing to run
    ├── DataError
    ├── DeviceError
    ├── AccessError
    ├── GateError
    ├── NotFiniteError
    ├── DeviceMemoryError
    ├── InvariantError             the recipe was not followed: a bug in finetune
    ├── UnavailableError
    │   ├── StallError
    │   └── PeerLostError          another worker of the run ended: this one starts again in its place
    └── StoppedError

Each class defines its exit code, its meaning and the action of the Kubernetes Job. The table in
docs/operations.md and the chart's podFailurePolicy are generated from them. Match on types, never on the text of a
message.
"""

from __future__ import annotations

from typing import ClassVar, Literal

REPORT_BUG = "this is a bug in finetune: please report it with the log and the run's config.json"
"""The remedy for errors that a user cannot fix."""

JobAction = Literal["Complete", "Count", "FailJob", "Ignore"]
"""How the Kubernetes Job reacts to an exit code: the actions of podFailurePolicy, and Complete for success."""


class FinetuneError(Exception):
    """Base class of every error that a user may see.

    Args:
        message: what happened: the actual value and the expected one.
        remedy: how the user can fix it.
    """

    reason: ClassVar[str] = "Unexpected"
    """The class name without "Error", in CamelCase like Kubernetes reasons: ``Data`` for ``DataError``."""
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
        """The fields that the log, status.json and the termination message report."""
        return {"reason": self.reason, "message": self.message, "remedy": self.remedy, "exit_code": self.exit_code}


class SettingsError(FinetuneError):
    """The settings or the environment are invalid (a value, a locale, a certificate); a retry would fail as well."""

    exit_code = 2
    meaning = "the settings are wrong"
    job_action = "FailJob"


class UsageError(SettingsError):
    """The command line is no call of a command: nothing ran, so there is nothing to log."""


class DataError(FinetuneError):
    """The data are invalid or missing; a retry on the same data would fail the same way."""

    exit_code = 3
    meaning = "the data are wrong, or not there"
    job_action = "FailJob"


class DeviceError(FinetuneError):
    """A GPU is required but none is usable; another node may have one."""

    exit_code = 4
    meaning = "no usable GPU where one is required"
    job_action = "Count"


class AccessError(FinetuneError):
    """The store or the disk denied access."""

    exit_code = 5
    meaning = "no permission, or no credentials"
    job_action = "FailJob"


class GateError(FinetuneError):
    """The model failed the quality gate: it is published under its run, but latest.json does not point to it."""

    exit_code = 6
    meaning = "the quality gate failed"
    job_action = "FailJob"


class NotFiniteError(FinetuneError):
    """The loss became NaN or infinite."""

    exit_code = 7
    meaning = "the loss is not finite"
    job_action = "FailJob"


class DeviceMemoryError(FinetuneError):
    """A batch of one image does not fit into the device's memory."""

    exit_code = 8
    meaning = "out of memory at the smallest batch"
    job_action = "FailJob"


class InvariantError(FinetuneError):
    """An invariant of every run was violated: the result cannot be trusted and is not published."""

    exit_code = 9
    meaning = "an invariant of the recipe was broken"
    job_action = "FailJob"


class UnavailableError(FinetuneError):
    """Storage or network was unreachable in all attempts, or the process that verifies the export was killed."""

    exit_code = 20
    meaning = "storage or network, after all retries; the verification killed; or no progress for too long"
    job_action = "Count"


class StallError(UnavailableError):
    """No progress for ``device.stall_minutes``."""


class PeerLostError(UnavailableError):
    """Another worker of the run has ended, or was stopped: this one starts again in place, and does not exit."""


class StoppedError(FinetuneError):
    """Stopped by a signal, superseded by another Pod of the same Job, or another owner works on the run."""

    exit_code = 75
    meaning = "stopped by a signal, superseded, or another owner works on the run; the state is saved"
    job_action = "Ignore"


def unexpected(error: Exception) -> FinetuneError:
    """Return the error that reports an exception of any other class."""
    return FinetuneError(f"{type(error).__name__}: {error}", remedy=REPORT_BUG)


def all_errors() -> list[type[FinetuneError]]:
    """Return every class of the tree, each before its subclasses."""
    classes: list[type[FinetuneError]] = [FinetuneError]
    for error in classes:
        classes += error.__subclasses__()
    return classes


def exit_codes() -> dict[int, tuple[str, JobAction]]:
    """Return exit code -> (meaning, action of the Job), in ascending order."""
    codes: dict[int, tuple[str, JobAction]] = {0: ("published, or already published", "Complete")}
    for error in all_errors():
        codes.setdefault(error.exit_code, (error.meaning, error.job_action))
    return dict(sorted(codes.items()))
