#!/bin/sh
# Makes the table of docs/robustness.md from real CIFAR-10: about 20 minutes on two cores.
#   DATA=../shared/data OUT=/tmp/robustness docs/make_robustness_table.sh
#   DATA=... EPOCHS=1 SAMPLES=50 docs/make_robustness_table.sh        (a quick look at what it does)
# DATA holds cifar-10-batches-py; without it, `analyze train --dataset cifar10 --download --data-root DATA` fetches it.
set -eu
DATA=${DATA:-data} OUT=${OUT:-robustness} EPOCHS=${EPOCHS:-10} SAMPLES=${SAMPLES:-1000}
ANALYZE=$(realpath "${ANALYZE:-.venv/bin/analyze}")
mkdir -p "$OUT"
ALIGNSCAPE_DATA=$(realpath "$DATA")
export ALIGNSCAPE_DATA
cd "$OUT"

train() { # name, flags
    name=$1; shift
    "$ANALYZE" train "$@" --dataset cifar10 --epochs "$EPOCHS" --out "$name"
}
train bp --rule bp --seed 0
train ifa0 --rule ifa --angle 0 --seed 0
train ifa45 --rule ifa --angle 45 --seed 0
train ifa90 --rule ifa --angle 90 --seed 0
train fa --rule fa --seed 0
train surrogate --rule bp --seed 1

"$ANALYZE" attack bp ifa0 ifa45 ifa90 fa --attack pgd square --gradient true feedback transfer --surrogate surrogate \
    --eps 0 .01 .03 .05 --audit --samples "$SAMPLES"
