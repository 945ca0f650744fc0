"""Fits p = sigmoid(curve(logit of the mean over the passes of sigmoid(a logit1 + b logit2 + c))) on hosts that no network saw, and picks the thresholds.

    python3 train/calibrate.py      writes runs/calibration.json; export.py then puts it into model.json. Needs
                                    a build of tests/volume_spheres.c

What ships is fitted on all of them but the series of split.json's never_train. Beside it lies one fit for each host, made
without that host's copies: every figure of a host comes from that one (leave one host out), so that no figure comes
from data that its thresholds saw.

The weights of a finding's diameter (masks.py) are fitted in the same way.

Implanted copies hold far more nodules than a patient does. The fitted logit is therefore moved to what it would be if a CT
held PREVALENCE of them, so that p means something in a CT without implants.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from scipy import optimize

import crops
import froc
import judge
import masks
import split as splits
from evaluate import as_scan
from scan import LOOSE, Pipeline, bent, calibrated
from trust import sigmoid

PREVALENCE = 2.0          # nodules a CT
OPERATING_FALSE = 1.5     # false positives a CT at the operating point
KNOTS = (-4.0, -2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5, 4.0)      # logits where the curve may bend
BENDING = 1.0             # what a slope other than 1 costs
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


def probability(beta, x):
    """x [N, passes, features] -> the mean over the passes."""
    return sigmoid(x @ beta[:-1] + beta[-1]).mean(1)


def fit_passes(x, y, ridge=1e-2):
    """As fit_logistic, for what is shown: the mean of the passes lies nearer to 1/2 than the pass without dropout, and a
    fit of the latter would make every shown probability too modest. x [N, passes, features]."""
    start = fit_logistic(x.mean(1), y, np.ones(len(y)), ridge)

    def cost(beta):
        p = np.clip(probability(beta, x), 1e-12, 1 - 1e-12)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() + ridge / 2 * (beta[:-1]**2).sum()
    return optimize.minimize(cost, start, method="BFGS").x


def fit_curve(x, y):
    """Points of the monotone curve that makes the logits x true: false marks end where the best of them end, and no logistic
    function has such a step. Its slope costs what it differs from 1."""
    def points(rise):
        return np.cumsum(np.append(rise[0], 0.01 + np.exp(rise[1:])))

    def cost(rise):
        to = points(rise)
        p = np.clip(sigmoid(bent(np.column_stack([KNOTS, to]), x)), 1e-12, 1 - 1e-12)
        return (-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() +
                BENDING * ((np.diff(to) / np.diff(KNOTS) - 1)**2).sum())
    start = np.append(KNOTS[0], np.log(np.diff(KNOTS) - 0.01))
    return np.column_stack([KNOTS, points(optimize.minimize(cost, start, method="BFGS").x)])


def label(mark, scan):
    """1 on a nodule, 0 on nothing, None on what is excluded."""
    if any(froc.within(mark["at"], n) for n in scan["nodules"]):
        return 1
    if any(froc.within(mark["at"], e) for e in scan["excluded"]):
        return None
    return 0


def logit(p):
    return float(np.log(p / (1 - p)))


def features(logit1, passes):
    """[N, passes, 2]: what the sum is made of."""
    return np.stack([np.broadcast_to(logit1[:, None], passes.shape), passes], 2)


def stage_1_cut(copies):
    """The score of stage 1 above which SURVIVORS false marks a copy are handed on."""
    false = np.concatenate([c["logit1"][c["label"] == 0] for c in copies])
    logit_min = np.sort(false)[::-1][min(int(SURVIVORS * len(copies)), len(false) - 1)]
    return float(np.clip(1 / (1 + np.exp(-logit_min)), LOOSE[0], 0.5))


def labelled(pipeline, text, volume, name):
    """The marks of a copy that are handed on above LOOSE, with their truth: what every fit is made of."""
    rows, passes, _, _, mm = pipeline.looked(volume, name, *LOOSE, text["host"])
    scan = as_scan(text, [])
    label_of = [label({"at": row[:3]}, scan) for row in rows]
    true_mm = [next((n[3] for n in scan["nodules"] if froc.within(row[:3], n)), 0.0) for row in rows]
    return {"host": text["host"], "nodules": len(scan["nodules"]), "logit1": rows[:, 4], "passes": passes,
            "label": np.array([-1 if v is None else v for v in label_of]), "true_mm": np.array(true_mm), "mm": mm,
            "sphere_mm": masks.spheres(volume, rows[:, :3], mm)}


def fit(copies):
    """The calibration that these copies give, as model.json holds it."""
    score_min = stage_1_cut(copies)
    kept = [(c["logit1"] >= logit(score_min)) & (c["label"] >= 0) for c in copies]
    x = np.concatenate([features(c["logit1"], c["passes"])[k] for c, k in zip(copies, kept)])
    y = np.concatenate([c["label"][k] for c, k in zip(copies, kept)])
    beta = fit_passes(x, y)
    if min(beta[:2]) < 0:        # one of the two says nothing new: leave it out rather than invert it
        keep = 0 if beta[1] < 0 else 1
        one = fit_passes(x[:, :, keep:keep + 1], y)
        beta = np.array([one[0], 0.0, one[1]] if keep == 0 else [0.0, one[0], one[1]])
    mean = probability(beta, x)
    curve = fit_curve(np.log(mean / (1 - mean)), y)
    nodules, scans = sum(c["nodules"] for c in copies), len(copies)
    curve[:, 1] -= np.log(nodules / (PREVALENCE * scans))       # from the copies' share of nodules to that of a CT
    fitted = {**{k: round(float(v), 4) for k, v in zip("abc", beta)}, "curve": curve.round(4).tolist()}
    p = calibrated(fitted, x[:, 0, 0], x[:, :, 1]).mean(1)
    mm, sphere_mm, true_mm = (np.concatenate([c[of][k] for c, k in zip(copies, kept)])[y == 1]
                              for of in ("mm", "sphere_mm", "true_mm"))
    false = np.sort(p[y == 0])[::-1]
    operating = float(false[min(int(OPERATING_FALSE * scans), len(false) - 1)])
    found = float((p[y == 1] > operating).sum() / nodules)
    return {"calibration": fitted, "diameter": masks.fit(mm, sphere_mm, true_mm),
            "operating_point": round(operating, 3), "score_min": round(score_min, 4), "candidates_max": 40}, found


def fits(copies, never):
    """What ships, made of all copies but those of the hosts `never`, with "left_out": the same without each host; and the
    sensitivity at the operating point."""
    usable = [c for c in copies if c["host"] not in never]
    out, found = fit(usable)
    out["left_out"] = {host: fit([c for c in usable if c["host"] != host])[0] for host in sorted({c["host"] for c in copies})}
    return out, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--judges", default=str(judge.FOLDER))
    args = parser.parse_args()
    pipeline, split = Pipeline(args.models, args.cache, None, args.judges), splits.load()
    plain = crops.Plain(args.cache, pipeline.parts())
    copies = [labelled(pipeline, text, np.array(volume), name)
              for volume, text, name in zip(plain.volumes, plain.texts, plain.names)]
    out, found = fits(copies, splits.never_fitted(split))
    (Path(args.runs) / "calibration.json").write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out), f"{sum(c['nodules'] for c in copies)} nodules in {len(copies)} copies; sensitivity at the "
          f"operating point, among what it was fitted on: {found:.3f}")


if __name__ == "__main__":
    main()
