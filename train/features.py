"""What the trunk of the shipped stage 2 makes of crops: train_head.py then trains what follows it in minutes.

    python3 train/features.py --crops 77824      writes cache/features/*.npz

Half of the crops are of hosts that the trunk was trained on, half of hosts that it never saw (split.MORE): what it has
learnt by heart it separates too well, and a head that saw that alone trusts it too much.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import crops
import from_onnx
import split as splits
from candidate import SIDE, Candidate
from train_candidate import Pool

PIECE = 4096       # crops a file


class Drawn(Pool):
    """A pool whose crops remember the host they were cut from."""

    def one(self, rng):
        index, at, is_nodule, texture, log_mm = self.draw(rng)
        corner = (np.floor(at).astype(int) - (SIDE // 2 - 1)).tolist()
        crop, _ = crops.flip(crops.cut(self.copies.volumes[index], corner, SIDE), np.zeros((1, 3)), rng)
        return crops.change_grey(crop, rng)[None], (is_nodule, texture, log_mm), self.copies.texts[index]["host"]


def pools_of(cache, hard):
    return [Drawn(crops.Copies(Path(cache) / part, taught=True), hard) for part in ("train", splits.MORE)]


def trunk_of(path):
    """The trunk of an exported stage 2; its norms are folded, so that it computes what the graph does."""
    net = Candidate()
    from_onnx.load(net, path)
    return net.eval().trunk


def draw(pools, rng, count):
    """(images, goals, hosts), from each pool in turn."""
    drawn = [pools[n % len(pools)].one(rng) for n in range(count)]
    images, goals, hosts = zip(*drawn)
    return torch.from_numpy(np.stack(images)), np.array(goals, np.float32), np.array(hosts)


def piece_of(trunk, pools, rng, batch=32):
    """One file: float16 [PIECE][64][5][5][5], goals and hosts."""
    parts = []
    for _ in range(PIECE // batch):
        images, goals, hosts = draw(pools, rng, batch)
        with torch.no_grad():
            parts.append((trunk(images).half().numpy(), goals, hosts))
    features, goals, hosts = (np.concatenate(p) for p in zip(*parts))
    return {"features": features, "goals": goals, "hosts": hosts}


def load(folder, without=()):
    """All pieces as one, without the crops of some hosts."""
    features, goals, hosts = [], [], []
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as piece:
            kept = ~np.isin(piece["hosts"], without)
            features.append(piece["features"][kept])
            goals.append(piece["goals"][kept])
            hosts.append(piece["hosts"][kept])
    return np.concatenate(features), np.concatenate(goals), np.concatenate(hosts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--crops", type=int, default=19 * PIECE)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="with --step 2, two processes share the work")
    parser.add_argument("--step", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    hard = json.loads((Path(args.runs) / "hard.json").read_text())
    pools, out = pools_of(args.cache, hard), Path(args.cache) / "features"
    trunk = trunk_of(Path(args.models) / "candidate.onnx")
    out.mkdir(parents=True, exist_ok=True)
    for number in range(args.first, -(-args.crops // PIECE), args.step):
        path, start = out / f"{number:03d}.npz", time.time()
        if path.exists():        # each piece has its own seed, so that a run may go on
            continue
        piece = piece_of(trunk, pools, np.random.default_rng([args.seed, number]))
        with open(path.with_suffix(".part"), "wb") as f:
            np.savez(f, **piece)
        path.with_suffix(".part").rename(path)
        print(f"{path.name}: {PIECE} crops in {time.time() - start:.0f} s, {piece['goals'][:, 0].mean():.2f} nodules", flush=True)


if __name__ == "__main__":
    main()
