"""Fits what says a nodule's texture from its density (candidate.Density), for every stage 2 in runs/.

    python3 train/train_texture.py          adds it to runs/head.pt, runs/head-HOST.pt and runs/candidate-FOLD.pt

Nodules of training patients in the copies of the hosts that a head may see. Twelve numbers a crop: they are measured once,
and a fit takes seconds. Ground glass and part-solid nodules are rare, here as in patients; they count by the square root
of that (WEIGHT): by 1 a tenth of the solid ones were called subsolid, by 0 not half of the ground-glass ones were found (docs/TRAINING.md).
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import crops
import split as splits
from candidate import SIDE, Density
from train_candidate import Pool, texture_class
from train_detector import learning_rate, save

WEIGHT = 0.5
OFF_MM = (0.6, 0.03)      # stage 1 misses the centre by about so much, more where the nodule is large


def drawn(pool, rng):
    """(crop, texture class, host) of a nodule whose texture is known; every second as another scanner would show it."""
    while True:
        index, at, mm, texture = pool.groups["nodule"][rng.integers(len(pool.groups["nodule"]))]
        if texture_class(texture) >= 0:
            break
    at = at + rng.normal(0, OFF_MM[0] + OFF_MM[1] * mm, 3)
    crop = crops.cut(pool.copies.volumes[index], (np.floor(at).astype(int) - (SIDE // 2 - 1)).tolist(), SIDE)
    crop = crops.change_grey(crop, rng) if rng.random() < 0.5 else crop.astype(np.float32) / 255
    return crop, texture_class(texture), pool.copies.texts[index]["host"]


def measure(pools, rng, count):
    """[count, 12] means and deviations, classes, hosts."""
    net, seen, kinds, hosts = Density(), [], [], []
    for n in range(count):
        crop, kind, host = drawn(pools[n % len(pools)], rng)
        seen.append(torch.cat(net.measured(torch.from_numpy(crop.astype(np.float32))[None, None]), 1))
        kinds.append(kind)
        hosts.append(host)
    return torch.cat(seen), torch.tensor(kinds), np.array(hosts)


def fit(seen, kinds, seed, steps=1500, batch=256, top_rate=1e-2):
    """A Density. It is trained on numbers of mean 0 and deviation 1, which its weights take up afterwards."""
    torch.manual_seed(seed)
    net, middle, scale = Density(), seen.mean(0), seen.std(0)
    share = torch.bincount(kinds, minlength=3) / len(kinds)
    shells, optimizer = len(Density.RADII), torch.optim.AdamW(net.parameters(), top_rate, weight_decay=1e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, top_rate)
        chosen = torch.randint(len(seen), (batch,))
        given = (seen[chosen] - middle) / scale
        loss = F.cross_entropy(net.said(given[:, :shells], given[:, shells:]), kinds[chosen], share**-WEIGHT)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for layer, part in ((net.mean, slice(0, shells)), (net.spread, slice(shells, None))):
            layer.weight /= scale[part]
            net.mean.bias -= layer.weight @ middle[part]
    return net


def add(path, net):
    saved = torch.load(path)
    saved["average"] = {**{k: v for k, v in saved["average"].items() if not k.startswith("density.")},
                        **{f"density.{k}": v for k, v in net.state_dict().items()}}
    save(path, **saved)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--crops", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs, rng = Path(args.runs), np.random.default_rng(args.seed)
    pools = [Pool(crops.Copies(Path(args.cache) / part, taught=True), json.loads((runs / "hard.json").read_text()))
             for part in ("train", splits.MORE)]
    with torch.no_grad():
        seen, kinds, hosts = measure(pools, rng, args.crops)
    print(f"{len(kinds)} nodules, {torch.bincount(kinds).tolist()} solid, part-solid, ground-glass", flush=True)
    folds = splits.load()["folds"]
    unseen = {runs / "head.pt": [], **{path: [path.stem[5:]] for path in sorted(runs.glob("head-*.pt"))},
              **{runs / f"candidate-{fold}.pt": folds[fold] for fold in splits.ANEW}}
    for path in filter(Path.exists, unseen):
        kept = torch.from_numpy(~np.isin(hosts, unseen[path]))
        add(path, fit(seen[kept], kinds[kept], args.seed))
        print(f"{path.name}: {int(kept.sum())} nodules", flush=True)


if __name__ == "__main__":
    main()
