#!/usr/bin/env bash
# Runs every config below with every seed, one after the other, then writes the table of all finished runs.
# Safe to stop and start again: finished runs are skipped, a stopped one goes on where it last saved.
# Arguments reach every run: bash run_experiments.sh --set training.epochs=1 --device cuda:1

CONFIGS="rgb motion concat_embedding concat_time cross_attention" # names in TFAM/configs
SEEDS="49"

cd "$(dirname "$0")/.." || exit 1
failed=""
for config in $CONFIGS; do
    for seed in $SEEDS; do
        echo "== $config, seed $seed"
        # says so and does nothing where the run is finished
        "${PYTHON:-python}" -m TFAM.train_and_eval --config "TFAM/configs/$config.yaml" --seed "$seed" "$@"
        status=$?
        [ $status -eq 130 ] && exit 130 # Ctrl-C ends it all
        [ $status -ne 0 ] && failed="$failed $config/seed$seed"
    done
done

"${PYTHON:-python}" -m TFAM.table
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
