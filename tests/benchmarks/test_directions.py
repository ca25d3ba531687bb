"""The released Eva steps along the gradient of a convolution, and K-FAC does not."""

import json

import pytest

from tests.experiments.data.idx_files import accept_any_content, write_fashion_mnist


@pytest.fixture
def directions(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    import directions

    return directions


def test_cosines_of_each_layer_and_of_all_together(directions, tmp_path, monkeypatch):
    accept_any_content(monkeypatch)
    write_fashion_mnist(tmp_path / "data", train=32)
    files = ("--folder", str(tmp_path / "data"), "--output", str(tmp_path))
    directions.main(
        [*files, "--steps", "2", "--batch-size", "8", "--optimizers", "kfac", "released-eva"]
    )
    found = json.loads((tmp_path / "directions.json").read_text())["cosines"]
    last = {(of["optimizer"], of["layer"]): of["cosine"] for of in found if of["step"] == 1}
    assert len(last) == 2 * (20 + 1)
    convolutions = {
        name: [value for (of, layer), value in last.items() if of == name and "conv" in layer]
        for name in ("K-FAC", "released Eva")
    }
    # The mean gradient of a convolution's outputs is divided by batch and positions.
    assert min(convolutions["released Eva"]) > 0.9999
    assert min(convolutions["K-FAC"]) < 0.9
    assert (tmp_path / "directions.png").is_file()
