"""Trains stage 1. Resumes from runs/detector.pt; the clock, not a count of steps, ends it unless --crops does.

    python3 train/train_detector.py --minutes 60
    python3 train/train_detector.py --go-on --fold a --crops 20000     from the graph in --models, without fold a's hosts
"""
import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

import crops
import from_onnx
import judge
import split as splits
from detector import Detector

SIDE, STRIDE = 64, 4
CELLS = SIDE // STRIDE
CENTRES = np.stack(np.meshgrid(*[np.arange(CELLS) * STRIDE + (STRIDE - 1) / 2] * 3,
                               indexing="ij")).astype(np.float32)


def crop_weight(finding):
    """Most implants are small: without this the large ones, which no reader misses, come too rarely.
    Ground glass and what is under 6.5 mm are what the first network missed on the validation hosts."""
    size = 2.0 if finding["mm"] >= 12 else 1.3 if finding["mm"] < 6.5 else 1.0
    return size * (1.8 if 1 <= finding["texture"] <= 2 else 1.0)


def choose(copies, hard, rng):
    """(volume, findings, centre of interest) of one crop."""
    i = rng.integers(len(copies.volumes))
    volume, text = copies.volumes[i], copies.texts[i]
    findings = text["findings"]
    places = hard.get(text["host"], [])
    kind = rng.choice(["nodule", "sham", "lung", "wall", "hard", "lesion"],
                      p=[0.49, 0.10, 0.10, 0.07, 0.20, 0.04])
    if kind == "wall":     # the chest wall and the masked outside: seen in every CT, in few crops
        return volume, findings, rng.uniform(0, 1, 3) * volume.shape
    if kind == "hard" and places:
        # hard negatives are known in the host's native voxels; each copy has its own zoom
        at = np.array(places[rng.integers(len(places))]) * text["scale"] - text["low"]
        return volume, findings, at
    among = [f for f in findings if f["kind"] == kind]
    if among:
        weight = np.array([crop_weight(f) for f in among])
        return volume, findings, np.array(among[rng.choice(len(among), p=weight / weight.sum())]["at"])
    return volume, findings, crops.random_lung_point(volume, rng)


def targets(findings, points, zoom=1.0, chosen_side=SIDE):
    """heat, weight of positives, weight of negatives, offset, log diameter per cell. zoom: the crop's."""
    heat = np.zeros((CELLS,) * 3, np.float32)
    negative = np.ones((CELLS,) * 3, np.float32)
    offset = np.zeros((3,) + heat.shape, np.float32)
    size = np.zeros_like(heat)
    for f, p in zip(findings, points):
        if f["kind"] == "sham" or (p < -30).any() or (p > chosen_side + 30).any():
            continue
        delta = p[:, None, None, None] - CENTRES
        r = np.sqrt((delta**2).sum(0))
        d = f["mm"] * zoom if f["mm"] > 0 else f["mm"]
        if f["kind"] == "ignore":
            negative[r < max(d / 2 + 4, 6)] = 0
            continue
        negative *= (1 - np.exp(-r**2 / (2 * (1.5 + d / 5)**2)))**4
        if d > 30:
            negative[r < d / 2 + 4] = 0
        inside = r <= max(2.6, d / 5)
        if (p >= 0).all() and (p < chosen_side).all():
            inside |= r == r.min()
        if inside.any():
            heat[inside] = 1 / np.sqrt(inside.sum())
            offset[:, inside] = delta[:, inside]
            size[inside] = np.log(d)
    negative[heat > 0] = 0
    for axis in range(3):     # a nodule cut in half by the crop's side is no fair negative
        edge = [slice(None)] * 3
        for end in (0, -1):
            edge[axis] = end
            negative[tuple(edge)] = 0
    return heat, negative, offset, size


def draw_crop(volume, at, points, rng):
    """A crop with `at` up to 20 voxels from its middle, the points in it and its zoom; every second is turned."""
    shift = rng.uniform(-20, 20, 3)
    if rng.random() < 0.5:
        turn, zoom = crops.random_turn(rng)
        return *crops.cut_turned(volume, at, shift, points, SIDE, turn), zoom
    corner = np.round(at - SIDE / 2 + shift).astype(int)
    return crops.cut(volume, corner.tolist(), SIDE), points - corner, 1.0


def make_batch(copies, hard, rng, batch, goals_of=targets):
    images, goals = [], []
    for _ in range(batch):
        volume, findings, at = choose(copies, hard, rng)
        points = np.array([f["at"] for f in findings], np.float32).reshape(-1, 3)
        crop, points, zoom = draw_crop(volume, at, points, rng)
        crop, points = crops.flip(crop, points, rng)
        images.append(crops.change_grey(crop, rng)[None])
        goals.append(goals_of(findings, points, zoom))
    stacked = [torch.from_numpy(np.stack(g)) for g in zip(*goals)]
    return torch.from_numpy(np.stack(images)), stacked


def loss_of(outputs, goals):
    """Focal loss as in CenterNet (alpha 2, beta 4 in the negative weight) and smooth L1."""
    logit, offset, log_diameter = outputs
    heat, negative, offset_goal, size_goal = goals
    logit = logit[:, 0]
    p = torch.sigmoid(logit)
    log_p, log_q = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
    count = heat.sum().clamp(min=1)
    focal = -(heat * (1 - p)**2 * log_p + negative * p**2 * log_q).sum() / count
    smooth = torch.nn.functional.smooth_l1_loss
    where = smooth(offset, offset_goal, reduction="none").sum(1)
    how_big = smooth(log_diameter[:, 0], size_goal, reduction="none", beta=0.2)
    box = (heat * (where + how_big)).sum() / count
    return focal + 0.3 * box, focal.item(), box.item()


class Average:
    """Exponential moving average of the weights: what is mined with, exported and evaluated."""

    def __init__(self, net):
        self.state = {k: v.clone() for k, v in net.state_dict().items()}

    def update(self, net, step):
        decay = min(0.998, (1 + step) / (10 + step))
        for k, v in net.state_dict().items():
            if v.dtype.is_floating_point:
                self.state[k].lerp_(v, 1 - decay)
            else:
                self.state[k].copy_(v)


def save(path, **what):
    torch.save(what, str(path) + ".part")
    os.replace(str(path) + ".part", path)


def learning_rate(done, top):
    """Cosine over the share of the time that is used up, after a short warm-up."""
    return top * min(1.0, done / 0.02 + 0.05) * (0.5 + 0.5 * np.cos(np.pi * min(done, 1.0))) + 1e-6


def arguments(minutes, batch, top_rate, seed):
    """What both stages' trainings ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--crops", type=int, help="end after so many crops instead of minutes: the same on any machine")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--top-rate", type=float, default=top_rate)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true",
                        help="convolve in bfloat16: 1.8 times as fast where the processor multiplies it")
    parser.add_argument("--go-on", action="store_true",
                        help="from the graph in --models, which must not have seen the hosts of the fold, with the copies of MORE as well")
    parser.add_argument("--fold", choices=splits.FOLDS + splits.ANEW, help="see no host of this fold of split.json")
    args = parser.parse_args()
    if args.go_on and args.fold in splits.ANEW:
        parser.error(f"no graph is at hand that has not seen the hosts of fold {args.fold}")
    return args


def copies_of(args):
    """All copies that this training may see."""
    copies = crops.Copies(Path(args.cache) / "train", True, splits.load()["folds"][args.fold] if args.fold else ())
    if args.go_on or args.fold in splits.ANEW:
        copies.add(Path(args.cache) / splits.MORE)
    return copies


def graph(args, name):
    """Where a training goes on from."""
    return Path(args.models) / f"{name}.onnx"


def checkpoint(args, name):
    """Of a stage, or of its network without a fold."""
    return Path(args.runs) / f"{name}{'-' + args.fold if args.fold else ''}.pt"


class Training:
    """The loop of both stages: rate, average, checkpoint, and when to end."""

    def __init__(self, net, args, name, decay):
        self.net, self.args = net, args
        self.start = judge.sha256(graph(args, name)) if args.go_on else None
        self.checkpoint = checkpoint(args, name)
        self.minutes_file = Path(args.runs) / f"{name}.minutes"      # lets a running training be cut short
        self.optimizer = torch.optim.AdamW(net.parameters(), args.top_rate, weight_decay=decay)
        self.average, self.step, self.used = Average(net), 0, 0.0
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint)
            net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.average.state, self.step, self.used = saved["average"], saved["step"], saved["used"]
        self.saved_at = self.last = time.time()

    def done(self):
        """Share of the training that is over."""
        if self.args.crops:
            return self.step * self.args.batch / self.args.crops
        total = float(self.minutes_file.read_text()) if self.minutes_file.exists() else self.args.minutes
        return self.used / 60 / total

    def forward(self, images):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bfloat16):
            outputs = self.net(images)
        return tuple(None if o is None else o.float() for o in outputs)

    def learn(self, loss):
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done(), self.args.top_rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.net, self.step)
        now = time.time()
        self.used, self.last = self.used + now - self.last, now
        if now - self.saved_at > 180:
            self.save()

    def save(self):
        self.saved_at = time.time()
        save(self.checkpoint, net=self.net.state_dict(), optimizer=self.optimizer.state_dict(),
             average=self.average.state, step=self.step, used=self.used, start=self.start, ended=self.done() >= 1)

    def said(self):
        return f"{self.used / 60:6.1f} min step {self.step} crops {self.step * self.args.batch}"


def main():
    args = arguments(minutes=60, batch=8, top_rate=2e-3, seed=1)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    runs = Path(args.runs)
    runs.mkdir(exist_ok=True)
    copies, hard, hard_file = copies_of(args), {}, runs / "hard.json"
    if hard_file.exists():
        hard.update(json.loads(hard_file.read_text()))
    net = Detector()
    if args.go_on:
        from_onnx.load(net, graph(args, "detector"))
        rng = np.random.default_rng([args.seed, 0, 1])
        from_onnx.measure_norms(net, [make_batch(copies, hard, rng, args.batch)[0] for _ in range(16)])
    training = Training(net.train(), args, "detector", 1e-3)
    print(f"{len(copies.volumes)} copies of {sorted({t['host'] for t in copies.texts})}", flush=True)
    rng = np.random.default_rng([args.seed, training.step])
    batches = crops.Prefetch(lambda: make_batch(copies, hard, rng, args.batch))
    sums = np.zeros(3)
    while training.done() < 1:
        images, goals = batches.get()
        loss, focal, box = loss_of(training.forward(images), goals)
        training.learn(loss)
        sums += loss.item(), focal, box
        if training.step % 100 == 0:
            copies.refresh()                 # generate.py and mine.py may run beside us
            if hard_file.exists() and not hard:
                hard.update(json.loads(hard_file.read_text()))
            print(f"{training.said()} loss {sums[0] / 100:.3f} focal {sums[1] / 100:.3f} box {sums[2] / 100:.3f} "
                  f"copies {len(copies.volumes)} hard {sum(map(len, hard.values()))}", flush=True)
            sums[:] = 0
    training.save()
    print(f"done: {training.step * args.batch} crops in {training.used / 60:.1f} minutes")


if __name__ == "__main__":
    main()
