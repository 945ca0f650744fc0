"""Cuts training crops out of the host copies that generate.py makes, while it still makes them."""
import json
import queue
import threading
from pathlib import Path

import numpy as np


OWN_LESIONS = Path(__file__).parent / "own_lesions.json"


def own_lesions(text):
    """Unmarked lesions of the host that were seen since (own_lesions.json), in this copy's voxels."""
    known = json.loads(OWN_LESIONS.read_text()) if OWN_LESIONS.exists() else {}
    scale, low = np.array(text["scale"]), np.array(text["low"])
    zoom = float(np.prod(1 / np.array(text["step_mm"])) ** (1 / 3))
    return [{"at": (np.array(f["native_zyx"]) * scale - low).round(2).tolist(),
             "mm": f["mm"] * zoom, "kind": f["kind"], "name": "seen", "texture": 0}
            for f in known.get(text["host"], [])]


class Copies:
    """All copies in a folder; refresh() takes up new ones."""

    def __init__(self, folder):
        self.folder, self.volumes, self.texts, self.by_name = Path(folder), [], [], {}
        self.refresh()

    def refresh(self):
        for path in sorted(self.folder.glob("*.json")):
            if path.stem not in self.by_name:
                self.by_name[path.stem] = len(self.volumes)
                self.volumes.append(np.load(path.with_suffix(".npy"), mmap_mode="r"))
                text = json.loads(path.read_text())
                text["findings"] += own_lesions(text)
                self.texts.append(text)


def cut(volume, corner, side):
    """uint8 [side]^3; what lies outside the volume is 0, which is -1024 HU."""
    out = np.zeros((side,) * 3, np.uint8)
    low = [max(0, c) for c in corner]
    high = [min(n, c + side) for n, c in zip(volume.shape, corner)]
    if all(h > l for l, h in zip(low, high)):
        to = tuple(slice(l - c, h - c) for l, h, c in zip(low, high, corner))
        out[to] = volume[tuple(slice(l, h) for l, h in zip(low, high))]
    return out


def random_lung_point(volume, rng):
    """A voxel of aerated lung (about -950..-600 HU), by trial."""
    for _ in range(200):
        at = [int(rng.integers(n)) for n in volume.shape]
        if 12 < volume[tuple(at)] < 66:
            return np.array(at, float)
    return np.array(volume.shape) / 2.0


def flip(crop, points, rng):
    """Random mirror and exchange of x and y; points are (z, y, x) in the crop."""
    side = crop.shape[0]
    for axis in range(3):
        if rng.random() < 0.5:
            crop = np.flip(crop, axis)
            points[:, axis] = side - 1 - points[:, axis]
    if rng.random() < 0.5:
        crop = crop.transpose(0, 2, 1)
        points[:, [1, 2]] = points[:, [2, 1]]
    return np.ascontiguousarray(crop), points


def change_grey(crop, rng):
    """float32 0..1 with a little contrast, offset and grain: calibration differs between scanners."""
    x = crop.astype(np.float32) / 255.0
    if rng.random() < 0.5:
        air = x == 0
        x = x * rng.uniform(0.93, 1.07) + rng.uniform(-0.02, 0.02)
        if rng.random() < 0.5:
            x += rng.normal(0, rng.uniform(0.002, 0.015), x.shape).astype(np.float32)
        x = np.clip(x, 0, 1)
        x[air] = 0
    return x


class Prefetch:
    """Runs make() on a thread; the queue is bounded so that memory is too."""

    def __init__(self, make, depth=8):
        self.queue = queue.Queue(depth)

        def work():
            while True:
                self.queue.put(make())
        threading.Thread(target=work, daemon=True).start()

    def get(self):
        return self.queue.get()
