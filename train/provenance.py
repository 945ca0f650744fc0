"""Writes models/provenance.json: what the shipped weights were made of, so that a stranger can tell and repeat it.

    python3 train/provenance.py        after export.py; reads every data file of the split and its digest
"""
import argparse
import hashlib
import json
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import calibrate
import split as splits
from judge import sha256 as digest

HERE = splits.HERE
SEEDS = {"copies": "numpy default_rng([part, plain, number])", "detector": 1, "candidate": 2, "features": 4, "head": 5, "texture": 7}


def digest_of_many(paths):
    """SHA-256 over "<digest of a file>  <its name>" lines in the order of the names, as sha256sum prints them."""
    lines = "".join(f"{digest(p)}  {p.name}\n" for p in sorted(paths, key=lambda p: p.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def data_digests(data):
    data = Path(data)
    out = {f"hosts/{name}": digest(data / "hosts" / name) for name in ("hosts.csv", "lesions.csv")}
    out["nodules/nodules.csv"] = digest(data / "nodules" / "nodules.csv")
    parts = {}
    for part in splits.PARTS:
        rows = splits.nodules(data, part)
        parts[part] = {
            "hosts": {r["name"]: digest(data / "hosts" / f"{r['name']}.nii.gz") for r in splits.hosts(data, part)},
            "nodules": len(rows), "patients": len({r["patient_id"] for r in rows}),
            "nodule_images": digest_of_many([data / "nodules" / "image" / r["file"] for r in rows]),
            "nodule_masks": digest_of_many([data / "nodules" / "mask" / r["file"] for r in rows])}
    return {"files": out, "parts": parts}


def stage(path, batch, before):
    """What the checkpoint says; where it is not at hand, what was recorded when the same graph was made."""
    if not path.exists():
        graph = f"{path.stem}.onnx"
        if before.get("models", {}).get(graph) != digest(HERE / "../models" / graph):
            raise SystemExit(f"{path.name} is missing, and {graph} is not the graph that was recorded")
        return before[path.stem]
    saved = torch.load(path, map_location="cpu")
    went_on = {"started_from": saved["start"]} if saved.get("start") else {}
    return {"crops": saved["step"] * batch, "hours": round(saved["used"] / 3600, 2), "checkpoint_sha256": digest(path), **went_on}


def head(runs, before, now):
    """What follows stage 2's trunk: crops, hours, and the graph that it started from and whose trunk it keeps."""
    path = runs / "head.pt"
    if not path.exists():
        if "head" in before and before["models"]["candidate.onnx"] != digest(HERE / "../models/candidate.onnx"):
            raise SystemExit("head.pt is missing, and candidate.onnx is not the graph that was recorded")
        return before.get("head")
    return {**told(path), **now}


def told(path):
    """What the checkpoint of a head says."""
    saved = torch.load(path, map_location="cpu")
    return {"crops": saved["crops"], "hours": round(saved["used"] / 3600, 2), "checkpoint_sha256": digest(path),
            "started_from": saved["start"]}


def trunk(runs, before, made):
    """The training of stage 2 as a whole, whose trunk a head keeps."""
    if made and not (runs / "candidate.pt").exists():
        if made["started_from"] not in (before["models"]["candidate.onnx"], before.get("head", {}).get("started_from")):
            raise SystemExit("head.pt started from another graph than the one that was recorded")
        return before["candidate"]
    return stage(runs / "candidate.pt", 32, before)


def judges(runs, before):
    """What the graphs that judge a host, or the hosts of a fold, were made of (judge.py)."""
    heads = {path.stem[5:]: {"head": told(path)} for path in sorted(runs.glob("head-*.pt"))}
    folds = {fold: {name: stage(runs / f"{name}-{fold}.pt", batch, before) for name, batch in (("detector", 8), ("candidate", 32))}
             for fold in splits.ANEW if (runs / f"candidate-{fold}.pt").exists()}
    return {**heads, **folds} or before.get("judges", {})


def scripts():
    """The training code as it lies here: the commit alone does not say what was changed since."""
    return digest_of_many([p for p in HERE.glob("*.py")])


def commit():
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return git.stdout.strip() or "not a checkout"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(HERE / "../../shared/data"))
    parser.add_argument("--runs", default=str(HERE / "runs"))
    parser.add_argument("--models", default=str(HERE / "../models"))
    parser.add_argument("--cache", default=str(HERE / "cache"))
    args = parser.parse_args()
    runs, models = Path(args.runs), Path(args.models)
    copies = {p.name: len(list(p.glob("*.json"))) for p in sorted(Path(args.cache).glob("*")) if p.is_dir()
              and list(p.glob("*.json"))}
    before = json.loads((models / "provenance.json").read_text()) if (models / "provenance.json").exists() else {}
    made_here = all((runs / f"{name}.pt").exists() for name in ("detector", "candidate"))
    copies = {**(before.get("copies", {}) if not made_here else {}), **copies}
    now = {"commit": commit(), "scripts": scripts()}
    made, last = now if made_here else {name: before[name] for name in now}, head(runs, before, now)
    out = {"models": {p.name: digest(p) for p in sorted(models.glob("*.onnx"))},
           **made, "measured": now, "split": digest(HERE / "split.json"),
           "own_lesions": digest(HERE / "own_lesions.json"), "seeds": SEEDS,
           "detector": stage(runs / "detector.pt", 8, before), "candidate": trunk(runs, before, last),
           **({"head": last} if last else {}), "judges": judges(runs, before),
           "copies": copies, "prevalence": calibrate.PREVALENCE, "data": data_digests(args.data),
           "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}}
    (models / "provenance.json").write_text(json.dumps(out, indent=1) + "\n")
    print(f"{sum(len(p['hosts']) for p in out['data']['parts'].values())} hosts, "
          f"{sum(p['nodules'] for p in out['data']['parts'].values())} nodules digested")


if __name__ == "__main__":
    main()
