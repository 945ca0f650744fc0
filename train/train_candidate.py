"""Trains stage 2: nodules against what stage 1 mistakes for them (runs/hard.json, by mine.py).

    python3 train/train_candidate.py --minutes 25
    python3 train/train_candidate.py --go-on --fold a --crops 20000     from the graph in --models, without fold a's hosts
"""
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import crops
import from_onnx
import split as splits
from candidate import KEEP, SIDE, TOKENS, Candidate
from train_detector import Training, arguments, checkpoint, copies_of, graph, learning_rate


def texture_class(value):
    """LIDC texture 1 … 5 to 0 solid, 1 part-solid, 2 ground-glass; -1 where unknown."""
    if value < 1:
        return -1
    return 2 if value <= 2 else 1 if value < 4 else 0


SHARES = {"nodule": 0.44, "hard": 0.38, "sham": 0.09, "lung": 0.03, "beside": 0.06}     # of the crops
TURNED = 0.5           # of them, in a training that goes on
GATE_SETTLES = 0.25    # share of the training after which the gate lets KEEP keys through


def keys_at(done):
    """All keys at first: what is never seen never learns to be chosen."""
    return int(np.clip(TOKENS**3 - (TOKENS**3 - KEEP) * done / GATE_SETTLES, KEEP, TOKENS**3))


class Pool:
    """Nodules, shams and stage 1's false positives. The latter are known in each host's own voxels and
    so serve in every copy of it, each time with another scanner's grain."""

    def __init__(self, copies, hard, turned=0.0):
        """turned: share of the crops that are turned and zoomed."""
        self.copies, self.hard, self.turned = copies, hard, turned
        self.groups = {"nodule": [], "sham": []}
        for index, text in enumerate(copies.texts):
            for f in text["findings"]:
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
        index = int(rng.integers(len(self.copies.texts)))
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

    def draw(self, rng, kinds=SHARES):
        """(copy, centre, is nodule, texture class, ln diameter) of one of these kinds."""
        share = np.array([SHARES[kind] for kind in kinds])
        kind = rng.choice(list(kinds), p=share / share.sum())
        if kind == "nodule":
            index, at, mm, texture = self.groups[kind][rng.integers(len(self.groups[kind]))]
            # stage 1 misses the centre by about a millimetre, more where the nodule is large
            at = at + rng.normal(0, 1.0 + 0.03 * mm, 3)
            return index, at, 1, texture_class(texture), np.log(mm)
        while True:
            index, at = self.negative(kind, rng)
            if self.clear(index, at):
                return index, at, 0, -1, 0.0

    def crop(self, index, at, rng):
        """(crop, zoom) about a place of a copy."""
        volume = self.copies.volumes[index]
        if self.turned and rng.random() < self.turned:
            turn, zoom = crops.random_turn(rng)
            return crops.cut_turned(volume, at, np.zeros(3), np.zeros((1, 3)), SIDE, turn)[0], zoom
        return crops.cut(volume, (np.floor(at).astype(int) - (SIDE // 2 - 1)).tolist(), SIDE), 1.0

    def batch(self, rng, size, kinds=SHARES):
        images, goals = [], []
        for _ in range(size):
            index, at, is_nodule, texture, log_mm = self.draw(rng, kinds)
            crop, zoom = self.crop(index, at, rng)
            crop, _ = crops.flip(crop, np.zeros((1, 3)), rng)
            images.append(crops.change_grey(crop, rng)[None])
            goals.append((is_nodule, texture, log_mm + np.log(zoom)))
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


def gated(args):
    """Whether a gate chooses the keys from here on: what train_head.py follows learns without."""
    return args.go_on or args.fold in splits.ANEW


def start(args):
    """A network that begins with stage 1's encoder or, with --go-on, with the graph in --models."""
    net = Candidate(dropout=0.2, gated=gated(args))
    if args.go_on:
        from_onnx.load(net, graph(args, "candidate"))
    else:
        start_from_detector(net, checkpoint(args, "detector"))
    return net


def hidden_of_nodules(net, pool, rng, count=4096, batch=32):
    """(what settle() fits to [count, 64], goals) of crops of nodules."""
    hidden, goals = [], []
    with torch.no_grad():
        for _ in range(count // batch):
            images, wanted = pool.batch(rng, batch, ["nodule"])
            hidden.append(net.eval().look(net.trunk(images))[0])
            goals.append(wanted)
    return torch.cat(hidden), torch.cat(goals)


def settle(net, hidden, goals, seed, steps=300, batch=256):
    """Fits size and texture anew, two linear functions of what the head has computed of nodules, to the fewer keys that a
    gate lets through where the network is used: those are not what it was trained with, and a diameter feels it more than a
    probability. The logit stays as it is."""
    rng = np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW([*net.texture.parameters(), *net.log_diameter.parameters()], 1e-2, weight_decay=0)
    for step in range(steps):
        chosen = torch.from_numpy(rng.choice(len(goals), batch))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, 1e-2)
        of = hidden[chosen]
        loss, *_ = loss_of((net.logit(of).detach(), net.texture(of), net.log_diameter(of), None), goals[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def main():
    args = arguments(minutes=25, batch=32, top_rate=2e-3, seed=2)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    hard_file = Path(args.runs) / "hard.json"
    pool = Pool(copies_of(args), json.loads(hard_file.read_text()), TURNED if args.go_on else 0)
    net = start(args)
    if args.go_on:
        rng = np.random.default_rng([args.seed, 0, 1])
        from_onnx.measure_norms(net, [pool.batch(rng, args.batch)[0] for _ in range(16)])
    training = Training(net.train(), args, "candidate", 1e-2)
    print({k: len(v) for k, v in pool.groups.items()}, sorted({t["host"] for t in pool.copies.texts}), flush=True)
    rng = np.random.default_rng([args.seed, training.step])
    batches = crops.Prefetch(lambda: pool.batch(rng, args.batch))
    hard_read, sums = hard_file.stat().st_mtime, np.zeros(4)
    while training.done() < 1:
        images, goals = batches.get()
        if gated(args):
            net.attention.keep = keys_at(training.done())
        outputs = training.forward(images)
        loss, found, size = loss_of(outputs, goals)
        training.learn(loss)
        right = ((outputs[0][:, 0] > 0).float() == goals[:, 0]).float().mean().item()
        sums += loss.item(), found, size, right
        if training.step % 100 == 0:
            print(f"{training.said()} loss {sums[0] / 100:.3f} nodule {sums[1] / 100:.3f} size {sums[2] / 100:.3f} "
                  f"right {sums[3] / 100:.3f}", flush=True)
            sums[:] = 0
            if hard_file.stat().st_mtime != hard_read:      # mine.py ran beside us
                hard_read, pool.hard = hard_file.stat().st_mtime, json.loads(hard_file.read_text())
    if gated(args):
        net.load_state_dict(training.average.state)
        settle(net, *hidden_of_nodules(net, pool, np.random.default_rng([args.seed, 0, 2])), args.seed)
        training.average.state = net.state_dict()
    training.save()
    print(f"done: {training.step * args.batch} crops in {training.used / 60:.1f} minutes")


if __name__ == "__main__":
    main()
