"""Families of detectors against each other: the same crops, the same copies, one table (docs/TRAINING.md).

    python3 train/family_study.py train FAMILY --crops 16000      runs/family-FAMILY.pt, from nothing, or on from there
    python3 train/family_study.py judge FAMILY ...                the rows of the table, on the validation copies

The number of crops ends a training, not the clock, and their seed is the same for all. Judged as stage 1 alone, by its
own score, and before the shipped stage 2, by what that says (the one that never saw the host, runs/judges): one
stage against two.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import crops
import decode
import froc
import judge
import mine
import split as splits
from evaluate import as_scan
from families import FAMILIES
from scan import LOOSE, Pipeline
from train_detector import Average, learning_rate, make_batch, save


def train(args, family):
    """Goes on from its checkpoint; the seed of what comes next holds the step, as that of train_detector.py."""
    torch.manual_seed(args.seed)
    net, path = FAMILIES[family](), Path(args.runs) / f"family-{family}.pt"
    optimizer = torch.optim.AdamW(net.parameters(), args.top_rate, weight_decay=1e-3)
    average, steps, first, used = Average(net), args.crops // args.batch, 0, 0.0
    if path.exists():
        saved = torch.load(path)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, first, used = saved["average"], saved["step"], saved["used"]
    copies, hard = crops.Copies(Path(args.cache) / "train", taught=True), json.loads((Path(args.runs) / "hard.json").read_text())
    rng = np.random.default_rng([args.seed, first])
    batches = crops.Prefetch(lambda: make_batch(copies, hard, rng, args.batch, net.goals))
    began, last = time.process_time(), []
    for step in range(first + 1, steps + 1):
        images, goals = batches.get()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, args.top_rate)
        loss = net.loss(net(images), goals)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        average.update(net, step)
        last.append(loss.item())
        if step % 50 == 0 or step == steps:
            minutes = (used + time.process_time() - began) / 60
            print(f"{family} step {step}/{steps} loss {np.mean(last):.3f}, {minutes:.1f} min of a processor", flush=True)
            save(path, net=net.state_dict(), optimizer=optimizer.state_dict(), average=average.state, step=step,
                 used=minutes * 60)
            last.clear()


def multiplications(net, image):
    """Of all convolutions over one volume."""
    total, hooks = [0], []

    def count(layer, _, out):
        total[0] += out.numel() // out.shape[1] * layer.weight.numel()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv3d):
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        net(torch.from_numpy(np.pad(image, [(16, 16 + -n % 8) for n in image.shape])[None, None]))
    for hook in hooks:
        hook.remove()
    return total[0]


def judge(args, family, pipeline, copies):
    net = FAMILIES[family]()
    saved = torch.load(Path(args.runs) / f"family-{family}.pt")
    net.load_state_dict(saved["average"])
    net.eval()
    alone, both, gflop, seconds = [], [], [], []
    for volume, text in zip(copies.volumes, copies.texts):
        volume = np.array(volume)
        image, distance = volume.astype(np.float32) / 255, mine.lung_distance(volume)
        gflop.append(2e-9 * multiplications(net, image))
        began = time.process_time()
        rows = decode.suppress(net.rows(image, distance, LOOSE[0]), LOOSE[1])
        seconds.append(time.process_time() - began)
        _, logit2, *_ = pipeline.classify(image, rows, text["host"])
        for scans, score in ((alone, rows[:, 4]), (both, logit2)):
            scans.append(as_scan(text, [{"at": r[:3].tolist(), "score": s} for r, s in zip(rows, score)]))
    best = np.array([s for scan in alone for s in froc.judge(scan)[0]])
    cells = [family, f"{sum(p.numel() for p in net.parameters()) / 1e3:.0f} k", f"{np.mean(gflop):.0f}", f"{np.mean(seconds):.1f}",
             f"{saved['used'] / 60:.0f}", f"{np.isfinite(best).sum()}/{len(best)}"]
    for figures in (froc.froc(alone), froc.froc(both)):
        low, high = figures["cpm_interval"]
        cells += [f"{figures['cpm']:.3f} ({low:.3f}–{high:.3f})", f"{round(figures['sensitivity']['4'] * len(best))}/{len(best)}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "judge"])
    parser.add_argument("families", nargs="+", choices=FAMILIES)
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--crops", type=int, default=16000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--top-rate", type=float, default=2e-3)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judges", default=str(judge.FOLDER))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "train":
        for family in args.families:
            train(args, family)
        return
    pipeline = Pipeline(args.models, args.cache, None, args.judges)
    copies = crops.Plain(args.cache, ["validation"])
    copies.volumes, copies.texts, copies.names = (v[:args.copies] for v in (copies.volumes, copies.texts, copies.names))
    print("| family | parameters | GFLOP a scan | seconds of a processor a scan | minutes of a processor trained | nodules among 60 marks "
          "| stage 1 alone: CPM | at 4 FP | with stage 2: CPM | at 4 FP |\n|" + "---|" * 10, flush=True)
    for family in args.families:
        judge(args, family, pipeline, copies)


if __name__ == "__main__":
    main()
