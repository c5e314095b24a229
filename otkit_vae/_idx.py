"""The IDX files in which MNIST and its kin are published.

Big-endian: two zero bytes, a byte for the type (8: unsigned bytes), one for the number of dimensions, each dimension in
four bytes, and the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np


def find_idx(folder: Path, part: str, content: str) -> Path | None:
    """The file of "images" or "labels" of the part "train" or "t10k" in a folder, gzipped or not, or None."""
    rank = {"images": 3, "labels": 1}[content]
    # Both spellings are in use.
    names = (f"{part}-{content}{separator}idx{rank}-ubyte" for separator in "-.")
    files = (folder / f"{name}{suffix}" for name in names for suffix in ("", ".gz"))
    return next((file for file in files if file.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not, with the shape that it says."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"data: {path} cannot be read ({error})") from None
    rank = content[3] if len(content) >= 4 else 0
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * rank:
        raise ValueError(f"data: {path} is not an IDX file of unsigned bytes; expected one that begins with 0, 0, 8")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, offset=4))
    if len(content) != 4 + 4 * rank + math.prod(shape):
        raise ValueError(
            f"data: {path} has {len(content) - 4 - 4 * rank} values; expected {math.prod(shape)}, as its shape is "
            f"{shape} (a file that was cut off?)"
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
