"""Fits p = sigmoid(a logit1 + b logit2 + c) on the validation hosts and picks the thresholds.

    python3 train/calibrate.py      writes runs/calibration.json; export.py then puts it into model.json

Implanted copies hold far more nodules than a patient does. Nodules are therefore weighted as if a CT
held PREVALENCE of them, so that p means something in a CT without implants.
"""
import argparse
import json
from pathlib import Path

import numpy as np

import crops
import froc
import split as splits
from evaluate import as_scan
from scan import LOOSE, Pipeline

PREVALENCE = 2.0          # nodules a CT
OPERATING_FALSE = 1.5     # false positives a CT at the operating point
SURVIVORS = 18.0          # marks a copy that stage 1 hands on, nodules not counted


def fit_logistic(x, y, weight, ridge=1e-2, rounds=50):
    """Newton's method; a tiny ridge on a and b keeps separable data finite."""
    x = np.column_stack([x, np.ones(len(x))])
    beta = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x @ beta))
        penalty = ridge * np.append(np.ones(x.shape[1] - 1), 0)
        gradient = x.T @ (weight * (y - p)) - penalty * beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
        beta += np.clip(np.linalg.solve(hessian, gradient), -2, 2)
    return beta


def label(mark, scan):
    """1 on a nodule, 0 on nothing, None on what is excluded."""
    if any(froc.within(mark["at"], n) for n in scan["nodules"]):
        return 1
    if any(froc.within(mark["at"], e) for e in scan["excluded"]):
        return None
    return 0


def stage_1_cut(pipeline, copies):
    """The score of stage 1 above which SURVIVORS false marks a copy are handed on."""
    false = []
    for volume, text, name in zip(copies.volumes, copies.texts, copies.by_name):
        marks = [{"at": r[:3].tolist(), "logit1": r[4]}
                 for r in pipeline.rows(np.array(volume), f"validation-plain-{name}")]
        scan = as_scan(text, marks, "logit1")
        false += [m["logit1"] for m in marks if label(m, scan) == 0]
    logit_min = np.sort(false)[::-1][min(int(SURVIVORS * len(copies.volumes)), len(false) - 1)]
    return float(np.clip(1 / (1 + np.exp(-logit_min)), LOOSE[0], 0.5))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    args = parser.parse_args()
    pipeline = Pipeline(args.models, args.cache)
    copies = crops.Copies(Path(args.cache) / "validation-plain")
    scans = len(copies.volumes)
    score_min = stage_1_cut(pipeline, copies)
    rows, nodules = [], 0
    for volume, text, name in zip(copies.volumes, copies.texts, copies.by_name):
        marks = pipeline.marks(np.array(volume), f"validation-plain-{name}", score_min, LOOSE[1])
        scan = as_scan(text, marks)
        nodules += len(scan["nodules"])
        for mark in marks:
            y = label(mark, scan)
            if y is not None:
                rows.append((mark["logit1"], mark["logit2"], y))
        print(text["host"], len(marks), "marks", flush=True)
    rows = np.array(rows)
    weight = np.where(rows[:, 2] == 1, PREVALENCE * scans / nodules, 1.0)
    a, b, c = fit_logistic(rows[:, :2], rows[:, 2], weight)
    if a < 0 or b < 0:        # one of the two says nothing new: leave it out rather than invert it
        keep = 0 if b < 0 else 1
        one = fit_logistic(rows[:, keep:keep + 1], rows[:, 2], weight)
        a, b, c = (one[0], 0.0, one[1]) if keep == 0 else (0.0, one[0], one[1])
    p = 1 / (1 + np.exp(-(a * rows[:, 0] + b * rows[:, 1] + c)))
    false = np.sort(p[rows[:, 2] == 0])[::-1]
    operating = float(false[min(int(OPERATING_FALSE * scans), len(false) - 1)])
    found = float((p[rows[:, 2] == 1] > operating).sum() / nodules)
    out = {"calibration": {"a": round(float(a), 4), "b": round(float(b), 4), "c": round(float(c), 4)},
           "operating_point": round(operating, 3), "score_min": round(score_min, 4),
           "candidates_max": 40}
    (Path(args.runs) / "calibration.json").write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out), f"validation: {nodules} nodules in {scans} copies, sensitivity at the "
          f"operating point {found:.3f}")
    np.save(Path(args.runs) / "calibration-rows.npy", rows)


if __name__ == "__main__":
    main()
