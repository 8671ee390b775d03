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

from job.data.labels import TRAIN

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
    keys, is_train = manifest.content_keys(), splits == TRAIN
    order = np.argsort(keys, kind="stable")
    repeats = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    begins = np.arange(len(keys))
    begins[repeats] = 0
    first = order[np.maximum.accumulate(begins)]
    exact = np.stack([first[repeats], order[repeats]], axis=1)
    has_copy = np.isin(keys, keys[is_train])
    nothing = np.zeros(0, np.int64)
    found = Duplicates(
        exact=exact[np.argsort(exact[:, 1], kind="stable")],
        near=np.zeros((0, 3), np.int64),
        leaking_copies=np.flatnonzero(~is_train & has_copy),
        leaking_near=nothing,
        twofold=nothing,
    )
    if hashes is None or not distance:
        return found
    return _with_near(found, manifest, splits, hashes, distance, has_copy)


def _with_near(
    copies: Duplicates,
    manifest: Manifest,
    splits: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    distance: int,
    has_copy: NDArray[np.bool_],
) -> Duplicates:
    shown = np.flatnonzero(hashes)  # a blank picture is like every other blank one
    unique, of_unique = np.unique(hashes[shown], return_inverse=True)
    trained = np.zeros(len(unique), np.bool_)
    trained[of_unique[splits[shown] == TRAIN]] = True
    least = np.full(len(unique), len(manifest.labels), np.int64)
    most = np.zeros(len(unique), np.int64)
    np.minimum.at(least, of_unique, manifest.label[shown])
    np.maximum.at(most, of_unique, manifest.label[shown])
    beside_train, lowest, highest = trained.copy(), least.copy(), most.copy()
    kept, count = [np.zeros((0, 3), np.int64)], 0
    for pairs in near_pairs(unique, distance):
        for one, other in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            beside_train[one[trained[other]]] = True
            np.minimum.at(lowest, one, least[other])
            np.maximum.at(highest, one, most[other])
        kept.append(pairs[: max(0, _WRITTEN - count)])
        count += len(pairs)
    leaking = shown[(splits[shown] != TRAIN) & beside_train[of_unique] & ~has_copy[shown]]
    twofold = shown[lowest[of_unique] != highest[of_unique]]

    return Duplicates(
        exact=copies.exact,
        near=_images_of(np.concatenate(kept), shown, of_unique, manifest, splits),
        leaking_copies=copies.leaking_copies,
        leaking_near=leaking,
        twofold=twofold,
    )


def _images_of(
    pairs: NDArray[np.int64],
    shown: NDArray[np.int64],
    of_unique: NDArray[np.intp],
    manifest: Manifest,
    splits: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Return the images of pairs of hashes, int [m, 3]: one for each split and label that has the hash.

    Args:
        pairs: int [k, 3], indices of two hashes, and their distance.
        shown: int [n], rows of the images with a hash.
        of_unique: intp [n], the index of their hash.
        manifest: the images.
        splits: uint8 [images].
    """
    keys = np.stack([of_unique, splits[shown], manifest.label[shown]], axis=1)
    kinds, where = np.unique(keys, axis=0, return_index=True)
    row = shown[where]
    count = int(of_unique.max(initial=-1)) + 1
    starts = np.searchsorted(kinds[:, 0], np.arange(count))
    ends = np.searchsorted(kinds[:, 0], np.arange(count), side="right")
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
        keys = (hashes >> np.uint64(part * _PART_BITS)).astype(np.int64) & 0xFFFF
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(np.bincount(keys, minlength=2**_PART_BITS))
        starts = np.concatenate(([0], ends[:-1]))
        keys = keys[order]
        for mask in (0, *(1 << bit for bit in range(_PART_BITS if radius else 0))):
            # Each pair once: within a part's value the later ones, of two values those with the larger one.
            first = np.arange(1, len(keys) + 1) if mask == 0 else starts[keys ^ mask]
            last = np.where((keys ^ mask) >= keys, ends[keys ^ mask], first)
            for position, partner in _expand(first, last):
                one, other = order[position], order[partner]
                differing = hashes[one] ^ hashes[other]
                bits = np.bitwise_count(differing).astype(np.int64)
                new = bits <= distance
                for earlier in range(part):  # which has yielded the pair
                    new &= np.bitwise_count(differing >> np.uint64(earlier * _PART_BITS) & np.uint64(0xFFFF)) > radius
                yield np.stack([np.minimum(one, other)[new], np.maximum(one, other)[new], bits[new]], axis=1)


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
