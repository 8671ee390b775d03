"""The entry point: log -> config -> command -> exit code. ``finetune …`` and ``python -m job …`` are the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from job import cli, config
from job.errors import FinetuneError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one command and return its exit code: see :mod:`job.errors`.

    Args:
        arguments: the command and its flags; those of the process by default.
    """
    progress = cli.listen(config.LogSettings())  # until it is known which log is wanted
    try:
        command = cli.parse(sys.argv[1:] if arguments is None else arguments)
        progress = cli.listen(command.log)
        return command.execute(progress)
    except StoppedError as error:
        progress.event("run.stopped", severity="warning", **_facts(error))
        return error.exit_code
    except FinetuneError as error:
        progress.event("run.failed", severity="error", **_facts(error))
        return error.exit_code
    except KeyboardInterrupt:
        stopped = StoppedError("interrupted", remedy="start it again with the same settings")
        progress.event("run.stopped", severity="warning", **_facts(stopped))
        return stopped.exit_code
    except Exception as error:  # noqa: BLE001  # whatever it is, it gets its line in the log and its exit code
        unexpected = FinetuneError(
            f"{type(error).__name__}: {error}",
            remedy="this is a fault of the job, not of your data: please report it with the traceback above",
        )
        progress.event(
            "run.failed", severity="critical", **_facts(unexpected) | {"reason": "Unexpected"}, exc_info=error
        )
        return unexpected.exit_code
    finally:
        progress.close()


def _facts(error: FinetuneError) -> dict[str, object]:
    return {"reason": error.reason, "message": error.message, "remedy": error.remedy, "exit_code": error.exit_code}


if __name__ == "__main__":
    sys.exit(main())
