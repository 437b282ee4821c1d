#!/usr/bin/env bash
# The whole chain on drawn animals: draws clips, trains a small CLIP on still images of them, and runs the scripts of all
# stages up to a table and a report, with three seeds of student and fusion. README.md says how long it takes. If it is
# interrupted, the same command resumes it.
#
#   bash demo.sh                 downloads only Python packages
#   bash demo.sh --real          downloads and uses OpenAI's CLIP ViT-B/32 and RAFT (370 MB); a GPU is recommended
#   bash demo.sh --clips DIR     uses your own clips, DIR/<action>/*.mp4; add --real for meaningful results
#   bash demo.sh --kabr          uses 22 real clips of zebras and giraffes, and an encoder that was trained on
#                                photographs (18 MB are downloaded); five minutes
#   bash demo.sh --tiny          checks in two minutes that everything runs; its results are meaningless
set -euo pipefail
unset CDPATH
called_from=$PWD
cd "$(dirname "$0")"
source demo/environment.sh

real="" clips="" kabr="" size=full
while [ $# -gt 0 ]; do
    case "$1" in
        --real) real=-real ;;
        --kabr) kabr=yes ;;
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

if [ -n "$kabr" ] && [ -n "$real$clips" ]; then
    echo "demo.sh: error: --kabr has its own clips and encoder; give it without --real and --clips" >&2
    exit 2
fi

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
source demo/steps.sh
if [ -n "$kabr" ]; then
    source demo/kabr.sh
    exit
fi
name=demo
[ -z "$clips" ] || name="clips-$(basename "$clips")"
[ $size = full ] || name="$name-tiny"
teacher="checkpoints/demo$([ $size = full ] || echo -tiny)/teacher"
name="$name$real"
data_args=(--dataset-dir "dataset/$name" --dataset-name demo)
fps_args=(--fps 8.4)
fusion_args=(--config demo/tfam.yaml --set training.checkpoint=last "data.motion_h5=dataset/$name/embeddings/flow_embeddings_seed{seed}.h5")
seeds=(49 50 51) epochs=8 clip_args=(--train 284 --val 128) still_args=() evaluation_args=(--resamples 1000)
worker_args=(--num-workers 0)
if [ $size = tiny ]; then
    seeds=(49) epochs=1 clip_args=(--train 16 --val 8) still_args=(--stills 60 --held-out 20 --steps 5)
    fusion_args+=(training.epochs=2) evaluation_args=(--resamples 100)
fi
if [ -n "$real" ]; then
    encoder_args=(--clip-model-name ViT-B/32 --clip-pretrained openai)
    flow_args=(--model raft --iters 12 --size 224) worker_args=(--num-workers 2)
    train_args=(--learning-rate 1e-5 --batch-size 8)
    fusion_args+=(training.lr=1e-4)
else
    encoder_args=(--clip-model-name "local-dir:$teacher")
    flow_args=(--model dis --size 96)
    train_args=(--learning-rate 5e-4 --batch-size 8)
fi

if [ -z "$real" ]; then
    export OMP_NUM_THREADS=1
    job "Train a small CLIP on still images" teacher \
        "$python" -m demo.make_teacher ${still_args[@]+"${still_args[@]}"} --num-workers 0 --output-dir "$teacher"
    [ -z "$clips" ] || echo "note: this CLIP was trained only on drawn animals; --real uses one trained on photographs"
fi
if [ -n "$clips" ]; then
    step "Split the clips of $clips" \
        "$python" prepare_dataset.py folder "$clips" "${data_args[@]}"
    resize_args=(--resize model)
else
    step "Draw clips of animals, with labels of their actions" \
        "$python" -m demo.make_clips "${clip_args[@]}" "${data_args[@]}" --num-workers 0
    resize_args=(--resize squash) # a square crop would cut off animals at the sides
fi
check_annotations
videos_step "Compute optical flow" \
    "$python" extract_flows.py "${data_args[@]}" "${flow_args[@]}" "${fps_args[@]}"
finish_jobs
videos_step "Embed the frames with CLIP" \
    "$python" extract_embeddings.py "${data_args[@]}" "${encoder_args[@]}" "${resize_args[@]}" "${fps_args[@]}" --frame-batch-size 64
[ -z "$real" ] || at_once=1
for seed in "${seeds[@]}"; do
    job "Train MoCLIP on flow images, seed $seed" "student_seed$seed" \
        "$python" train.py "${data_args[@]}" "${encoder_args[@]}" "${train_args[@]}" --sequence-length 25 --epochs $epochs \
        --seed "$seed" "${worker_args[@]}" --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --run-name "student_seed$seed"
done
finish_jobs
report=yes
for seed in "${seeds[@]}"; do
    job "Embed the flow with the last epoch of MoCLIP, seed $seed" "motion_seed$seed" \
        "$python" inference.py "${data_args[@]}" --checkpoint-dir "checkpoints/$name/student_seed$seed/student_epoch_$epochs.pth" \
        --output-h5-path "dataset/$name/embeddings/flow_embeddings_seed$seed.h5" --frame-batch-size 64
done
finish_jobs
at_once=$most_jobs
for config in concat_time cross_attention cross_attention_shuffled rgb motion probe_attentive probe_both probe_motion probe_rgb; do
    module=TFAM.train_and_eval
    [ "${config#probe_}" = "$config" ] || module=TFAM.probe
    job "Fusion: $config, seeds ${seeds[*]}" "TFAM/$config" \
        "$python" -m $module --config "TFAM/configs/$config.yaml" "${fusion_args[@]}" --seed "${seeds[@]}" "${data_args[@]}" \
        --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --num-workers 0
done
finish_jobs
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
  checkpoints/$name/      student_seed<k>/ and TFAM/<config>/seed<k>/: settings, metrics, weights
  TFAM/results/$name/     the table, table.csv with one row per run, pictures of some clips
  $best/evaluation/
                          metrics.json, per_class.csv, and a report to open in a browser:
                          $best/evaluation/report.html
Training curves:  $(printf '%q ' "$python" -m tensorboard.main --logdir "logs/$name")   then open http://localhost:6006
  Images:   selection/rgb_flow_labels: frames and flow, with labels and predictions
  Scalars:  student: selection/distillation_loss, selection/head_map_macro;  TFAM: selection/map_macro by config and seed
TEXT
