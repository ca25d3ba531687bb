"""Where something ran: versions, device, commit."""

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    *("nysact", "torch", "torchvision", "numpy"),
    *("accelerate", "timm", "transformers", "pytorch_optimizer"),
)
# The variable by which whoever starts several runs at a time says how many.
SIDE_BY_SIDE = "NYSACT_SIDE_BY_SIDE"


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Describe versions, hardware, commit, and the settings of torch that time depends on."""
    return {
        "python": platform.python_version(),
        "packages": {name: installed for name in PACKAGES if (installed := version_of(name))},
        "system": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "processes": processes,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "side_by_side": int(os.environ.get(SIDE_BY_SIDE, "1")),
        "commit": commit_of(Path(__file__)),
        **(cuda() if device.type == "cuda" else {}),
    }


def cuda() -> dict[str, Any]:
    """Describe CUDA and what torch lets it do."""
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": output_of(
            "nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"
        ),
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def version_of(package: str) -> str | None:
    """Give the version of a package, ``None`` where it isn't installed."""
    return next((found.version for found in distributions(name=package)), None)


def device_name(device: torch.device) -> str:
    """Name the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type == "cpu" else device.type


def cpu_name() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_of(file: Path) -> str | None:
    """Commit of the checkout with that file, ``-dirty`` if it was changed, ``None`` without one."""
    git = ("git", "-C", str(file.parent))
    if output_of(*git, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return output_of(*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def output_of(*command: str) -> str | None:
    """Run a command and give what it prints, ``None`` where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
