from nysact.experiments.data.text import read_text
from nysact.experiments.run.problem import digest_of
from tests.experiments.configs import config


def of(*assignments: str) -> str | None:
    return digest_of(config().override(assignments).data)


def test_images_have_a_digest_of_those_that_are_used():
    assert of() == of("data.flip=true")
    assert len({of(), of("data.train_size=65"), of("data.test_size=51")}) == 3


def test_text_has_a_digest_of_its_bytes(tmp_path):
    path = tmp_path / "text"
    setting = ("data.name=text", f"data.folder={path}", "data.context=4")
    found = set()
    for text in ("some text. " * 20, "some text. " * 20, "Some text. " * 20):
        path.write_text(text)
        read_text.cache_clear()
        found.add(of(*setting))
    assert len(found) == 2


def test_data_that_is_handed_over_has_none():
    assert digest_of(config(model={"name": "own"}, data={"name": "own"}).data) is None
