"""Names and explanations of the metrics, for terminal, report and tables."""

from typing import NamedTuple


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
    "f1_macro_at_0.5": MetricName("F1, macro, at 0.5", "mean over classes; predicted is what scores 0.5 or more"),
    "f1_micro_at_0.5": MetricName("F1, micro, at 0.5", "over all pairs, pooled"),
    "f1_macro_at_fitted_thresholds": MetricName(
        "F1, macro, fitted", "at a threshold a class, fitted on the selection clips"
    ),
    "f1_micro_at_fitted_thresholds": MetricName("F1, micro, fitted", "at the same thresholds, pooled"),
    "hit_at_1": MetricName("hit@1", "share of clips whose highest score is one of their labels"),
    "precision_at_3": MetricName("precision@3", "share of labels among a clip's 3 highest scores"),
    "precision_at_5": MetricName("precision@5", "share of labels among a clip's 5 highest scores"),
    "top1": MetricName("Top-1 accuracy", "share of clips whose highest score is their label"),
    "mean_per_class_top1": MetricName("Top-1 accuracy, mean over classes", "each class counts alike"),
    "ece": MetricName(
        "Expected calibration error", "how far scores are from the share of positives, on average; less is better"
    ),
}
