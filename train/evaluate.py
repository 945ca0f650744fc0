"""Measures the shipped networks on all hosts that they never saw: whole volumes, LUNA16 rules.

    python3 train/evaluate.py [--parts validation test] [--json runs/evaluation.json]

Calibration and thresholds of each host are fitted without it (calibrate.py). Nodules of unseen patients are implanted into unseen hosts; marks on sham pastes are false positives;
the hosts' own known lesions and the findings of own_lesions.json are excluded findings. Then the same
hosts without implants: the rank of each known lesion and what else is marked.
"""
import argparse
import json
from pathlib import Path

import numpy as np

import crops
import frame
import froc
import generate
import judge
import lungs
import split as splits
from scan import Pipeline


def as_scan(text, marks, key="score", strict=False, shown=False):
    """One copy in froc.py's form. Excluded: the host's listed lesions and, unless strict, what looked
    like one when the marks were looked at (own_lesions.json); if asked for, implants that hardly show (crops.shows)."""
    findings = [f for f in text["findings"] if not (strict and f["name"] == "seen")]
    counted = [f["kind"] == "nodule" and (crops.shows(f) or not shown) for f in findings]
    nodules = [f["at"] + [f["mm"]] for f, of in zip(findings, counted) if of]
    excluded = [f["at"] + [f["mm"]] for f, of in zip(findings, counted) if not of and f["kind"] != "sham"]
    return {"marks": [m["at"] + [m[key]] for m in marks], "nodules": nodules, "excluded": excluded}


def kind_of(f):
    """The rows of the table by kind."""
    size = "3-5 mm" if f["mm"] < 5 else "5-6 mm" if f["mm"] < 6 else \
        "6-10 mm" if f["mm"] < 10 else "10 mm and more"
    texture = "ground-glass" if f["texture"] <= 2 else "part-solid" if f["texture"] < 4 else "solid"
    kinds = (size, texture, "at " + f["site"])
    if f["mm"] < 6:
        return kinds
    return kinds + ("solid, 6 mm and more" if texture == "solid" else "subsolid, 6 mm and more",)


def shows_of(f):
    """The row of the table by the share of a nodule's density that shows in the copy."""
    if "shows" not in f:
        return ("not known",)
    return ("less than 0.5" if not crops.shows(f) else "0.5 to 0.7" if f["shows"] < 0.7 else
            "0.7 to 0.9" if f["shows"] < 0.9 else "0.9 and more",)


def by_kind(texts, scans, rate=4, kinds=kind_of):
    """Found of all at `rate` false positives a scan, and at 6 mm and more."""
    judged = [froc.judge(s) for s in scans]
    false = np.sort([s for _, f in judged for s in f])[::-1]
    allowed = int(rate * len(scans))
    threshold = false[allowed] if allowed < len(false) else -np.inf
    table = {}
    for text, (best, _) in zip(texts, judged):
        for f, score in zip([f for f in text["findings"] if f["kind"] == "nodule"], best):
            for name in kinds(f):
                row = table.setdefault(name, [0, 0])
                row[0] += score > threshold
                row[1] += 1
    return {k: f"{a}/{b}" for k, (a, b) in sorted(table.items())}


def shams_marked(texts, scans, thresholds):
    """Shams with a mark above the copy's threshold within them (at least 5 mm of the middle), of all shams."""
    marked = total = 0
    for text, scan, threshold in zip(texts, scans, thresholds):
        for f in text["findings"]:
            if f["kind"] == "sham":
                total += 1
                marked += any(m[3] > threshold and np.linalg.norm(np.subtract(m[:3], f["at"])) < max(f["mm"] / 2, 5)
                              for m in scan["marks"])
    return f"{marked}/{total}"


def whole_host(pipeline, data, name):
    """Ranks of a host's own lesions, without any implant."""
    volume = frame.load_host(data, name)
    small = frame.resample(volume.hu, volume.spacing_mm)
    mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(volume.hu), volume.spacing_mm)
    small[lungs.distance_mm(mask, small.shape) > generate.MARGIN_MM] = -1024
    marks = pipeline.marks(frame.to_uint8(small), f"host-{name}", host=name)
    lesions = [(list((np.array(c) - volume.origin_mm)), d, inc)
               for c, d, inc in splits.lesions(data, name)]
    out = {"host": name, "marks": len(marks), "lesions": [], "others": []}
    point = pipeline.thresholds(name)["operating_point"]
    for centre, mm, included in lesions:
        hits = [(rank, m) for rank, m in enumerate(marks, 1) if froc.within(m["at"], centre + [mm])]
        if included:
            out["lesions"].append({"mm": mm, "rank": hits[0][0] if hits else None,
                                   "score": round(float(hits[0][1]["score"]), 3) if hits else None,
                                   "measured_mm": round(float(hits[0][1]["mm"]), 1) if hits else None})
    known = [c + [mm] for c, mm, _ in lesions]
    others = [m for m in marks if not any(froc.within(m["at"], k) for k in known)]
    out["others_above_operating_point"] = sum(m["score"] >= point for m in others)
    out["others"] = [{"at_lps_mm": [round(float(v), 1) for v in
                                    (np.array(m["at"]) + volume.origin_mm)[::-1]],
                      "score": round(float(m["score"]), 3), "mm": round(float(m["mm"]), 1)}
                     for m in others[:6]]
    return out


def errors(texts, scans_marks):
    """Centre and diameter error in mm of the best mark on each found nodule."""
    centre, size, signed = [], [], []
    for text, marks in zip(texts, scans_marks):
        for f in text["findings"]:
            hit = next((m for m in marks if f["kind"] == "nodule" and
                        froc.within(m["at"], f["at"] + [f["mm"]])), None)
            if hit:
                centre.append(np.linalg.norm(np.subtract(hit["at"], f["at"])))
                size.append(abs(hit["mm"] - f["mm"]))
                signed.append(hit["mm"] - f["mm"])
    return {"centre_median_mm": round(float(np.median(centre)), 2),
            "diameter_mean_absolute_mm": round(float(np.mean(size)), 2),
            "diameter_median_absolute_mm": round(float(np.median(size)), 2),
            "diameter_p95_absolute_mm": round(float(np.percentile(size, 95)), 2),
            "diameter_bias_mm": round(float(np.mean(signed)), 2), "diameters": len(size)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--parts", nargs="*", help="all whose hosts the graphs may judge by default")
    parser.add_argument("--fitted", default=str(splits.HERE / "runs/calibration.json"))
    parser.add_argument("--judges", default=str(judge.FOLDER))
    parser.add_argument("--json", default=str(splits.HERE / "runs/evaluation.json"))
    args = parser.parse_args()
    pipeline = Pipeline(args.models, args.cache, args.fitted, args.judges)
    parts = args.parts or pipeline.parts()
    copies, marks = crops.Plain(args.cache, parts), []
    texts = copies.texts
    for volume, text, name in zip(copies.volumes, texts, copies.names):
        marks.append(pipeline.marks(np.array(volume), name, host=text["host"]))
        print(text["host"], len(marks[-1]), "marks", flush=True)
    scans = [as_scan(t, m) for t, m in zip(texts, marks)]
    points = [pipeline.thresholds(t["host"])["operating_point"] for t in texts]
    judged = [froc.judge(s) for s in scans]
    result = {"froc": froc.froc(scans),
              "strict": froc.froc([as_scan(t, m, "score", True) for t, m in zip(texts, marks)]),
              "shown": froc.froc([as_scan(t, m, shown=True) for t, m in zip(texts, marks)]),
              "stage_1_alone": froc.froc([as_scan(t, m, "logit1") for t, m in zip(texts, marks)]),
              "stage_2_alone": froc.froc([as_scan(t, m, "logit2") for t, m in zip(texts, marks)]),
              "at_operating_point": {
                  "found": sum(s >= point for (b, _), point in zip(judged, points) for s in b),
                  "false_positives_a_scan": round(sum(s >= point for (_, f), point in
                                                      zip(judged, points) for s in f) / len(scans), 2),
                  "shams_marked": shams_marked(texts, scans, points)},
              "found_at_4_by_kind": by_kind(texts, scans),
              "found_by_shows": {str(rate): by_kind(texts, scans, rate, shows_of) for rate in (1, 4, 8)},
              "found_by_kind": {str(rate): by_kind(texts, scans, rate) for rate in (1, 4, 8)},
              "texture_confusion": texture_confusion(texts, marks),
              "models": {k: pipeline.text[k]["sha256"] for k in ("detector", "candidate")},
              "judges": {str(p.relative_to(args.judges)): judge.sha256(p) for p in sorted(Path(args.judges).glob("*/*.*"))},
              "errors": errors(texts, marks),
              "marks_a_scan": round(float(np.mean([len(m) for m in marks])), 1),
              "texture_right": texture_right(texts, marks),
              "by_host": {h: froc.froc([s for s, t in zip(scans, texts) if t["host"] == h], 200)
                          for h in sorted({t["host"] for t in texts})},
              "hosts_without_implants": [whole_host(pipeline, args.data, r["name"])
                                         for part in parts for r in splits.hosts(args.data, part)]}
    Path(args.json).write_text(json.dumps(result, indent=1, default=int) + "\n")
    print(json.dumps(result, indent=1, default=int))


def texture_right(texts, marks):
    """Of the found nodules, how many got the readers' kind."""
    from train_candidate import texture_class
    right = total = 0
    for text, found in zip(texts, marks):
        for f in text["findings"]:
            hit = next((m for m in found if f["kind"] == "nodule" and
                        froc.within(m["at"], f["at"] + [f["mm"]])), None)
            if hit:
                total += 1
                right += hit["texture"] == texture_class(f["texture"])
    return f"{right}/{total}"


def texture_confusion(texts, marks):
    """readers' texture -> texture of the mark -> how many of the found nodules."""
    from train_candidate import texture_class
    names = ("solid", "part-solid", "ground-glass")
    table = {a: {b: 0 for b in names} for a in names}
    for text, found in zip(texts, marks):
        for f in text["findings"]:
            hit = next((m for m in found if f["kind"] == "nodule" and
                        froc.within(m["at"], f["at"] + [f["mm"]])), None)
            if hit and texture_class(f["texture"]) >= 0:
                table[names[texture_class(f["texture"])]][names[hit["texture"]]] += 1
    return table


if __name__ == "__main__":
    main()
