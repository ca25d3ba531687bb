"""Tables that a device computes are read by the host when they have arrived."""

import torch

from nysact.optim.verdict import Verdict


class Transfer:
    """An event that has happened, or not yet."""

    def __init__(self, done):
        self.done, self.waited = done, False

    def query(self):
        return self.done

    def synchronize(self):
        self.waited = True


def posted(transfer=None, **options):
    verdict = Verdict(**options)
    verdict.post(torch.tensor([[1.0, 2.0]]))
    verdict._arrived = transfer
    return verdict


def test_a_table_is_read_once():
    verdict = posted()
    assert verdict.read() == [[1, 2]]
    assert verdict.read() == []
    assert Verdict().read(wait=True) == []


def test_what_is_under_way_is_left_there_unless_waited_for():
    late = Transfer(done=False)
    verdict = posted(late)
    assert verdict.read() == []
    assert verdict.read(wait=True) == [[1, 2]]
    assert late.waited
    assert posted(Transfer(done=True)).read() == [[1, 2]]


def test_several_processes_read_only_where_all_of_them_wait():
    # Whether it has arrived is another question on each of them.
    verdict = posted(Transfer(done=True), together=True)
    assert verdict.read() == []
    assert verdict.read(wait=True) == [[1, 2]]
