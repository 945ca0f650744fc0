"""Diameters by the engine's own masks (tests/volume_spheres.c), and what of them and the network's own is reported.

A finding's diameter is offset_mm + slope d + mask (m - d), d the network's and m that of the sphere with the volume of the
mask that is grown from it, m - d being at most `reach` d: a mask that runs along a vessel, or misses the soft part of
a nodule, moves the diameter by no more. infer/model.c does the same.
"""
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from scipy import optimize

import split as splits

PROGRAM = splits.HERE / "../build/tests/volume_spheres"
REACH = 0.1
QUADRATIC_MM = 1.0        # errors beyond count in proportion only, so that a nodule of 30 mm does not decide alone


def spheres(volume, at, mm):
    """volume uint8 at 1 mm, at [N, 3] (z, y, x) and mm [N] -> mm [N] of the masks."""
    if not len(at):
        return np.zeros(0)
    hu = np.round(volume.astype(np.float32) * (1632 / 255) - 1024).astype("<i2")
    lines = "".join(f"{x:.4f} {y:.4f} {z:.4f} {d:.4f}\n" for (z, y, x), d in zip(at, mm))
    with tempfile.NamedTemporaryFile() as file:
        file.write(np.array(volume.shape[::-1], "<i4").tobytes() + hu.tobytes())
        file.flush()
        out = subprocess.run([PROGRAM, file.name], input=lines, check=True, capture_output=True, text=True).stdout
    return np.array(out.split(), float)


def joined(diameter, mm, sphere_mm):
    """What is reported. diameter: as in model.json; None = the network's."""
    if diameter is None:
        return mm
    reach = diameter["reach"] * mm
    more = np.clip(sphere_mm - mm, -reach, reach)
    return np.maximum(diameter["offset_mm"] + diameter["slope"] * mm + diameter["mask"] * more, 2.0)


def fit(mm, sphere_mm, true_mm):
    """The weights that come nearest to the true diameters, by Huber's loss."""
    columns = np.column_stack([np.ones(len(mm)), mm, np.clip(sphere_mm - mm, -REACH * mm, REACH * mm)])

    def loss(weights):
        error = np.abs(columns @ weights - true_mm)
        return np.where(error < QUADRATIC_MM, error**2 / 2, QUADRATIC_MM * (error - QUADRATIC_MM / 2)).mean()
    weights = optimize.minimize(loss, np.array([0.0, 1.0, 0.5]), method="BFGS").x
    return {**{k: round(float(w), 4) for k, w in zip(("offset_mm", "slope", "mask"), weights)}, "reach": REACH}
