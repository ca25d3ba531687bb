"""Tables that a device computes are read by the host when they have arrived."""

import warnings

import torch

from nysact.engine.failures import RefreshFailures


class Transfer:
    """An event that has happened, or not yet."""

    def __init__(self, done):
        self.done, self.waited = done, False

    def query(self):
        return self.done

    def synchronize(self):
        self.waited = True


def posted(transfer=None, **options):
    """The report that one layer has failed once."""
    report = RefreshFailures(["odd"], {"max_failures": 3}, **options)
    report.post(torch.tensor([1]), {"sketch": torch.ones(1, 1, 2, 2)})
    report._arrived = transfer
    return report


def said(report, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        report.report(**options)
    return [str(each.message) for each in seen]


def test_a_failure_is_told_once():
    report = posted()
    (message,) = said(report)
    assert "'odd' failed 1 time(s)" in message
    assert "{'sketch': (1.0, 1.0)}" in message
    assert said(report, wait=True) == []


def test_what_is_under_way_is_left_there_unless_waited_for():
    late = Transfer(done=False)
    report = posted(late)
    assert said(report) == []
    assert len(said(report, wait=True)) == 1
    assert late.waited
    assert len(said(posted(Transfer(done=True)))) == 1


def test_several_processes_read_only_where_all_of_them_wait():
    # Whether it has arrived is another question on each of them.
    report = posted(Transfer(done=True), together=True)
    assert said(report) == []
    assert len(said(report, wait=True)) == 1
