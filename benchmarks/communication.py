"""What optimizers send between processes, on paper: the table of docs/distributed.md.

python benchmarks/communication.py      # instantly
"""

from nysact.experiments.bench.communication import table

if __name__ == "__main__":
    print(table())
