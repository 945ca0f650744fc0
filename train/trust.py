"""Statistics of trust, with bootstrap intervals over scans: calibration error, AUROC, rejection.

`pulmo evaluate` computes the same in C (evaluation/); test_trust.py compares them by hand-worked cases.
"""
import numpy as np

BINS = 15
ROUNDS = 1000


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def ece(p, y, weight=None):
    """Expected calibration error in 15 bins of equal width."""
    weight = np.ones(len(p)) if weight is None else weight
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, weight * (y - p), BINS)
    return float(np.abs(gap).sum() / max(weight.sum(), 1e-12))


def bins_of(p, y):
    """[low, candidates, nodules, mean p] of every bin."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    return [[round(b / BINS, 4), int((bins == b).sum()), int(y[bins == b].sum()),
             round(float(p[bins == b].mean()), 4) if (bins == b).any() else None] for b in range(BINS)]


def ece_by_chance(p, rounds=ROUNDS, seed=0):
    """What ECE these probabilities would have if every one of them were true: mean, 95th percentile."""
    rng = np.random.default_rng(seed)
    drawn = [ece(p, (rng.random(len(p)) < p).astype(float)) for _ in range(rounds)]
    return [round(float(np.mean(drawn)), 4), round(float(np.percentile(drawn, 95)), 4)]


def auroc(uncertainty, wrong, weight=None):
    """The probability that a wrong decision is the more uncertain one; ties count half. NaN without both."""
    weight = np.ones(len(wrong)) if weight is None else weight
    order = np.argsort(uncertainty, kind="stable")
    u, w, bad = uncertainty[order], weight[order], wrong[order]
    edge = np.flatnonzero(np.append(True, u[1:] != u[:-1]))
    right = np.add.reduceat(w * ~bad, edge)
    wrongs = np.add.reduceat(w * bad, edge)
    total = right.sum() * wrongs.sum()
    below = np.cumsum(right) - right
    return float((wrongs * (below + right / 2)).sum() / total) if total > 0 else float("nan")


def resamples(scan, rounds=ROUNDS, seed=0):
    """Weights of the rows when whole scans are drawn with replacement."""
    rng = np.random.default_rng(seed)
    names, index = np.unique(scan, return_inverse=True)
    for _ in range(rounds):
        yield np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[index].astype(float)


def interval(values):
    values = np.array(values)
    values = values[np.isfinite(values)]
    return [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])] if len(values) else [None, None]


def compare(measures, wrong, scan, baseline, rounds=ROUNDS):
    """Of each measure: AUROC for being wrong, its interval, and its gain over the baseline with interval."""
    weights = list(resamples(scan, rounds))
    base = np.array([auroc(measures[baseline], wrong, w) for w in weights])
    out = {}
    for name, values in measures.items():
        point = auroc(values, wrong)
        drawn = np.array([auroc(values, wrong, w) for w in weights])
        out[name] = {"auroc": round(point, 4), "interval": interval(drawn),
                     "gain": round(point - auroc(measures[baseline], wrong), 4),
                     "gain_interval": interval(drawn - base)}
    return out


def rejection(uncertainty, wrong):
    """[share rejected, kept, right] from 0 to 95 %, most uncertain first."""
    order = np.argsort(uncertainty, kind="stable")
    kept = [len(wrong) - len(wrong) * step // 20 for step in range(20)]
    return [[step / 20, k, int((~wrong[order][:k]).sum())] for step, k in enumerate(kept)]
