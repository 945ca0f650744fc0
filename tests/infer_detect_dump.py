"""Marks of the whole stage 1 by train/decode.py (PyTorch), for test_infer_model.c.

    python3 tests/infer_detect_dump.py OUT

OUT/hu.npy [z][y][x], lungs.npy (0/1), marks.npy (rows of z, y, x, diameter, logit), scores.npy (stage 2's logit of the
first marks, without dropout: the mean over the mirror images of a crop).
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "train"))
import decode  # noqa: E402
import onnx_run  # noqa: E402


def scene(rng):
    """Two ellipsoid lungs with vessels of noise and nodules; sides that no tile divides."""
    shape = (118, 122, 170)
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")
    lungs = np.zeros(shape, bool)
    for cx in (48, 122):
        lungs |= ((z - 59) / 50)**2 + ((y - 60) / 45)**2 + ((x - cx) / 34)**2 < 1
    rough = ndimage.gaussian_filter(rng.normal(0, 1, shape), 1.5)
    hu = -860 + 700 * np.maximum(rough / rough.std() - 1.6, 0) + rng.normal(0, 25, shape)
    for _ in range(12):
        at = np.argwhere(lungs)[rng.integers(lungs.sum())]
        r = rng.uniform(3, 9)
        hu[(z - at[0])**2 + (y - at[1])**2 + (x - at[2])**2 < r * r] = rng.uniform(-300, 80)
    near = ndimage.distance_transform_edt(~lungs) <= 15
    hu = np.where(near, np.where(lungs, hu, 40 + rng.normal(0, 20, shape)), -1024)
    return np.clip(np.round(hu), -1024, 3000).astype(np.float32), lungs


class Net:
    def __init__(self, path):
        self.model = onnx.load(str(path))

    def __call__(self, x):
        return tuple(onnx_run.run(self.model, {self.model.graph.input[0].name: x}).values())


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    hu, lungs = scene(np.random.default_rng(11))
    image = ((np.clip(hu, -1024, 608) + 1024) / np.float32(1632)).astype(np.float32)
    text = json.loads((ROOT / "models/model.json").read_text())
    decode.MARGIN = text["detector"]["margin"]   # constants of the module and of the file may differ while one trains
    decode.TILE = text["detector"]["tile"]
    decode.INNER_MAX = text["detector"].get("inner_max", 0)
    distance = ndimage.distance_transform_edt(~lungs)
    marks = decode.candidates(Net(ROOT / "models/detector.onnx"), image, distance, text["detector"]["score_min"],
                              text["detector"]["candidates_max"])
    crops, net = torch.from_numpy(decode.crops40(image, marks[:8])), Net(ROOT / "models/candidate.onnx")
    views = [decode.mirrored(crops, n) for n in range(text["candidate"].get("flips", 1))]
    scores = np.mean([net(view)[0].numpy() for view in views], 0) if len(crops) else np.zeros((0, 1))
    for name, array in (("hu", hu), ("lungs", lungs), ("marks", marks), ("scores", scores)):
        np.save(out / f"{name}.npy", np.ascontiguousarray(array.astype(np.float32)))


if __name__ == "__main__":
    main()
