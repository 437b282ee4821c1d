#!/usr/bin/env bash
# Training over nodes, a process a GPU, from the repository's folder:
#     sbatch --nodes=2 docs/slurm/training.sh train.py --run-name first --batch-size 4
#     sbatch --nodes=1 docs/slurm/training.sh -m TFAM.train_and_eval --config cross_attention
# The same command goes on where a stopped run was, with as many nodes as there are then. The extraction scripts run so
# too. --batch-size is of each process: 2 nodes of 4 GPUs with 4 are one process with 32.
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --time=1-00:00
#SBATCH --requeue
#SBATCH --output=logs/%x-%j.out
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 4))
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 4 --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$first:29500" "$@"
