"""The LUNA16 score: FROC at 1/8 … 8 false positives a scan, their mean (CPM), bootstrap over scans.

A scan is {"marks": [[z, y, x, score], …], "nodules": [[z, y, x, mm], …], "excluded": [[z, y, x, mm], …]}.
Excluded findings have a diameter < 0 where it is unknown: it counts as 10 mm.
"""
import numpy as np

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def within(mark, finding):
    size = finding[3] if finding[3] > 0 else 10.0
    return np.linalg.norm(np.subtract(mark[:3], finding[:3])) < size / 2


def judge(scan):
    """([best score per nodule or -inf], [scores of false positives])."""
    best = [-np.inf] * len(scan["nodules"])
    false = []
    for mark in scan["marks"]:
        hits = [n for n, nodule in enumerate(scan["nodules"]) if within(mark, nodule)]
        for n in hits:
            best[n] = max(best[n], mark[3])
        if not hits and not any(within(mark, e) for e in scan["excluded"]):
            false.append(mark[3])
    return best, false


def sensitivities(judged):
    """Sensitivity at RATES; the threshold falls until the false positives reach the rate."""
    best = np.array([s for b, _ in judged for s in b])
    false = np.sort(np.array([s for _, f in judged for s in f]))[::-1]
    out = []
    for rate in RATES:
        allowed = int(np.floor(rate * len(judged)))
        threshold = false[allowed] if allowed < len(false) else -np.inf
        out.append(float(((best > threshold) & np.isfinite(best)).mean()) if len(best) else 0.0)
    return out


def froc(scans, rounds=1000, seed=0):
    judged = [judge(s) for s in scans]
    rng = np.random.default_rng(seed)
    samples = np.array([sensitivities([judged[i] for i in rng.integers(0, len(judged), len(judged))])
                        for _ in range(rounds)])
    point = sensitivities(judged)
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    means = np.percentile(samples.mean(1), [2.5, 97.5])
    return {"scans": len(scans), "nodules": sum(len(s["nodules"]) for s in scans),
            "false_positives": sum(len(f) for _, f in judged),
            "sensitivity": dict(zip(map(str, RATES), np.round(point, 3).tolist())),
            "interval": {str(r): [round(float(a), 3), round(float(b), 3)]
                         for r, a, b in zip(RATES, low, high)},
            "cpm": round(float(np.mean(point)), 3),
            "cpm_interval": np.round(means, 3).tolist()}
