"""What a measurement was made with."""

import platform
from pathlib import Path
from typing import Any

import torch

import nysact


def environment(device: torch.device) -> dict[str, Any]:
    """Describe versions, device and the settings of torch that time depends on.

    Args:
        device: Where the measurement is made.

    Returns:
        What can be written as JSON.
    """
    cuda = device.type == "cuda"
    return {
        "nysact": nysact.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else processor(),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Name the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
