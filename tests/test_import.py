"""What importing the library costs a program that needs nothing more of torch."""

import subprocess
import sys

SLOW = ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy")


def test_the_library_imports_no_slow_part_of_torch_and_prints_nothing():
    code = f"import sys, nysact; sys.exit(', '.join(sys.modules.keys() & set({SLOW!r})) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
