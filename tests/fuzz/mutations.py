"""Damages files at random, always the same way for the same seed: for the fuzz tests."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

MAX_BYTES = 100_000


class Mutator:
    """Makes files out of others.

    Args:
        corpus: files of the kind.
        words: parts that mean something in such files, put in where chance wants it.
    """

    def __init__(self, corpus: Sequence[bytes], words: Sequence[bytes] = ()) -> None:
        self._corpus = corpus
        self._words = [b"\xff", b"\0", *words]

    def mutate(self, seed: int) -> bytes:
        """Return a file of the corpus with one to eight changes, mostly near its beginning or each other."""
        chance = random.Random(seed)  # noqa: S311 (no secret)
        data = bytearray(chance.choice(self._corpus))
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            at = chance.randrange(min(len(data), chance.choice((40, 400, MAX_BYTES))) + 1)
            length = chance.choice((1, 2, 4, chance.randrange(40) + 1))
            match chance.randrange(8):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + length]
                case 2:
                    data[at:at] = data[at : at + length] * chance.choice((1, 2, 30))
                case 3:
                    width, order = chance.choice((1, 2, 4)), chance.choice(("big", "little"))
                    number = chance.choice(_NUMBERS) % 256**width
                    data[at : at + width] = number.to_bytes(width, "big" if order == "big" else "little")
                case 4:
                    data[at:at] = chance.choice(self._words)
                case 5:
                    data[at : at + length] = chance.choice(self._words)
                case 6:
                    other = chance.choice(self._corpus)
                    cut = chance.randrange(len(other) + 1)
                    data[at:] = other[cut:]
                case _:
                    del data[at:]
        return bytes(data[:MAX_BYTES])
