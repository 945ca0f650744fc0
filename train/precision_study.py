"""What int8 costs in sensitivity: the engine itself over whole copies, in fp32, in int8, and in int8 with what matters
computed again (docs/PERFORMANCE.md).

    python3 train/precision_study.py      after a build of tests/uncertainty_marks.c

Every layer of the detector that can runs in int8, with the ranges of the phantom, as calibration begins; what it then
gives back to fp32 only makes the loss smaller. The shipped stage 2 and calibration judge all hosts: it is the difference that
counts, paired over 1,000 draws of copies.
"""
import argparse
import csv
import io
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import crops
import froc
import mine
import split as splits
import trust
from evaluate import as_scan

WAYS = ("fp32", "int8", "again")


def write(path, volume):
    """As tests/uncertainty_marks.c reads it: x runs fastest, as in the copies."""
    hu = np.round(volume.astype(np.float32) * (1632 / 255) - 1024).astype("<i2")
    lung = mine.lung_distance(volume) <= 0
    with open(path, "wb") as f:
        f.write(np.array(volume.shape[::-1], "<i4").tobytes() + hu.tobytes() + lung.astype(np.uint8).tobytes())


def marks_of(program, model, way, path):
    """[{at, score, logit1, full}] of one volume, best first."""
    out = subprocess.run([program, model, way, path], check=True, capture_output=True, text=True).stdout
    return [{"at": [float(r[f"coord{a}"]) for a in "ZYX"], "score": float(r["probability"]), "logit1": float(r["detector_logit"]),
             "full": r["full_precision"] == "1"} for r in csv.DictReader(io.StringIO(out))]


def summary(texts, marks, base):
    """CPM, what is lost against `base` with its interval, found at 4 and 8 false positives a scan, candidates, computed again."""
    judged = [froc.judge(as_scan(t, m)) for t, m in zip(texts, marks)]
    rng, count = np.random.default_rng(0), len(texts)
    draws = [rng.integers(0, count, count) for _ in range(1000)]

    def cpm(rows, of):
        return float(np.mean(froc.sensitivities([of[i] for i in rows])))
    point, nodules = froc.sensitivities(judged), sum(len(b) for b, _ in judged)
    out = {"cpm": round(float(np.mean(point)), 4), "nodules": nodules, "found_at_4": round(point[5] * nodules),
           "found_at_8": round(point[6] * nodules), "marks": sum(map(len, marks)), "again": sum(m["full"] for c in marks for m in c)}
    if base is not None:
        lost = [cpm(rows, base) - cpm(rows, judged) for rows in draws]
        out["lost"], out["lost_interval"] = round(cpm(range(count), base) - out["cpm"], 4), trust.interval(lost)
    return out, judged


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--model", default=str(splits.HERE / "../models/model.json"))
    parser.add_argument("--program", default=str(splits.HERE / "../build/tests/uncertainty_marks"))
    args = parser.parse_args()
    copies = crops.Plain(args.cache, splits.UNSEEN)
    marks, texts, base, result = {way: [] for way in WAYS}, copies.texts, None, {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(len(copies.names)):
            path = str(Path(folder) / f"{copies.names[i]}.volume")
            write(path, np.array(copies.volumes[i]))
            for way in WAYS:
                marks[way].append(marks_of(args.program, args.model, way, path))
            Path(path).unlink()
            print(copies.names[i], {way: len(marks[way][-1]) for way in WAYS}, flush=True)
    for way in WAYS:
        result[way], judged = summary(texts, marks[way], base)
        base = base or judged
    (Path(args.runs) / "precision.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
