"""A child process that works with an exported model on the CPU, and reads images from its standard input."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Self

from job.config import environment

if TYPE_CHECKING:
    from collections.abc import Iterable


class ModelProcess:
    """A child process of this program. Use as a context manager: its end kills the process.

    It takes seconds to import TensorFlow: start it before the model exists.

    Args:
        module: its program.
        arguments: its command line.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        # note: no GPU for the child, since this process holds its memory
        variables = environment.for_child(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
        self._errors = TemporaryFile()  # noqa: SIM115 (closed with the context)
        self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", module, *map(str, arguments)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the child ended before it read all buffered input
            self._child.stdin.close()
        self._child.stdout.close()
        self._errors.close()

    def _exchange(self, header: object, encoded: Iterable[bytes]) -> bytes:
        """Send a line of JSON and then images, wait for the end of the process, and return its standard output."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child died: the caller sees its exit code
            self._child.stdin.write(json.dumps(header).encode() + b"\n")
            for data in encoded:
                self._child.stdin.write(len(data).to_bytes(4, "little") + data)
        output, _ = self._child.communicate()
        return output

    def _stderr(self) -> str:
        """Return what the process wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()
