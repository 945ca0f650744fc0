"""Inputs and reference outputs of the gate's frame, network and score, for the C engine's parity test.

    python3 train/dump_gate.py OUT [--models ../models]

OUT/<case>/hu.npy and lungs.npy are a 1 mm volume and its lungs (fp32), frame.npy what gate.py makes of
them, parts.npy and score.npy what PyTorch makes of the graph. The volumes are seeded ellipsoids with
noise; one is cut by the volume's border, one has a slice repeated.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from scipy import ndimage

import gate
import onnx_run
import split as splits


def scene(shape, centres, radii, rng):
    """Two lungs in tissue that is blanked 15 mm away from them, with vessels and noise."""
    at = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    lung = np.zeros(shape, bool)
    for centre, radius in zip(centres, radii):
        lung |= sum(((a - c) / r) ** 2 for a, c, r in zip(at, centre, radius)) < 1
    vessels = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2) > 0.12
    hu = np.where(lung, np.where(vessels, 40, -850), 40) + rng.normal(0, 60, shape)
    hu[ndimage.distance_transform_edt(~lung) > 15] = -1024
    return np.round(hu).clip(-1024, 3071), lung


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    model = onnx.load(str(Path(args.models) / "gate.onnx"))
    limits = gate.limits_of(json.loads((Path(args.models) / "model.json").read_text())["gate"]["limits"])

    def network(x):
        return onnx_run.run(model, {"frame": x})["reconstruction"]
    cases = [((150, 120, 160), [(75, 60, 42), (75, 60, 118)], [(60, 42, 30), (56, 40, 30)]),
             ((97, 83, 101), [(50, 41, 20), (50, 41, 80)], [(60, 60, 30), (70, 60, 31)]),
             ((60, 40, 50), [(30, 20, 25)], [(9, 4, 20)])]
    for number, case in enumerate(cases):
        hu, lung = scene(*case, rng)
        if number == 0:
            hu[70:90], lung[70:90] = hu[70], lung[70]
        frame = torch.from_numpy(gate.frame_of(hu, lung))[None]
        parts = gate.parts(frame, network)
        folder = Path(args.out) / f"gate_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("hu", hu), ("lungs", lung), ("frame", frame), ("parts", parts),
                            ("score", gate.scores(parts, limits))):
            np.save(folder / f"{name}.npy", np.ascontiguousarray(array, np.float32))


if __name__ == "__main__":
    main()
