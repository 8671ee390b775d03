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
from typing import TYPE_CHECKING, BinaryIO, Self, cast

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

    Thread-safe. `shared` and `alone` must not be nested in each other; `redirected` may be around them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._redirects = 0
        self._sharing = 0
        self._alone = False
        self._seen = 0
        self._saved: int | None = None
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def redirected(self) -> Iterator[None]:
        """Redirect stderr during the block. Around many of the other blocks it saves them their system calls."""
        with self._lock:
            self._redirect()
        try:
            yield
        finally:
            with self._lock:
                self._restore()

    def shared(self) -> Shared:
        """Redirect stderr during the block, in which other threads may be as well."""
        return Shared(self)

    def enter(self) -> int:
        """Begin a shared block, and return the bytes that were seen so far."""
        with self._lock:
            while self._alone:
                self._changed.wait()
            self._redirect()
            self._sharing += 1
            return self._seen

    def leave(self) -> None:
        """End a shared block."""
        with self._lock:
            self._restore()
            self._sharing -= 1
            if not self._sharing and self._alone:
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[Callable[[], str]]:
        """Redirect stderr during the block, while no other thread is in a block of this or the other kind.

        Yields:
            Returns what was written to stderr since the block began.
        """
        with self._lock:
            while self._alone:
                self._changed.wait()
            self._alone = True  # no thread enters from here on, so that this one is not kept waiting
        try:
            with self._lock:
                while self._sharing:
                    self._changed.wait()
            with self.redirected():
                before = self.size()
                yield lambda: self._read(before)
                self.size()  # seen, so that nobody else becomes a suspect
        finally:
            with self._lock:
                self._alone = False
                self._changed.notify_all()

    def _redirect(self) -> None:
        self._redirects += 1
        if self._redirects > 1:
            return
        if self._file is None:
            self._file = open_memory_file()
            fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        try:
            self._saved = os.dup(2)
        except OSError:  # closed from the start
            self._saved = os.open(os.devnull, os.O_WRONLY)
        os.dup2(self._file.fileno(), 2)

    def _restore(self) -> None:
        self._redirects -= 1
        if self._redirects:
            return
        assert self._saved is not None
        assert self._file is not None
        os.dup2(self._saved, 2)
        os.close(self._saved)
        if self.size() > MAX_BYTES:
            os.ftruncate(self._file.fileno(), 0)
            self._seen = 0

    def size(self) -> int:
        """Return the bytes that were written, within a block."""
        assert self._file is not None
        self._seen = os.fstat(self._file.fileno()).st_size
        return self._seen

    def _read(self, start: int) -> str:
        assert self._file is not None
        return os.pread(self._file.fileno(), MAX_BYTES, start).decode(errors="replace")


class Shared:
    """The block of `NativeStderr.shared`. Not a generator, which costs more: it is entered for each image."""

    __slots__ = ("_before", "_stderr")

    def __init__(self, stderr: NativeStderr) -> None:
        self._stderr = stderr
        self._before = 0

    def __enter__(self) -> Self:
        self._before = self._stderr.enter()
        return self

    def was_written(self) -> bool:
        """Return whether any thread has written to stderr since the block began; at times also for earlier text."""
        return self._stderr.size() > self._before

    def __exit__(self, *_: object) -> None:
        self._stderr.leave()
