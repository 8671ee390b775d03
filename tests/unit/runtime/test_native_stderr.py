"""Text of native code is kept from the log, and is attributed to who wrote it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from job.runtime.native_stderr import MAX_BYTES, NativeStderr, open_memory_file


def warn(text: str) -> None:
    """Write as native code does."""
    os.write(2, text.encode())


def test_nothing_passes(capfd: pytest.CaptureFixture[str]) -> None:
    """What is written within a block does not reach stderr; what is written outside of it does."""
    stderr = NativeStderr()
    warn("before ")
    with stderr.shared() as block:
        assert not block.was_written()
        warn("inside")
        assert block.was_written()
    with stderr.alone() as written:
        warn("alone")
        assert "alone" == written()
    warn("after")

    assert "before after" == capfd.readouterr().err


def test_each_block_knows_its_own_text() -> None:
    """What earlier blocks wrote is not counted again."""
    stderr = NativeStderr()
    with stderr.alone() as written:
        warn("first")
    with stderr.shared() as block:
        assert not block.was_written()
    with stderr.alone() as written:
        assert not written()
        warn("second")
        assert "second" == written()


def test_one_thread_is_alone() -> None:
    """While a thread is alone, no other is in any block, so that the text is its own."""
    stderr, pairs = NativeStderr(), []

    def work(number: int) -> None:
        with stderr.shared():
            warn(f"other {number}\n")
        with stderr.alone() as written:
            warn(f"mine {number}\n")
            pairs.append((f"mine {number}\n", written()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))

    assert 200 == len(pairs)
    assert [expected for expected, _ in pairs] == [found for _, found in pairs]


def test_sharing_threads_see_one_another() -> None:
    """Text of another thread that is in a block at the same time makes this one suspect, too."""
    stderr, entered, left = NativeStderr(), threading.Event(), threading.Event()

    def other() -> None:
        with stderr.shared():
            entered.set()
            assert left.wait(10)

    thread = threading.Thread(target=other)
    with stderr.shared() as block:
        thread.start()
        assert entered.wait(10)
        warn("by one of the two")
        assert block.was_written()
        left.set()
        thread.join()


def test_a_block_around_others(capfd: pytest.CaptureFixture[str]) -> None:
    """Within a block around others nothing reaches stderr either, and the others know their text as without it."""
    stderr = NativeStderr()
    with stderr.redirected():
        warn("between")
        with stderr.alone() as written:
            assert not written()
            warn("alone")
            assert "alone" == written()
        with stderr.shared() as block:
            assert not block.was_written()
            warn("shared")
            assert block.was_written()
    warn("after")

    assert "after" == capfd.readouterr().err


def test_an_error_restores_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """A block that fails restores stderr, and lets others in."""
    stderr = NativeStderr()
    for block in (stderr.shared, stderr.alone, stderr.redirected):
        with pytest.raises(ValueError, match="inside"), block():
            raise ValueError("inside")
        warn("after ")

    assert "after after after " == capfd.readouterr().err


def test_text_does_not_grow_without_limit() -> None:
    """Text that nobody asks for is discarded."""
    stderr = NativeStderr()
    for _ in range(3):
        with stderr.shared():
            warn("x" * (MAX_BYTES + 1))

    with stderr.shared(), open_memory_file():
        assert os.fstat(2).st_size <= MAX_BYTES


def test_stderr_may_be_closed() -> None:
    """A process without stderr is no obstacle."""
    stderr, saved = NativeStderr(), os.dup(2)
    os.close(2)
    try:
        with stderr.alone() as written:
            warn("heard")
            assert "heard" == written()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
