import sysconfig
from pathlib import Path

import pytest
import torch

from nysact.experiments.config import Config
from nysact.experiments.config.data import TextData
from nysact.experiments.data.loaders import Share
from nysact.experiments.data.text import WindowLoader, load_text, split, window_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.problem import cross_entropy
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.run.kills import assert_same, run_with_kills


def write_texts(folder: Path, files: int = 20) -> dict[str, str]:
    texts = {f"part{i % 3}/file{i:02}.txt": f"file {i}: äöü " * (10 + i) for i in range(files)}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return texts


def data(folder, **changes) -> TextData:
    return TextData(name="text", folder=str(folder), **{"context": 8, **changes})


def text_of(part: torch.Tensor) -> str:
    return bytes(part.tolist()).decode()


def test_every_file_is_whole_in_one_of_the_two_parts(tmp_path):
    texts = write_texts(tmp_path)
    train, test = map(text_of, load_text(data(tmp_path)))
    held_out = [text for text in texts.values() if text in test]
    assert 1 <= len(held_out) < 10
    assert sorted(train.split("\n") + test.split("\n")) == sorted(texts.values())


def test_another_file_changes_nothing_for_the_others(tmp_path):
    paths = [tmp_path / f"file{i}.txt" for i in range(50)]
    train, test = split(tmp_path, paths, 5)
    assert 3 <= len(test) <= 20
    more_train, more_test = split(tmp_path, [*paths, tmp_path / "new.txt"], 5)
    assert set(train) <= set(more_train)
    assert set(test) <= set(more_test)


def test_of_two_files_one_is_held_out(tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for held_out in (2, 1000):
        train, test = split(tmp_path, paths, held_out)
        assert len(train) == len(test) == 1


def test_validation_files_are_held_out_of_the_training_files_alone(tmp_path):
    texts = write_texts(tmp_path)
    train, test, validation = map(text_of, load_text(data(tmp_path, validation_size=5)))
    parts = [part.split("\n") for part in (train, test, validation)]
    assert sorted([text for part in parts for text in part]) == sorted(texts.values())
    assert all(parts)
    before, same = map(text_of, load_text(data(tmp_path)))
    assert same == test
    assert set(before.split("\n")) == {*parts[0], *parts[2]}


def test_of_a_single_file_two_ends_are_held_out(tmp_path):
    path = tmp_path / "file"
    path.write_text("0123456789" * 20)
    train, test, validation = map(text_of, load_text(data(path, validation_size=5)))
    assert train + validation + test == "0123456789" * 20
    assert (len(test), len(validation)) == (20, 18)


def test_of_a_single_file_the_end_is_held_out(tmp_path):
    path = tmp_path / "file"
    path.write_text("0123456789" * 20)
    train, test = map(text_of, load_text(data(path)))
    assert train + test == "0123456789" * 20
    assert len(test) == 20


def test_default_is_the_source_of_the_standard_library():
    train, test = load_text(TextData(name="text"))
    library = Path(sysconfig.get_paths()["stdlib"])
    together = text_of(train) + text_of(test)
    for name in ("argparse.py", "json/decoder.py"):
        assert (library / name).read_text(encoding="utf-8") in together
    assert 5e6 < len(train) < 30e6
    assert 0.03 < len(test) / len(train) < 0.3


def test_windows_go_once_through_the_text():
    text = torch.arange(100, dtype=torch.uint8)
    loader = WindowLoader(text, context=8, batch_size=5, seed=0, share=Share())
    assert len(loader) == 2
    inputs, targets = (torch.cat(parts) for parts in zip(*loader.epoch(0), strict=True))
    assert torch.equal(targets, inputs + 1), "targets are the bytes that follow"
    assert len(inputs.flatten().unique()) == inputs.numel() == 80
    starts = {
        int(number) % 8 for epoch in range(20) for x, _ in loader.epoch(epoch) for number in x[:, 0]
    }
    assert len(starts) > 4, "windows always start at the same places"


def test_windows_can_be_entered_anywhere_and_shared():
    text = torch.arange(200, dtype=torch.uint8)

    def batches(share=Share(), start=0):  # noqa: B008
        loader = WindowLoader(text, 8, 4, seed=3, share=share)
        return [inputs.tolist() for inputs, _ in loader.epoch(2, start)]

    whole = batches()
    assert batches(start=2) == whole[2:]
    halves = [batches(Share(index, 2)) for index in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert batch[0::2] == first
        assert batch[1::2] == second


def test_test_windows_are_spread_over_the_text():
    text = torch.arange(250, dtype=torch.uint8)
    found = window_batches(text, context=8, number=4, batch_size=3, share=Share())
    starts = [int(x[0]) for inputs, _ in found for x in inputs]
    assert starts == [0, 80, 160, 240]
    assert [len(inputs) for inputs, _ in found] == [3, 1]
    everything = list(window_batches(text, 8, 1000, 1000, Share()))
    assert everything[0][0].flatten().tolist() == list(range(248))


def small(folder, **changes) -> Config:
    model = {"layers": 1, "heads": 2, "width": 8, "vocabulary": 256, "context": 8, "dropout": 0.2}
    values = {
        "recipe": "text",
        "row": "NysAct",
        "column": "GPT",
        "model": {"name": "gpt", "options": model},
        "data": data(folder, test_windows=20).model_dump(),
        "optimizer": {"name": "nysact"},
        "batch_size": 8,
        "steps": 6,
        "evaluation_interval": 3,
        "threads": 1,
    }
    return Config.checked({**values, **changes})


def test_language_model_goes_on_exactly_where_it_was_killed(tmp_path):
    write_texts(tmp_path / "texts")
    found = small(tmp_path / "texts")
    undisturbed = run(found, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [2, 2], checkpoint_seconds=0))
    (stored,) = load_runs(tmp_path / "a")
    last = stored.metrics[-1]
    assert last["bits_per_byte"] == pytest.approx(last["test_loss"] / 0.6931472)
    assert "test_accuracy" not in last
    assert "validation_loss" not in last


def test_held_out_text_is_evaluated(tmp_path):
    write_texts(tmp_path / "texts")
    run(
        small(tmp_path / "texts", data=data(tmp_path / "texts", validation_size=4).model_dump()),
        tmp_path,
    )
    (stored,) = load_runs(tmp_path)
    last = stored.metrics[-1]
    assert last["validation_loss"] == pytest.approx(last["test_loss"], rel=0.2)
    assert "validation_accuracy" not in last


def test_bits_of_a_uniform_prediction_are_eight():
    loss = cross_entropy()(torch.zeros(2, 3, 256), torch.randint(256, (2, 3)))
    assert float(loss) / 0.6931472 == pytest.approx(8)


def test_vocabulary_that_is_too_small_is_an_error(tmp_path):
    write_texts(tmp_path / "texts")
    with pytest.raises(ExperimentError, match=r"options\.vocabulary is 100, but text has a targ"):
        run(small(tmp_path / "texts").override(["model.options.vocabulary=100"]), tmp_path)


def test_context_of_the_model_must_be_that_of_the_windows(tmp_path):
    write_texts(tmp_path / "texts")
    with pytest.raises(
        ExperimentError, match=r"data\.context is 9, but model\.options\.context is 8"
    ):
        run(small(tmp_path / "texts").override(["data.context=9"]), tmp_path)


def test_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(ExperimentError, match=r"0 files whose names end in \.py, .*data\.suffixes"):
        load_text(data(tmp_path))
    with pytest.raises(ExperimentError, match=r"nowhere: no such file or folder"):
        load_text(data(tmp_path / "nowhere"))


def test_file_that_is_no_text_is_an_error_that_names_it(tmp_path):
    write_texts(tmp_path)
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin1"))
    with pytest.raises(ExperimentError, match=r"latin\.txt: not UTF-8 text .* at byte 2"):
        load_text(data(tmp_path))


def test_too_little_text_is_an_error(tmp_path):
    write_texts(tmp_path)
    with pytest.raises(ExperimentError, match=r"bytes of training text, expected at least 20001"):
        load_text(data(tmp_path, context=10_000))
