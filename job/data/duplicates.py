"""Finds pictures that are the same, byte by byte, or that show nearly the same.

The second kind is found by a hash of what they show, of which near ones differ in few bits: the sign pattern of the
picture's 64 lowest spatial frequencies (as pHash, after Zauner: Implementation and benchmarking of perceptual image
hash functions, 2010). It finds copies that were compressed again, shrunk or brightened, and about half of slightly
cropped ones; it finds no mirrored or rotated ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from job.data.labels import SPLIT_NAMES, TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.manifest import Manifest

BITS: Final = 64

MAX_DISTANCE: Final = 7
"""Bits in which two hashes may differ: of four parts of 16 bits, one then differs in at most one bit."""

_PARTS, _PART_BITS = 4, 16

_FREQUENCIES: Final = 9

_BLANK: Final = 0.5
"""Amplitude of the strongest frequency, in grey levels, below which a picture shows nothing to compare."""

_WRITTEN: Final = 100_000

_CHUNK: Final = 2**18
"""Pairs compared at a time: bounds the memory to about 15 MB."""


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


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What of the usable images is there more than once.

    Attributes:
        exact: int [k, 2], rows of an image and of a copy of it, byte by byte: the first one and each other.
        near: int [m, 3], rows of two images that show nearly the same, and the bits in which their hashes differ: one
            image of each split and label stands for all with its hash. Of at most 100,000 pairs of hashes.
        leaking_copies: int [i], rows of held-out images with a copy in the train split.
        leaking_near: int [j], rows of other held-out images that show nearly the same as one of the train split.
        twofold: int [l], rows of images that show nearly the same as one of another class.
    """

    exact: NDArray[np.int64]
    near: NDArray[np.int64]
    leaking_copies: NDArray[np.int64]
    leaking_near: NDArray[np.int64]
    twofold: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """Return the number of pairs that are exact or near, and of images that are leaking or under two labels."""
        return {
            "exact": len(self.exact),
            "near": len(self.near),
            "leaking": len(self.leaking_copies) + len(self.leaking_near),
            "under_two_labels": len(self.twofold),
        }

    def rows(self, manifest: Manifest, splits: NDArray[np.uint8]) -> Iterator[dict[str, object]]:
        """Yield each pair as plain JSON, as published in ``data/duplicates.jsonl``."""
        exact = np.concatenate([self.exact, np.zeros((len(self.exact), 1), np.int64)], axis=1)
        for kind, pairs in (("exact", exact), ("near", self.near)):
            for one, other, bits in pairs.tolist():
                across = ["split"] * bool(splits[one] != splits[other])
                across += ["label"] * bool(manifest.label[one] != manifest.label[other])
                yield {
                    "a": manifest.uri(one),
                    "b": manifest.uri(other),
                    "distance": bits,
                    "kind": kind,
                    "across": across,
                }


def find(manifest: Manifest, splits: NDArray[np.uint8], hashes: NDArray[np.uint64] | None, distance: int) -> Duplicates:
    """Return the duplicates among images.

    Args:
        manifest: the usable images.
        splits: uint8 [n], their splits.
        hashes: uint64 [n], by `perceptual_hash`; None: only copies are looked for.
        distance: bits in which the hashes of near ones may differ; 0: only copies are looked for.
    """
    exact, has_copy = _copies(manifest, splits)
    nothing = np.zeros(0, np.int64)
    found = Duplicates(
        exact=exact,
        near=np.zeros((0, 3), np.int64),
        leaking_copies=np.flatnonzero((splits != TRAIN) & has_copy),
        leaking_near=nothing,
        twofold=nothing,
    )
    if hashes is None or not distance:
        return found
    return _with_near(found, manifest, splits, hashes, distance, has_copy)


def _copies(manifest: Manifest, splits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the pairs of equal images, int [k, 2], and bool [n], whether an image is equal to one of the train split.

    Few arrays are held at a time: the list of images may be the largest thing in memory.
    """
    keys = manifest.content_keys()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    del keys
    has_copy, starts = np.zeros(len(order), np.bool_), np.flatnonzero(is_first)
    if len(starts):
        trained = np.logical_or.reduceat(splits[order] == TRAIN, starts)
        has_copy[order] = np.repeat(trained, np.diff(starts, append=len(order)))
    repeats = np.flatnonzero(~is_first)
    first = order[starts[np.searchsorted(starts, repeats, side="right") - 1]]
    exact = np.stack([first, order[repeats]], axis=1)
    return exact[np.argsort(exact[:, 1], kind="stable")], has_copy


def _with_near(
    copies: Duplicates,
    manifest: Manifest,
    splits: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    distance: int,
    has_copy: NDArray[np.bool_],
) -> Duplicates:
    shown = np.flatnonzero(hashes).astype(np.int32)  # a blank picture is like every other blank one
    unique, of_unique = _unique(hashes[shown])
    trained = np.zeros(len(unique), np.bool_)
    trained[of_unique[splits[shown] == TRAIN]] = True
    least = np.full(len(unique), len(manifest.labels), np.int32)
    most = np.zeros(len(unique), np.int32)
    np.minimum.at(least, of_unique, manifest.label[shown])
    np.maximum.at(most, of_unique, manifest.label[shown])
    beside_train, lowest, highest = trained.copy(), least.copy(), most.copy()
    # note: one array: kept apart, thousands of small ones would split the freed memory that the next large ones need
    near, count = np.empty((_WRITTEN, 3), np.int64), 0
    for pairs in near_pairs(unique, distance):
        for one, other in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            beside_train[one[trained[other]]] = True
            np.minimum.at(lowest, one, least[other])
            np.maximum.at(highest, one, most[other])
        room = near[count : count + len(pairs)]
        room[:] = pairs[: len(room)]
        count += len(room)
    leaking = shown[(splits[shown] != TRAIN) & beside_train[of_unique] & ~has_copy[shown]]
    twofold = shown[(lowest != highest)[of_unique]]
    del least, most, lowest, highest
    near = near[:count]
    is_listed = np.bincount(of_unique, minlength=len(unique)) > 1  # the hashes with pairs of images
    is_listed[near[:, :2]] = True
    listed, number = is_listed[of_unique], np.cumsum(is_listed, dtype=np.int32) - 1
    near[:, :2] = number[near[:, :2]]
    return Duplicates(
        exact=copies.exact,
        near=_images_of(near, shown[listed], number[of_unique[listed]], manifest, splits),
        leaking_copies=copies.leaking_copies,
        leaking_near=leaking,
        twofold=twofold,
    )


def _unique(values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return the different values, sorted, and the index of each one, as `numpy.unique` does with more memory."""
    order = np.argsort(values)
    values = values[order]
    is_first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    index = np.empty(len(values), np.int32)
    index[order] = np.cumsum(is_first, dtype=np.int32) - 1
    return values[is_first], index


def _images_of(
    pairs: NDArray[np.int64],
    shown: NDArray[np.int32],
    of_unique: NDArray[np.int32],
    manifest: Manifest,
    splits: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Return the images of pairs of hashes, int [m, 3]: one for each split and label that has the hash.

    Args:
        pairs: int [k, 3], indices of two hashes, and their distance.
        shown: int32 [n], rows of the images with a hash.
        of_unique: int32 [n], the index of their hash.
        manifest: the images.
        splits: uint8 [images].
    """
    # A kind is a hash, a split and a label, as one number: a column for each would take thrice the memory.
    of_hash = (max(SPLIT_NAMES) + 1) * len(manifest.labels)
    keys = of_unique.astype(np.int64) * of_hash
    keys += splits[shown].astype(np.int32) * len(manifest.labels) + manifest.label[shown]
    kinds, where = np.unique(keys, return_index=True)
    del keys
    row, count = shown[where].astype(np.int64), int(of_unique.max(initial=-1)) + 1
    bounds = np.searchsorted(kinds, np.arange(count + 1) * of_hash)
    starts, ends = bounds[:-1], bounds[1:]
    same = np.repeat(starts, ends - starts)
    within = np.flatnonzero(np.arange(len(row)) != same)  # each further kind of a hash, beside its first
    found = [np.stack([row[same[within]], row[within], np.zeros(len(within), np.int64)], axis=1)]
    for one, other in _expand(np.zeros(len(pairs), np.int64), (ends - starts)[pairs[:, 0]]):
        for pair, partner in _expand(np.zeros(len(one), np.int64), (ends - starts)[pairs[one, 1]]):
            left = row[starts[pairs[one[pair], 0]] + other[pair]]
            right = row[starts[pairs[one[pair], 1]] + partner]
            found.append(np.stack([left, right, pairs[one[pair], 2]], axis=1))
    content = manifest.content_keys()
    near = np.concatenate(found)
    near = near[content[near[:, 0]] != content[near[:, 1]]]  # those are exact
    in_order: NDArray[np.int64] = near[np.lexsort((near[:, 1], near[:, 0]))]
    return in_order


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Yield all pairs of different hashes that differ in at most some bits, each once, some at a time.

    They are not returned as one array: the frames of a video give a hundred pairs each.

    Args:
        hashes: uint64 [n], without repetitions.
        distance: the number of bits, at most `MAX_DISTANCE`.

    Yields:
        int64 [pairs, 3]: the smaller index, the larger one, and the bits.
    """
    assert 0 <= distance <= MAX_DISTANCE
    radius = distance // _PARTS
    for part in range(_PARTS):
        keys = (hashes >> np.uint64(part * _PART_BITS)).astype(np.uint16)  # the lowest bits of what is left
        order = np.argsort(keys, kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(keys, minlength=2**_PART_BITS), dtype=np.int32)
        starts = np.concatenate((np.zeros(1, np.int32), ends[:-1]))
        keys = keys[order]
        for mask in (0, *(1 << bit for bit in range(_PART_BITS if radius else 0))):
            # Each pair once: within a part's value the later ones, of two values those with the larger one.
            for position, partner in _candidates(keys, starts, ends, mask):
                one, other = order[position].astype(np.int64), order[partner].astype(np.int64)
                differing = hashes[one] ^ hashes[other]
                bits = np.bitwise_count(differing).astype(np.int64)
                new = bits <= distance
                for earlier in range(part):  # which has yielded the pair
                    new &= np.bitwise_count(differing >> np.uint64(earlier * _PART_BITS) & np.uint64(0xFFFF)) > radius
                yield np.stack([np.minimum(one, other)[new], np.maximum(one, other)[new], bits[new]], axis=1)


def _candidates(
    keys: NDArray[np.uint16], starts: NDArray[np.int32], ends: NDArray[np.int32], mask: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the positions of keys that differ by a mask, some at a time."""
    for begin in range(0, len(keys), _CHUNK):
        block = keys[begin : begin + _CHUNK]
        partners = block ^ np.uint16(mask)
        first = np.arange(begin + 1, begin + len(block) + 1, dtype=np.int32) if mask == 0 else starts[partners]
        last = np.where(partners >= block, ends[partners], first)
        for position, partner in _expand(first, last):
            yield position + begin, partner


def _expand(first: NDArray[Any], last: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs (i, j) with first[i] <= j < last[i], some at a time."""
    counts = np.maximum(last - first, 0)
    ends = np.cumsum(counts, dtype=np.int64)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        part = counts[begin:end]
        one = np.repeat(np.arange(begin, end), part)
        within = np.arange(len(one)) - np.repeat(np.cumsum(part) - part, part)
        yield one, np.repeat(first[begin:end], part) + within
        begin = end
