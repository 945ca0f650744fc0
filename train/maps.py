"""The maps that the product shows, and what they must beat, on the 40 mm crop of a candidate.

Arrays are [z][y][x] of the crop's voxels, as stage 2 sees them (models/README.md, Crop). The two maps of the models
are computed as the engine does it (explain/explain.c, infer/cam.c); parity with PyTorch is tested there.
"""
import numpy as np
import torch
from onnx import numpy_helper
from scipy import ndimage

import crops
import onnx_run

SIDE, TOKEN, STRIDE = 40, 8, 4
TILE, MARGIN, LATTICE = 96, 12, 8


def crop_start(centre):
    return np.floor(centre).astype(int) - (SIDE // 2 - 1)


def window(volume, start, side):
    """[side]^3 of a copy's grey values as 0..1, or of a mask; outside the volume it is 0."""
    part = crops.cut(volume, [int(s) for s in start], side).astype(np.float32)
    return part / 255 if volume.dtype == np.uint8 else part


def upsampled(cells, start, first, step):
    """Positive part of cells whose centres lie at first + n * step, trilinear on the crop that begins at start;
    it fades to 0 one cell beyond the outermost centres."""
    cells = np.pad(np.maximum(cells, 0), 1)
    at = [(np.arange(SIDE) + s - f) / step + 1 for s, f in zip(start, first)]
    return ndimage.map_coordinates(cells, np.meshgrid(*at, indexing="ij"), order=1, cval=0.0)


class Maps:
    def __init__(self, detector, candidate, layer, weights=None):
        """layer: model.json's cam_layer. weights: a function of a tensor, for the check by randomisation."""
        change = weights or (lambda t: t)
        self.detector, self.candidate, self.layer = detector, candidate, layer
        self.known = {id(m): {t.name: change(torch.from_numpy(numpy_helper.to_array(t).copy()))
                              for t in m.graph.initializer} for m in (detector, candidate)}

    def attention(self, volume, centre):
        """What each token receives above an equal share, without dropout."""
        crop = torch.from_numpy(window(volume, crop_start(centre), SIDE)[None, None])
        with torch.no_grad():
            got = onnx_run.nodes_run(self.candidate.graph.node, {**self.known[id(self.candidate)], "crop": crop})
        tokens = got["attention"][0, 0].numpy()
        start = crop_start(centre)
        return upsampled(tokens - tokens.mean(), start, start + (TOKEN - 1) / 2, TOKEN)

    def hirescam(self, volume, centre, layer=None, reach=2):
        """Sum over channels of activation times gradient, at a layer, of the strongest heatmap logit up to `reach`
        cells from the candidate: its centre is a cell plus an offset and need not lie in the cell that fired."""
        layer = layer or self.layer
        start = LATTICE * np.rint((centre - TILE / 2 + MARGIN) / LATTICE).astype(int) - MARGIN
        tile = torch.from_numpy(window(volume, start, TILE)[None, None])
        nodes = self.detector.graph.node
        split = [n.output[0] for n in nodes].index(layer) + 1
        with torch.no_grad():
            values = onnx_run.nodes_run(nodes[:split], {**self.known[id(self.detector)], "image": tile})
        values[layer] = values[layer].detach().requires_grad_(True)
        heat = onnx_run.nodes_run(nodes[split:], values)["heatmap"][0, 0]
        cell = np.rint((centre - start - (STRIDE - 1) / 2) / STRIDE).astype(int)
        heat[tuple(slice(c - reach, c + reach + 1) for c in cell)].max().backward()
        cells = (values[layer] * values[layer].grad).sum(1)[0].detach().numpy()
        step = TILE // len(cells)
        edge = MARGIN // step
        inner = cells[edge:-edge, edge:-edge, edge:-edge]
        return upsampled(inner, crop_start(centre), start + MARGIN + (step - 1) / 2, step)

    def hirescam_join(self, volume, centre):
        """At stride 4, where context and detail join: what was shown before version 0.3."""
        return self.hirescam(volume, centre, "cam")

    def hirescam_join_near(self, volume, centre):
        """The same of the candidate's own cell, without looking for the strongest."""
        return self.hirescam(volume, centre, "cam", 0)


# ---- controls: no network ---------------------------------------------------------------------------------

def gaussian(volume, centre, sigma_mm=6.0):
    """Looks at the middle of the crop, whatever is there."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.exp(-(z**2 + y**2 + x**2) / (2 * sigma_mm**2))


def edges(volume, centre):
    """Gradient magnitude at 1 mm."""
    return ndimage.gaussian_gradient_magnitude(window(volume, crop_start(centre), SIDE), 1.0)


def random_map(volume, centre):
    """Smooth noise, a function of the place."""
    rng = np.random.default_rng(np.abs(np.floor(centre)).astype(int))
    return ndimage.gaussian_filter(rng.random((SIDE,) * 3), 3.0)


CONTROLS = {"centred Gaussian": gaussian, "edges": edges, "random": random_map}
