#!/usr/bin/env bash
# The measurements of a GPU, and the tests that need one, in the order of their weight:
#
#     bash benchmarks/gpu.sh [FOLDER]        # default runs/gpu
#
# BUDGET is the seconds for all of it (default 570, on one H100); what doesn't fit is cut off or left
# out, and said. PYTHON is the interpreter. Each measurement leaves a JSON and a Markdown file, and
# the tests a log, in FOLDER.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-runs/gpu}
python=${PYTHON:-python3}
deadline=$((SECONDS + ${BUDGET:-570}))
failed=()
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# within NAME COMMAND...: run a command in the time that is left, and note if it fails.
within() {
    local name=$1 left=$((deadline - SECONDS))
    shift
    printf '\n== %s (%d s left)\n' "$name" "$left"
    if ((left < 20)); then
        failed+=("$name: no time left")
        return
    fi
    timeout -k 5 "$left" "$@" || failed+=("$name: exit $?")
}

bench() {
    local name=$1
    shift
    within "$name" "$python" -m nysact.experiments bench "$@" --device cuda \
        --json "$out/$name.json" --markdown "$out/$name.md"
}

# Only the files that have such tests: others may import what is not installed.
tests() {
    set -o pipefail
    mapfile -t files < <(grep -rl 'pytest.mark.cuda' tests --include='test_*.py' | sort)
    "$python" -m pytest -q -p no:cacheprovider -m cuda "${files[@]}" 2>&1 | tee "$out/tests.log"
}
export -f tests
export out python

all=nysact,foof,kfac,eva
within tests bash -c tests
# Checks of what processes exchange, in one process a GPU.
gpus=$(nvidia-smi -L 2>/dev/null | grep -c .)
within distributed "$python" -m torch.distributed.run --standalone \
    --nproc-per-node "$((gpus ? gpus : 1))" benchmarks/distributed.py --json "$out/distributed.json"
bench cifar-fp32 resnet110 densenet121-cifar --optimizers "$all" --cycles 1
bench deit-fp32 deit-s --optimizers "$all" --rank 20 --cycles 1
bench resnet50-bf16 resnet50 --optimizers nysact,eva --set nysact.rank=50 --precision bf16
bench deit-bf16 deit-s --optimizers nysact,eva --set nysact.rank=20 --precision bf16
bench resnet50-fp32 resnet50 --optimizers nysact,eva --set nysact.rank=50 --cycles 1
bench resnet50-bf16-inv5 resnet50 --optimizers nysact --rank 50 --inv-interval 5 --cycles 10 \
    --precision bf16 --no-split --no-memory
bench deit-bf16-inv5 deit-s --optimizers nysact,eva --inv-interval 5 --cycles 10 \
    --set nysact.rank=20 --precision bf16 --no-split --no-memory
bench deit-fp32-inv5 deit-s --optimizers nysact --rank 20 --inv-interval 5 --cycles 10 \
    --no-split --no-memory
bench resnet50-fp32-inv5 resnet50 --optimizers nysact --rank 50 --inv-interval 5 --cycles 10 \
    --no-split --no-memory
# Last, for dense factors of 4,608 x 4,608 take long.
bench resnet50-fp32-dense resnet50 --optimizers foof,kfac --cycles 1 --no-split

printf '\n== done, %d s left\n' $((deadline - SECONDS))
if ((${#failed[@]})); then
    printf 'not complete: %s\n' "${failed[@]}"
    exit 1
fi
