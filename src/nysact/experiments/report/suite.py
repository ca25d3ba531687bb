"""A suite of tasks: every evaluation of every run as one table, and what follows from it.

A run is of a task (the column of its recipe), an optimizer (the row), a learning rate and a seed.
For each task and optimizer the rate is chosen by the validation metric, on the seeds with which all
rates were tried; the other seeds at that rate are the final runs, judged by the test metric.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import METRICS, Metric, metric_of
from nysact.experiments.recipes import load
from nysact.experiments.report.config_diff import options_of
from nysact.experiments.run.store import StoredRun, failure_of

PLACE = ["task", "optimizer"]
RUN = [*PLACE, "rate", "seed"]
COSTS = ["mean_step_seconds", "optimizer_state_bytes", "peak_memory"]
# ``value`` is the test metric's, ``validation`` that of the metric named by ``chosen_by``.
COLUMNS = [*RUN, "state", "metric", "chosen_by", *COSTS, "step", "seconds", "value", "validation"]
# The target of a task is this optimizer's final quality.
REFERENCE = "AdamW"
RESAMPLES, CONFIDENCE = 9999, 0.95
# Up to this ratio to the fastest, the area under a performance profile counts.
LONGEST = 4.0


def evaluations(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """List every evaluation of every run that has ended, a failed one with what it reached."""
    frame = pd.DataFrame([line for run in runs for line in lines_of(run)], columns=COLUMNS)
    frame = frame.astype(dict.fromkeys([*COSTS, "seconds", "value", "validation"], float))
    return frame.sort_values([*RUN, "step"], ignore_index=True)


def lines_of(run: StoredRun) -> Iterator[dict[str, Any]]:
    """List the evaluations of a run; one that failed before the first has an empty line."""
    config, failed = run.config, failure_of(run) is not None
    if run.result is None and not failed:
        return
    recorded = {name for record in run.metrics for name in record}
    metric = metric_of_run(run, recorded)
    names = (metric.replace("test_", "validation_"), "validation_loss")
    chosen_by = next((name for name in names if name in recorded), metric)
    common = {
        **{"task": config["column"], "optimizer": config["row"], "seed": config["seed"]},
        **{"rate": options_of(config)["lr"], "state": "failed" if failed else "finished"},
        **{"metric": metric, "chosen_by": chosen_by},
        **{name: (run.timings or {}).get(name) for name in COSTS},
    }
    seconds = {record["step"]: record["seconds"] for record in run.timing}
    for record in run.metrics or [{}]:
        place = {"step": record.get("step", 0), "seconds": seconds.get(record.get("step"))}
        values = {"value": record.get(metric), "validation": record.get(chosen_by)}
        yield {**common, **place, **values}


def metric_of_run(run: StoredRun, recorded: Iterable[str]) -> str:
    """Name the metric that judges a run: that of its recipe, or the first that it recorded."""
    with suppress(ExperimentError):
        return load(run.config["recipe"]).report.metric
    known = [name for name in METRICS if name in recorded and not name.startswith("validation")]
    return known[0] if known else "test_loss"


def last_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the last evaluation of each run; a failed run has no quality."""
    last = frame.drop_duplicates(RUN, keep="last").copy()
    last.loc[last["state"] == "failed", ["value", "validation"]] = np.nan
    return last


def metric_in(frame: pd.DataFrame, column: str = "metric") -> Metric:
    """Give the metric of the runs of a task."""
    return metric_of(str(frame[column].iloc[0]))


def rates_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Average the validation metric by rate, over the seeds with which every rate was tried."""
    last = last_lines(frame)
    tried = last.groupby([*PLACE, "seed"])["rate"].transform("nunique")
    searched = last[tried == last.groupby(PLACE)["rate"].transform("nunique")]
    found = searched.groupby([*PLACE, "rate"]).agg(
        validation=("validation", "mean"), failed=("validation", lambda v: v.isna().any()),
        chosen_by=("chosen_by", "first"), seeds=("seed", set),
    )  # fmt: skip
    found["validation"] = found["validation"].mask(found["failed"])
    return found.reset_index("rate")


def chosen_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Choose the best rate of each task and optimizer, with what is lost at the rates beside it."""
    # The larger loss of validation quality at the next lower and the next higher rate: infinite
    # where training failed, missing where there is no other rate.
    lines = {}
    for place, mine in rates.sort_values("rate").groupby(level=PLACE):
        sign = 1.0 if metric_in(mine, "chosen_by").higher else -1.0
        quality = (sign * mine["validation"]).fillna(-np.inf).to_numpy()
        best = int(quality.argmax())
        beside = [quality[i] for i in (best - 1, best + 1) if 0 <= i < len(quality)]
        off = quality[best] - min(beside) if beside and np.isfinite(quality[best]) else np.nan
        searched = mine["seeds"].iloc[0] if len(mine) > 1 else set()
        lines[place] = {"rate": mine["rate"].iloc[best], "off": off, "searched": searched}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(PLACE)


def final_runs(frame: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Keep the evaluations of the final runs: other seeds at the chosen rate, or all if none."""
    mine = frame.join(chosen[["rate", "searched"]].rename(columns={"rate": "best"}), on=PLACE)
    mine = mine[mine["rate"] == mine["best"]]
    searched = [seed in seeds for seed, seeds in zip(mine["seed"], mine["searched"], strict=True)]
    mine = mine.assign(searched=searched)
    others = mine.groupby(PLACE)["searched"].transform(lambda flags: not flags.all())
    return mine[~(mine["searched"] & others)].drop(columns=["best", "searched"])


def summary(frame: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Sum the suite up: a line for each task and optimizer."""
    chosen = chosen_rates(rates_of(frame))
    tasks = final_runs(frame, chosen).groupby("task")
    found = pd.concat({task: task_summary(mine, reference) for task, mine in tasks})
    return found.rename_axis(PLACE).join(chosen[["rate", "off"]])


def task_summary(finals: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Compare the final runs of a task: a line for each optimizer."""
    metric, last = metric_in(finals), last_lines(finals)
    found = last.groupby("optimizer").agg(
        mean=("value", "mean"), std=("value", "std"), n=("value", "count"), runs=("seed", "size"),
        **{cost: (cost, "mean") for cost in COSTS},
    )  # fmt: skip
    # An optimizer that failed with some seed comes after all that did not.
    quality = found["mean"].where(found["n"] == found["runs"])
    found["rank"] = quality.rank(ascending=not metric.higher, method="min", na_option="bottom")
    found["metric"] = metric.name
    values = last.pivot(index="seed", columns="optimizer", values="value")
    found = found.join(against_best_rivals(values, found["rank"]))
    target = found["mean"].get(reference, np.nan)
    return found.join(times_to(finals, target))


def against_best_rivals(values: pd.DataFrame, ranks: pd.Series) -> pd.DataFrame:
    """Subtract the best rival of each optimizer, seed by seed, with a bootstrap interval."""
    lines = {}
    for name in ranks.index if len(ranks) > 1 else []:
        rival = ranks.drop(name).idxmin()
        differences = (values[name] - values[rival]).dropna()
        low, high = interval(differences.to_numpy())
        lines[name] = [rival, differences.mean(), low, high]
    columns = ["rival", "difference", "low", "high"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns)


def interval(differences: NDArray[np.floating]) -> tuple[float, float]:
    """Give the percentile bootstrap interval of a mean; nothing for fewer than two numbers."""
    if len(differences) < 2:
        return np.nan, np.nan
    found = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def times_to(finals: pd.DataFrame, target: float) -> pd.DataFrame:
    """Give the median steps and seconds to a target; a run that misses it takes forever."""
    metric = metric_in(finals)
    good = finals[finals["value"] >= target if metric.higher else finals["value"] <= target]
    runs = finals.drop_duplicates(RUN)[RUN]
    first = runs.merge(good.drop_duplicates(RUN)[[*RUN, "step", "seconds"]], on=RUN, how="left")
    first = first.assign(reached=first["step"].notna()).fillna(np.inf)
    return first.groupby("optimizer").agg(
        steps=("step", "median"), seconds=("seconds", "median"), reached=("reached", "sum")
    )


def profile(found: pd.DataFrame, cost: str = "seconds") -> pd.DataFrame:
    """Give the share of tasks that each optimizer solves within a ratio to the fastest."""
    # As in AlgoPerf (Dahl et al., 2023). The index holds the ratios at which a share changes.
    times = found[cost].unstack("optimizer").fillna(np.inf)
    ratios = times.div(times.min(axis=1), axis=0).fillna(np.inf)
    finite = ratios.to_numpy()[np.isfinite(ratios.to_numpy())]
    return pd.DataFrame({at: (ratios <= at).mean() for at in np.unique([1.0, *finite])}).T


def area(shares: pd.DataFrame) -> pd.Series:
    """Average a performance profile over the ratios from 1 to ``LONGEST``."""
    ends = np.clip([*shares.index[1:], np.inf], 1.0, LONGEST)
    widths = ends - np.clip(shares.index, 1.0, LONGEST)
    return shares.mul(widths, axis=0).sum() / (LONGEST - 1)
