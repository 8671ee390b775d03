"""What native code writes to stderr: kept out of the log, and attributed to the call that wrote it.

libjpeg prints its warnings to stderr, and TensorFlow returns the picture without a word of them. A process has one
stderr, so while several threads decode, a line only says that one of them caused it; that work is then repeated alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 2**20
"""Text that is kept before it is discarded; only the newest is ever read."""


def open_memory_file() -> BinaryIO:
    """Open a file in memory on Linux: a container may have no directory for temporary files."""
    if sys.platform == "linux":
        return open(os.memfd_create("stderr"), "w+b")  # noqa: PTH123  # a file descriptor
    return cast("BinaryIO", tempfile.TemporaryFile())


class NativeStderr:
    """Redirects file descriptor 2 while threads are in its blocks. The log writes to a duplicate of its own.

    Thread-safe. Blocks must not be nested.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False
        self._saved: int | None = None
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def shared(self) -> Iterator[Callable[[], bool]]:
        """Redirect stderr during the block, in which other threads may be as well.

        Yields:
            Returns whether any thread has written to stderr since the block began.
        """
        with self._changed:
            while self._alone:
                self._changed.wait()
            if not self._sharing:
                self._redirect()
            self._sharing += 1
        try:
            before = self._size()
            yield lambda: self._size() > before
        finally:
            with self._changed:
                self._sharing -= 1
                if not self._sharing:
                    self._restore()
                    self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], str]]:
        """Redirect stderr during the block, while no other thread is in any block.

        Yields:
            Returns what was written to stderr since the block began.
        """
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True  # no thread enters from here on, so that this one is not kept waiting
        try:
            with self._changed:
                while self._sharing:
                    self._changed.wait()
                self._redirect()
            try:
                before = self._size()
                yield lambda: self._read(before)
            finally:
                self._restore()
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _redirect(self) -> None:
        if self._file is None:
            self._file = open_memory_file()
            fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        try:
            self._saved = os.dup(2)
        except OSError:  # closed from the start
            self._saved = os.open(os.devnull, os.O_WRONLY)
        os.dup2(self._file.fileno(), 2)

    def _restore(self) -> None:
        assert self._saved is not None
        assert self._file is not None
        os.dup2(self._saved, 2)
        os.close(self._saved)
        if self._size() > MAX_BYTES:
            os.ftruncate(self._file.fileno(), 0)

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size

    def _read(self, start: int) -> str:
        assert self._file is not None
        return os.pread(self._file.fileno(), MAX_BYTES, start).decode(errors="replace")
