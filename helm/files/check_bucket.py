"""What `helm test` runs: with the job's identity it lists the input, and writes, reads and deletes in the output."""

from __future__ import annotations

import sys
import uuid

from job import storage
from job.config.load import load_settings
from job.errors import FinetuneError
from job.observability import log


def main() -> int:
    """Try what a run needs of the bucket, and return the exit code that a run would have."""
    log.configure(console=False)
    try:
        settings = load_settings(sys.argv[1:], required=("output.uri",)).settings
        open_store = storage.opener(settings.storage)
        if settings.input.uri:
            first = next(iter(open_store(settings.input.uri).list()), None)
            log.get().info("input.listed", uri=settings.input.uri, first=first and first.name)
        output = storage.open_output(settings.output.uri, settings.storage)
        name = f"helm-test-{uuid.uuid4().hex}"
        output.write(name, b"helm test", if_generation_match=0)
        output.read(name)
        output.delete(name)
        log.get().info("output.written", uri=settings.output.uri)
    except FinetuneError as error:
        log.get().error("test.failed", message=error.message, remedy=error.remedy)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
