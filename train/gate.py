"""The quality gate's frame and autoencoder (models/README.md, "gate.onnx").

The frame is what the detector is about to see, on 32 x 24 x 24 cells of a box laid around the lungs by
their mean and spread: density, lung, grain within the slice, step from slice to slice. infer/gate.c
computes the same.
"""
import numpy as np
import torch
from torch import nn

import frame

CELLS = (32, 24, 24)         # z, y, x
CHANNELS = ("density", "lung", "grain", "step")
REACH = (2.25, 2.35, 2.05)   # half sides of the box in standard deviations of the lung voxels; z, y, x
ROUGH_HU = 32.0              # grain and step: log(1 + HU / ROUGH_HU) / ROUGH_SCALE
ROUGH_SCALE = 4.0
LATENT = 32


def rough(hu):
    return np.log1p(hu / ROUGH_HU) / ROUGH_SCALE


def second_difference(hu, axis):
    """|a - 2b + c| along an axis; 0 at the two ends, where a neighbour is missing."""
    out = np.zeros_like(hu)
    middle = [slice(None)] * 3
    before, after = list(middle), list(middle)
    middle[axis], before[axis], after[axis] = slice(1, -1), slice(None, -2), slice(2, None)
    inner = out[tuple(middle)]
    np.subtract(hu[tuple(before)], hu[tuple(middle)], out=inner)
    inner -= hu[tuple(middle)]
    inner += hu[tuple(after)]
    np.abs(inner, out=inner)
    return out


def voxel_maps(hu, lung):
    """The four quantities that cells average, at 1 mm: HU above air (0 where it was blanked), lung
    0/1, and within the lungs the second differences of the clipped HU in plane (mean of two axes)
    and along z."""
    clipped = np.clip(hu, frame.HU_MIN, frame.HU_MAX).astype(np.float32)
    lung = lung.astype(np.float32)
    grain = second_difference(clipped, 1)
    grain += second_difference(clipped, 2)
    grain *= lung
    grain *= 0.5
    step = second_difference(clipped, 0)
    step *= lung
    clipped -= frame.HU_MIN
    return clipped, lung, grain, step


def sum_cells(array, cells):
    """Sums over the cells [z][y][x]; cells: per axis, the cell of each voxel or -1."""
    out = array
    for axis, cell in enumerate(cells):
        kept = np.flatnonzero(cell >= 0)
        if not len(kept):
            return np.zeros(CELLS)
        out = np.take(out, kept, axis)
        starts = np.flatnonzero(np.diff(cell[kept], prepend=-1))
        sums = np.add.reduceat(out, starts, axis, dtype=np.float64)
        shape = list(out.shape)
        shape[axis] = CELLS[axis]
        spread = np.zeros(shape)
        index = [slice(None)] * 3
        index[axis] = cell[kept][starts]
        spread[tuple(index)] = sums
        out = spread
    return out


def finish(count, above_air, lung, grain, step):
    """Cell sums to the four channels."""
    voxels, lungs = np.maximum(count, 1), np.maximum(lung, 1)
    part = lung / voxels
    return np.stack([above_air / voxels / (frame.HU_MAX - frame.HU_MIN), part,
                     part * rough(grain / lungs), part * rough(step / lungs)]).astype(np.float32)


def cells_of(lung):
    """Per axis, the cell that each voxel belongs to: the box reaches REACH deviations to both sides
    of the mean voxel."""
    out = []
    for axis in range(3):
        along = lung.sum(tuple(a for a in range(3) if a != axis), dtype=np.float64)
        at, total = np.arange(len(along)), max(along.sum(), 1)
        mean = (along * at).sum() / total
        deviation = np.sqrt(max((along * (at - mean) ** 2).sum() / total, 1))
        half = REACH[axis] * deviation
        cell = np.floor((at - (mean - half)) / (2 * half) * CELLS[axis]).astype(int)
        cell[(cell < 0) | (cell >= CELLS[axis])] = -1
        out.append(cell)
    return out


def frame_of(hu, lung):
    """[4][32][24][24] of a 1 mm volume that is -1024 beyond 15 mm of the lungs."""
    lung = lung > 0
    cells = cells_of(lung)
    maps = voxel_maps(hu, lung)
    count = np.ones([(c >= 0).sum() for c in cells])
    inside = [c[c >= 0] for c in cells]
    return finish(sum_cells(count, inside), *(sum_cells(m, cells) for m in maps))


class Autoencoder(nn.Module):
    """[N,4,32,24,24] -> the same through LATENT numbers."""

    def __init__(self, width=16):
        super().__init__()
        a, b, c, thin = width, 2 * width, 4 * width, width

        def down(i, o):
            return nn.Sequential(nn.Conv3d(i, o, 3, stride=2, padding=1), nn.ReLU())

        def up(i, o):
            return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"),
                                 nn.Conv3d(i, o, 3, padding=1), nn.ReLU())

        self.thin = thin
        self.encoder = nn.Sequential(down(len(CHANNELS), a), down(a, b), down(b, c),
                                     nn.Conv3d(c, thin, 1), nn.ReLU())
        self.squeeze = nn.Linear(thin * 36, LATENT)
        self.spread = nn.Linear(LATENT, thin * 36)
        self.decoder = nn.Sequential(nn.Conv3d(thin, c, 1), nn.ReLU(), up(c, b), up(b, a),
                                     nn.Upsample(scale_factor=2, mode="nearest"),
                                     nn.Conv3d(a, len(CHANNELS), 3, padding=1))

        # what each number of the code may be: set from the training frames, so that the network
        # cannot reach for what it has not seen (a noise beyond all noise, say) by extrapolation
        self.register_buffer("low", torch.full((LATENT,), -1e4))
        self.register_buffer("high", torch.full((LATENT,), 1e4))

    def code(self, x):
        return self.squeeze(self.encoder(x).flatten(1))

    def forward(self, x):
        z = self.low + torch.relu(self.code(x) - self.low)
        z = self.high - torch.relu(self.high - z)
        return self.decoder(torch.relu(self.spread(z)).reshape(-1, self.thin, 4, 3, 3))


# ---- the score, as infer/gate.c computes it ----------------------------------------------------------

EXTENTS = ("whole", "slice")
TURNS = ([], [2], [3], [2, 3])   # the frame as it is, upside down, back to front, both


def turned(frames):
    """[4][N]...: the frames in each of TURNS."""
    return torch.stack([torch.flip(frames, axes) for axes in TURNS])


def errors(frames, again):
    """[N][2][4]: root mean square error of each channel, over all cells and over the worst slice."""
    square = (frames - again) ** 2
    whole = square.mean((2, 3, 4))
    worst = square.mean((3, 4)).amax(2)
    return torch.stack([whole, worst], 1).sqrt()


def turn_ratio(errors_of):
    """[4][N][2][4] of TURNS -> [N]: error in density and lung as the frame is, over the least when it
    is turned over. Above 1 the network knows the frame better turned over."""
    drawn = errors_of[:, :, 0, :2].square().sum(2).sqrt()
    return drawn[0] / drawn[1:].amin(0)


def repeat_ratio(frames):
    """[N]: median over the slices of a frame that hold lung of their mean step from slice to slice,
    over the least of them; 1000 at most, which is what slices without any step get."""
    lung, step = frames[:, 1].sum((2, 3)), frames[:, 3].sum((2, 3))
    out = []
    for n in range(len(frames)):
        used = lung[n] > 0.25 * lung[n].max()
        steps = (step[n][used] / lung[n][used]).sort()[0]
        middle = steps[len(steps) // 2] if len(steps) else torch.tensor(0.0)
        out.append(min(1000.0, (middle / max(steps[0].item(), 1e-9)).item()) if middle > 0 else 0.0)
    return torch.tensor(out)


def parts(frames, network):
    """[N][10]: errors (whole, then slice), turn ratio, repeat ratio."""
    all_turns = turned(frames)
    errors_of = torch.stack([errors(f, network(f)) for f in all_turns])
    return torch.cat([errors_of[0].flatten(1), turn_ratio(errors_of)[:, None],
                      repeat_ratio(frames)[:, None]], 1)


def limits_of(text):
    """The limits of parts() as model.json has them."""
    return torch.tensor(text["whole"] + text["slice"] + [text["turned"], text["repeated"]])


def scores(parts_of, limits):
    """[N]: the greatest part relative to its limit; above 1 is out of distribution."""
    return (parts_of / limits).amax(1)
