#!/usr/bin/env bash
# Runs one of the three extraction scripts as a Slurm job array with one GPU per task. From the repository's folder:
#     sbatch --array=1-8 docs/slurm/shards.sh extract_embeddings.py --split train
# Each task processes its shard. The last task to finish merges the shards into one file. An interrupted task is queued
# again and resumes. To run a single shard again:
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
