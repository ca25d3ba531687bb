"""One page for all tests that look at one, for it takes seconds to make."""

import pytest

from .stored import page_of, write_run, write_table


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs = folder / "runs"
    write_table(runs, columns=["LeNet-5"])
    reason = "a\n\nb\nc\nd\nMemory <full>"
    write_run(runs, "FOOF", 0, column="ResNet-20", finished=False, failure=reason)
    write_run(runs, "SGD", 0, column="ResNet-20", finished=False)
    return page_of(runs, folder / "out")
