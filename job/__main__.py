"""The entry point: log -> config -> command -> exit code. ``finetune …`` and ``python -m job …`` are the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from job import imports, signals

signals.install()  # before what takes a while to import

with imports.uncollected():
    from job import cli, config
    from job.errors import FinetuneError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the command in `arguments`, the process's by default, and return its exit code: see job/errors.py."""
    progress = cli.listen(config.LogSettings())  # until it is known which log is wanted
    try:
        with signals.interrupting(lambda: progress.event("run.stopped", severity="warning", **_facts(_stopped()))):
            command = cli.parse(sys.argv[1:] if arguments is None else arguments)
            progress = cli.listen(command.log)
            code = command.execute(progress)
    except FinetuneError as error:
        if isinstance(error, StoppedError):
            progress.event("run.stopped", severity="warning", **_facts(error))
        else:
            progress.event("run.failed", severity="error", **_facts(error))
        code = error.exit_code
    except KeyboardInterrupt:
        progress.event("run.stopped", severity="warning", **_facts(_stopped()))
        code = StoppedError.exit_code
    except Exception as error:  # noqa: BLE001  # whatever it is, it gets its line in the log and its exit code
        remedy = "this is a fault of the job, not of your data: please report it with the traceback above"
        unexpected = FinetuneError(f"{type(error).__name__}: {error}", remedy=remedy)
        facts = _facts(unexpected) | {"reason": "Unexpected"}
        progress.event("run.failed", severity="critical", **facts, exc_info=error)
        code = unexpected.exit_code
    progress.close()
    return signals.leave(code)


def _stopped() -> StoppedError:
    message = f"stopped by {signals.received() or 'SIGINT'}; what was saved is kept"
    return StoppedError(message, remedy="start it again with the same settings: it goes on")


def _facts(error: FinetuneError) -> dict[str, object]:
    return {"reason": error.reason, "message": error.message, "remedy": error.remedy, "exit_code": error.exit_code}


if __name__ == "__main__":
    sys.exit(main())
