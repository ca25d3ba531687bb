import pytest
import torch
from torch import nn

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.candidate import Schedule, candidates, cycle, parse_settings
from nysact.experiments.errors import ExperimentError


def test_sgd_comes_first_once_and_updates_many_tensors_at_a_time():
    chosen = candidates(["nysact", "sgd"])
    assert [of.name for of in chosen] == ["sgd", "nysact"]
    optimizer = chosen[0].build(nn.Linear(2, 2))
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["foreach"] is True
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_a_setting_of_one_wins_over_those_of_all_and_those_over_the_registrys():
    chosen = candidates(
        ["nysact", "foof", "kfac"],
        {"inv_interval": 20, "rank": 4},
        {"foof": {"inv_interval": 10}, "nysact": {"lr": 3.0}},
    )
    sgd, nysact, foof, kfac = (of.settings for of in chosen)
    assert "inv_interval" not in sgd
    assert (nysact["inv_interval"], nysact["rank"], nysact["lr"]) == (20, 4, 3.0)
    assert (foof["inv_interval"], kfac["inv_interval"]) == (10, 20)
    assert kfac["cov_interval"] == 5
    assert kfac["lr"] == pytest.approx(BASELINES["kfac"].defaults["lr"] / 10)


@pytest.mark.parametrize("name", BASELINES)
def test_every_optimizer_of_the_registry_can_take_part(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    chosen = candidates([name])[-1]
    short = chosen.with_intervals(2, 4)
    assert set(short.settings) == set(chosen.settings)
    assert isinstance(short.build(model), torch.optim.Optimizer)


def test_intervals_are_shortened_where_there_are_any():
    by_name = {of.name: of.with_intervals(2, 4) for of in candidates(["nysact", "soap"])}
    assert by_name["nysact"].settings["cov_interval"] == 2
    assert by_name["nysact"].settings["inv_interval"] == 4
    assert by_name["soap"].settings["precondition_frequency"] == 4
    assert by_name["sgd"].settings == candidates([])[0].settings


def test_what_costs_time_is_described():
    sgd, nysact = candidates(["nysact"])
    assert sgd.describe() == ""
    assert nysact.describe() == "rank 10, cov interval 5, inv interval 50"


def test_settings_are_read():
    texts = ["nysact.rank=50", "nysact.tail=false", "kfac.kl_clip=none", "nysact.sketch=columns"]
    assert parse_settings(texts) == {
        "nysact": {"rank": 50, "tail": False, "sketch": "columns"},
        "kfac": {"kl_clip": None},
    }


@pytest.mark.parametrize("text", ["rank=50", "nysact.rank", "nysact.=5", ".rank=5", "nysact.rank="])
def test_a_setting_in_another_form_is_refused(text):
    with pytest.raises(ExperimentError, match=r"expected (OPTIMIZER\.SETTING|NAME)=VALUE"):
        parse_settings([text])


WRONG = {
    "optimizer": (["nysakt"], {}, {}, "no optimizer 'nysakt': the nearest is 'nysact'"),
    "setting": (["nysact"], {}, {"nysact": {"ranks": 3}}, "nysact.ranks: .*nearest is 'rank'"),
    "no effect": (
        ["nysact"],
        {},
        {"foof": {"lr": 1}},
        "--set foof: not an optimizer of this run",
    ),
    "no effect on any": (["foof"], {"rank": 3}, {}, "--rank: none of sgd, foof has this setting"),
}


@pytest.mark.parametrize(("names", "shared", "own", "message"), WRONG.values(), ids=WRONG)
def test_unknown_names_are_errors_with_a_remedy(names, shared, own, message):
    with pytest.raises(ExperimentError, match=message):
        candidates(names, shared, own)


def test_kinds_of_steps_of_the_paper():
    schedule = Schedule.of({"cov_interval": 5, "inv_interval": 50, "lr": 0.1})
    kinds = {step: schedule.kind(step) for step in (0, 1, 4, 5, 45, 49, 50, 55, 100)}
    assert [step for step, kind in kinds.items() if kind == "refresh"] == [0, 50, 100]
    assert [step for step, kind in kinds.items() if kind == "statistics"] == [5, 45, 55]
    assert schedule.counts() == {"plain": 40, "statistics": 9, "refresh": 1}


def test_an_optimizer_without_intervals_has_plain_steps_alone():
    schedule = Schedule.of({"lr": 0.1})
    assert {schedule.kind(step) for step in range(10)} == {"plain"}
    assert schedule.counts() == {"plain": 1, "statistics": 0, "refresh": 0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sketchysgd", Schedule(0, 50)), ("soap", Schedule(0, 10)), ("foof", Schedule(5, 50))],
)
def test_intervals_by_other_names_count(name, expected):
    assert Schedule.of(dict(BASELINES[name].defaults)) == expected


def test_a_cycle_holds_whole_ones_of_all():
    assert cycle([Schedule(0, 0)]) == 1
    assert cycle([Schedule(5, 50), Schedule(0, 0), Schedule(0, 20)]) == 100
