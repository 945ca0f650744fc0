"""Stage 2 cross-validated over the hosts that stage 1 never saw (split.json, folds).

    python3 train/cross_validate.py NAME=PATTERN ...     e.g. head=head{}.pt, more=candidate{}.pt

{} is "-HOST" (train_head.py --without HOST) or "-FOLD" (train_candidate.py --fold FOLD), and nothing for a host that is never seen.

Every copy of the validation and test hosts is judged by a network of stage 2 that never saw its host, and by a sum of
both logits fitted on the other hosts (leave one host out). The first row is the shipped stage 2 with the same fit. Implants
are of patients that no training saw. Intervals and gains: 1,000 draws of copies, paired with the first row.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch

import crops
import decode
import evaluate
import froc
import inference_study as study
import split as splits
import trust
import uncertainty_study
from candidate import Candidate
from scan import Pipeline


def checkpoint_of(runs, pattern, host, split):
    """The network that never saw the host: its own, or its fold's."""
    fold = next(name for name in splits.FOLDS if host in split["folds"][name])
    names = ["" if host in splits.never_fitted(split) else f"-{host}", f"-{fold}"]
    return next(path for path in (Path(runs) / pattern.format(name) for name in names) if path.exists())


def seen(look, image, rows, images=8):
    """l0..l7 and d0..d7 of every row: logit and ln(diameter) of each mirror image of its crop."""
    out, crops40 = {"rows": rows}, torch.from_numpy(decode.crops40(np.array(image).astype(np.float32) / 255, rows))
    for n in range(images):
        with torch.no_grad():
            logit, _, diameter, _ = look(decode.mirrored(crops40, n))
        out[f"l{n}"], out[f"d{n}"] = logit[:, 0].numpy(), diameter[:, 0].numpy()
    return out


def shipped(pipeline):
    from onnx_run import run

    def look(crops40):
        got = run(pipeline.shipped.candidate, {"crop": crops40})
        return got["logit"], got["texture"], got["log_diameter"], None
    return look


def looks(pipeline, copies, networks, kept):
    """What each copy's network says; kept in a file where one is named."""
    if kept and kept.exists():
        with np.load(kept, allow_pickle=True) as f:
            return list(f["given"])
    given = [seen(net, image, pipeline.rows(np.array(image), name))
             for net, image, name in zip(networks, copies.volumes, copies.names)]
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, given=np.array(given, object))
    return given


def report(name, marks, texts, score, base):
    """One row of the table; returns the CPM of every draw."""
    cpm, drawn, _ = marks.judge(score)
    scans = marks.scans(score)
    judged = [froc.judge(s) for s in scans]
    p, y = [], []
    for scan, v in zip(scans, score):
        truth, probability = uncertainty_study.verdicts(scan), trust.sigmoid(np.asarray(v) + marks.share)
        p.append(probability[truth >= 0])
        y.append(truth[truth >= 0])
    p, y = np.concatenate(p), np.concatenate(y)
    kinds = evaluate.by_kind(texts, scans, 1)
    cells = [f"{cpm:.3f}", "–".join(f"{v:.3f}" for v in np.percentile(drawn, [2.5, 97.5])),
             study.between(drawn - base) if base is not None else "",
             *(f"{s:.3f}" for s in froc.sensitivities(judged)), kinds["solid, 6 mm and more"],
             kinds["subsolid, 6 mm and more"], f"{np.mean((p - y)**2):.4f}", f"{trust.ece(p, y):.3f} ({len(p)})"]
    print("| " + " | ".join([name, *cells]) + " |", flush=True)
    return drawn


def by_host(marks, score):
    judged = [froc.judge(s) for s in marks.scans(score)]
    for host in sorted(set(marks.hosts)):
        among = [j for j, h in zip(judged, marks.hosts) if h == host]
        print(f"| {host} | {np.mean(froc.sensitivities(among)):.3f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", help="NAME=checkpoint in runs/ with {} for the fold")
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--score-min", type=float, help="of stage 1; the shipped one by default")
    args = parser.parse_args()
    split, pipeline, copies = splits.load(), Pipeline(args.models, args.cache), crops.Plain(args.cache, splits.UNSEEN)
    kept = Path(args.cache) / "inference"
    least = args.score_min or pipeline.text["detector"]["score_min"]
    sets = {"shipped": looks(pipeline, copies, [shipped(pipeline)] * len(copies.names),
                             kept / f"all-{pipeline.text['candidate']['sha256'][:12]}.npz")}
    for name, pattern in (n.split("=") for n in args.networks):
        nets = {host: Candidate.of(torch.load(checkpoint_of(args.runs, pattern, host, split))["average"]) for host in {t["host"] for t in copies.texts}}
        sets[name] = looks(pipeline, copies, [nets[t["host"]] for t in copies.texts], None)
    print("| stage 2 | CPM | 95 % | gain | 0.125 | 0.25 | 0.5 | 1 | 2 | 4 | 8 | solid ≥ 6 mm, 1 FP | subsolid | Brier | ECE (n) |")
    print("|" + "---|" * 15)
    base = None
    for name, given in sets.items():
        marks = study.Marks(copies, given, least)
        for images in (1, 2, 4, 8):
            score = marks.score([marks.logit1(), marks.mean("l", images)], True)
            drawn = report(f"{name}, {images} image{'s' * (images > 1)}", marks, copies.texts, score, base)
            base = drawn if base is None else base
        by_host(marks, score)
        coefficients = {h: [round(float(v), 2) for v in b] for h, b in
                        zip(marks.hosts, marks.fits([marks.logit1(), marks.mean("l", 8)], True))}
        print(json.dumps(coefficients))


if __name__ == "__main__":
    main()
