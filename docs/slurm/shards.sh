#!/usr/bin/env bash
# One of the three extraction scripts as a Slurm job array, a GPU a task, from the repository's folder:
#     sbatch --array=1-8 docs/slurm/shards.sh extract_embeddings.py --split train
# Each task does its share; the one that ends last puts the file together. A task that was stopped is queued again and
# goes on where it was. One of them alone once more:
#     SHARDS=8 sbatch --array=3 docs/slurm/shards.sh extract_embeddings.py --split train
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=1-00:00
#SBATCH --requeue
#SBATCH --output=logs/%x-%A-%a.out
set -euo pipefail

script=${1:?"the script to run, like extract_embeddings.py"}
shift
exec "${PYTHON:-python}" "$script" --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}" --num-workers 8 "$@"
