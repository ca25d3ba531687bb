import gzip

import pytest
import torch

from nysact.experiments.data.idx import read_idx
from nysact.experiments.errors import ExperimentError
from tests.experiments.data.idx_files import idx_bytes, write_idx

VALUES = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("name", ["plain-ubyte", "packed-ubyte.gz"])
def test_reads_what_was_written(tmp_path, name):
    write_idx(tmp_path / name, VALUES)
    assert torch.equal(read_idx(tmp_path / name, dimensions=3), VALUES)


def test_reads_an_empty_array(tmp_path):
    write_idx(tmp_path / "empty", torch.empty(0, dtype=torch.uint8))
    assert read_idx(tmp_path / "empty", dimensions=1).shape == (0,)


BAD = {
    "cut short in the values": (idx_bytes(VALUES)[:-1], r"39 bytes, expected 40 .*\(2, 3, 4\)"),
    "too long": (idx_bytes(VALUES) + b"x", "41 bytes, expected 40"),
    "cut short in the header": (idx_bytes(VALUES)[:10], "10 bytes, expected a header of 16"),
    "empty": (b"", "expected 00 00 08 03"),
    "labels for images": (idx_bytes(VALUES.flatten()), "begins with bytes 00 00 08 01"),
    "floats": (b"\0\0\x0d\3" + idx_bytes(VALUES)[4:], "begins with bytes 00 00 0d 03"),
    "a web page": (b"<!DOCTYPE html>", "expected 00 00 08 03"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bad_content_is_an_error_that_names_the_file(tmp_path, content, message, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ExperimentError, match=message) as error:
        read_idx(path, dimensions=3)
    assert str(path) in str(error.value)


PACKED = gzip.compress(idx_bytes(VALUES))
BAD_GZIP = {
    "cut short": PACKED[:-10],
    "not gzip": idx_bytes(VALUES),
    "damaged": PACKED[:12] + b"\xff\xff\xff\xff" + PACKED[16:],
    "wrong checksum": PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
}


@pytest.mark.parametrize("content", BAD_GZIP.values(), ids=BAD_GZIP)
def test_bad_gzip_is_an_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=r"bad\.gz: not a whole gzip file"):
        read_idx(path, dimensions=3)


def test_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ExperimentError, match="none: cannot be read"):
        read_idx(tmp_path / "none", dimensions=3)
