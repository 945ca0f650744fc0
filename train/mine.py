"""Runs stage 1 over whole training copies: its false positives teach both stages.

    python3 train/mine.py --copies 18     adds to runs/hard.json: per host, in the host's own voxels

What recurs at one place of a host with a high score may be a lesion that nobody marked: it is printed,
to be looked at, and own_lesions.json takes it out of the negatives.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch

import crops
import decode
import lungs
import split as splits
from detector import Detector
from scan import Pipeline


def label(row, findings):
    """(kind, finding) of what a mark lies on: inside a nodule, near something unknown, or nothing."""
    for f in findings:
        r = np.linalg.norm(row[:3] - np.array(f["at"]))
        if f["kind"] in ("nodule", "lesion") and r < max(f["mm"] / 2, 3):
            return f["kind"], f
    for f in findings:
        r = np.linalg.norm(row[:3] - np.array(f["at"]))
        if f["kind"] != "sham" and r < max(f["mm"] / 2 + 5, 8):
            return "ignore", f
        if f["kind"] == "sham" and r < max(f["mm"] / 2, 4):
            return "sham", f
    return "negative", None


def lung_distance(volume):
    """Recomputed from the copy's grey values: the same code as for any CT."""
    hu = volume.astype(np.float32) * (1632 / 255) - 1024
    mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(hu, 2), (1, 1, 1))
    return lungs.distance_mm(mask, volume.shape)


def marks_of(net, volume, score_min, limit):
    image = volume.astype(np.float32) / 255
    rows = decode.peaks(decode.heatmaps_whole(net, image), lung_distance(volume), score_min)
    return decode.suppress(rows, limit)


def detector(runs, models):
    """The last checkpoint, or the shipped graph where there is none."""
    if not (runs / "detector.pt").exists():
        return Pipeline(models).shipped.detect
    net = Detector()
    net.load_state_dict(torch.load(runs / "detector.pt")["average"])
    return net.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--copies", type=int, default=27)
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--part", default="train", choices=["train", splits.MORE])
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = detector(Path(args.runs), Path(args.models))
    copies = crops.Copies(Path(args.cache) / args.part, taught=True)
    places, tally = {}, {}
    for number in range(args.skip, min(args.skip + args.copies, len(copies.volumes))):
        volume, text = np.array(copies.volumes[number]), copies.texts[number]
        rows = marks_of(net, volume, 0.03, 80)
        hits = set()
        for row in rows:
            kind, finding = label(row, text["findings"])
            tally[kind] = tally.get(kind, 0) + 1
            if finding and kind in ("nodule", "lesion"):
                hits.add(tuple(finding["at"]))
            if kind == "negative":
                native = (row[:3] + text["low"]) / np.array(text["scale"])
                places.setdefault(text["host"], []).append([*native.tolist(), row[4], row[3]])
        total = sum(f["kind"] == "nodule" for f in text["findings"])
        print(number, text["host"], f"{len(hits)}/{total} nodules, {len(rows)} marks", flush=True)
    print(tally)
    for host, rows in places.items():
        for row in sorted(rows, key=lambda r: -r[3])[:8]:
            print(f"look  {host} native zyx {np.round(row[:3], 1).tolist()} logit {row[3]:.2f} "
                  f"diameter {row[4]:.0f}")
    path = Path(args.runs) / "hard.json"
    hard = json.loads(path.read_text()) if path.exists() else {}
    for host, rows in places.items():
        # what scores high is rare and matters most: it counts three times
        hard[host] = hard.get(host, []) + [r[:3] for r in rows for _ in range(3 if r[3] > 0 else 1)]
    path.write_text(json.dumps(hard))


if __name__ == "__main__":
    main()
