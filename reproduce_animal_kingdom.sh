#!/usr/bin/env bash
# Runs the paper's experiments on Animal Kingdom, from the authors' files to the table, stage by stage. If it is
# interrupted or a stage fails, the same command resumes it.
#
#   bash reproduce_animal_kingdom.sh --metadata AR_metadata.xlsx --actions df_action.xlsx --videos FOLDER
#   bash reproduce_animal_kingdom.sh ... --plan      estimate time and disk space, write nothing
#
# Defaults: animal_kingdom/AR_metadata.xlsx, animal_kingdom/df_action.xlsx, animal_kingdom/video. Outputs are written to
# dataset/, checkpoints/, logs/ and TFAM/results/ of the repository, each to a folder animal_kingdom/. Two protocols:
#   published/  as in the paper: the epoch is chosen on the evaluation split; seed 49
#   held_out/   the epoch is chosen on a tenth of the training clips; seeds 49, 50, 51, each with its own student; controls
# --skip-failed continues without unreadable videos; the evaluation counts and lists the missing ones.
# Settings are variables, e.g. COMPUTE="--device cuda:1" or PROTOCOLS=held_out; see the top of the script. Other splits:
#   IMPORT="--protocol unseen-animals" NAME=unseen_animals PROTOCOLS=held_out bash reproduce_animal_kingdom.sh ...
set -euo pipefail
unset CDPATH
called_from=$PWD
cd "$(dirname "$0")"
source demo/environment.sh

PROTOCOLS=${PROTOCOLS:-published held_out}
CLIP=${CLIP:---clip-model-name ViT-B/32 --clip-pretrained openai}
FLOW=${FLOW:---model raft --ckpt-path things --flow-normalization frame} # as in the paper: scaled to the largest motion of each frame
# those of the published command, see docs/stages.md
STUDENT=${STUDENT:---epochs 10 --batch-size 32 --learning-rate 1e-3 --grad-clip-norm None --distillation-loss-mode cosine
    --num-classes 140 --sequence-length 30 --residual-alpha 0.1 --class-positive-weight 9}
FUSIONS=${FUSIONS:-rgb motion concat_embedding concat_time cross_attention}
PROBES=${PROBES-probe_rgb probe_motion probe_both probe_attentive} # baselines, see python -m TFAM.probe --help
CONTROLS=${CONTROLS-cross_attention_none cross_attention_shuffled} # only of held_out, like SEEDS
SEEDS=${SEEDS:-49 50 51}
FUSION_SETTINGS=${FUSION_SETTINGS:-}       # for --set of TFAM, e.g. training.epochs=1
COMPUTE=${COMPUTE:---device auto}          # flags of all stages: --device, --precision, --num-workers
EVALUATION=${EVALUATION:---resamples 1000} # flags of evaluate.py
IMPORT=${IMPORT:-}                         # flags of prepare_dataset.py animal-kingdom for other splits; needs NAME
name=${NAME:-animal_kingdom}

metadata=animal_kingdom/AR_metadata.xlsx actions=animal_kingdom/df_action.xlsx videos=animal_kingdom/video
plan="" skip_failed=""

fail() { # fail MESSAGE
    echo "reproduce_animal_kingdom.sh: error: $1" >&2
    exit 2
}

given() { # given FLAG PATH: print the path, relative to where the script was called
    [ -n "$2" ] || fail "$1 needs a path; see bash reproduce_animal_kingdom.sh --help"
    case "$2" in /*) echo "$2" ;; *) echo "$called_from/$2" ;; esac
}

while [ $# -gt 0 ]; do
    case "$1" in
        --metadata) metadata=$(given "$1" "${2:-}"); shift ;;
        --actions) actions=$(given "$1" "${2:-}"); shift ;;
        --videos) videos=$(given "$1" "${2:-}"); shift ;;
        --plan) plan=yes ;;
        --skip-failed) skip_failed=yes ;;
        -h | --help) sed -n '2,${/^#/!q;s/^# \{0,1\}//;p;}' reproduce_animal_kingdom.sh; exit 0 ;;
        *) fail "unknown argument $1; see bash reproduce_animal_kingdom.sh --help" ;;
    esac
    shift
done

dataset="dataset/$name"
data=(--dataset-dir "$dataset" --dataset-name ak)
read -ra clip <<<"$CLIP"
read -ra flow <<<"$FLOW"
read -ra compute <<<"$COMPUTE"
read -ra evaluation <<<"$EVALUATION"
read -rd '' -a student <<<"$STUDENT" || true # several lines
[ -z "$IMPORT" ] || [ -n "${NAME:-}" ] || fail "IMPORT needs NAME, the name of a separate data set"
case "$IMPORT" in *unseen-animals*) student+=(--num-classes 6) ;; esac # the last one counts

# --- stages; --plan adds --dry-run

workbooks() { # workbooks OUTPUT...
    # shellcheck disable=SC2086 # several flags
    "$python" prepare_dataset.py animal-kingdom --metadata "$metadata" --actions "$actions" --dataset-name ak --species \
        $IMPORT "$@"
}

embed() {
    "$python" extract_embeddings.py "${data[@]}" "${clip[@]}" --split train val "${compute[@]}" "$@"
}

draw_flow() {
    "$python" extract_flows.py "${data[@]}" "${flow[@]}" "${compute[@]}" "$@"
}

students_of() { # students_of PROTOCOL: print the names of its students, one for each seed
    # published has one seed; a run that was begun with one student for all seeds keeps it
    if [ "$1" = published ] || [ -d "checkpoints/$name/$1/student" ]; then
        echo student
    else
        read -ra seeds_of_students <<<"$SEEDS"
        echo "${seeds_of_students[@]/#/student_seed}"
    fi
}

learn() { # learn PROTOCOL STUDENT...
    local protocol=$1 run=$2 clips=(--protocol held_out)
    shift 2
    [ "$protocol" = held_out ] || clips=(--val-hdf5-path "$dataset/embeddings/ak_val_clip_embeddings.h5")
    [ "$run" = student ] || clips+=(--seed "${run#student_seed}")
    "$python" train.py "${data[@]}" "${clip[@]}" "${student[@]}" "${clips[@]}" "${compute[@]}" --run-name "$run" \
        --checkpoints-dir "checkpoints/$name/$protocol" --logs-dir "logs/$name/$protocol" "$@"
}

export_motion() { # export_motion PROTOCOL STUDENT...
    local protocol=$1 run=$2
    shift 2
    "$python" inference.py "${data[@]}" --checkpoint-dir "checkpoints/$name/$protocol/$run" \
        --output-h5-path "$(motion_of "$protocol" "$run")" "${compute[@]}" "$@"
}

motion_of() { # motion_of PROTOCOL STUDENT: print the path of the motion embeddings
    echo "$dataset/embeddings/flow_embeddings_$1${2#student}.h5"
}

fusion_of() { # fusion_of PROTOCOL: set configs, seeds and the common flags of its TFAM runs
    configs="$FUSIONS $PROBES" seeds=49
    [ "$1" = published ] || configs="$FUSIONS $CONTROLS $PROBES" seeds=$SEEDS
    local run=student
    [ "$(students_of "$1")" = student ] || run="student_seed{seed}" # of each TFAM run's own seed
    read -ra fusion <<<"$COMPUTE --logs-dir logs/$name/$1 --set data.protocol=$1 data.motion_h5=$(motion_of "$1" "$run") $FUSION_SETTINGS"
}

experiment() { # experiment PROTOCOL: train all configs and seeds, then write the table
    local configs seeds fusion
    fusion_of "$1"
    PYTHON=$python CONFIGS=$configs SEEDS=$seeds CHECKPOINTS="checkpoints/$name/$1" RESULTS="TFAM/results/$name/$1" \
        bash TFAM/run_experiments.sh "${data[@]}" "${fusion[@]}"
}

plan_experiment() { # plan_experiment PROTOCOL --dry-run --report FILE: write FILE-<config>-<seed>.json; stop at a failure
    local configs seeds fusion config seed
    fusion_of "$1"
    for config in $configs; do
        for seed in $seeds; do
            "$python" -m TFAM.train_and_eval --config "TFAM/configs/$config.yaml" --seed "$seed" "${data[@]}" \
                --checkpoints-dir "checkpoints/$name/$1" "${fusion[@]}" "$2" "$3" "$4-$config-$seed.json" || return
        done
    done
}

evaluate_best() { # evaluate_best PROTOCOL
    local best
    best=$("$python" -m TFAM.select_best --checkpoints-dir "checkpoints/$name/$1") || return
    "$python" evaluate.py "$best" --annotations-dir "$dataset/annotations" --dataset-name ak \
        --videos-dir "$dataset/videos" --flow-videos-dir "$dataset/flows" "${evaluation[@]}" ${skip_failed:+--allow-missing}
}

# --- running them

stage() { # stage NAME FUNCTION...
    local what=$1 started=$SECONDS code=0
    shift
    echo
    echo "== $what"
    "$@" || code=$?
    echo "   ($((SECONDS - started)) s)"
    [ $code -ne 0 ] || return 0
    echo "reproduce_animal_kingdom.sh: stage \"$what\" failed with exit code $code, see the message above;" \
        "the same command resumes there" >&2
    exit $code
}

videos_stage() { # stage that with --skip-failed continues if some videos failed (exit code 1)
    if [ -z "$skip_failed" ]; then
        stage "$@"
        return
    fi
    stage "$1" or_some_failed "${@:2}"
}

or_some_failed() {
    local code=0 report
    report=$(mktemp)
    "$@" --report "$report" || code=$?
    if [ $code -eq 1 ] && all_reports 'report["failed"]' "$report"; then
        echo "note: continues without the failed videos listed above"
        code=0
    fi
    rm -f "$report"
    return $code
}

link_videos() { # link dataset/<name>/videos to the authors' folder
    if [ -e "$dataset/videos" ]; then
        [ "$dataset/videos" -ef "$videos" ] || fail "$dataset/videos: not the same folder as $videos; remove one of them"
        return
    fi
    mkdir -p "$dataset"
    ln -s "$(cd "$videos" && pwd)" "$dataset/videos"
}

link_clips() { # link the clips of the annotations only, since flow is computed for all videos in the folder
    local folder clip
    folder=$(cd "$videos" && pwd)
    mkdir -p "$dataset/videos"
    while read -r clip _; do
        [ ! -e "$folder/$clip" ] || ln -sf "$folder/$clip" "$dataset/videos/$clip"
    done < <(cat "$dataset"/annotations/{train,val}_multi.txt)
}

reproduce() {
    local protocol run
    [ -d "$videos" ] || fail "$videos: no such folder; give the folder of the videos with --videos"
    [ -n "$IMPORT" ] || link_videos
    # not overwritten, so that users can remove the lines of missing clips
    [ -e "$dataset/annotations/ak_action.csv" ] ||
        stage "annotations from the authors' workbooks" workbooks --output-dir "$dataset/annotations"
    [ -z "$IMPORT" ] || link_clips
    # only before the first extraction, since an unfinished one has missing outputs
    [ -n "$skip_failed" ] || [ -e "$dataset/embeddings" ] || [ -e "$dataset/flows" ] ||
        stage "check of the clips" "$python" prepare_dataset.py check "${data[@]}"
    videos_stage "embeddings of the frames" embed
    videos_stage "optical flow" draw_flow
    [ -n "$skip_failed" ] || stage "check of embeddings and flow" "$python" prepare_dataset.py check "${data[@]}"
    for protocol in $PROTOCOLS; do
        for run in $(students_of "$protocol"); do
            stage "the $run, $protocol" learn "$protocol" "$run"
            videos_stage "embeddings of the flow, $run, $protocol" export_motion "$protocol" "$run"
        done
        stage "fusion and its table, $protocol" experiment "$protocol"
        stage "evaluation of the best run, $protocol" evaluate_best "$protocol"
    done
    echo
    echo "Done. Tables: $(for protocol in $PROTOCOLS; do printf '%s ' "TFAM/results/$name/$protocol/table.md"; done)"
    echo "Reports: $(for p in $PROTOCOLS; do printf '%s ' checkpoints/"$name/$p"/TFAM/*/seed*/evaluation/report.html; done)"
}

# --- planning them

estimate_stage() { # estimate_stage NAME NEEDED_FILE FUNCTION...: print a dry run of the stage, or why it can't be estimated
    local stage=$1 needed=$2 output reports code=0
    reports=$(mktemp -d "$scratch/reports/XXXXXX")
    shift 2
    echo
    echo "== $stage"
    if [ ! -e "$needed" ]; then
        not_estimated+=("$stage")
        echo "can't be estimated yet: $needed is missing"
        return
    fi
    output=$("$@" --dry-run --report "$reports/stage" 2>&1) || code=$?
    # exit code 1 with a report: some videos can't be processed
    if [ $code -eq 0 ] || { [ $code -eq 1 ] && all_reports 'report["failed"]' "$reports/stage"; }; then
        echo "$output"
        # no estimate if the model is not downloaded yet
        all_reports 'report["estimate"] or report["pending"] == 0' "$reports"/* || not_estimated+=("$stage")
    else
        not_estimated+=("$stage")
        rm -rf "$reports" # also of runs before the failed one
        echo "can't be estimated yet: $(tail -n 1 <<<"$output")"
    fi
}

plan() { # plan FOLDER: an empty folder for temporary files
    local protocol run scratch=$1 trial="$1/dataset" not_estimated=()
    mkdir "$trial" "$scratch/reports"
    if [ ! -e "$dataset/annotations" ]; then # estimate with temporary annotations
        dataset=$trial data=(--dataset-dir "$trial" --dataset-name ak)
        [ -d "$videos" ] || echo "$videos: no such folder; give the folder of the videos with --videos"
        [ -n "$IMPORT" ] || [ ! -d "$videos" ] || ln -s "$(cd "$videos" && pwd)" "$trial/videos"
        if ! workbooks --output-dir "$trial/annotations" >/dev/null 2>"$1/error"; then
            sed 's/^/annotations: /' "$1/error"
        elif [ -n "$IMPORT" ] && [ -d "$videos" ]; then
            link_clips
        fi
    fi
    estimate_stage "embeddings of the frames" "$dataset/annotations" embed
    estimate_stage "optical flow" "$dataset/videos" draw_flow
    for protocol in $PROTOCOLS; do
        for run in $(students_of "$protocol"); do
            estimate_stage "the $run, $protocol" "$dataset/embeddings/ak_train_clip_embeddings.h5" learn "$protocol" "$run"
            estimate_stage "embeddings of the flow, $run, $protocol" "checkpoints/$name/$protocol/$run/student_best.pth" \
                export_motion "$protocol" "$run"
        done
        estimate_stage "fusion, $protocol" "$(motion_of "$protocol" "$run")" plan_experiment "$protocol"
    done
    echo
    shopt -s nullglob # there may be no report
    "$python" -m vimoclip.runtime.cost_estimate "$scratch"/reports/*/*
    [ ${#not_estimated[@]} -eq 0 ] || printf "not included, as it can't be estimated yet: %s\n" "${not_estimated[@]}"
    echo "Evaluation and tables take some minutes more. The size of the clips is not included."
}

use_python requirements.txt
if [ -z "$plan" ]; then
    reproduce
else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    plan "$scratch" | sed -u "s|$scratch/dataset|$dataset|g"
fi
