"""How far the probabilities and uncertainties of the shipped models can be trusted, on hosts never trained on.

    python3 train/uncertainty_study.py [--write-review]     writes runs/uncertainty.json and runs/marks/*.csv

Everything is judged over candidates above the threshold of 8 false positives a scan. What is fitted or chosen for a host
(calibration, thresholds, that of the triage rule) is so on the other hosts. --write-review puts the triage rule, its
threshold from all hosts but those of never_train, with the error rate so measured into models/model.json.

An implanted copy holds six times the nodules that the shipped calibration assumes (calibrate.PREVALENCE a CT). The
probabilities are therefore moved to the copies' share of nodules: logit + ln(nodules / assumed nodules).
"""
import argparse
import csv
import itertools
import json
from pathlib import Path

import numpy as np
import torch

import calibrate
import crops
import decode
import froc
import judge
import split as splits
import trust
from evaluate import as_scan
from passes import PLACES
from scan import Pipeline, calibrated

FALSE_A_SCAN = 8
RATES = (0.05, 0.1, 0.2, 0.3, 0.5)
PASSES = (5, 10, 20, 30, 50, 100)
REVIEWED = 0.2            # share of the reported findings that disagreement alone may send to review


# ---- candidates ------------------------------------------------------------------------------------------

def verdicts(scan):
    """Of every mark: 1 the best on a nodule, 0 a false positive, -1 neither (a further mark, an excluded finding)."""
    out = np.zeros(len(scan["marks"]), int)
    for excluded in scan["excluded"]:
        out[[froc.within(m, excluded) for m in scan["marks"]]] = -1
    hits = [np.flatnonzero([froc.within(m, n) for m in scan["marks"]]) for n in scan["nodules"]]
    for hit in hits:
        out[hit] = -1
    for hit in hits:
        if len(hit):
            out[max(hit, key=lambda i: scan["marks"][i][3])] = 1
    return out


class Marks:
    """The marks of all copies, each judged by its host's own fit, with what the passes need of them."""

    def __init__(self, pipeline, cache):
        self.copies = crops.Plain(cache, pipeline.parts())
        self.model, self.seen = pipeline.text, pipeline.flips
        self.passes = {host: pipeline.graphs_of(host).stage for host in {t["host"] for t in self.copies.texts}}
        self.marks, self.scan, self.label, self.carried, self.flips = [], [], [], [], []
        self.host, self.point, self.fits, self.nodules = [], [], {}, 0
        for number, (volume, text, name) in enumerate(zip(self.copies.volumes, self.copies.texts, self.copies.names)):
            volume, host = np.array(volume), text["host"]
            marks = pipeline.marks(volume, name, host=host)
            scan, fit = as_scan(text, marks), pipeline.thresholds(host)
            self.nodules += len(scan["nodules"])
            self.label += verdicts(scan).tolist()
            self.scan += [number] * len(marks)
            self.host += [host] * len(marks)
            self.fits[host] = fit["calibration"]
            self.point += [fit["operating_point"]] * len(marks)
            self.marks += marks
            self.trunks(volume, marks, self.passes[host])
            print(host, len(marks), "marks", flush=True)
        self.label, self.scan, self.host = np.array(self.label), np.array(self.scan), np.array(self.host)
        self.point = np.array(self.point)
        self.logit1 = np.array([m["logit1"] for m in self.marks])
        self.flips = np.concatenate(self.flips)

    def trunks(self, volume, marks, passes):
        """What the passes need of a copy's marks, and the logits of all mirror images without dropout."""
        if not marks:
            return
        rows = np.array([m["at"] for m in marks])
        crop = torch.from_numpy(decode.crops40(volume.astype(np.float32) / 255, rows))
        with torch.no_grad():
            views = [passes.trunk(decode.mirrored(crop, n)) for n in range(len(decode.FLIPS))]
            self.carried.append((passes, views[:self.seen]))
            self.flips.append(torch.cat([passes.tail(view)["logit"] for view in views], 1).numpy())

    def logits(self, rates, count, seed=1):
        ratio = self.model["candidate"]["dropout"]
        return torch.cat([passes.logits(views, rates, ratio, count, 1000 * seed + number)
                          for number, (passes, views) in enumerate(self.carried)]).numpy().astype(float)

    def probability(self, logit2, shift=0.0):
        """Calibrated; logit2 [N] or [N, passes]."""
        out = np.empty(logit2.shape)
        for host, fit in self.fits.items():
            rows = self.host == host
            out[rows] = calibrated(fit, self.logit1[rows], logit2[rows], shift)
        return out

    def select(self, p):
        """Rows that are candidates: judged, and above the threshold of 8 false positives a scan."""
        false = np.sort(p[self.label == 0])[::-1]
        allowed = FALSE_A_SCAN * len(self.copies.volumes)
        threshold = false[allowed] if allowed < len(false) else -np.inf
        return (self.label >= 0) & (p > threshold)


# ---- measures --------------------------------------------------------------------------------------------

def entropy(p):
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


def spread(logits, calibrated):
    """The engine's measures of passes (uncertainty/uncertainty.c): entropies from uncalibrated passes."""
    raw = trust.sigmoid(logits)
    low, high = np.percentile(calibrated, [5, 95], axis=1)
    total = entropy(raw.mean(1))
    return {"mutual information": np.maximum(0, total - entropy(raw).mean(1)),
            "predictive entropy": total, "interval width": high - low, "variance": calibrated.var(1)}


BASELINE = "1 - max probability, without dropout"


def study_measures(part, keep, wrong, shift, plain):
    """The shipped passes (all places, the graph's rate) and the flips against the baseline."""
    rate = part.model["candidate"]["dropout"]
    logits = part.logits((rate,) * 3, part.model["passes"])
    calibrated = part.probability(logits, shift)
    mean = calibrated.mean(1)
    flipped = part.probability(part.flips, shift)
    once = part.probability(part.flips[:, 0], shift)
    measures = {BASELINE: np.minimum(plain, 1 - plain),
                "1 - max probability, the crop as it lies, without dropout": np.minimum(once, 1 - once),
                "1 - max probability, mean of the passes": np.minimum(mean, 1 - mean),
                **spread(logits, calibrated),
                "8 flips: 1 - max of the mean": np.minimum(flipped.mean(1), 1 - flipped.mean(1)),
                "8 flips: variance": flipped.var(1),
                "8 flips: mutual information": spread(part.flips, flipped)["mutual information"]}
    measures = {name: values[keep] for name, values in measures.items()}
    return measures, logits, mean


def places_grid(part, keep, wrong, shift):
    """AUROC of the mutual information and of the variance, by place of dropout and rate."""
    rows = []
    for count in (1, 2, 3):
        for places in itertools.combinations(range(3), count):
            for rate in RATES:
                rates = [rate if i in places else 0.0 for i in range(3)]
                logits = part.logits(rates, part.model["passes"])
                got = spread(logits, part.probability(logits, shift))
                rows.append({"places": [PLACES[i] for i in places], "rate": rate,
                             **{name: round(trust.auroc(got[name][keep], wrong), 4)
                                for name in ("mutual information", "variance")}})
    return rows


def passes_grid(part, keep, wrong, shift):
    """AUROC by number of passes, with the spread over five seeds of the masks."""
    rate = part.model["candidate"]["dropout"]
    rows = []
    for count in PASSES:
        got = []
        for seed in range(1, 6):
            logits = part.logits((rate,) * 3, count, seed)
            values = spread(logits, part.probability(logits, shift))
            got.append([trust.auroc(values[n][keep], wrong) for n in ("mutual information", "variance")])
        rows.append({"passes": count, "mutual information": np.round(np.mean(got, 0)[0], 4).item(),
                     "variance": np.round(np.mean(got, 0)[1], 4).item(),
                     "sd over 5 seeds": np.round(np.std(got, 0)[0], 4).item()})
    return rows


# ---- triage ----------------------------------------------------------------------------------------------

def triage_values(part):
    """Mean, interval and mutual information of every mark as the product shows them."""
    rate = part.model["candidate"]["dropout"]
    logits = part.logits((rate,) * 3, part.model["passes"])
    calibrated = part.probability(logits)
    low, high = np.percentile(calibrated, [5, 95], axis=1)
    return calibrated.mean(1), low, high, spread(logits, calibrated)["mutual information"]


def triage_threshold(part, values, among):
    """The disagreement above which a reported finding goes to review: REVIEWED of the findings `among` do."""
    mean, _, _, mutual = values
    reported = among & (part.label >= 0) & (mean >= part.point)
    return round(float(np.quantile(mutual[reported], 1 - REVIEWED)), 4) if reported.any() else 1.0


def triage(part):
    """(threshold that ships, counts): false findings among the reported that go to review and among the others, and
    missed ones among the rest, every host by the threshold of the others."""
    values = mean, low, high, mutual = triage_values(part)
    fitted = ~np.isin(part.host, splits.never_fitted(splits.load()))
    allowed = np.zeros(len(mean))
    for host in np.unique(part.host):
        allowed[part.host == host] = triage_threshold(part, values, fitted & (part.host != host))
    judged, reported = part.label >= 0, mean >= part.point
    straddles = (low < part.point) & (high >= part.point)
    review = straddles | (reported & (mutual > allowed))
    false = part.label == 0

    def count(rows, bad):
        return {"findings": int((rows & judged).sum()), "wrong": int((rows & judged & bad).sum())}
    return triage_threshold(part, values, fitted), {
        "reviewed": count(reported & review, false), "others": count(reported & ~review, false),
        "not_reported_straddling": count(~reported & straddles, ~false),
        "not_reported_others": count(~reported & ~straddles, ~false)}


def write_review(models, allowed, counts):
    path = Path(models) / "model.json"
    text = json.loads(path.read_text())
    text["review"] = {"mutual_information_nats": allowed, "reviewed": counts["reviewed"],
                      "others": counts["others"]}
    path.write_text(json.dumps(text, indent=1) + "\n")


# ---- files for pulmo evaluate ----------------------------------------------------------------------------

TEXTURES = ("solid", "part-solid", "ground-glass")


def texture_name(value):
    return "" if value < 1 else "ground-glass" if value <= 2 else "part-solid" if value < 4 else "solid"


def write_csv(folder, part, shift):
    """truth.csv, marks.csv, series.txt of the part: the probability is the mean of the passes."""
    folder.mkdir(parents=True, exist_ok=True)
    rate = part.model["candidate"]["dropout"]
    logits = part.logits((rate,) * 3, part.model["passes"])
    calibrated = part.probability(logits, shift)
    low, high = np.percentile(calibrated, [5, 95], axis=1)
    got = spread(logits, calibrated)
    names = part.copies.names
    (folder / "series.txt").write_text("".join(f"{name}\n" for name in names))
    with open(folder / "truth.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow("seriesuid coordX coordY coordZ diameter_mm included texture".split())
        for name, text in zip(names, part.copies.texts):
            for found in text["findings"]:
                if found["kind"] == "sham":
                    continue
                texture = texture_name(found["texture"]) if found["kind"] == "nodule" else ""
                writer.writerow([name, *found["at"][::-1], found["mm"], int(found["kind"] == "nodule"), texture])
    with open(folder / "marks.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow("seriesuid coordX coordY coordZ probability probability_low probability_high "
                        "mutual_information_nats entropy_nats diameter_mm texture".split())
        for n, mark in enumerate(part.marks):
            writer.writerow([names[part.scan[n]], *np.round(mark["at"][::-1], 3),
                             *np.round([calibrated[n].mean(), low[n], high[n], got["mutual information"][n],
                                        got["predictive entropy"][n], mark["mm"]], 6), TEXTURES[mark["texture"]]])


# ---- the whole -------------------------------------------------------------------------------------------

def calibration_errors(part, keep, plain, mean, shift):
    y = part.label[keep].astype(float)
    shipped = part.probability(np.array([m["logit2"] for m in part.marks]))[keep]
    weight = np.where(y == 1, np.exp(-shift), 1.0)
    ways = {"mean of the passes": mean[keep], "without dropout": plain[keep]}
    out = {name: {"ece": round(trust.ece(p, y), 4),
                  "interval": trust.interval([trust.ece(p, y, w) for w in trust.resamples(part.scan[keep])]),
                  "brier": round(float(((p - y)**2).mean()), 4), "bins": trust.bins_of(p, y),
                  "ece_if_every_probability_were_true": trust.ece_by_chance(p)} for name, p in ways.items()}
    out["as shipped, nodules weighted to the assumed share"] = {"ece": round(trust.ece(shipped, y, weight), 4)}
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--fitted", default=str(splits.HERE / "runs/calibration.json"))
    parser.add_argument("--write-review", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judges", default=str(judge.FOLDER))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = Pipeline(args.models, args.cache, args.fitted, args.judges)
    test = Marks(pipeline, args.cache)
    shift = float(np.log(test.nodules / (calibrate.PREVALENCE * len(test.copies.volumes))))
    plain = test.probability(np.array([m["logit2"] for m in test.marks]), shift)
    keep = test.select(plain)
    wrong = (plain[keep] >= 0.5) != (test.label[keep] == 1)
    measures, _, mean = study_measures(test, keep, wrong, shift, plain)
    allowed, counts = triage(test)
    result = {
        "model_sha256": pipeline.text["candidate"]["sha256"],
        "scans": len(test.copies.volumes), "candidates": int(keep.sum()),
        "nodules": int(test.label[keep].sum()), "wrong": int(wrong.sum()), "prior_shift": round(shift, 4),
        "calibration": calibration_errors(test, keep, plain, mean, shift),
        "auroc": trust.compare(measures, wrong, test.scan[keep], BASELINE),
        "rejection": {name: trust.rejection(values, wrong) for name, values in measures.items()},
        "places": places_grid(test, keep, wrong, shift), "passes": passes_grid(test, keep, wrong, shift),
        "triage": {"mutual_information_nats": allowed, "operating_point": test.model["operating_point"],
                   "passes": test.model["passes"], "dropout": test.model["candidate"]["dropout"], **counts}}
    runs = Path(args.runs)
    write_csv(runs / "marks", test, shift)
    (runs / "uncertainty.json").write_text(json.dumps(result, indent=1) + "\n")
    if args.write_review:
        write_review(args.models, allowed, counts)
    print(json.dumps({k: result[k] for k in ("candidates", "nodules", "wrong", "auroc", "triage")}, indent=1))


if __name__ == "__main__":
    main()
