"""The graphs that judge a host: of either stage those that have not seen it, in judges/HOST/ or judges/FOLD/ (split.json).

A head made without a host shares its trunk with stage 2 as it ships, so that head.npz holds its own weights alone, and the
digest of the graph that they belong to.
"""
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import split as splits

FOLDER = splits.HERE / "judges"
HEAD = "head.npz"


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_head(folder, model, shipped):
    """The weights of `model` that are not those of the graph at `shipped`."""
    theirs = {i.name: numpy_helper.to_array(i) for i in onnx.load(str(shipped)).graph.initializer}
    own = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    if own.keys() != theirs.keys():
        raise SystemExit(f"a head of another network than {shipped}: {sorted(own.keys() ^ theirs.keys())}")
    differing = {name: value for name, value in own.items() if not np.array_equal(value, theirs[name])}
    np.savez_compressed(Path(folder) / HEAD, **differing, of=sha256(shipped))


def with_head(path, shipped):
    """The graph at `shipped` with the weights of a head."""
    model, head = onnx.load(str(shipped)), dict(np.load(path))
    if str(head.pop("of")) != sha256(shipped):
        raise SystemExit(f"{path} belongs to another graph than {shipped}: run export.py")
    for tensor in model.graph.initializer:
        if tensor.name in head:
            tensor.CopyFrom(numpy_helper.from_array(head.pop(tensor.name), tensor.name))
    if head:
        raise SystemExit(f"{path} does not fit {shipped}: {sorted(head)}")
    return model


def stages(folder, shipped_detector, shipped_candidate):
    """A list of (hosts, path of stage 1, graph of stage 2), of the host that a folder names or of those of its fold. Stage 1 may be
    missing where the one that ships has not seen the hosts either; stage 2 never, since the one that ships has seen all."""
    split, out = splits.load(), []
    for path in sorted(p for p in Path(folder).glob("*") if p.is_dir()):
        hosts, detector = split["folds"].get(path.name, [path.name]), path / "detector.onnx"
        if not detector.exists() and not set(hosts) & set(split["hosts"]["train"]):
            detector = shipped_detector
        head = path / HEAD
        out.append((hosts, detector, with_head(head, shipped_candidate) if head.exists() else onnx.load(str(path / "candidate.onnx"))))
    return out
