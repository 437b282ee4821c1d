"""Fit of a linear probe: a logistic regression for each class, by scikit-learn, and the choice of its C."""

import itertools
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from TFAM.data import PairedEmbeddings
from TFAM.loops import NON_FINITE_HINT
from TFAM.probes import LinearProbe, stream_means
from vimoclip import cli
from vimoclip.metrics import map_micro
from vimoclip.metrics.score_calibration import log_losses
from vimoclip.runtime import cost_estimate
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import checkpoint
from vimoclip.training.data_parallel import make_loader, sequential_batches
from vimoclip.training.dry_run import total_rate
from vimoclip.training.losses import check_finite
from vimoclip.training.trainer import RunOptions

# Inverse strengths of the L2 penalty, in scikit-learn's scale: C times the loss, summed over the training clips
GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Large values take most of the time. map_micro rises and then falls with C, but on few clips one fall may be by chance.
MAX_FALLS = 3
MAX_ITERATIONS = 1000  # 240 were needed on 24,000 clips


class MeanEmbeddings(NamedTuple):
    """Mean embeddings of N videos, those of all used streams side by side: (N, F) float32; labels (N, C) bool."""

    x: np.ndarray
    labels: np.ndarray


class LinearModel(NamedTuple):
    """Weights (C, F) and intercepts (C,) of C classes."""

    weight: np.ndarray
    intercept: np.ndarray

    def evaluate(self, x: np.ndarray, labels: np.ndarray) -> "SelectionScore":
        """Return what C is selected by, of (N, F) features and (N, C) labels."""
        scores = torch.from_numpy(x @ self.weight.T + self.intercept).sigmoid()
        negative_log_loss = -float(log_losses(scores.double().numpy(), labels).mean())
        return SelectionScore(map_micro(scores.float(), torch.from_numpy(labels)), negative_log_loss)


class SelectionScore(NamedTuple):
    """Average precision over all (video, class) pairs; the log loss decides between equals.

    On a few clips many C may have the same precision. The smallest of them would give scores that hardly differ."""

    map_micro: float
    negative_log_loss: float


class LinearProbeFit:
    """Run of a linear probe, where other models have a FusionTrainer. An interrupted fit starts again.

    C is one for all classes: that of the highest map_micro on the monitor split, of equals that of the lowest log loss.
    The search ends after MAX_FALLS falls in a row. The processes of a group share the classes."""

    last_step = 0  # on TensorBoard's axis

    def __init__(self, metadata: Mapping[str, Any], splits: Mapping[str, PairedEmbeddings], run: RunOptions):
        self.metadata, self.run, self.seconds = metadata, run, 0.0
        (monitor_split,) = splits.keys() - {"train"}
        self.train_set, self.monitor_set = splits["train"], splits[monitor_split]
        model = metadata["config"]["model"]
        self.model = LinearProbe(model["d_model"], model["num_classes"], model["fusion"])

    def train(self) -> None:
        """Fit the probe, and write best_model.pth. Raises UserError, TrainingError."""
        started, run = time.monotonic(), self.run
        train, monitor = self.read_means(self.train_set), self.read_means(self.monitor_set)
        scaler = StandardScaler()
        x, monitor_x = scaler.fit_transform(train.x), scaler.transform(monitor.x)
        models, scores = {}, {}
        with closing(fit_path(x, train.labels, GRID, run)) as path:
            for c, model in cli.progress(path, len(GRID), "value of C", "fitting") if run.group.is_main else path:
                models[c], scores[c] = model, model.evaluate(monitor_x, monitor.labels)
                if falls_at_end([score.map_micro for score in scores.values()]) >= MAX_FALLS:
                    break
        best = max(scores, key=scores.__getitem__)
        load_linear_model(self.model, models[best], scaler)
        self.seconds = time.monotonic() - started
        print(
            f"{run.folder}: C {best:g}, map_micro {scores[best].map_micro:.4f} on the clips that select it", flush=True
        )
        if run.group.is_main:
            content = {
                "state_dict": self.model.state_dict(),
                **self.metadata,
                "epoch": None,
                "metrics": {"map_micro": scores[best].map_micro},
                "regularisation": {
                    "C": best,
                    "map_micro": {f"{c:g}": score.map_micro for c, score in scores.items()},
                    "log_loss": {f"{c:g}": -score.negative_log_loss for c, score in scores.items()},
                },
            }
            checkpoint.save_checkpoint(run.folder / "best_model.pth", content)

    def read_means(self, dataset: PairedEmbeddings) -> MeanEmbeddings:
        """Read all videos, a few at a time. Raises UserError, TrainingError."""
        batches = list(self._read_batches(dataset))
        return MeanEmbeddings(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))

    def _read_batches(self, dataset: PairedEmbeddings) -> Iterator[MeanEmbeddings]:
        run, size = self.run, self.metadata["config"]["training"]["batch_size"]
        indices = sequential_batches(len(dataset), size, ProcessGroup())  # each process needs all
        loader: Iterable[Any] = make_loader(dataset, indices, run.num_workers, torch.device("cpu"))
        if run.group.is_main:
            loader = cli.progress(loader, len(indices), "step", "averaging embeddings")
        for batch in loader:
            means = stream_means(self.model.fusion, batch.rgb, batch.motion).flatten(1)
            check_finite(means, "the mean embedding", batch.videos, NON_FINITE_HINT)
            yield MeanEmbeddings(means.numpy(), batch.labels.numpy() > 0)

    def report(self, left_out: Mapping[str, str]) -> cli.RunReport:
        """Return the result of `train`; `left_out`: video -> reason."""
        return cli.RunReport([self.run.folder], done=1, skipped=dict(left_out), unit="run")

    def dry_run(self, left_out: Mapping[str, str]) -> cli.RunReport:
        """Print the estimated cost; write nothing. Time of fits is that of one class, on random features."""
        num_train, num_monitor = len(self.train_set), len(self.monitor_set)
        print(
            f"{self.run.folder}: a linear probe of the mean embeddings of {num_train} videos, whose C is chosen on "
            f"{num_monitor}; nothing was written"
        )
        videos = num_train + 2 * num_monitor  # the evaluation split is about as large
        read = total_rate((float(len(batch.x)) for batch in self._read_batches(self.train_set)), self.run.group)
        shape, num_classes = (max(2, num_train), self.model.center.numel()), self.model.classifier.out_features
        seconds = fit_seconds(shape) * num_classes * len(GRID) / max(1, self.run.num_workers)
        rate = videos / (videos / read + seconds) if read else None
        disk = sum(parameter.numel() * 4 for parameter in self.model.parameters())
        estimate = cost_estimate.estimate_cost(videos, "video", rate, disk)
        print(estimate)
        return cli.RunReport(pending=1, skipped=dict(left_out), estimate=estimate, unit="run")


def falls_at_end(values: Sequence[float]) -> int:
    """Return how many of the last values are each below the one before."""
    is_fall = [later < earlier for earlier, later in itertools.pairwise(values)]
    return len(list(itertools.takewhile(bool, reversed(is_fall))))


def fit_path(
    x: np.ndarray, labels: np.ndarray, grid: Sequence[float], run: RunOptions
) -> Generator[tuple[float, LinearModel], None, None]:
    """Yield (C, model) for rising C, each fit from the one before. Threads share the classes of this process.

    x: (N, F); labels: (N, C). A class that all or none of the videos have gets weights of 0."""
    positives = labels.sum(0)
    constant = np.log((positives + 1) / (len(labels) - positives + 1))  # log odds with one clip more of either kind
    varying = np.flatnonzero((positives > 0) & (positives < len(labels)))
    own = varying[run.group.rank :: run.group.size]
    regressions = {c: LogisticRegression(warm_start=True, max_iter=MAX_ITERATIONS) for c in own}

    def fit(c: int) -> tuple[int, np.ndarray, float]:
        regression = regressions[c].fit(x, labels[:, c])
        return c, regression.coef_[0], float(regression.intercept_[0])

    # a thread for each class, not several that wait for each other within one product of a matrix with a vector
    with ThreadPoolExecutor(max(1, run.num_workers)) as pool, threadpool_limits(1, user_api="blas"):
        for value in grid:
            for regression in regressions.values():
                regression.C = value
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # counted below
                fitted = list(pool.map(fit, own))
            unfinished = sum(int(regression.n_iter_[0]) >= MAX_ITERATIONS for regression in regressions.values())
            if unfinished:
                print(f"note: C {value:g}: {unfinished} classes did not converge in {MAX_ITERATIONS} iterations")
            weight, intercept = np.zeros((len(positives), x.shape[1])), constant.copy()
            for c, coefficients, bias in itertools.chain.from_iterable(run.group.gather(fitted)):
                weight[c], intercept[c] = coefficients, bias
            yield value, LinearModel(weight, intercept)


def load_linear_model(probe: LinearProbe, model: LinearModel, scaler: StandardScaler) -> None:
    """Set the parameters of a probe to those of a model of standardised features."""
    state = {
        "center": scaler.mean_.reshape(probe.center.shape),
        "classifier.weight": model.weight / scaler.scale_,
        "classifier.bias": model.intercept,
    }
    probe.load_state_dict({name: torch.from_numpy(values).float() for name, values in state.items()})


def fit_seconds(shape: tuple[int, int]) -> float:
    """Return the time of one fit of random features of this shape (N, F)."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape, np.float32)
    is_positive = np.arange(len(x)) % 10 == 0
    started = time.monotonic()
    with threadpool_limits(1, user_api="blas"):
        LogisticRegression(C=GRID[len(GRID) // 2], max_iter=MAX_ITERATIONS).fit(x, is_positive)
    return time.monotonic() - started
