"""The page: everything in it, nothing outside it."""

from html.parser import HTMLParser

from .stored import page_of, write_run


class Elements(HTMLParser):
    """Collects tags with their attributes, and the text outside of style sheets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data if self.tags and self.tags[-1][0] != "style" else ""


def test_page_refers_to_nothing_outside(page):
    elements = Elements(page)
    for tag, attributes in elements.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/svg+xml;base64,", "#"))
    assert "url(" not in page
    assert "@import" not in page


def test_pictures_have_an_alternative_text(page):
    pictures = [attributes for tag, attributes in Elements(page).tags if tag == "img"]
    assert len(pictures) == 2
    assert all(picture["alt"] for picture in pictures)


def test_page_has_tables_settings_environment_and_failures(page):
    text = Elements(page).text
    for expected in (
        "Written on 20",
        "1 section, 12 of 14 runs finished, 1 failed, 1 unfinished.",
        "made-up: 12 of 14 runs finished, 3 seeds",
        "80.10 ± 0.10",
        "sgd: lr 0.1, momentum 0.9",
        "batch_size",
        "packages.torch",
        "FOOF, ResNet-20, seed 0",
        "Memory <full>",
        "Not finished: SGD, ResNet-20, seed 0",
    ):
        assert expected in text
    assert "<full>" not in page


def test_optimizer_settings_leave_out_what_a_sweep_varies(tmp_path):
    for rate in (0.1, 0.3):
        write_run(tmp_path / "runs", sweep={"optimizer.options.lr": rate})
    text = Elements(page_of(tmp_path / "runs", tmp_path / "out")).text
    assert "sgd: momentum 0.9, weight decay 5e-4" in text
