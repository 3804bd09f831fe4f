"""Measures of label sets, shares of raters, and points on a plane, as scikit-learn and scipy compute them.

Label sets are (n, labels) of 0 and 1, with probabilities of which those from 0.5 on predict a label; shares
are (n, classes) that sum to 1.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

THRESHOLD = 0.5
_LEAST = 1e-6  # of a predicted share, so that no divergence is infinite


def chosen(probabilities: np.ndarray) -> np.ndarray:
    """Return the predicted labels as 0 and 1."""
    return np.asarray(probabilities >= THRESHOLD).astype(int)


def micro_f1(flags: np.ndarray, probabilities: np.ndarray) -> float:
    """Return F1 over all pairs of an image and a label."""
    return float(f1_score(flags, chosen(probabilities), average="micro", zero_division=0))


def probability_rmse(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the root mean squared error over all images and labels, the root of the Brier score."""
    return float(np.sqrt(np.mean((true - probabilities) ** 2)))


def sets_macro_f1(flags: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean over the labels of F1; 0 for a label that neither occurs nor is predicted."""
    return float(f1_score(flags, chosen(probabilities), average="macro", zero_division=0))


def mean_average_precision(flags: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean average precision over the labels that occur; NaN if none does."""
    occurs = flags.any(0)
    if not occurs.any():
        return float("nan")
    return float(average_precision_score(flags[:, occurs], probabilities[:, occurs], average="macro"))


def exact_match(flags: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of images whose whole set is right."""
    return float((flags == chosen(probabilities)).all(1).mean())


def per_label(flags: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> list[dict[str, object]]:
    """Return by label its images, precision, recall, F1 and average precision (None if it does not occur)."""
    found = precision_recall_fscore_support(flags, chosen(probabilities), average=None, zero_division=0)
    rows = zip(labels, *(values.tolist() for values in found), strict=True)
    return [
        {
            "label": label,
            "n": int(n),
            "n_predicted": int(chosen(probabilities)[:, column].sum()),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "average_precision": float(average_precision_score(flags[:, column], probabilities[:, column]))
            if n
            else None,
        }
        for column, (label, precision, recall, f1, n) in enumerate(rows)
    ]


def auc_above_chance(flags: np.ndarray, probabilities: np.ndarray) -> float:
    """Return 2 AUC - 1, averaged over the labels that some images have and others lack."""
    flags = np.asarray(flags, bool)
    varies = flags.any(0) & ~flags.all(0)
    if not varies.any():
        return float("nan")
    flags, ranks = flags[:, varies], rankdata(probabilities[:, varies], axis=0)
    n = flags.sum(0)
    auc = ((ranks * flags).sum(0) - n * (n + 1) / 2) / (n * (len(flags) - n))  # Mann and Whitney's U
    return float(2 * auc.mean() - 1)


def r2(values: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 - squared error / that of the means, both over all columns; NaN if no column varies."""
    total = float(((values - values.mean(0)) ** 2).sum())
    return 1 - float(((values - predicted) ** 2).sum()) / total if total > 0 else float("nan")


def kl_divergences(shares: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return KL(shares ‖ predicted) per image, in nats; predicted shares below 1e-6 count as 1e-6."""
    floored = np.maximum(predicted, _LEAST)
    return np.asarray(rel_entr(shares, floored / floored.sum(1, keepdims=True)).sum(1))


def kl(shares: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence, in nats."""
    return float(kl_divergences(shares, predicted).mean())


def js(shares: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean Jensen-Shannon divergence, in bits: 0 to 1."""
    return float(np.mean(jensenshannon(shares, predicted, base=2, axis=1) ** 2))


def emd(shares: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean earth mover's distance over the order of the columns; neighbours are 1 apart."""
    return float(np.abs(np.cumsum(shares - predicted, axis=1)[:, :-1]).sum(1).mean())


def top_class(shares: np.ndarray, predicted: np.ndarray) -> float:
    """Return how often the class with the largest predicted share is one of those with the largest share."""
    best = predicted.argmax(1)
    return float((shares[np.arange(len(shares)), best] >= shares.max(1)).mean())


def plane_distances(points: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each point from its prediction."""
    return np.asarray(np.sqrt(((points - predicted) ** 2).sum(1)))


def plane_distance(points: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean Euclidean distance."""
    return float(plane_distances(points, predicted).mean())
