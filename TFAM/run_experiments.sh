#!/usr/bin/env bash
# Trains every config below with every seed, one run at a time, then writes the table of all finished runs.
# It can be stopped and started again: finished runs are skipped, a stopped run resumes from its last checkpoint.
# Arguments are passed to every run: bash run_experiments.sh --set training.epochs=1 data.protocol=published --device cuda:1
# Few-shot runs, which the table shows beside those of all clips: bash run_experiments.sh --shots 1 5 10 25
# Edit the lists here, or set them: CONFIGS="rgb cross_attention" SEEDS=49 bash run_experiments.sh

# Variants of TFAM/configs/variants.yaml, or files TFAM/configs/<name>.yaml: the paper's five fusions, and two controls,
# cross-attention with zeros for motion and with the motion of another video. If a control scores as well as
# cross_attention, motion does not contribute.
CONFIGS="${CONFIGS:-rgb motion concat_embedding concat_time cross_attention cross_attention_none cross_attention_shuffled}"
# Another name is zero_shot: CLIP with the action names, without training, one run; ZERO_SHOT holds its flags.
SEEDS="${SEEDS:-49 50 51}" # one seed gives no estimate of the variance between seeds
CHECKPOINTS="${CHECKPOINTS:-checkpoints}" # gets TFAM/<config>/seed<k>/
RESULTS="${RESULTS:-TFAM/results}"        # gets table.md and table.csv

for argument in "$@"; do
    case "$argument" in
        --checkpoints[-_]dir* | --seed | --seed=* | --config | --config=*)
            echo "run_experiments.sh: error: give $argument by CHECKPOINTS, SEEDS or CONFIGS, as the table needs it too" >&2
            exit 2
            ;;
    esac
done

cd "$(dirname "$0")/.." || exit 1
failed=""
for config in $CONFIGS; do
    if [ "$config" = zero_shot ]; then
        echo "== zero_shot"
        # shellcheck disable=SC2086 # several flags
        "${PYTHON:-python}" -m TFAM.zero_shot --checkpoints-dir "$CHECKPOINTS" ${ZERO_SHOT:-} || failed="$failed zero_shot"
        continue
    fi
    for seed in $SEEDS; do
        echo "== $config, seed $seed"
        # skips the run if it is finished
        "${PYTHON:-python}" -m TFAM.train_and_eval --config "TFAM/configs/$config.yaml" --seed "$seed" \
            --checkpoints-dir "$CHECKPOINTS" "$@"
        status=$?
        [ $status -eq 130 ] && exit 130 # Ctrl-C stops the script
        [ $status -ne 0 ] && failed="$failed $config/seed$seed"
    done
done

"${PYTHON:-python}" -m TFAM.table --checkpoints-dir "$CHECKPOINTS" --output-dir "$RESULTS"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
