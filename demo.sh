#!/usr/bin/env bash
# The whole chain on drawn animals: draws clips, trains a small CLIP on still images of them, and runs the scripts of all
# stages up to a table and a report. It takes 9 minutes on two cores. If it is interrupted, the same command resumes it.
#
#   bash demo.sh                 downloads only Python packages
#   bash demo.sh --real          downloads and uses OpenAI's CLIP ViT-B/32 and RAFT (370 MB); a GPU is recommended
#   bash demo.sh --clips DIR     uses your own clips, DIR/<action>/*.mp4; add --real for meaningful results
#   bash demo.sh --tiny          checks in a minute that everything runs; its results are meaningless
set -euo pipefail
unset CDPATH
called_from=$PWD
cd "$(dirname "$0")"
source demo/environment.sh

real="" clips="" size=full
while [ $# -gt 0 ]; do
    case "$1" in
        --real) real=-real ;;
        --tiny) size=tiny ;;
        --clips)
            clips=$([ -n "${2:-}" ] && cd "$called_from" && cd "$2" 2>/dev/null && pwd) || {
                echo "demo.sh: error: --clips ${2:-}: not a folder; name a folder with one folder of videos per action" >&2
                exit 2
            }
            shift
            ;;
        -h | --help) sed -n '2,${/^#/!q;s/^# \{0,1\}//;p;}' demo.sh; exit 0 ;;
        *) echo "demo.sh: error: unknown argument $1; see bash demo.sh --help" >&2; exit 2 ;;
    esac
    shift
done

step() { # step TITLE COMMAND...: print the title and the command, and run it, with --report if $report is set
    echo
    echo "== $1"
    shift
    printf '   %s\n' "$(printf '%q ' "$@")"
    local started=$SECONDS code=0
    "$@" ${report:+--report "$report"} || code=$?
    echo "   ($((SECONDS - started)) s)"
    return $code
}

videos_step() { # step that continues if some videos failed (exit code 1)
    local code=0 report
    report=$(mktemp)
    step "$@" || code=$?
    if [ $code -eq 1 ] && all_reports 'report["failed"]' "$report"; then
        echo "note: continues without the failed videos listed above"
        some_failed=yes code=0
    fi
    rm -f "$report"
    [ $code -eq 0 ] || exit $code
}

check_annotations() { # exit if existing checkpoints were trained on other clips or labels
    local checksums file="checkpoints/$name/annotations.cksum"
    checksums=$(cd "dataset/$name/annotations" && cksum ./*)
    if [ -f "$file" ] && [ "$(cat "$file")" != "$checksums" ]; then
        echo "demo.sh: error: checkpoints/$name were trained on other clips or labels than dataset/$name has now;" \
            "delete checkpoints/$name logs/$name TFAM/results/$name" >&2
        exit 2
    fi
    mkdir -p "checkpoints/$name"
    echo "$checksums" >"$file"
}

use_python requirements.txt
started_at=$(date +%s) some_failed="" report=""
name=demo
[ -z "$clips" ] || name="clips-$(basename "$clips")"
[ $size = full ] || name="$name-tiny"
teacher="checkpoints/demo$([ $size = full ] || echo -tiny)/teacher"
name="$name$real"
data_args=(--dataset-dir "dataset/$name" --dataset-name demo)
fps_args=(--fps 12.5)
fusion_args=(--config demo/tfam.yaml --set training.checkpoint=last)
seeds="49 50 51" epochs=8 clip_args=(--train 284 --val 128) still_args=(--stills 8000) evaluation_args=(--resamples 1000)
worker_args=(--num-workers 2)
if [ $size = tiny ]; then
    seeds=49 epochs=1 clip_args=(--train 16 --val 8) still_args=(--stills 60 --held-out 20 --steps 5)
    fusion_args+=(training.epochs=2) evaluation_args=(--resamples 100) worker_args=(--num-workers 0)
fi
if [ -n "$real" ]; then
    encoder_args=(--clip-model-name ViT-B/32 --clip-pretrained openai)
    flow_args=(--model raft --iters 12 --size 224)
    train_args=(--learning-rate 1e-5 --batch-size 8)
    fusion_args+=(training.lr=1e-4)
    frame_check_args=(--freeze-encoder)
else
    encoder_args=(--clip-model-name "local-dir:$teacher")
    flow_args=(--model dis --size 96)
    train_args=(--learning-rate 5e-4 --batch-size 8)
    frame_check_args=(--epochs "$epochs")
fi

if [ -n "$clips" ]; then
    step "Split the clips of $clips" \
        "$python" prepare_dataset.py folder "$clips" "${data_args[@]}"
    resize_args=(--resize model)
else
    step "Draw clips of animals, with labels of their actions" \
        "$python" -m demo.make_clips "${clip_args[@]}" "${data_args[@]}" "${worker_args[@]}"
    resize_args=(--resize squash) # a square crop would cut off animals at the sides
fi
check_annotations
if [ -z "$real" ]; then
    step "Train a small CLIP on still images (a minute)" \
        "$python" -m demo.make_teacher "${still_args[@]}" "${worker_args[@]}" --output-dir "$teacher"
    [ -z "$clips" ] || echo "note: this CLIP was trained only on drawn animals; --real uses one trained on photographs"
fi
videos_step "Embed the frames with CLIP" \
    "$python" extract_embeddings.py "${data_args[@]}" "${encoder_args[@]}" "${resize_args[@]}" "${fps_args[@]}" --frame-batch-size 64
videos_step "Compute optical flow" \
    "$python" extract_flows.py "${data_args[@]}" "${flow_args[@]}" "${fps_args[@]}"
step "Train MoCLIP on flow images (two minutes)" \
    "$python" train.py "${data_args[@]}" "${encoder_args[@]}" "${train_args[@]}" --sequence-length 25 --epochs $epochs "${worker_args[@]}" \
    --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --run-name student
videos_step "Embed the flow with the last epoch of MoCLIP" \
    "$python" inference.py "${data_args[@]}" --checkpoint-dir "checkpoints/$name/student/student_epoch_$epochs.pth" --frame-batch-size 64
if [ -z "$clips" ]; then
    step "Test which actions single frames reveal" \
        "$python" -m demo.check_frames "${data_args[@]}" "${encoder_args[@]}" "${frame_check_args[@]}" --output-dir "TFAM/results/$name"
fi

cores=$("$python" -c 'import os; print(os.cpu_count() or 1)')
train_tfam() { # train_tfam CONFIG: all seeds in parallel, which is faster for models this small
    local seed pid polls=0 code=0 pids="" log_dir="logs/$name/TFAM/$1"
    mkdir -p "$log_dir"
    for seed in $seeds; do
        OMP_NUM_THREADS=$(((cores + 2) / 3)) TQDM_DISABLE=1 "$python" -m TFAM.train_and_eval --config "TFAM/configs/$1.yaml" "${fusion_args[@]}" \
            --seed "$seed" "${data_args[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0 \
            >>"$log_dir/seed$seed.txt" &
        pids="$pids $!"
    done
    while [ -n "$(jobs -pr)" ]; do
        sleep 0.2
        polls=$((polls + 1))
        [ $((polls % 50)) -ne 0 ] || echo "   seed $seed: $(tail -n 1 "$log_dir/seed$seed.txt")"
    done
    for pid in $pids; do wait "$pid" || code=$?; done
    [ $code -eq 0 ] || exit $code
    for seed in $seeds; do tail -n 1 "$log_dir/seed$seed.txt"; done
}
trap 'kill $(jobs -p) 2>/dev/null || true; exit 130' INT TERM

for config in rgb motion concat_time cross_attention cross_attention_shuffled cross_attention_none; do
    echo
    echo "== TFAM: $config, seeds $seeds"
    printf '   %s\n' "$(printf '%q ' "$python" -m TFAM.train_and_eval --config "TFAM/configs/$config.yaml" "${fusion_args[@]}" \
        --seed SEED "${data_args[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0)"
    train_tfam $config
    echo "   (complete output: logs/$name/TFAM/$config/)"
done
step "Pictures of clips with their flow and scores" \
    "$python" -m demo.strips "${data_args[@]}" --run "checkpoints/$name/TFAM/cross_attention/seed49" --output-dir "TFAM/results/$name"
step "Table of all runs" \
    "$python" -m demo.report "${data_args[@]}" --checkpoints-dir "checkpoints/$name" --output-dir "TFAM/results/$name"
best=$("$python" -m TFAM.select_best --checkpoints-dir "checkpoints/$name")
step "Evaluate the run that is best on the model-selection split" \
    "$python" evaluate.py "$best" --annotations-dir "dataset/$name/annotations" "${data_args[@]:2}" \
    --videos-dir "dataset/$name/videos" --flow-videos-dir "dataset/$name/flows" "${evaluation_args[@]}" \
    ${some_failed:+--allow-missing}

cat <<TEXT

Done after $((($(date +%s) - started_at + 30) / 60)) minutes, without the installation. Results:
  dataset/$name/          clips, annotations, flow videos, embeddings
  checkpoints/$name/      student/ and TFAM/<config>/seed<k>/: settings, metrics, weights
  TFAM/results/$name/     the table, table.csv with one row per run, pictures of some clips
  $best/evaluation/
                          metrics.json, per_class.csv, and a report to open in a browser:
                          $best/evaluation/report.html
Training curves:  $(printf '%q ' "$python" -m tensorboard.main --logdir "logs/$name")   then open http://localhost:6006
  Images:   selection/rgb_flow_labels: frames and flow, with labels and predictions
  Scalars:  student: selection/distillation_loss, selection/head_map_macro;  TFAM: selection/map_macro by config and seed
TEXT
