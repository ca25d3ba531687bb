"""Changes of single settings by their dotted names, such as ``optimizer.options.lr=0.3``."""

from typing import Any

from omegaconf import OmegaConf

from nysact.experiments.assignments import dotted, no_setting
from nysact.experiments.config.data import KINDS
from nysact.experiments.errors import ExperimentError


def assign(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Set the value of a dotted name, and what follows from it for other settings."""
    check_name(values, name)
    conf = OmegaConf.create(values)
    if name in ("model.name", "optimizer.name") and value != OmegaConf.select(conf, name):
        # Another model or optimizer starts from its own defaults.
        OmegaConf.update(conf, name.replace(".name", ".options"), {}, merge=False)
    if value is not None and name in ("epochs", "steps"):
        OmegaConf.update(conf, "steps" if name == "epochs" else "epochs", None)
    OmegaConf.update(conf, name, value, merge=False)
    changed: dict[str, Any] = OmegaConf.to_container(conf)  # type: ignore[assignment]
    if name == "data.name" and value in KINDS:
        # Other data keeps only the settings that both kinds have.
        fields = KINDS[value].model_fields
        changed["data"] = {key: held for key, held in changed["data"].items() if key in fields}
    return changed


def check_name(values: dict[str, Any], name: str) -> None:
    """Make sure that a dotted name is that of a setting."""
    names = dotted(values)
    if name in names:
        return
    inside = [other for other in names if other.startswith(f"{name}.")]
    if inside:
        raise ExperimentError(
            f"{name} is a section: expected one of its settings: {', '.join(inside)}"
        )
    raise ExperimentError(no_setting(name, names))
