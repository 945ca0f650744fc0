"""Inputs and reference outputs of the two whole models, for the C engine's parity test.

    python3 train/dump_parity.py OUT [--models ../models] [--cache cache]

Cases: detector_<n>, candidate_<n> (Dropout passes its input through) and candidate_masked_<n>, with
the keep-mask of each Dropout node (fp32 0/1) as mask_<number>.npy in graph order. Inputs are cut from
host copies where generate.py has made some, else they are a seeded scene of blobs.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from scipy import ndimage

import crops
import onnx_run
import split as splits


def scene(shape, rng):
    """Something with the grey values of a lung when there is no data at hand."""
    x = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2)
    return np.clip(0.12 + 0.9 * np.maximum(x / x.std() - 1.5, 0), 0, 1).astype(np.float32)


def inputs_of(copies, shape, rng):
    """A batch [N,1,D,H,W] of real crops where possible."""
    out = np.empty(shape, np.float32)
    for n in range(shape[0]):
        if copies and copies.volumes:
            i = rng.integers(min(len(copies.volumes), 20))
            at = np.array(copies.texts[i]["findings"][-1 - n]["at"]).astype(int)
            side = max(shape[2:])
            crop = crops.cut(copies.volumes[i], (at - side // 2).tolist(), side)
            out[n, 0] = crop[:shape[2], :shape[3], :shape[4]] / np.float32(255)
        else:
            out[n, 0] = scene(shape[2:], rng)
    return out


def dump(folder, model_path, array, masks_rng=None):
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(str(model_path))
    name = model.graph.input[0].name
    feed = {name: torch.from_numpy(array)}
    masks = []
    if masks_rng is not None:
        for node in model.graph.node:
            if node.op_type == "Dropout":
                probe = onnx.load(str(model_path))
                probe.graph.output[0].name = node.input[0]
                shape = onnx_run.run(probe, feed)[node.input[0]].shape
                masks.append(torch.from_numpy((masks_rng.random(shape) < 0.8).astype(np.float32)))
    (folder / "model.onnx").write_bytes(Path(model_path).read_bytes())
    np.save(folder / f"input_{name}.npy", array)
    for i, mask in enumerate(masks):
        np.save(folder / f"mask_{i}.npy", mask.numpy())
    for key, value in onnx_run.run(model, feed, masks).items():
        np.save(folder / f"output_{key}.npy", np.ascontiguousarray(value.numpy()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    args = parser.parse_args()
    out, models = Path(args.out), Path(args.models)
    folder = Path(args.cache) / "train"
    copies = crops.Copies(folder) if folder.is_dir() else None
    torch.set_num_threads(2)
    rng = np.random.default_rng(7)
    shapes = [(1, 1, 64, 64, 64), (2, 1, 48, 64, 40), (3, 1, 32, 40, 24), (1, 1, 96, 96, 96)]
    for n, shape in enumerate(shapes):
        dump(out / f"detector_{n}", models / "detector.onnx", inputs_of(copies, shape, rng))
    for n, batch in enumerate((1, 2, 3, 8)):
        array = inputs_of(copies, (batch, 1, 40, 40, 40), rng)
        dump(out / f"candidate_{n}", models / "candidate.onnx", array)
        dump(out / f"candidate_masked_{n}", models / "candidate.onnx", array, rng)
    print(f"{len(list(out.glob('*/model.onnx')))} cases in {out}")


if __name__ == "__main__":
    main()
