"""Trains the gate's autoencoder on chests of the training hosts and writes models/gate.onnx.

    python3 train/train_gate.py [--variants 5] [--frames 1500] [--epochs 8]

One thread, about a quarter of an hour. Each host is seen as several scanners would have made it
(variants: kernel, slice thickness, noise); each variant is kept as sums over 4 mm and warped into
frames of other patients and other fields of view. runs/gate.pt holds the weights; the limits come
from the validation hosts, which the network never saw.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from scipy import ndimage
from torch.nn import functional as F

import export
import frame
import gate
import judge
import lungs
import onnx_run
import split as splits

BLOCK = 4                 # mm
MARGIN_MM = 15
CHANNEL_WEIGHTS = (4.0, 1.0, 4.0, 4.0)


# ---- scanners --------------------------------------------------------------------------------------

def retake(volume, rng):
    """A host as another scanner would have seen it, and its voxel spacing."""
    spacing = np.array(volume.spacing_mm, float)
    hu = volume.hu.astype(np.float32)
    blank = volume.hu <= -1024
    sigma = 0.8 / spacing[1]
    kind = rng.random()
    if kind < 0.35:
        hu = ndimage.gaussian_filter(hu, (0, sigma * rng.uniform(0.3, 1), sigma * rng.uniform(0.3, 1)))
    elif kind < 0.65:
        hu += rng.uniform(0.3, 1.6) * (hu - ndimage.gaussian_filter(hu, (0, sigma, sigma)))
    hu[blank] = -1024
    if spacing[0] < 2.5 and rng.random() < 0.6:                  # thicker slices
        hu = ndimage.uniform_filter1d(hu, int(rng.integers(2, 6)), axis=0)
    elif rng.random() < 0.5:                                     # or as many as a thin protocol has
        step = rng.uniform(0.6, 2.0)
        hu = frame.resample(hu, spacing, (step, spacing[1], spacing[2]))
        spacing[0] = step
    if rng.random() < 0.6:                                       # dose
        noise = rng.normal(0, 1, hu.shape).astype(np.float32)
        smooth = rng.uniform(0, 0.7) / spacing[1]
        if smooth > 0.3:
            noise = ndimage.gaussian_filter(noise, (0, smooth, smooth))
            noise /= noise[len(noise) // 2].std()
        hu += rng.uniform(5, 70) * noise
    return hu, spacing


def blocks(array):
    """Means over BLOCK mm, what does not fill a block left out."""
    z, y, x = (n // BLOCK for n in array.shape)
    cut = array[:z * BLOCK, :y * BLOCK, :x * BLOCK]
    for axis in range(3):
        cut = np.add.reduceat(cut, np.arange(0, cut.shape[axis], BLOCK), axis)
    return cut / BLOCK**3


class Host:
    """A host and its lungs, which no scanner changes."""

    def __init__(self, data, row):
        self.name = row["name"]
        self.volume = frame.load_host(data, self.name)
        tissue = lungs.fill_masked_outside(self.volume.hu)
        self.lung_2mm = lungs.lung_mask_2mm(tissue, self.volume.spacing_mm)

    def variant(self, rng, plain=False):
        """[4] maps at BLOCK mm: density 0..1, lung 0..1, grain and step in HU times lung."""
        hu, spacing = (self.volume.hu, self.volume.spacing_mm) if plain else retake(self.volume, rng)
        small = frame.resample(hu, spacing)
        distance = lungs.distance_mm(self.lung_2mm, small.shape)
        small[distance > (MARGIN_MM if plain else rng.uniform(12, MARGIN_MM))] = -1024
        maps = gate.voxel_maps(small, distance <= 0.5)
        out = np.stack([blocks(m) for m in maps]).astype(np.float32)
        out[0] /= frame.HU_MAX - frame.HU_MIN
        return torch.from_numpy(out)


# ---- patients --------------------------------------------------------------------------------------

def ball(shape, centre, radii):
    """0..1, soft over one block."""
    at = [((torch.arange(n) - c) / r).reshape([-1 if a == b else 1 for b in range(3)])
          for a, (n, c, r) in enumerate(zip(shape, centre, radii))]
    distance = (at[0]**2 + at[1]**2 + at[2]**2).sqrt()
    return ((1 - distance) * float(min(radii)) + 0.5).clamp(0, 1)


def smooth_field(shape, rng, cells=4):
    """A random field of deviation 1 that changes over a quarter of the volume."""
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, cells, cells, cells)).astype(np.float32))
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0]


def put(maps, where, density, lung, rough_hu):
    """Replaces what lies in `where` (0..1)."""
    for channel, value in enumerate((density, lung, rough_hu * lung, rough_hu * lung)):
        maps[channel] += where * (value - maps[channel])


def disease(maps, rng):
    """Tumours, consolidation and effusion; air below the diaphragm; density of the lung; contrast."""
    shape = maps.shape[1:]
    inside = torch.nonzero(maps[1] > 0.9)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.5, 0.25, 0.15, 0.1]))):
        centre = inside[rng.integers(len(inside))].tolist()
        radii = rng.uniform(8, 45) / BLOCK * rng.uniform(0.7, 1.4, 3)
        seen = 1.0 if radii.max() * BLOCK < 30 and rng.random() < 0.7 else 0.0
        put(maps, ball(shape, centre, radii) * (maps[1] > 0.2), rng.uniform(0.5, 0.68), seen, 25)
    if rng.random() < 0.08:                                       # stomach or colon taken for lung
        low = [float(inside[:, a].float().mean()) for a in range(3)]
        centre = [rng.uniform(0, 6), low[1] + rng.uniform(-14, 4), low[2] + rng.uniform(-20, 20)]
        put(maps, ball(shape, centre, rng.uniform(25, 45, 3) / BLOCK), 0.03, 1.0, 20)
    maps[0] += maps[1] * (rng.normal(0, 0.022) + rng.uniform(0, 0.025) * smooth_field(shape, rng))
    tissue = (maps[0] > 0.3) * (1 - maps[1])
    maps[0] += tissue * (rng.normal(0, 0.015) + rng.uniform(0, 0.03) * smooth_field(shape, rng))
    level = torch.exp(0.25 * smooth_field(shape, rng) * rng.uniform(0, 1) + rng.normal(0, 0.15))
    maps[2] *= level
    maps[3] *= level * float(np.exp(rng.normal(0, 0.1)))
    return maps.clamp_(min=0)


def field_of_view(maps, rng):
    """The scan or the reconstructed circle ends a little early."""
    def ends(chance, most_mm):
        return int(rng.uniform(0, most_mm) / BLOCK) if rng.random() < chance else 0
    used = [torch.nonzero((maps[1] > 0.5).flatten(1).any(1) if a == 0 else
                          (maps[1] > 0.5).transpose(0, a).flatten(1).any(1)).flatten()
            for a in range(3)]
    low = [int(u[0]) for u in used]
    high = [int(u[-1]) + 1 for u in used]
    cut = ends(0.3, 30)
    if cut:
        maps[:, :low[0] + cut] = 0
    cut = ends(0.2, 15)
    if cut:
        maps[:, high[0] - cut:] = 0
    cut = ends(0.1, 15)
    if cut:
        maps[..., :low[2] + cut] = 0
    cut = ends(0.1, 15)
    if cut:
        maps[..., high[2] - cut:] = 0
    return maps


def turn(rng):
    """A matrix (z, y, x) of another patient: size, proportions, tilt and shear."""
    angles = rng.normal(0, [4, 5, 4]) * np.pi / 180
    out = np.diag(rng.uniform(0.85, 1.18) * rng.uniform(0.9, 1.1, 3))
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turned = np.eye(3)
        turned[a, a] = turned[b, b] = np.cos(angle)
        turned[a, b], turned[b, a] = -np.sin(angle), np.sin(angle)
        out = turned @ out
    return out @ (np.eye(3) + rng.normal(0, 0.03, (3, 3)))


def moments(lung):
    """Mean and covariance of the lung's blocks (z, y, x)."""
    at = torch.nonzero(lung > 0.05)
    weight = lung[tuple(at.T)].double()
    at = at.double()
    mean = (at * weight[:, None]).sum(0) / weight.sum()
    centred = at - mean
    return mean.numpy(), ((centred * weight[:, None]).T @ centred / weight.sum()).numpy()


def frame_from(maps, rng=None):
    """A frame [4][32][24][24] of 4 mm maps; with rng, of another patient's chest like it."""
    maps = maps.clone()
    if rng is not None:
        maps = field_of_view(disease(maps, rng), rng)
    matrix = turn(rng) if rng is not None else np.eye(3)
    mean, covariance = moments(maps[1])
    deviation = np.sqrt(np.diag(matrix @ covariance @ matrix.T))
    fine = [2 * n for n in gate.CELLS]
    line = [((np.arange(n) + 0.5) / n * 2 - 1) * r * s
            for n, r, s in zip(fine, gate.REACH, deviation)]
    grid = np.stack(np.meshgrid(*line, indexing="ij"), -1)        # relative to the mean, in the box
    if rng is not None:                                           # a small bend
        bend = np.stack([smooth_field(fine, rng).numpy() for _ in range(3)], -1)
        grid = grid + rng.uniform(0, 6) / BLOCK * bend
    source = grid @ np.linalg.inv(matrix).T + mean
    size = np.array(maps.shape[1:]) - 1
    unit = torch.from_numpy((source / size * 2 - 1)[None, ..., ::-1].astype(np.float32))
    sampled = F.grid_sample(maps[None], unit, align_corners=True)
    density, lung, grain, step = F.avg_pool3d(sampled, 2)[0].numpy()
    return channels(density, lung, grain, step)


def channels(density, lung, grain, step):
    """As gate.finish, from means instead of sums."""
    some = np.maximum(lung, 1e-3)
    return np.stack([density, lung, lung * gate.rough(grain / some),
                     lung * gate.rough(step / some)]).astype(np.float32)


# ---- training --------------------------------------------------------------------------------------

def variants_of(data, part, count, seed):
    """[(host name, maps)]: every host as it is, then as `count - 1` other scanners made it."""
    out = []
    for number, row in enumerate(splits.hosts(data, part)):
        host = Host(data, row)
        for n in range(count):
            rng = np.random.default_rng([seed, number, n])
            out.append((host.name, host.variant(rng, plain=n == 0)))
        print(f"{host.name}: {count} variants", flush=True)
    return out


def frames_of(variants, count, seed):
    """float16 [count][4][32][24][24], the variants in turn."""
    out = np.empty((count, len(gate.CHANNELS)) + gate.CELLS, np.float16)
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        out[n] = frame_from(variants[n % len(variants)][1], rng)
    return torch.from_numpy(out)


def loss_of(net, batch):
    weights = torch.tensor(CHANNEL_WEIGHTS).reshape(1, -1, 1, 1, 1)
    return (weights * (net(batch) - batch) ** 2).mean()


def train(net, frames, epochs, batch=16):
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    steps = epochs * (len(frames) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    done, running, started = 0, 0.0, time.time()
    for epoch in range(epochs):
        for index in torch.randperm(len(frames))[:len(frames) // batch * batch].split(batch):
            loss = loss_of(net, frames[index].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            running += 0.02 * (loss.item() - running) if done > 1 else loss.item()
        print(f"epoch {epoch + 1}: loss {running:.5f}, {time.time() - started:.0f} s", flush=True)


def bound_code(net, frames, quantile=0.002):
    """The range of the code over the training frames, but for the outermost few."""
    with torch.no_grad():
        codes = torch.cat([net.code(part.float()) for part in frames.split(32)])
    net.low.copy_(codes.quantile(quantile, 0))
    net.high.copy_(codes.quantile(1 - quantile, 0))


# ---- what the product gets -------------------------------------------------------------------------

MARGINS = (1.45, 1.45, 1.0, 1.0)   # density and lung: anatomy differs more than scanners do, and what
TURNED = 0.95                         # is turned over is told by this
REPEATED = 8.0                        # a slice of the frame with an eighth of the median step


def errors_of(net, frames):
    with torch.no_grad():
        return torch.cat([gate.errors(part.float(), net(part.float())) for part in frames.split(32)])


def limits_for(net, frames, data, variants, seed):
    """From the worst of 200 frames of the validation hosts, which the network never saw, and the 99th
    percentile of every fifth training frame (of scanners that the two hosts do not have)."""
    held_out = frames_of(variants_of(data, "validation", variants, seed + 1), 200, seed + 1)
    seen = errors_of(net, frames[::5]).flatten(1).quantile(0.99, 0).reshape(2, -1)
    worst = torch.maximum(errors_of(net, held_out).amax(0), seen) * torch.tensor(MARGINS)
    out = {name: [round(v, 5) for v in row] for name, row in zip(gate.EXTENTS, worst.tolist())}
    return dict(out, turned=TURNED, repeated=REPEATED)


def write_model(net, limits, out, scratch):
    """gate.onnx, checked against PyTorch, and its entry in model.json."""
    example = torch.rand(2, len(gate.CHANNELS), *gate.CELLS)
    torch.onnx.export(net.eval(), example[:1], str(scratch), opset_version=13, input_names=["frame"],
                      output_names=["reconstruction"], do_constant_folding=True,
                      dynamic_axes={"frame": {0: "N"}, "reconstruction": {0: "N"}})
    model = export.tidy(onnx.load(str(scratch)))
    with torch.no_grad():
        want = net(example)
    got = onnx_run.run(model, {"frame": example})["reconstruction"]
    print(f"gate.onnx differs from PyTorch by {(got - want).abs().max().item():.2e}")
    assert (got - want).abs().max() < 1e-4, "the exported graph is not the network"
    export.write_model(out / "gate.onnx", model)
    text = json.loads((out / "model.json").read_text())
    text["gate"] = {"file": "gate.onnx", "sha256": judge.sha256(out / "gate.onnx"),
                    "limits": limits}
    (out / "model.json").write_text(json.dumps(text, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--out", default=str(splits.HERE / "../models"))
    parser.add_argument("--variants", type=int, default=5)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    Path(args.runs).mkdir(exist_ok=True)
    variants = variants_of(args.data, "train", args.variants, args.seed)
    frames = frames_of(variants, args.frames, args.seed)
    print(f"{len(frames)} frames of {len(variants)} variants", flush=True)
    net = gate.Autoencoder()
    train(net, frames, args.epochs)
    bound_code(net, frames)
    net.eval()
    limits = limits_for(net, frames, args.data, args.variants, args.seed)
    torch.save({"weights": net.state_dict(), "limits": limits, "arguments": vars(args)},
               Path(args.runs) / "gate.pt")
    write_model(net, limits, Path(args.out), Path(args.runs) / "gate-export.onnx")


if __name__ == "__main__":
    main()
