"""Names and explanations of the metrics, for terminal, report and tables."""

from typing import NamedTuple

ROUNDING = 1e-9  # of sums in float64


class MetricName(NamedTuple):
    """`description`: what the metric is; a format string, `{classes}` for the classes that count."""

    label: str
    description: str


# by key of metrics.json
METRIC_NAMES = {
    "map_macro": MetricName(
        "Mean average precision, macro", "mean of the average precision of the {classes} that have a positive"
    ),
    "map_micro": MetricName(
        "Mean average precision, micro", "average precision over all pairs of clip and class, pooled"
    ),
    "f1_macro_at_0.5": MetricName("F1, macro, at 0.5", "mean over classes, at threshold 0.5"),
    "f1_micro_at_0.5": MetricName("F1, micro, at 0.5", "all pairs of clip and class pooled, at threshold 0.5"),
    "f1_macro_at_fitted_thresholds": MetricName(
        "F1, macro, fitted", "mean over classes, at one threshold per class, fitted on the model-selection split"
    ),
    "f1_micro_at_fitted_thresholds": MetricName(
        "F1, micro, fitted", "all pairs of clip and class pooled, at the same thresholds"
    ),
    "hit_at_1": MetricName("hit@1", "fraction of clips whose highest score is one of their labels"),
    "precision_at_3": MetricName("precision@3", "fraction of labels among the 3 highest scores of a clip"),
    "precision_at_5": MetricName("precision@5", "fraction of labels among the 5 highest scores of a clip"),
    "top1": MetricName("Top-1 accuracy", "fraction of clips whose highest score is their label"),
    "mean_per_class_top1": MetricName(
        "Top-1 accuracy, mean over classes", "mean over classes of the accuracy on their clips"
    ),
    "ece": MetricName(
        "Expected calibration error", "mean distance between score and fraction of positives; lower is better"
    ),
    "log_loss": MetricName("Log loss", "mean over all pairs of clip and class, in nats; lower is better"),
}


def format_fraction(value: float, digits: int = 4) -> str:
    """Return a value from 0 to 1; one that differs from 0 or 1 by more than rounding is not rounded to it: >0.9999."""
    text, step = f"{value:.{digits}f}", 10.0**-digits
    if float(text) == 1 and value < 1 - ROUNDING:
        return f">{1 - step:.{digits}f}"
    return f"<{step:.{digits}f}" if float(text) == 0 and value > ROUNDING else text
