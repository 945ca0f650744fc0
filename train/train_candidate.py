"""Trains stage 2: nodules against what stage 1 mistakes for them (runs/hard.json, by mine.py).

    python3 train/train_candidate.py --minutes 25
    python3 train/train_candidate.py --go-on --fold a --crops 20000     from the shipped graph, without fold a's hosts
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import crops
import from_onnx
import split as splits
from candidate import SIDE, Candidate
from train_detector import Average, learning_rate, save


def texture_class(value):
    """LIDC texture 1 … 5 to 0 solid, 1 part-solid, 2 ground-glass; -1 where unknown."""
    if value < 1:
        return -1
    return 2 if value <= 2 else 1 if value < 4 else 0


class Pool:
    """Nodules, shams and stage 1's false positives. The latter are known in each host's own voxels and
    so serve in every copy of it, each time with another scanner's grain."""

    def __init__(self, copies, hard, without=()):
        self.copies, self.hard = copies, hard
        self.usable = [i for i, text in enumerate(copies.texts) if text["host"] not in without]
        self.groups = {"nodule": [], "sham": []}
        for index in self.usable:
            for f in copies.texts[index]["findings"]:
                if f["kind"] in ("nodule", "sham", "lesion"):
                    group = "sham" if f["kind"] == "sham" else "nodule"
                    self.groups[group].append((index, np.array(f["at"]), f["mm"], f["texture"]))

    def clear(self, index, at):
        """Whether nothing that is or may be a nodule lies at `at`."""
        return all(np.linalg.norm(at - np.array(f["at"])) > max(abs(f["mm"]) / 2 + 3, 6)
                   for f in self.copies.texts[index]["findings"] if f["kind"] != "sham")

    def negative(self, kind, rng):
        """(copy, centre) of a sham, a hard place, a place beside a nodule, or a random one in the lung."""
        if kind == "sham":
            index, at, mm, _ = self.groups[kind][rng.integers(len(self.groups[kind]))]
            return index, (self.densest(index, at, mm, rng) if mm > 6 else at) + rng.normal(0, 0.8, 3)
        if kind == "beside":               # a mark beside a nodule is a false positive
            index, at, mm, _ = self.groups["nodule"][rng.integers(len(self.groups["nodule"]))]
            step = rng.normal(0, 1, 3)
            return index, at + step / np.linalg.norm(step) * (mm / 2 + rng.uniform(4, 12))
        index = self.usable[rng.integers(len(self.usable))]
        text = self.copies.texts[index]
        places = self.hard.get(text["host"])
        if kind == "hard" and places:
            at = np.array(places[rng.integers(len(places))]) * text["scale"] - text["low"]
            return index, at + rng.normal(0, 0.8, 3)
        return index, crops.random_lung_point(self.copies.volumes[index], rng)

    def densest(self, index, at, mm, rng):
        """Of some places within a sham the one that stage 1 would mark: not its middle, but what in it is dense."""
        steps = rng.normal(0, 1, (8, 3))
        steps *= mm / 2 * rng.random((8, 1)) ** (1 / 3) / np.linalg.norm(steps, axis=1, keepdims=True)
        return max(at + steps, key=lambda p: crops.cut(self.copies.volumes[index], np.round(p - 1).astype(int).tolist(), 3).mean())

    def draw(self, rng):
        """(copy, centre, is nodule, texture class, ln diameter)."""
        kind = rng.choice(["nodule", "hard", "sham", "lung", "beside"],
                          p=[0.44, 0.38, 0.09, 0.03, 0.06])
        if kind == "nodule":
            index, at, mm, texture = self.groups[kind][rng.integers(len(self.groups[kind]))]
            # stage 1 misses the centre by about a millimetre, more where the nodule is large
            at = at + rng.normal(0, 1.0 + 0.03 * mm, 3)
            return index, at, 1, texture_class(texture), np.log(mm)
        while True:
            index, at = self.negative(kind, rng)
            if self.clear(index, at):
                return index, at, 0, -1, 0.0

    def batch(self, rng, size):
        images, goals = [], []
        for _ in range(size):
            index, at, is_nodule, texture, log_mm = self.draw(rng)
            corner = (np.floor(at).astype(int) - (SIDE // 2 - 1)).tolist()
            crop, _ = crops.flip(crops.cut(self.copies.volumes[index], corner, SIDE),
                                 np.zeros((1, 3)), rng)
            images.append(crops.change_grey(crop, rng)[None])
            goals.append((is_nodule, texture, log_mm))
        goals = np.array(goals, np.float32)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(goals)


def start_from_detector(net, path):
    """The trunk has the layers of stage 1's encoder: starting from them saves most of the training."""
    state = torch.load(path)["average"]
    sources = ["stem.0", "stem.1", "quarter.0", "quarter.1", "quarter.2", "eighth.0", "eighth.1"]
    for number, source in enumerate(sources):
        part = {k[len(source) + 1:]: v for k, v in state.items() if k.startswith(source + ".")}
        net.trunk[number].load_state_dict(part)


def loss_of(outputs, goals):
    logit, texture, log_diameter, _ = outputs
    is_nodule = goals[:, 0]
    found = F.binary_cross_entropy_with_logits(logit[:, 0], is_nodule * 0.98 + 0.01)
    kind = F.cross_entropy(texture, goals[:, 1].long(), ignore_index=-1, reduction="sum")
    size = (F.smooth_l1_loss(log_diameter[:, 0], goals[:, 2], reduction="none", beta=0.2)
            * is_nodule).sum()
    count = is_nodule.sum().clamp(min=1)
    return found + 0.2 * kind / count + 0.3 * size / count, found.item(), size.item() / count.item()


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--crops", type=int, help="end after so many crops instead of minutes: the same on any machine")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--top-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--go-on", action="store_true",
                        help="from the shipped graph, with the copies of the hosts that stage 1 never saw as well")
    parser.add_argument("--fold", choices=["a", "b"], help="see no host of this fold of split.json")
    return parser.parse_args()


def start(args, checkpoint):
    """(net, step, seconds used, what is saved beside): from the checkpoint, the shipped graph, or stage 1's encoder."""
    net = Candidate(dropout=0.2)
    if args.go_on:
        from_onnx.load(net, Path(args.models) / "candidate.onnx")
    else:
        start_from_detector(net, Path(args.runs) / "detector.pt")
    saved = torch.load(checkpoint) if checkpoint.exists() else None
    if saved:
        net.load_state_dict(saved["net"])
    return net, saved


def pool_of(args):
    """All copies that this training may see."""
    without = splits.load()["folds"][args.fold] if args.fold else ()
    copies = crops.Copies(Path(args.cache) / "train", taught=True)
    if args.go_on:
        copies.add(Path(args.cache) / splits.MORE)
    return Pool(copies, json.loads((Path(args.runs) / "hard.json").read_text()), without)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    runs = Path(args.runs)
    checkpoint = runs / f"candidate{'-' + args.fold if args.fold else ''}.pt"
    net, saved = start(args, checkpoint)
    optimizer = torch.optim.AdamW(net.parameters(), args.top_rate, weight_decay=1e-2)
    average, step, used = Average(net), 0, 0.0
    if saved:
        optimizer.load_state_dict(saved["optimizer"])
        average.state, step, used = saved["average"], saved["step"], saved["used"]
    pool = pool_of(args)
    print({k: len(v) for k, v in pool.groups.items()}, sorted({pool.copies.texts[i]["host"] for i in pool.usable}), flush=True)
    rng = np.random.default_rng([args.seed, step])
    batches = crops.Prefetch(lambda: pool.batch(rng, args.batch))
    minutes_file, hard_read = runs / "candidate.minutes", (runs / "hard.json").stat().st_mtime
    saved_at = last = time.time()
    sums = np.zeros(4)
    while True:
        total = float(minutes_file.read_text()) if minutes_file.exists() else args.minutes
        done = step * args.batch / args.crops if args.crops else used / 60 / total
        if done >= 1:
            break
        images, goals = batches.get()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, args.top_rate)
        outputs = net(images)
        loss, found, size = loss_of(outputs, goals)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        step += 1
        average.update(net, step)
        now = time.time()
        used, last = used + now - last, now
        right = ((outputs[0][:, 0] > 0).float() == goals[:, 0]).float().mean().item()
        sums += loss.item(), found, size, right
        if step % 100 == 0:
            print(f"{used / 60:6.1f} min step {step} crops {step * args.batch} loss "
                  f"{sums[0] / 100:.3f} nodule {sums[1] / 100:.3f} size {sums[2] / 100:.3f} "
                  f"right {sums[3] / 100:.3f}", flush=True)
            sums[:] = 0
            if (runs / "hard.json").stat().st_mtime != hard_read:      # mine.py ran beside us
                hard_read = (runs / "hard.json").stat().st_mtime
                pool.hard = json.loads((runs / "hard.json").read_text())
        if now - saved_at > 180:
            saved_at = now
            save(checkpoint, net=net.state_dict(), optimizer=optimizer.state_dict(),
                 average=average.state, step=step, used=used)
    save(checkpoint, net=net.state_dict(), optimizer=optimizer.state_dict(),
         average=average.state, step=step, used=used)
    print(f"done: {step * args.batch} crops in {used / 60:.1f} minutes")


if __name__ == "__main__":
    main()
