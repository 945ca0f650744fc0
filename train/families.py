"""Families of detectors that were compared before one was chosen (family_study.py, docs/TRAINING.md).

All see the same crops, have the same trunk where the family allows it, and give the same maps, so that a difference is one
of family:

    centre     the detector that ships: a heatmap of centres (CenterNet, Zhou 2019), in 3D
    anchors    three cubes a cell, classified and regressed (3D RPN of Liao 2019, DeepLung of Zhu 2018)
    segment    a 3D U-Net that labels every second voxel; its connected parts are the marks (Ronneberger 2015, Cicek 2016)
    slab       centres again, of slabs of 11 slices by convolutions in the slice alone (2.5D, Setio 2016)
"""
import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

import decode
from detector import Block, Detector
from train_detector import CELLS, CENTRES, SIDE, loss_of, targets

ANCHORS_MM = (5.0, 10.0, 20.0)
POSITIVE, NEUTRAL = 0.5, 0.1     # intersection over union of anchor and nodule
HARD = 2                         # negatives a crop that count: the hardest
SLAB = 11                        # slices


class Centre(Detector):
    goals = staticmethod(targets)

    def loss(self, outputs, goals):
        return loss_of(outputs, goals)[0]

    def rows(self, image, distance, score_min):
        return decode.peaks(decode.heatmaps_whole(self, image), distance, score_min)


class Flat(nn.Module):
    """Block without a look at the slices beside."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(width), nn.ReLU(),
                                    nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(width))

    def forward(self, x):
        return torch.relu(x + self.layers(x))


def shrink(width_in, width_out, slices=1, step=1):
    """A convolution of half the side in the slice; the first one also turns `slices` slices into channels."""
    return nn.Sequential(nn.Conv3d(width_in, width_out, (slices, 3, 3), (step, 2, 2), (slices // 2 - (step - 1) // 2, 1, 1), bias=False),
                         nn.BatchNorm3d(width_out), nn.ReLU())


class Slab(Centre):
    """Twice the width of Centre: a plane has a third of the weights."""

    def __init__(self, widths=(32, 64, 128)):
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(shrink(1, a, SLAB, 4), Flat(a))
        self.quarter = nn.Sequential(shrink(a, b), Flat(b), Flat(b))
        self.eighth = nn.Sequential(shrink(b, c), Flat(c), Flat(c))
        self.narrow = nn.Sequential(nn.Conv3d(c, b, 1, bias=False), nn.BatchNorm3d(b), nn.ReLU())
        self.up = nn.Upsample(scale_factor=(1, 2, 2), mode="nearest")
        self.join = nn.Sequential(nn.Conv3d(2 * b, b, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(b), nn.ReLU())
        self.head = nn.Sequential(Flat(b))
        self.heatmap, self.offset, self.log_diameter = nn.Conv3d(b, 1, 1), nn.Conv3d(b, 3, 1), nn.Conv3d(b, 1, 1)
        nn.init.constant_(self.heatmap.bias, -4.6)
        nn.init.constant_(self.log_diameter.bias, 2.0)


def overlap(offset, mm, anchor_mm):
    """Intersection over union of two cubes, their centres `offset` ([3, ...]) apart."""
    sides = np.clip((mm + anchor_mm) / 2 - np.abs(offset), 0, min(mm, anchor_mm))
    both = sides.prod(0)
    return both / (mm**3 + anchor_mm**3 - both)


def anchor_goals(findings, points, zoom=1.0):
    """positive, negative [A][cells], offset / anchor [A][3][cells], ln(diameter / anchor) [A][cells]."""
    shape = (len(ANCHORS_MM),) + (CELLS,) * 3
    best = np.zeros(shape, np.float32)
    positive, offset, size = np.zeros(shape, np.float32), np.zeros((shape[0], 3) + shape[1:], np.float32), np.zeros(shape, np.float32)
    _, negative, _, _ = targets(findings, points, zoom)
    negative = np.broadcast_to(negative > 0.5, shape).copy()
    for f, p in zip(findings, points):
        if f["kind"] in ("sham", "ignore") or (p < 0).any() or (p >= SIDE).any():
            continue
        d, delta = f["mm"] * zoom, p[:, None, None, None] - CENTRES
        union = np.stack([overlap(delta, d, a) for a in ANCHORS_MM])
        inside = (union >= POSITIVE) | (union == union.max())
        for n, a in enumerate(ANCHORS_MM):
            here = inside[n]
            positive[n][here], size[n][here] = 1, np.log(d / a)
            offset[n][:, here] = delta[:, here] / a
        best = np.maximum(best, union)
    negative &= (positive == 0) & (best < NEUTRAL)
    return positive, negative.astype(np.float32), offset, size


class Anchors(Detector):
    goals = staticmethod(anchor_goals)

    def __init__(self):
        super().__init__()
        width, count = self.heatmap.in_channels, len(ANCHORS_MM)
        self.heatmap, self.offset, self.log_diameter = nn.Conv3d(width, count, 1), nn.Conv3d(width, 3 * count, 1), nn.Conv3d(width, count, 1)
        nn.init.constant_(self.heatmap.bias, -4.6)

    def loss(self, outputs, goals):
        logit, offset, size = outputs
        positive, negative, offset_goal, size_goal = goals
        count = positive.sum().clamp(min=1)
        found = (positive * F.softplus(-logit)).sum() / count
        hardest = (negative * F.softplus(logit)).flatten().topk(HARD * len(logit)).values.mean()
        where = F.smooth_l1_loss(offset.reshape(offset_goal.shape), offset_goal, reduction="none").sum(2)
        how_big = F.smooth_l1_loss(size, size_goal, reduction="none", beta=0.2)
        return found + hardest + (positive * (where + how_big)).sum() / count

    def forward_maps(self, image):
        """The best anchor of each cell, as the maps of Detector."""
        logit, offset, size = self(image)
        best = logit.argmax(1, keepdim=True)
        anchor = torch.tensor(ANCHORS_MM)[best]
        offset = offset.reshape(len(offset), len(ANCHORS_MM), 3, *offset.shape[2:])
        chosen = offset.gather(1, best[:, :, None].expand(-1, -1, 3, -1, -1, -1))[:, 0]
        return logit.gather(1, best), chosen * anchor, size.gather(1, best) + anchor.log()

    def rows(self, image, distance, score_min):
        return decode.peaks(decode.heatmaps_whole(self.forward_maps, image), distance, score_min)


HALF = np.stack(np.meshgrid(*[np.arange(SIDE // 2) * 2 + 0.5] * 3, indexing="ij")).astype(np.float32)


def sphere_goals(findings, points, zoom=1.0):
    """inside, counted: whether each second voxel lies in a nodule (a ball of its diameter), and whether it is judged."""
    inside, counted = np.zeros((SIDE // 2,) * 3, np.float32), np.ones((SIDE // 2,) * 3, np.float32)
    for f, p in zip(findings, points):
        r = np.sqrt(((p[:, None, None, None] - HALF)**2).sum(0))
        d = f["mm"] * zoom if f["mm"] > 0 else f["mm"]
        if f["kind"] == "ignore":
            counted[r < max(d / 2 + 4, 6)] = 0
        elif f["kind"] != "sham" and (p >= 0).all() and (p < SIDE).all():
            inside[(r <= d / 2) | (r == r.min())] = 1
        elif f["kind"] != "sham":
            counted[r < d / 2 + 2] = 0
    counted[inside > 0] = 1
    for axis in range(3):
        edge = [slice(None)] * 3
        for edge[axis] in (slice(0, 2), slice(-2, None)):
            counted[tuple(edge)] = 0
    return inside, counted


class Segment(Detector):
    """The trunk of Detector, brought up once more to stride 2."""

    goals = staticmethod(sphere_goals)
    LEAST = 0.3       # a part begins above this probability

    def __init__(self, widths=(16, 32, 64)):
        super().__init__(widths)
        del self.head, self.heatmap, self.offset, self.log_diameter
        a, b, _ = widths
        self.last = nn.Sequential(nn.Conv3d(a + b, a, 3, padding=1, bias=False), nn.BatchNorm3d(a), nn.ReLU(), Block(a))
        self.out = nn.Conv3d(a, 1, 1)
        nn.init.constant_(self.out.bias, -4.6)

    def forward(self, image):
        half = self.stem(image)
        quarter = self.quarter(half)
        x = self.join(torch.cat([quarter, self.up(self.narrow(self.eighth(quarter)))], 1))
        return self.out(self.last(torch.cat([half, self.up(x)], 1)))

    def loss(self, logit, goals):
        """Cross-entropy and Dice, over the batch."""
        inside, counted = goals
        logit, p = logit[:, 0], torch.sigmoid(logit[:, 0]) * counted
        entropy = (counted * F.binary_cross_entropy_with_logits(logit, inside, reduction="none", pos_weight=torch.tensor(4.0))).mean()
        dice = 1 - 2 * (p * inside).sum() / (p.sum() + (inside * counted).sum() + 1)
        return 20 * entropy + dice

    def rows(self, image, distance, score_min):
        """One mark a connected part, scored by its best voxel, with the diameter of the ball of its volume."""
        rim = 16
        padded = np.pad(image, [(rim, rim + -n % 8) for n in image.shape])
        with torch.no_grad():
            logit = self(torch.from_numpy(padded[None, None]))[0, 0].numpy()
        logit = logit[tuple(slice(rim // 2, rim // 2 + (n + 1) // 2) for n in image.shape)]
        part, count = ndimage.label(logit > np.log(self.LEAST / (1 - self.LEAST)), np.ones((3, 3, 3)))
        rows = []
        for number, box in enumerate(ndimage.find_objects(part), 1):
            here = np.argwhere(part[box] == number) + [s.start for s in box]
            centre = here.mean(0) * 2 + 0.5
            mm = 2 * (3 * 8 * len(here) / (4 * np.pi)) ** (1 / 3)
            at = tuple(np.clip(np.round(centre), 0, np.array(distance.shape) - 1).astype(int))
            if distance[at] <= max(decode.LUNG_MM, mm / 2):
                rows.append([*centre, mm, logit[tuple(here.T)].max()])
        return np.array(rows, float).reshape(-1, 5)


FAMILIES = {"centre": Centre, "anchors": Anchors, "segment": Segment, "slab": Slab}
