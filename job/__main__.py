"""The entry point: log -> config -> command -> exit code. ``finetune …`` and ``python -m job …`` are equivalent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from job.runtime import imports, signals

signals.install()  # before the slow imports

with imports.fast():
    from job.commands import cli
    from job.config.settings import LogSettings
    from job.errors import FinetuneError, StoppedError, UsageError, unexpected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.observability.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the command in `arguments` (default: ``sys.argv``) and return its exit code; see job/errors.py."""
    progress = cli.listen(LogSettings())  # the defaults, until the settings are loaded
    try:
        with signals.interrupting(lambda: _report(signals.stopped_error(), progress)):
            command = cli.parse(sys.argv[1:] if arguments is None else arguments)
            progress = cli.listen(command.log)
            code = command.execute(progress)
    except FinetuneError as error:
        code = error.exit_code
        match error:
            case UsageError():
                cli.report_usage(error)
            case StoppedError():
                _report(error, progress)
            case _:
                progress.event("run.failed", severity="error", **error.facts)
    except KeyboardInterrupt:
        _report(signals.stopped_error(), progress)
        code = StoppedError.exit_code
    except Exception as error:  # noqa: BLE001  # every failure is logged and has an exit code
        failure = unexpected(error)
        progress.event("run.failed", severity="critical", **failure.facts, exc_info=error)
        code = failure.exit_code
    progress.close()
    return signals.exit_now(code)


def _report(error: StoppedError, progress: Progress) -> None:
    progress.event("run.stopped", severity="warning", **error.facts)


if __name__ == "__main__":
    sys.exit(main())
