"""What an import costs a program that needs nothing more of torch or of other packages."""

import subprocess
import sys

CODE = """
import sys
import nysact
slow = {"torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy"}
assert not sys.modules.keys() & {*slow, "transformers"}, sys.modules.keys() & slow
from nysact.experiments.models import build_model
build_model("resnet20")
build_model("mlp", width=4)
assert not sys.modules.keys() & {"torchvision", "timm", "transformers"}
"""


def test_the_library_imports_no_slow_part_of_torch_nor_packages_that_are_not_used():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
