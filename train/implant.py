"""Pastes a real nodule, or a piece of normal lung, into a CT in that CT's own grid.

In the host's grid the slice thickness and the partial volume act on the nodule as on everything
else. Nodules and normal tissue go through the same code: a network that learns the paste instead of
the nodule then gains nothing.
"""
from pathlib import Path

import numpy as np
from scipy import ndimage

from frame import load_nifti


class Patch:
    """hu and signed depth (mm, positive inside the mask) around a nodule, [z][y][x], own spacing."""

    def __init__(self, hu, depth_mm, spacing_mm, centre, diameter_mm, texture, name):
        self.hu, self.depth_mm, self.spacing_mm = hu, depth_mm, np.asarray(spacing_mm, float)
        self.centre = np.asarray(centre, float)        # voxels
        self.diameter_mm, self.texture, self.name = diameter_mm, texture, name
        around = hu[(depth_mm < -2) & (hu < -650)]
        self.parenchyma_hu = float(np.median(around)) if around.size > 30 else -850.0


def depth_mm(mask, spacing_mm):
    """Signed distance to the mask's border, which lies half way between two voxels."""
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.where(mask, inside - 0.5 * min(spacing_mm), 0.5 * min(spacing_mm) - outside)


def load_nodule(data, row):
    """A row of nodules.csv; most files end at the nodule along z, so the last slice is repeated."""
    base = Path(data) / "nodules"
    image = load_nifti(base / "image" / row["file"])
    mask = load_nifti(base / "mask" / row["file"]).hu > 0
    hu = np.pad(image.hu.astype(np.float32), ((2, 2), (2, 2), (2, 2)), mode="edge")
    mask = np.pad(mask, 2)
    centre = ndimage.center_of_mass(mask)
    return Patch(hu, depth_mm(mask, image.spacing_mm).astype(np.float32), image.spacing_mm, centre,
                 float(row["diameter_mm"]), float(row["Texture_value"] or 5), row["file"])


def made_ground_glass(patch, rng):
    """The same outline filled with ground glass, or the patch itself when it is not denser than that. A mottle
    of a few millimetres stands for the vessels and septa that go through the real thing."""
    inside = patch.depth_mm > 0
    core = float(np.percentile(patch.hu[inside], 70)) if inside.any() else -1000.0
    target = rng.uniform(-720, -470)
    if core < target + 100 or patch.parenchyma_hu > target - 60:
        return patch
    mottle = ndimage.gaussian_filter(rng.standard_normal(patch.hu.shape), 2.0 / patch.spacing_mm)
    share = (target - patch.parenchyma_hu) / (core - patch.parenchyma_hu)
    share = share * (1 + 0.25 * mottle / max(float(mottle.std()), 1e-6)).clip(0.4, 1.8)
    hu = patch.parenchyma_hu + (patch.hu - patch.parenchyma_hu) * share
    return Patch(hu.astype(np.float32), patch.depth_mm, patch.spacing_mm, patch.centre, patch.diameter_mm, 1,
                 patch.name)


def sham(host, lung_distance, shape_of, rng, lung_voxels):
    """A patch of a host's normal lung with a nodule's outline, or None when the piece looks like a
    nodule (compact blobs cut from vessels do, and teaching them as background is wrong)."""
    centre = np.array(np.unravel_index(lung_voxels[rng.integers(len(lung_voxels))],
                                       lung_distance.shape))
    radius = np.ceil(np.array(shape_of.hu.shape) / 2 * shape_of.spacing_mm / host.spacing_mm) + 2
    low, high = (centre - radius).astype(int), (centre + radius + 1).astype(int)
    if (low < 0).any() or (high > host.hu.shape).any():
        return None
    hu = host.hu[low[0]:high[0], low[1]:high[1], low[2]:high[2]].astype(np.float32)
    at = [(np.arange(n) + l - c) * s / t + m for n, l, c, s, t, m in
          zip(hu.shape, low, centre, host.spacing_mm, shape_of.spacing_mm, shape_of.centre)]
    depth = ndimage.map_coordinates(shape_of.depth_mm, np.meshgrid(*at, indexing="ij"), order=1,
                                    mode="nearest")
    inside = depth > 0
    if inside.sum() < 8 or (hu[inside] > -600).mean() > 0.2 or (hu[inside] < -1000).mean() > 0.2:
        return None
    return Patch(hu, depth, host.spacing_mm, centre - low, shape_of.diameter_mm, 0, "sham")


def sample(patch, grid_mm, rotation, scale):
    """HU and depth of a patch at offsets (z, y, x) in mm from its centre."""
    z, y, x = grid_mm
    c, s = rotation["cos"], rotation["sin"]
    y, x = c * y - s * x, s * y + c * x
    zyx = [rotation["flip"][i] * v / scale for i, v in enumerate((z, y, x))]
    at = [v / patch.spacing_mm[i] + patch.centre[i] for i, v in enumerate(zyx)]
    return (ndimage.map_coordinates(patch.hu, at, order=1, mode="nearest"),
            ndimage.map_coordinates(patch.depth_mm, at, order=1, mode="nearest") * scale)


def noise_like(host, noise, lung_voxels, shape, rng):
    """High-pass noise of the host's own lung, from somewhere else."""
    for _ in range(20):
        c = np.array(np.unravel_index(lung_voxels[rng.integers(len(lung_voxels))], host.shape))
        low = c - np.array(shape) // 2
        if (low >= 0).all() and (low + shape <= host.shape).all():
            return noise[tuple(slice(l, l + n) for l, n in zip(low, shape))].astype(np.float32)
    return np.zeros(shape, np.float32)


def paste(hu, spacing_mm, noise, lung_voxels, patch, at, rng, core_hu=60, cover=None):
    """Writes patch into hu (float32, in place) around voxel `at` (float). Returns the diameter in mm,
    the share of the nodule's volume that is visible beside brighter host tissue, and the share of its density
    that shows: what it adds to what was there, of what it would add to the host's parenchyma. cover: float32 of
    hu's shape, raised to the share of each voxel that the patch takes."""
    scale = rng.uniform(0.85, 1.18)
    angle = rng.uniform(0, 2 * np.pi)
    rotation = {"cos": np.cos(angle), "sin": np.sin(angle), "flip": rng.choice([-1, 1], 3)}
    reach = (np.array(patch.hu.shape) / 2 * patch.spacing_mm * scale)
    reach = np.array([reach[0] + 1, max(reach[1:]), max(reach[1:])])
    reach = np.minimum(reach, patch.diameter_mm * scale * 0.9 + 5)
    low = np.maximum(np.floor(at - reach / spacing_mm), 0).astype(int)
    high = np.minimum(np.ceil(at + reach / spacing_mm) + 1, hu.shape).astype(int)
    box = tuple(slice(l, h) for l, h in zip(low, high))
    rim = rng.uniform(0.7, 1.3)
    # a thick slice averages what lies within it: sample it at several depths
    thin = max(1, int(round(spacing_mm[0] / 1.0)))
    total_hu, total_alpha = 0, 0
    for part in range(thin):
        shift = ((part + 0.5) / thin - 0.5) * spacing_mm[0]
        axes = [(np.arange(l, h) - a) * s for l, h, a, s in zip(low, high, at, spacing_mm)]
        axes[0] = axes[0] + shift
        grid = np.meshgrid(*axes, indexing="ij")
        value, depth = sample(patch, grid, rotation, scale)
        alpha = np.clip(0.5 + depth / rim, 0, 1)
        total_hu, total_alpha = total_hu + value * alpha, total_alpha + alpha
    alpha = total_alpha / thin
    value = np.where(total_alpha > 1e-3, total_hu / np.maximum(total_alpha, 1e-3), 0)
    host = hu[box]
    around = host[(host < -600) & (host > -1024)]
    parenchyma = float(np.median(around)) if around.size > 20 else -850.0
    # ground glass sits on the host's parenchyma, a solid core does not
    value = value + (parenchyma - patch.parenchyma_hu) * np.clip((-200 - value) / 600, 0, 1)
    value += rng.uniform(-core_hu, core_hu) * np.clip((value + 700) / 400, 0, 1)
    value += rng.uniform(0.4, 1.0) * noise_like(hu, noise, lung_voxels, host.shape, rng)
    mixed = host * (1 - alpha) + value * alpha
    keep = (host > mixed + 120) & (host > -500)
    inside = alpha > 0.5
    visible = float((inside & ~keep & (host > -1024)).sum() / max(inside.sum(), 1))
    whole = float((alpha * (value - parenchyma))[host > -1024].sum())
    shows = float(np.where(keep, 0, mixed - host)[host > -1024].sum()) / max(whole, 1e-6)
    hu[box] = np.where(keep, host, mixed)
    if cover is not None:
        cover[box] = np.maximum(cover[box], np.where(keep, 0, alpha))
    return patch.diameter_mm * scale, visible, shows


def high_pass_noise(hu, lung):
    """The host's noise: what an in-plane mean of 3 removes, clipped so that vessels drop out."""
    noise = hu - ndimage.uniform_filter(hu.astype(np.float32), (1, 3, 3))
    sigma = 1.48 * np.median(np.abs(noise[lung][::7]))
    return np.clip(noise, -2.5 * sigma, 2.5 * sigma).astype(np.float16)


