#!/bin/sh
# Makes the figures of docs/results.md from real CIFAR-10, about half an hour on two cores:
#   DATA=../shared/data OUT=/tmp/results docs/make_results.sh
# DATA holds cifar-10-batches-py; without it, `analyze train --dataset cifar10 --download --data-root DATA` fetches it.
# CIFAR10C, if set, is the folder that `analyze make-cifar10c --data-root DATA` made. Complete runs are not trained again.
set -eu
DATA=${DATA:-data} OUT=${OUT:-results}
ANALYZE=${ANALYZE:-.venv/bin/analyze}
export ALIGNSCAPE_DATA="$DATA"

train() { # name, flags of the rule
    name=$1; shift
    $ANALYZE train "$@" --dataset cifar10 --epochs 10 --snapshot-every 100 --snapshot-dtype float16 --out "$OUT/$name"
}
train bp --rule bp
train ifa0 --rule ifa --angle 0
train ifa45 --rule ifa --angle 45
train fa --rule fa
train dfa --rule dfa
# PFA's path aligns under SGD with a strong decay in the first epoch (docs/learning-rules.md).
train pfa --rule pfa --optimiser sgd --lr 0.01 --first-epoch-weight-decay 0.03 --weight-decay 1e-4

NETWORKS="$OUT/bp $OUT/ifa0 $OUT/ifa45 $OUT/fa $OUT/dfa $OUT/pfa"
$ANALYZE hessian $NETWORKS --samples 2000 --trace-tol 0.05 --out "$OUT"
$ANALYZE spectrum $NETWORKS --samples 1000 --probes 4 --out "$OUT"
$ANALYZE surface $NETWORKS --samples 1000 --out "$OUT"
$ANALYZE trajectory "$OUT/bp" "$OUT/fa" "$OUT/dfa" --samples 1000 --out "$OUT"
$ANALYZE attack $NETWORKS --attack fgsm pgd --gradient true feedback --samples 1000 --out "$OUT"
if [ -n "${CIFAR10C:-}" ]; then
    $ANALYZE corruptions $NETWORKS --cifar10c "$CIFAR10C" --out "$OUT"
fi
$ANALYZE report "$OUT"
mkdir -p docs/figures
for figure in metrics hessian spectrum surface trajectory attack corruptions; do
    if [ -f "$OUT/$figure.png" ]; then cp "$OUT/$figure.png" docs/figures/; fi
done
