"""From a 1 mm volume to scored candidates, exactly as the C engine does it (models/README.md).

The Gaussian rim of tiles, mirrored tiles and the like are left out on purpose: whatever is evaluated
here must be what ships. Mirrored crops are in it: stage 2 sees as many as model.json says.
"""
import itertools

import numpy as np
import torch

STRIDE = 4
TILE, MARGIN = 128, 12
INNER_MAX = 160           # 0 = tiles are cubes of TILE from the volume's first voxel, as up to 0.6.0
LATTICE = 8
# axes of z, y, x along which mirror image n of a crop is reversed: bit 0 of n is x, 1 is y, 2 is z
FLIPS = [tuple(a for a, turned in enumerate(flip) if turned) for flip in itertools.product((0, 1), repeat=3)]
LUNG_MM = 3.0             # a centre may lie this far outside the lungs, or half its diameter: a tumour
                          # in the pleura touches the lung, its centre need not lie near it


def tile_starts(image):
    """(starts of the tiles' inner parts along each axis, their sides): the fewest boxes of one size, at most INNER_MAX,
    that cover what is not 0."""
    starts, inner = [], []
    for axis, side in enumerate(image.shape):
        low, high, part = 0, side, TILE - 2 * MARGIN
        if INNER_MAX:
            used = np.flatnonzero(image.any(tuple(a for a in range(3) if a != axis)))
            if len(used):
                low, high = used[0] // LATTICE * LATTICE, used[-1] + 1
            even = -(-(high - low) // -(-(high - low) // INNER_MAX))
            part = -(-even // LATTICE) * LATTICE
        starts.append(range(low, high, part))
        inner.append(part)
    return starts, inner


def heatmaps(net, image):
    """image float32 [D][H][W] -> (heat logit, offset, log diameter) at stride 4, from inner parts of
    overlapping tiles; outside the volume the input is 0."""
    cells = [-(-n // STRIDE) for n in image.shape]
    out = np.full([5] + cells, -20, np.float32)
    starts, inner = tile_starts(image)
    edge, kept = MARGIN // STRIDE, [n // STRIDE for n in inner]
    corners = list(itertools.product(*starts))
    padded = np.pad(image, [(MARGIN, n + MARGIN) for n in inner])
    tiles = [padded[tuple(slice(c, c + n + 2 * MARGIN) for c, n in zip(corner, inner))] for corner in corners]
    busy = [n for n, tile in enumerate(tiles) if tile.any()]
    with torch.no_grad():
        for pair in (busy[i:i + 2] for i in range(0, len(busy), 2)):   # PyTorch is slow at batch 1
            got = torch.cat(net(torch.from_numpy(np.stack([tiles[n] for n in pair])[:, None])), 1)
            for n, maps in zip(pair, got.numpy()):
                at = [c // STRIDE for c in corners[n]]
                part = [min(k, side - a) for k, side, a in zip(kept, cells, at)]
                out[:, at[0]:at[0] + part[0], at[1]:at[1] + part[1], at[2]:at[2] + part[2]] = \
                    maps[:, edge:edge + part[0], edge:edge + part[1], edge:edge + part[2]]
    return out


def heatmaps_whole(net, image):
    """The same without tiles, for mining: cheaper, and the same but for seams. The rim of black is
    discarded like a tile's margin: cells at the border of an input were never trained."""
    rim = 16
    padded = np.pad(image, [(rim, rim + -n % 8) for n in image.shape])
    with torch.no_grad():
        maps = torch.cat(net(torch.from_numpy(padded[None, None])), 1)[0].numpy()
    edge = rim // STRIDE
    return maps[(slice(None),) + tuple(slice(edge, edge - (-n // STRIDE)) for n in image.shape)]


def peaks(maps, lung_distance, score_min):
    """Local maxima (3x3x3 cells, ties to the first) -> rows of z, y, x (voxels), diameter, logit."""
    heat = maps[0]
    padded = np.pad(heat, 1, constant_values=-np.inf)
    around = np.stack([padded[1 + a:1 + a + heat.shape[0], 1 + b:1 + b + heat.shape[1],
                              1 + c:1 + c + heat.shape[2]]
                       for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)])
    first = around[:13].max(0)
    rest = around[14:].max(0)
    logit_min = np.log(score_min / (1 - score_min))
    cells = np.argwhere((heat > first) & (heat >= rest) & (heat >= logit_min))
    rows = []
    for cell in cells:
        k, j, i = cell
        centre = cell * STRIDE + (STRIDE - 1) / 2 + np.clip(maps[1:4, k, j, i], -8, 8)
        at = tuple(np.clip(np.round(centre), 0, np.array(lung_distance.shape) - 1).astype(int))
        diameter = np.exp(np.clip(maps[4, k, j, i], 0.7, 4.4))
        if lung_distance[at] <= max(LUNG_MM, diameter / 2):
            rows.append([*centre, diameter, heat[k, j, i]])
    return np.array(rows, float).reshape(-1, 5)


def suppress(rows, limit):
    """Best first; drops a mark that lies within the radius of a better one, or whose own radius
    holds a better one."""
    kept = []
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        near = [np.linalg.norm(row[:3] - k[:3]) < max(k[3], row[3], 6) / 2 for k in kept]
        if not any(near):
            kept.append(row)
        if len(kept) == limit:
            break
    return np.array(kept, float).reshape(-1, 5)


def candidates(net, image, lung_distance, score_min=0.02, limit=60):
    rows = suppress(peaks(heatmaps(net, image), lung_distance, score_min), limit)
    rows[:, :3] = np.clip(rows[:, :3], 0, np.array(image.shape) - 1)       # an offset may lead out of the volume
    return rows


def crops40(image, rows, side=40):
    """float32 [N][1][40][40][40], whole voxels: the crop starts at floor(centre) - 19, so that the
    point between voxels 19 and 20 lies within half a voxel of the candidate."""
    padded = np.pad(image, side)
    out = np.empty((len(rows), 1, side, side, side), np.float32)
    for n, row in enumerate(rows):
        low = np.floor(row[:3]).astype(int) - (side // 2 - 1) + side
        low = np.clip(low, 0, np.array(padded.shape) - side)
        out[n, 0] = padded[low[0]:low[0] + side, low[1]:low[1] + side, low[2]:low[2] + side]
    return out


def mirrored(crops, flip):
    """Mirror image number `flip` of a batch of crops (a tensor [N][1][side][side][side])."""
    axes = [axis + 2 for axis in FLIPS[flip]]
    return torch.flip(crops, axes) if axes else crops
