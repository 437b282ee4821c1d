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

step() { # step WHAT COMMAND...: say what is done and with which command, and do it
    echo
    echo "== $1"
    shift
    printf '   %s\n' "$(printf '%q ' "$@")"
    local started=$SECONDS code=0
    "$@" || code=$?
    echo "   ($((SECONDS - started)) s)"
    return $code
}

videos_step() { # the same, for a command that may end with exit code 1 and "N failed": then the other videos go on
    local code=0 said
    said=$(mktemp)
    step "$@" | tee "$said" || code=$?
    if [ $code -ne 0 ]; then
        grep -q ', [1-9][0-9]* failed' "$said" || exit $code
        echo "note: the videos that failed, named above, are left out"
        left_out=yes
    fi
    rm -f "$said"
}

same_clips() { # what was learnt from other clips must not pass for what is learnt from these
    local now before="checkpoints/$name/annotations.cksum"
    now=$(cd "dataset/$name/annotations" && cksum ./*)
    if [ -f "$before" ] && [ "$(cat "$before")" != "$now" ]; then
        echo "demo.sh: error: dataset/$name holds other clips or labels than checkpoints/$name learnt from;" \
            "delete checkpoints/$name logs/$name TFAM/results/$name" >&2
        exit 2
    fi
    mkdir -p "checkpoints/$name"
    echo "$now" >"$before"
}

use_python requirements.txt
began=$(date +%s) left_out=""
name=demo
[ -z "$clips" ] || name="clips-$(basename "$clips")"
[ $size = full ] || name="$name-tiny"
teacher="checkpoints/demo$([ $size = full ] || echo -tiny)/teacher"
name="$name$real"
data=(--dataset-dir "dataset/$name" --dataset-name demo)
frames=(--fps 12.5)
fusion=(--config demo/tfam.yaml --set training.checkpoint=last)
seeds="49 50 51" epochs=8 drawn=(--train 284 --val 128) stills=(--stills 8000) evaluation=(--resamples 1000)
if [ $size = tiny ]; then
    seeds=49 epochs=1 drawn=(--train 24 --val 12) stills=(--stills 200 --held-out 100 --steps 5)
    fusion+=(training.epochs=2) evaluation=(--resamples 100)
fi
if [ -n "$real" ]; then
    encoder=(--clip-model-name ViT-B/32 --clip-pretrained openai)
    flow=(--model raft --iters 12 --size 224)
    learning=(--learning-rate 1e-5 --batch-size 8)
    fusion+=(training.lr=1e-4)
    alone=(--freeze-encoder)
else
    encoder=(--clip-model-name "local-dir:$teacher")
    flow=(--model dis --size 96)
    learning=(--learning-rate 5e-4 --batch-size 8)
    alone=(--epochs "$epochs")
fi

if [ -n "$clips" ]; then
    step "The clips of $clips, split into those to learn from, to choose on and to report on" \
        "$python" prepare_dataset.py folder "$clips" "${data[@]}"
    resize=(--resize model)
else
    step "Drawing clips of animals, with the labels of what they do" \
        "$python" -m demo.make_clips "${drawn[@]}" "${data[@]}"
    resize=(--resize squash) # animals may stand where a square crop would cut them off
fi
same_clips
if [ -z "$real" ]; then
    step "A small CLIP that learns from stills what animals look like (a minute)" \
        "$python" -m demo.make_teacher "${stills[@]}" --output-dir "$teacher"
    [ -z "$clips" ] || echo "note: this CLIP has seen drawn animals only; --real takes one that knows yours"
fi
videos_step "Embedding the frames with CLIP" \
    "$python" extract_embeddings.py "${data[@]}" "${encoder[@]}" "${resize[@]}" "${frames[@]}" --frame-batch-size 64
videos_step "Optical flow between neighbouring frames, drawn as colours" \
    "$python" extract_flows.py "${data[@]}" "${flow[@]}" "${frames[@]}"
step "MoCLIP: a copy of CLIP learns to read flow (two minutes)" \
    "$python" train.py "${data[@]}" "${encoder[@]}" "${learning[@]}" --sequence-length 25 --epochs $epochs --num-workers 2 \
    --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --run-name student
videos_step "Embedding the flow with MoCLIP, as it is after its last epoch" \
    "$python" inference.py "${data[@]}" --checkpoint-dir "checkpoints/$name/student/student_epoch_$epochs.pth" --frame-batch-size 64
if [ -z "$clips" ]; then
    step "Can single frames tell the actions?" \
        "$python" -m demo.check_frames "${data[@]}" "${encoder[@]}" "${alone[@]}" --output-dir "TFAM/results/$name"
fi

cores=$("$python" -c 'import os; print(os.cpu_count() or 1)')
fuse() { # fuse CONFIG: all its seeds beside each other, which for models this small is faster than one after the other
    local seed pid seconds=0 code=0 pids="" said="logs/$name/TFAM/$1"
    mkdir -p "$said"
    for seed in $seeds; do
        OMP_NUM_THREADS=$(((cores + 2) / 3)) TQDM_DISABLE=1 "$python" -m TFAM.train_and_eval --config "TFAM/configs/$1.yaml" "${fusion[@]}" \
            --seed "$seed" "${data[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0 \
            >>"$said/seed$seed.txt" &
        pids="$pids $!"
    done
    while [ -n "$(jobs -pr)" ]; do
        sleep 1
        seconds=$((seconds + 1))
        [ $((seconds % 10)) -ne 0 ] || echo "   seed $seed: $(tail -n 1 "$said/seed$seed.txt")"
    done
    for pid in $pids; do wait "$pid" || code=$?; done
    [ $code -eq 0 ] || exit $code
    for seed in $seeds; do tail -n 1 "$said/seed$seed.txt"; done
}
trap 'kill $(jobs -p) 2>/dev/null || true; exit 130' INT TERM

for config in rgb motion concat_time cross_attention cross_attention_shuffled cross_attention_none; do
    echo
    echo "== TFAM: $config, seeds $seeds"
    printf '   %s\n' "$(printf '%q ' "$python" -m TFAM.train_and_eval --config "TFAM/configs/$config.yaml" "${fusion[@]}" \
        --seed SEED "${data[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0)"
    fuse $config
    echo "   (all it said is in logs/$name/TFAM/$config/)"
done
step "What the clips show, and what the model says" \
    "$python" -m demo.strips "${data[@]}" --run "checkpoints/$name/TFAM/cross_attention/seed49" --output-dir "TFAM/results/$name"
step "The table" \
    "$python" -m demo.report "${data[@]}" --checkpoints-dir "checkpoints/$name" --output-dir "TFAM/results/$name"
best=$("$python" -m TFAM.select_best --checkpoints-dir "checkpoints/$name")
step "The run that is best on the selection clips, in full on the clips reported" \
    "$python" evaluate.py "$best" --annotations-dir "dataset/$name/annotations" "${data[@]:2}" \
    --videos-dir "dataset/$name/videos" --flow-videos-dir "dataset/$name/flows" "${evaluation[@]}" \
    ${left_out:+--allow-missing}

cat <<TEXT

Done, $((($(date +%s) - began + 30) / 60)) minutes after the packages were there. What there is now:
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
