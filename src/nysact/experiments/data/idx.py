"""Files in the IDX format of MNIST and its successors, plain or compressed by gzip.

An IDX file begins with two zero bytes, one byte for the type of the values (8: unsigned
bytes), one for the number of dimensions, and each dimension as a big-endian 32-bit number.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from nysact.experiments.errors import ExperimentError

UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int, sha256: str | None = None) -> Tensor:
    """Read a file of unsigned bytes.

    Args:
        path: The file; it is taken for compressed if its name ends in ``.gz``.
        dimensions: The number of dimensions that it must have.
        sha256: The checksum that its content must have, decompressed; ``None`` for any.

    Returns:
        The values as a uint8 tensor.

    Raises:
        ExperimentError: If the file cannot be read, is not of that format, is cut short, or has
            other contents.
    """
    content = read_bytes(path)
    header_size = 4 + 4 * dimensions
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != expected:
        raise ExperimentError(
            f"{path}: not the expected IDX file: it begins with bytes {content[:4].hex(' ')}, "
            f"expected {expected.hex(' ')} (unsigned bytes in {dimensions} dimensions)"
        )
    if len(content) < header_size:
        raise ExperimentError(
            f"{path}: cut short: {len(content)} bytes, expected a header of {header_size}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    size = header_size + math.prod(shape)
    if len(content) != size:
        raise ExperimentError(
            f"{path}: {len(content)} bytes, expected {size} for the shape {shape} in its header; "
            "the file is cut short or damaged: get it anew"
        )
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise ExperimentError(
            f"{path}: the SHA-256 checksum of its content is {found}, expected {sha256}; the file "
            "is damaged or another one: get it anew"
        )
    # The bytes are copied because a tensor must own memory that can be written.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header_size:].reshape(shape)


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed if its name ends in ``.gz``.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ExperimentError: If it cannot be read or decompressed.
    """
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ExperimentError(
            f"{path}: not a whole gzip file ({error}); it is cut short or damaged: get it anew"
        ) from error
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error})") from error
