"""The frame the networks see: canonical LPS, 1 mm, HU -1024..608 as 0..1 (models/README.md).

Arrays are [z][y][x], z towards the head, y towards the back, x towards the patient's left.
"""
from pathlib import Path

import nibabel
import numpy as np

HU_MIN, HU_MAX = -1024, 608


class Volume:
    """A CT in canonical LPS: hu [z][y][x], spacing_mm and origin_mm in z, y, x."""

    def __init__(self, hu, spacing_mm, origin_mm):
        self.hu = hu
        self.spacing_mm = np.asarray(spacing_mm, float)
        self.origin_mm = np.asarray(origin_mm, float)


def load_nifti(path):
    """NIfTI is RAS mm; ours is LPS mm, so x and y change sign and are flipped back to ascending."""
    image = nibabel.as_closest_canonical(nibabel.load(str(path)))
    data = np.asanyarray(image.dataobj)
    spacing = np.abs(image.affine[:3, :3].diagonal())
    last = image.affine[:3, :3] @ (np.array(data.shape) - 1) + image.affine[:3, 3]
    hu = np.ascontiguousarray(data[::-1, ::-1, :].transpose(2, 1, 0))
    return Volume(hu, spacing[::-1], (image.affine[2, 3], -last[1], -last[0]))


def load_host(data, name):
    return load_nifti(Path(data) / "hosts" / f"{name}.nii.gz")


def resample_axis(array, axis, step, size):
    """Linear interpolation along one axis at positions 0, step, 2 step …; the edge is repeated."""
    at = np.minimum(np.arange(size, dtype=np.float32) * step, array.shape[axis] - 1)
    low = np.minimum(at.astype(int), max(array.shape[axis] - 2, 0))
    high = np.minimum(low + 1, array.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = size
    weight = (at - low).astype(np.float32).reshape(shape)
    a = np.take(array, low, axis)
    b = np.take(array, high, axis)
    b -= a
    b *= weight
    a += b
    return a


def resample(hu, spacing_mm, step_mm=(1.0, 1.0, 1.0)):
    """float32 HU at step_mm; voxel (0,0,0) keeps its centre."""
    out = hu.astype(np.float32)
    # the axis that shrinks most goes first: least work for the others
    factor = [spacing_mm[i] / step_mm[i] for i in range(3)]
    for axis in np.argsort(factor):
        size = int(np.floor((hu.shape[axis] - 1) * factor[axis])) + 1
        out = resample_axis(out, axis, 1.0 / factor[axis], size)
    return out


def to_uint8(hu):
    """HU to 0..255; the engine works in float, the difference is below the noise of any CT."""
    scaled = (np.clip(hu, HU_MIN, HU_MAX) - HU_MIN) * (255.0 / (HU_MAX - HU_MIN))
    return (scaled + 0.5).astype(np.uint8)
