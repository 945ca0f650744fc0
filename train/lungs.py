"""The lung mask: air components at 2 mm, airways out, closed by 12 mm, holes filled per axial slice.

The C engine does the same (models/README.md, "Lungs"); numbers here and there must agree.
"""
import numpy as np
from scipy import ndimage

from frame import resample

GRID_MM = 2.0
AIR_HU = -400
CLOSE_MM = 12.0
COMPONENT_ML = 150          # smaller air components are bowel, airways, noise
AIRWAY_MM2 = 1000           # an axial air section smaller than this and blacker than
AIRWAY_HU = -940            # this (median) is trachea or a main bronchus, not the tip of a lung
AIRWAY_WALL_MM = 3.0
HOLE_MM2 = 2500             # a hole up to this is tumour or vessel; a larger one is the heart


def airways(hu, air):
    """Axial air sections that are small and as black as free air."""
    out = np.zeros_like(air)
    for k in range(len(air)):
        labels, count = ndimage.label(air[k])
        if not count:
            continue
        index = np.arange(1, count + 1)
        area = ndimage.sum_labels(air[k], labels, index) * GRID_MM**2
        black = ndimage.median(hu[k], labels, index)
        out[k] = np.isin(labels, index[(area < AIRWAY_MM2) & (black < AIRWAY_HU)])
    return out


def components(air):
    """6-connected components of at least COMPONENT_ML that do not touch the volume's sides."""
    labels, count = ndimage.label(air)
    if not count:
        return air
    size_ml = np.bincount(labels.ravel()) * GRID_MM**3 / 1000
    outside = set(np.unique(labels[:, [0, -1], :])) | set(np.unique(labels[:, :, [0, -1]]))
    keep = [i for i in range(1, count + 1) if size_ml[i] >= COMPONENT_ML and i not in outside]
    return np.isin(labels, keep)


def close(mask, radius_mm):
    """Closing by a ball, as two distance transforms in a padded volume."""
    pad = int(radius_mm / GRID_MM) + 2
    mask = np.pad(mask, pad)
    grown = ndimage.distance_transform_edt(~mask, sampling=GRID_MM) <= radius_mm
    shrunk = ndimage.distance_transform_edt(grown, sampling=GRID_MM) > radius_mm
    return (shrunk | mask)[pad:-pad, pad:-pad, pad:-pad]


def fill_holes(mask):
    """Per axial slice, holes (4-connected) of at most HOLE_MM2."""
    out = mask.copy()
    for k in range(len(mask)):
        labels, count = ndimage.label(ndimage.binary_fill_holes(mask[k]) & ~mask[k])
        area = np.bincount(labels.ravel(), minlength=count + 1) * GRID_MM**2
        out[k] |= (labels > 0) & (area[labels] <= HOLE_MM2)
    return out


def fill_masked_outside(hu, grow_voxels=0):
    """A host comes as -1024 beyond 15 mm around its lungs; as tissue it cannot leak into the trachea.
    A resampled host has a rim of values in between, which grow_voxels covers."""
    labels, count = ndimage.label(hu <= -1024)
    if not count:
        return hu
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    outside = (sizes > 20000)[labels]
    if grow_voxels:
        outside = ndimage.maximum_filter(outside.astype(np.uint8), 2 * grow_voxels + 1) > 0
    return np.where(outside, np.float32(40), hu)


def lung_mask_2mm(hu, spacing_mm):
    """bool [z][y][x] at 2 mm."""
    small = resample(hu, spacing_mm, (GRID_MM,) * 3)
    # air around the body becomes one component that touches the sides
    small = np.pad(small, ((0, 0), (1, 1), (1, 1)), constant_values=-1024)
    air = small < AIR_HU
    tubes = airways(small, air)
    mask = close(components(air & ~tubes), CLOSE_MM)
    mask = fill_holes(mask)
    wall = ndimage.distance_transform_edt(~tubes, sampling=GRID_MM) <= AIRWAY_WALL_MM if tubes.any() \
        else tubes
    return (mask & ~wall)[:, 1:-1, 1:-1]


def distance_mm(mask_2mm, shape, step_mm=(1.0, 1.0, 1.0)):
    """Distance to the lungs in mm (0 inside) at a finer grid with the same first voxel."""
    far = ndimage.distance_transform_edt(~mask_2mm, sampling=GRID_MM).astype(np.float32)
    out = resample(np.minimum(far, 120), (GRID_MM,) * 3, step_mm)
    pad = [(0, max(0, n - m)) for n, m in zip(shape, out.shape)]
    return np.pad(out, pad, mode="edge")[:shape[0], :shape[1], :shape[2]]
