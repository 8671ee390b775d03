"""Finds pictures that are nearly the same: by a hash of what they show, of which near ones differ in few bits.

The hash is the sign pattern of the picture's 64 lowest spatial frequencies (as pHash, after Zauner: Implementation and
benchmarking of perceptual image hash functions, 2010). It finds copies that were compressed again, shrunk or
brightened, and about half of slightly cropped ones; it finds no mirrored or rotated ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BITS: Final = 64

MAX_DISTANCE: Final = 7
"""Bits in which two hashes may differ: of four parts of 16 bits, one then differs in at most one bit."""

_PARTS, _PART_BITS = 4, 16

_FREQUENCIES: Final = 9

_BLANK: Final = 0.5
"""Amplitude of the strongest frequency, in grey levels, below which a picture shows nothing to compare."""

_CHUNK: Final = 2**22
"""Pairs compared at a time: bounds the memory to about 200 MB."""


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """Return the hash of a picture; 0 if it is blank.

    Args:
        pixels: uint8 [size, size, 3], as the model sees them.
    """
    basis, order = _basis(pixels.shape[0])
    # Green is most of the brightness, and one plane is a third of the work.
    amplitudes = (basis @ pixels[:, :, 1].astype(np.float32) @ basis.T).ravel()[order]
    if np.abs(amplitudes).max() < _BLANK:
        return 0
    bits = amplitudes > np.median(amplitudes)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@lru_cache(maxsize=4)
def _basis(size: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the cosines of the lowest frequencies, float32 [9, size], and the 64 pairs of them, lowest first."""
    frequency, position = np.mgrid[:_FREQUENCIES, :size]
    basis = np.cos(np.pi * frequency * (position + 0.5) / size) / size
    rows, columns = np.divmod(np.arange(_FREQUENCIES**2), _FREQUENCIES)
    order = np.lexsort((rows, np.maximum(rows, columns), rows + columns))
    return basis.astype(np.float32), order[1 : BITS + 1]  # without the constant, which is the brightness


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return all pairs of different hashes that differ in at most some bits.

    Args:
        hashes: uint64 [n], without repetitions.
        distance: the number of bits, at most `MAX_DISTANCE`.

    Returns:
        int64 [pairs, 3]: the smaller index, the larger one, and the bits; sorted.
    """
    assert 0 <= distance <= MAX_DISTANCE
    found = [np.zeros((0, 3), np.int64)]
    for part in range(_PARTS):
        keys = (hashes >> np.uint64(part * _PART_BITS)).astype(np.int64) & 0xFFFF
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(np.bincount(keys, minlength=2**_PART_BITS))
        starts = np.concatenate(([0], ends[:-1]))
        keys = keys[order]
        for mask in (0, *(1 << bit for bit in range(_PART_BITS if distance >= _PARTS else 0))):
            # Each pair once: within a part's value the later ones, of two values those with the larger one.
            first = np.arange(1, len(keys) + 1) if mask == 0 else starts[keys ^ mask]
            last = np.where((keys ^ mask) >= keys, ends[keys ^ mask], first)
            for position, partner in _expand(first, last):
                one, other = order[position], order[partner]
                bits = np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)
                near = bits <= distance
                pairs = np.stack([np.minimum(one, other)[near], np.maximum(one, other)[near], bits[near]], axis=1)
                found.append(pairs)
    return np.unique(np.concatenate(found), axis=0)


def _expand(first: NDArray[Any], last: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs (i, j) with first[i] <= j < last[i], some at a time."""
    counts = np.maximum(last - first, 0)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        part = counts[begin:end]
        one = np.repeat(np.arange(begin, end), part)
        within = np.arange(len(one)) - np.repeat(np.cumsum(part) - part, part)
        yield one, np.repeat(first[begin:end], part) + within
        begin = end
