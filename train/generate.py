"""Makes host copies: one host with many nodules and shams pasted in, at 1 mm, uint8.

A copy is cache/<part>/<number>.npy with <number>.json beside it. The trainer cuts as many crops as it
likes from each. One number always gives the same copy (seed), on any machine.

    python3 train/generate.py --part train --count 400
"""
import argparse
import copy
import json
import os
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

import frame
import implant
import lungs
import split as splits

MARGIN_MM = 15
FADE_FROM = 300       # copies from this number on hold more small nodules, and solid ones made ground glass
FADE_SHARE = 0.22


class Host:
    """A host with what every copy of it needs."""

    def __init__(self, data, row):
        self.name = row["name"]
        self.volume = frame.load_host(data, row["name"])
        tissue = lungs.fill_masked_outside(self.volume.hu)
        self.prepare(lungs.lung_mask_2mm(tissue, self.volume.spacing_mm))
        self.lesions = []
        for centre, diameter, included in splits.lesions(data, self.name):
            at = (np.array(centre) - self.volume.origin_mm) / self.volume.spacing_mm
            self.lesions.append((at, diameter, included))

    def prepare(self, lung_2mm):
        """Distances, noise and the sites where a nodule may be put."""
        self.lung_2mm = lung_2mm
        self.distance = lungs.distance_mm(self.lung_2mm, self.volume.hu.shape,
                                          self.volume.spacing_mm)
        inside = self.distance <= 0.5
        self.noise = implant.high_pass_noise(self.volume.hu, inside)
        self.lung_voxels = np.flatnonzero(inside.ravel())
        depth = ndimage.distance_transform_edt(self.lung_2mm, sampling=lungs.GRID_MM)
        depth = np.minimum(frame.resample(depth.astype(np.float32), (2.0,) * 3,
                                          self.volume.spacing_mm), 60)
        pad = [(0, max(0, n - m)) for n, m in zip(inside.shape, depth.shape)]
        depth = np.pad(depth, pad)[:inside.shape[0], :inside.shape[1], :inside.shape[2]]
        # free and pleural sites in aerated lung only; beside vessels where the host is bright
        smooth = ndimage.uniform_filter(self.volume.hu.astype(np.float32), (1, 5, 5))
        aerated = inside & (smooth < -650)
        bright = (self.volume.hu > -300) & (depth > 8)
        near = ndimage.distance_transform_edt(~bright, sampling=self.volume.spacing_mm)
        self.sites = {"free": np.flatnonzero((aerated & (depth > 4)).ravel()),
                      "pleura": np.flatnonzero((inside & (depth > 0) & (depth < 4)).ravel()),
                      "vessel": np.flatnonzero((aerated & (near > 1) & (near < 5)).ravel())}
        self.sites = {k: v.astype(np.int32) for k, v in self.sites.items() if len(v) > 1000}


def nodule_weight(row):
    """Over-sampling of what the trial missed: ground glass, part-solid, 4 to 7 mm."""
    texture, diameter = float(row["Texture_value"] or 5), float(row["diameter_mm"])
    weight = 3.0 if texture < 2.5 else 2.5 if texture < 4.5 else 1.0
    return weight * (2.0 if 4 <= diameter < 7 else 1.0)


def for_number(number, nodules, rng):
    """The nodules of a training copy. 35 of ground glass are few: from FADE_FROM on some solid ones lose density,
    and what is under 7 mm comes half as often again."""
    if number < FADE_FROM:
        return nodules
    chosen = []
    for patch in nodules:
        fades = patch.texture > 4.5 and patch.diameter_mm >= 5 and rng.random() < FADE_SHARE
        new = copy.copy(implant.made_ground_glass(patch, rng) if fades else patch)
        new.weight = patch.weight * (1.5 if patch.diameter_mm < 7 else 1.0)
        chosen.append(new)
    return chosen


def place(host, kind, diameter_mm, taken, rng):
    """A voxel whose neighbourhood is free of other pastes and of the host's own lesions."""
    voxels = host.sites.get(kind, host.sites["free"])
    for _ in range(60):
        at = np.array(np.unravel_index(voxels[rng.integers(len(voxels))], host.distance.shape), float)
        gaps = [np.linalg.norm((at - other) * host.volume.spacing_mm) - (d + diameter_mm) / 2
                for other, d in taken]
        if not gaps or min(gaps) > 6:
            return at + rng.uniform(-0.5, 0.5, 3)
    return None


def change_scanner(hu, spacing_mm, rng):
    """A softer or sharper kernel, thicker slices, more noise: what other scanners do."""
    kind = rng.random()
    if kind < 0.40:
        sigma = rng.uniform(0.4, 0.9) / spacing_mm[1]
        hu = ndimage.gaussian_filter(hu, (0, sigma, sigma))
    elif kind < 0.60:
        soft = ndimage.gaussian_filter(hu, (0, 0.8 / spacing_mm[1], 0.8 / spacing_mm[1]))
        hu = hu + rng.uniform(0.3, 1.0) * (hu - soft)
    if spacing_mm[0] < 2 and rng.random() < 0.6:
        hu = ndimage.uniform_filter1d(hu, int(rng.choice([2, 3])), axis=0)
    if rng.random() < 0.35:
        grain = rng.normal(0, 1, hu.shape).astype(np.float32)
        grain = ndimage.uniform_filter(grain, (0, 2, 2) if rng.random() < 0.5 else (0, 1, 1))
        hu = hu + rng.uniform(8, 45) * grain
    return hu


def make_copy(host, nodules, shams_from, rng, nodule_count, sham_count, plain=False, cover=None):
    """Returns (uint8 1 mm volume, description). `plain` leaves out all augmentation of the CT. cover: zeros of
    the host's shape, raised to the share of each voxel that a nodule takes (not changed by a sham)."""
    spacing = host.volume.spacing_mm
    hu = host.volume.hu.astype(np.float32)
    outside = host.volume.hu <= -1024
    taken = [(at, abs(d) if d > 0 else 8) for at, d, _ in host.lesions]
    findings = [{"at": list(at), "mm": d, "kind": "lesion" if inc else "ignore", "name": "",
                 "texture": 0} for at, d, inc in host.lesions]
    weight = np.array([p.weight for p in nodules])
    weight = weight / weight.sum()
    # evaluation draws without repetition, so that one odd nodule does not count many times
    turn = rng.permutation(len(nodules)) if plain else None
    for number in range(nodule_count + sham_count):
        patch = nodules[turn[number % len(turn)] if plain else rng.choice(len(nodules), p=weight)]
        is_sham = number >= nodule_count
        kind = ["free", "pleura", "vessel"][rng.choice(3, p=[0.45, 0.25, 0.30])]
        at = place(host, kind, patch.diameter_mm, taken, rng)
        if at is None:
            continue
        if is_sham:
            other = shams_from[rng.integers(len(shams_from))]
            piece = None
            for _ in range(8):
                piece = implant.sham(other.volume, other.distance, patch, rng, other.lung_voxels)
                if piece:
                    break
            if not piece:
                continue
            patch = piece
        before = hu.copy() if plain else None
        covered = None if cover is None or is_sham else cover.copy()
        diameter, visible, shows = implant.paste(hu, spacing, host.noise, host.lung_voxels, patch, at, rng,
                                                 cover=covered)
        if plain and visible < 0.5:      # half hidden in the pleura: no fair test, take it back
            hu = before
            continue
        if covered is not None:
            cover[...] = covered
        taken.append((at, diameter))
        label = "sham" if is_sham else ("nodule" if visible > 0.35 else "ignore")
        findings.append({"at": list(at), "mm": diameter, "kind": label, "name": patch.name,
                         "texture": patch.texture, "site": kind, "shows": round(shows, 3)})
    step = np.ones(3)
    if not plain:
        hu = change_scanner(hu, spacing, rng)
        step = rng.uniform(0.88, 1.14) * rng.uniform(0.96, 1.04, 3)
    hu[outside] = -1024
    small = frame.resample(hu, spacing, step)
    distance = lungs.distance_mm(host.lung_2mm, small.shape, step)
    margin = MARGIN_MM if plain or rng.random() < 0.4 else rng.uniform(7, 15)
    small[distance > margin] = -1024
    used = [np.flatnonzero((distance <= MARGIN_MM).any(tuple(j for j in range(3) if j != i)))
            for i in range(3)]
    low = [int(u[0]) for u in used]
    small = small[low[0]:used[0][-1] + 1, low[1]:used[1][-1] + 1, low[2]:used[2][-1] + 1]
    zoom = float(np.prod(1 / step) ** (1 / 3))
    for f in findings:
        f["at"] = [round(float(a * s / t - l), 2) for a, s, t, l in zip(f["at"], spacing, step, low)]
        f["mm"] = round(float(f["mm"] * zoom), 2) if f["mm"] > 0 else f["mm"]
    return frame.to_uint8(small), {"host": host.name, "step_mm": step.tolist(), "low": low,
                                   "scale": (spacing / step).tolist(),
                                   "findings": findings}


def load_nodules(data, part, split=None):
    patches = []
    for row in splits.nodules(data, part, split):
        patch = implant.load_nodule(data, row)
        patch.weight = nodule_weight(row)
        patches.append(patch)
    return patches


def write(folder, number, volume, description):
    """The JSON comes last and by rename: a reader that sees it sees a whole copy."""
    np.save(folder / f"{number:05d}.npy", volume)
    partial = folder / f"{number:05d}.part"
    partial.write_text(json.dumps(description))
    os.replace(partial, folder / f"{number:05d}.json")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--part", default="train", choices=splits.MADE)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--nodules", type=int, default=30)
    parser.add_argument("--shams", type=int, default=16)
    parser.add_argument("--plain", action="store_true", help="no augmentation: for evaluation")
    args = parser.parse_args()
    if args.part == splits.JUDGED and not args.plain:
        parser.error("those nodules judge: their copies are made --plain")
    folder = Path(args.cache) / (args.part + ("-plain" if args.plain else ""))
    folder.mkdir(parents=True, exist_ok=True)
    hosts = [Host(args.data, r) for r in splits.hosts(args.data, args.part)]
    nodules = load_nodules(args.data, args.part)
    order = np.random.default_rng(11).permutation(len(nodules))
    print(f"{len(hosts)} hosts, {len(nodules)} nodules", flush=True)
    for number in range(args.first, args.count):
        if (folder / f"{number:05d}.json").exists():
            continue
        started = time.time()
        rng = np.random.default_rng([splits.MADE.index(args.part), int(args.plain), number])
        few = [nodules[order[(number * args.nodules + i) % len(order)]]
               for i in range(args.nodules)] if args.plain else for_number(number, nodules, rng)
        volume, description = make_copy(hosts[number % len(hosts)], few, hosts, rng,
                                        args.nodules, args.shams, args.plain)
        write(folder, number, volume, description)
        print(number, description["host"], volume.shape, f"{time.time() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
