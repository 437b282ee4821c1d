#!/usr/bin/env bash
# ViMoCLIP in miniature, from nothing to a table and a report: draws clips of animals, trains a small CLIP on stills of them, and runs
# the project's scripts one after the other, as you would type them. 9 minutes on two cores; stop it and start it again
# as you like, it resumes.
#
#   bash demo.sh                 no downloads but Python's packages
#   bash demo.sh --real          with OpenAI's CLIP ViT-B/32 and RAFT, which are downloaded (370 MB); wants a GPU
#   bash demo.sh --clips DIR     on clips of your own, DIR/<action>/*.mp4; together with --real for results that count
#   bash demo.sh --tiny          a minute, to see that everything runs; its numbers mean nothing
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
                echo "demo.sh: error: --clips ${2:-} needs a folder, which holds a folder of videos per action" >&2
                exit 2
            }
            shift
            ;;
        -h | --help) sed -n '2,${/^#/!q;s/^# \{0,1\}//;p;}' demo.sh; exit 0 ;;
        *) echo "demo.sh: error: there is no $1 (see demo.sh --help)" >&2; exit 2 ;;
    esac
    shift
done

step() { # step TITLE COMMAND...: print the title and the command, and run it, with --report where $report is set
    echo
    echo "== $1"
    shift
    printf '   %s\n' "$(printf '%q ' "$@")"
    local started=$SECONDS code=0
    "$@" ${report:+--report "$report"} || code=$?
    echo "   ($((SECONDS - started)) s)"
    return $code
}

videos_step() { # step, but continue with the other videos if some failed
    local code=0 report
    report=$(mktemp)
    step "$@" || code=$?
    if [ $code -eq 1 ] && all_reports 'report["failed"]' "$report"; then
        echo "note: the videos that failed, named above, are left out"
        some_failed=yes code=0
    fi
    rm -f "$report"
    [ $code -eq 0 ] || exit $code
}

check_annotations() { # exit if existing checkpoints were trained on other clips or labels
    local checksums file="checkpoints/$name/annotations.cksum"
    checksums=$(cd "dataset/$name/annotations" && cksum ./*)
    if [ -f "$file" ] && [ "$(cat "$file")" != "$checksums" ]; then
        echo "demo.sh: error: dataset/$name holds other clips or labels than checkpoints/$name learnt from;" \
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
if [ $size = tiny ]; then
    seeds=49 epochs=1 clip_args=(--train 24 --val 12) still_args=(--stills 200 --held-out 100 --steps 5)
    fusion_args+=(training.epochs=2) evaluation_args=(--resamples 100)
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
    step "The clips of $clips, split into those to learn from, to choose on and to report on" \
        "$python" prepare_dataset.py folder "$clips" "${data_args[@]}"
    resize_args=(--resize model)
else
    step "Drawing clips of animals, with the labels of what they do" \
        "$python" -m demo.make_clips "${clip_args[@]}" "${data_args[@]}"
    resize_args=(--resize squash) # a square crop would cut off animals at the sides
fi
check_annotations
if [ -z "$real" ]; then
    step "A small CLIP that learns from stills what animals look like (a minute)" \
        "$python" -m demo.make_teacher "${still_args[@]}" --output-dir "$teacher"
    [ -z "$clips" ] || echo "note: this CLIP has seen drawn animals only; --real takes one that knows yours"
fi
videos_step "Embedding the frames with CLIP" \
    "$python" extract_embeddings.py "${data_args[@]}" "${encoder_args[@]}" "${resize_args[@]}" "${fps_args[@]}" --frame-batch-size 64
videos_step "Optical flow between neighbouring frames, drawn as colours" \
    "$python" extract_flows.py "${data_args[@]}" "${flow_args[@]}" "${fps_args[@]}"
step "MoCLIP: a copy of CLIP learns to read flow (two minutes)" \
    "$python" train.py "${data_args[@]}" "${encoder_args[@]}" "${train_args[@]}" --sequence-length 25 --epochs $epochs --num-workers 2 \
    --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --run-name student
videos_step "Embedding the flow with MoCLIP, as it is after its last epoch" \
    "$python" inference.py "${data_args[@]}" --checkpoint-dir "checkpoints/$name/student/student_epoch_$epochs.pth" --frame-batch-size 64
if [ -z "$clips" ]; then
    step "Can single frames tell the actions?" \
        "$python" -m demo.check_frames "${data_args[@]}" "${encoder_args[@]}" "${frame_check_args[@]}" --output-dir "TFAM/results/$name"
fi

cores=$("$python" -c 'import os; print(os.cpu_count() or 1)')
train_tfam() { # train_tfam CONFIG: all seeds in parallel, which is faster for models this small
    local seed pid seconds=0 code=0 pids="" log_dir="logs/$name/TFAM/$1"
    mkdir -p "$log_dir"
    for seed in $seeds; do
        OMP_NUM_THREADS=$(((cores + 2) / 3)) TQDM_DISABLE=1 "$python" -m TFAM.train_and_eval --config "TFAM/configs/$1.yaml" "${fusion_args[@]}" \
            --seed "$seed" "${data_args[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0 \
            >>"$log_dir/seed$seed.txt" &
        pids="$pids $!"
    done
    while [ -n "$(jobs -pr)" ]; do
        sleep 1
        seconds=$((seconds + 1))
        [ $((seconds % 10)) -ne 0 ] || echo "   seed $seed: $(tail -n 1 "$log_dir/seed$seed.txt")"
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
    echo "   (all it said is in logs/$name/TFAM/$config/)"
done
step "What the clips show, and what the model says" \
    "$python" -m demo.strips "${data_args[@]}" --run "checkpoints/$name/TFAM/cross_attention/seed49" --output-dir "TFAM/results/$name"
step "The table" \
    "$python" -m demo.report "${data_args[@]}" --checkpoints-dir "checkpoints/$name" --output-dir "TFAM/results/$name"
best=$("$python" -m TFAM.select_best --checkpoints-dir "checkpoints/$name")
step "The run that is best on the selection clips, in full on the clips reported" \
    "$python" evaluate.py "$best" --annotations-dir "dataset/$name/annotations" "${data_args[@]:2}" \
    --videos-dir "dataset/$name/videos" --flow-videos-dir "dataset/$name/flows" "${evaluation_args[@]}" \
    ${some_failed:+--allow-missing}

cat <<TEXT

Done, $((($(date +%s) - started_at + 30) / 60)) minutes after the packages were there. What there is now:
  dataset/$name/          clips, annotations, flow videos, embeddings
  checkpoints/$name/      student/ and TFAM/<config>/seed<k>/, each with its settings, metrics and weights
  TFAM/results/$name/     this table, a row a run in table.csv, and pictures of some clips
  $best/evaluation/
                          metrics.json, per_class.csv and the report, to look at in a browser:
                          $best/evaluation/report.html
To see how it learnt:  $(printf '%q ' "$python" -m tensorboard.main --logdir "logs/$name")   and open http://localhost:6006
  Images:   selection/rgb_flow_labels, frames beside their flow, with labels and guesses
  Scalars:  student: selection/distillation_loss and selection/head_map_macro;  TFAM: selection/map_macro, a line a
            config and seed
TEXT
