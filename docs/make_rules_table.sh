#!/usr/bin/env bash
# The tables of docs/learning-rules.md, from nothing: MLPs by every rule on CIFAR-10 and MNIST, LeNet on CIFAR-10. Two to three hours of two cores; killed
# and started again it goes on. DATA is the folder of data sets, OUT where the runs go, SEEDS which ones.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-../shared/data} OUT=${OUT:-runs/rules} SEEDS=${SEEDS:-0..2}
PATH="$PWD/.venv/bin:$PATH"

cifar() { analyze train --dataset cifar10 --data-root "$DATA" --epochs 30 --seeds "$SEEDS" --stack 1 "${@:2}" --out "$OUT/cifar/$1"; }
mnist() {  # the setting of the published numbers
  analyze train --dataset mnist --data-root "$DATA" --epochs 40 --batch-size 64 --optimiser sgd --lr 0.01 \
    --lr-steps 20 30 --lr-gamma 0.5 --seeds "$SEEDS" --stack 1 "${@:2}" --out "$OUT/mnist/$1"
}
lenet() {
  analyze train --dataset cifar10 --network lenet --data-root "$DATA" --epochs 10 --lr 1e-3 --weight-decay 1e-4 \
    --seeds "$SEEDS" "${@:2}" --out "$OUT/lenet/$1"
}
schedule="--optimiser sgd --lr 0.01 --first-epoch-weight-decay 0.03 --weight-decay 1e-4"

for rule in bp fa dfa usf frsf brsf wm; do cifar $rule --rule $rule; done
cifar ifa --rule ifa --angles 0 45
cifar kp --rule kp --optimiser sgd --lr 0.01 --weight-decay 2e-3
for rule in pfa pfa-o; do cifar $rule --rule $rule $schedule; done

for rule in bp fa dfa usf; do mnist $rule --rule $rule; done
for rule in pfa pfa-o; do mnist $rule --rule $rule --first-epoch-weight-decay 0.03 --weight-decay 9e-5; done

for rule in bp fa ifa; do
  lenet $rule --rule $rule
  lenet $rule-small --rule $rule --forward-scale 0.5
done

for table in cifar mnist lenet; do python docs/rules_table.py "$OUT/$table"; done
