"""What the raw results of ``nysact suite`` say of each optimizer on each task.

They have a line for each evaluation of each run. Runs of the part "tuning" choose a learning rate
by the validation set, those of the part "test" are at the rate that was chosen, with other seeds.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from nysact.experiments.metrics import Metric, metric_of

PLACE = ["task", "optimizer"]
RUN = [*PLACE, "learning_rate", "seed"]
COSTS = ["mean_step_seconds", "optimizer_state_bytes"]
COLUMNS = [*RUN, "part", "failure", *COSTS, "step", "seconds"]
# Tasks are judged, and rates chosen, by the first of these that was recorded.
TEST = (
    *("test_accuracy", "rollout_cost", "test_l2_error", "bits_per_byte"),
    *("test_squared_error", "test_loss"),
)
VALIDATION = ("validation_accuracy", "validation_loss")
# The target of a task is this optimizer's final quality.
REFERENCE = "AdamW"
RESAMPLES, CONFIDENCE = 9999, 0.95
# Up to this ratio to the fastest, the area under a performance profile counts.
LONGEST = 4.0


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the test and the validation metric of each task, by name, and their values."""
    parts = []
    for _, mine in frame.groupby("task", sort=False):
        for column, value, names in (
            ("metric", "value", TEST),
            ("chosen_by", "validation", VALIDATION),
        ):
            known = [name for name in names if name in mine and mine[name].notna().any()]
            name = known[0] if known else names[-1]
            mine = mine.assign(**{column: name, value: mine.get(name, np.nan)})
        parts.append(mine.sort_values([*RUN, "step"]))
    return pd.concat(parts, ignore_index=True)


def last_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the last evaluation of each run; a failed run has no quality."""
    last = frame.drop_duplicates(RUN, keep="last").copy()
    last.loc[last["failure"].notna(), ["value", "validation"]] = np.nan
    return last


def metric_in(frame: pd.DataFrame, column: str = "metric") -> Metric:
    """Give the metric of the runs of a task."""
    return metric_of(str(frame[column].iloc[0]))


def off_by_a_step(tuned: pd.DataFrame) -> pd.Series:
    """Give the larger loss of validation quality at the rates beside the best one, by optimizer."""
    # Infinite where training failed there, missing where no other rate was tried.
    losses = {}
    for name, mine in last_lines(tuned).sort_values("learning_rate").groupby("optimizer"):
        higher = metric_in(mine, "chosen_by").higher
        quality = mine["validation"] if higher else -mine["validation"]
        values = quality.fillna(-np.inf).to_numpy()
        best = int(values.argmax())
        beside = [values[i] for i in (best - 1, best + 1) if 0 <= i < len(values)]
        losses[name] = values[best] - min(beside) if beside else np.nan
    return pd.Series(losses, dtype=float)


def summary(frame: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Sum judged results up: a line for each task and optimizer."""
    tasks = {task: task_summary(mine, reference) for task, mine in frame.groupby("task")}
    return pd.concat(tasks).rename_axis(PLACE)


def task_summary(frame: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Compare the optimizers on a task."""
    finals = frame[frame["part"] == "test"]
    metric, last = metric_in(frame), last_lines(finals)
    found = last.groupby("optimizer").agg(
        rate=("learning_rate", "first"), mean=("value", "mean"), std=("value", "std"),
        n=("value", "count"), runs=("seed", "size"), **{cost: (cost, "mean") for cost in COSTS},
    )  # fmt: skip
    # An optimizer that failed with some seed comes after all that did not.
    quality = found["mean"].where(found["n"] == found["runs"])
    found["rank"] = quality.rank(ascending=not metric.higher, method="min", na_option="bottom")
    found["metric"] = metric.name
    values = last.pivot(index="seed", columns="optimizer", values="value")
    found = found.join(against_best_rivals(values, found["rank"]))
    found["off"] = off_by_a_step(frame[frame["part"] == "tuning"])
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
