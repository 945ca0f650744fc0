"""Cuts training crops out of the host copies that generate.py makes, while it still makes them."""
import json
import queue
import threading
from pathlib import Path

import numpy as np
from scipy import ndimage


SHOWS = 0.5      # of a nodule's density; one that shows less lies in what is as dense, or behind it
OWN_LESIONS = Path(__file__).parent / "own_lesions.json"


def own_lesions(text):
    """Unmarked lesions of the host that were seen since (own_lesions.json), in this copy's voxels."""
    known = json.loads(OWN_LESIONS.read_text()) if OWN_LESIONS.exists() else {}
    scale, low = np.array(text["scale"]), np.array(text["low"])
    zoom = float(np.prod(1 / np.array(text["step_mm"])) ** (1 / 3))
    return [{"at": (np.array(f["native_zyx"]) * scale - low).round(2).tolist(),
             "mm": f["mm"] * zoom, "kind": f["kind"], "name": "seen", "texture": 0}
            for f in known.get(text["host"], [])]


def shows(finding):
    """Whether an implant shows at least half of its density (implant.paste). Copies of before do not say."""
    return finding.get("shows", 1) >= SHOWS


def hide(findings):
    """What hardly shows is no example of a nodule, and none of lung."""
    for f in findings:
        if f["kind"] == "nodule" and not shows(f):
            f["kind"] = "ignore"


class Copies:
    """All copies in a folder but those of the hosts `without`; refresh() takes up new ones. taught: as examples, without
    implants that hardly show."""

    def __init__(self, folder, taught=False, without=()):
        self.taught, self.without = taught, without
        self.folder, self.volumes, self.texts, self.by_name = Path(folder), [], [], {}
        self.refresh()

    def refresh(self):
        self.add(self.folder)

    def add(self, folder):
        """Takes up what is new in a folder. Names of another folder than the own one carry its name."""
        for path in sorted(folder.glob("*.json")):
            name = path.stem if folder == self.folder else f"{folder.name}-{path.stem}"
            if name not in self.by_name:
                text = json.loads(path.read_text())
                if text["host"] in self.without:
                    continue
                self.by_name[name] = len(self.volumes)
                self.volumes.append(np.load(path.with_suffix(".npy"), mmap_mode="r"))
                if self.taught:
                    hide(text["findings"])
                text["findings"] += own_lesions(text)
                self.texts.append(text)


class Plain:
    """The copies for evaluation of some parts of the split as one list; names are those of the cache of marks."""

    def __init__(self, cache, parts):
        self.volumes, self.texts, self.names = [], [], []
        for part in parts:
            of = Copies(Path(cache) / f"{part}-plain")
            self.volumes += of.volumes
            self.texts += of.texts
            self.names += [f"{part}-plain-{name}" for name in of.by_name]


def cut(volume, corner, side):
    """uint8 [side]^3, or of shape `side`; what lies outside the volume is 0, which is -1024 HU."""
    side = (side,) * 3 if np.isscalar(side) else side
    out = np.zeros(side, np.uint8)
    low = [max(0, c) for c in corner]
    high = [min(n, c + s) for n, c, s in zip(volume.shape, corner, side)]
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


def random_turn(rng):
    """(3x3 matrix from a crop's voxels to a copy's, zoom of the content): about z by any angle, the
    table's and the patient's tilt by a few degrees, a zoom that differs a little between axes."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.normal(0, np.radians(6), 2)
    c, s = np.cos([angle, *tilt]), np.sin([angle, *tilt])
    about_z = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, -s[1]], [0, 1, 0], [s[1], 0, c[1]]])
    about_x = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    zoom = rng.uniform(0.85, 1.2) * rng.uniform(0.97, 1.03, 3)
    return about_z @ about_y @ about_x @ np.diag(1 / zoom), float(np.prod(zoom) ** (1 / 3))


def cut_turned(volume, at, shift, points, side, turn):
    """A crop through `turn`, in which the copy's voxel `at` lies at the middle less `shift`, and the copy's
    points in it. Linear interpolation; outside the volume is 0."""
    middle = (side - 1) / 2
    centre = np.asarray(at, float) + turn @ shift
    reach = np.abs(turn).sum(1) * middle + 2
    low = np.floor(centre - reach).astype(int)
    box = cut(volume, low.tolist(), tuple(np.ceil(2 * reach + 2).astype(int)))
    crop = ndimage.affine_transform(box, turn, centre - low - turn @ np.full(3, middle), (side,) * 3,
                                    order=1)
    points = (points - centre) @ np.linalg.inv(turn).T + middle
    return crop, points.astype(np.float32)


def soften(x, sigma):
    """In the plane of a slice only."""
    return ndimage.gaussian_filter(x, (0, sigma, sigma), truncate=2.5)


def thicken(x, thickness, phase):
    """What slices of `thickness` voxels, the first at -phase, then linear interpolation back, do along z."""
    reach = int(np.ceil(thickness / 2))
    box = np.clip((thickness + 1) / 2 - np.abs(np.arange(-reach, reach + 1)), 0, 1)
    mean = ndimage.correlate1d(x, box / box.sum(), 0, mode="nearest")
    side = len(x)
    at = (np.arange(side) + phase) / thickness
    low = np.floor(at)
    weight = (at - low).astype(np.float32)[:, None, None]

    def slices(number):                  # a slice's middle lies between two of ours
        where = np.clip(number * thickness - phase, 0, side - 1)
        whole = np.minimum(where.astype(int), side - 2)
        part = (where - whole).astype(np.float32)[:, None, None]
        return mean[whole] * (1 - part) + mean[whole + 1] * part
    return slices(low) * (1 - weight) + slices(low + 1) * weight


def change_kernel(x, rng):
    """As a softer or a sharper reconstruction kernel would show it, or as it is."""
    kind = rng.random()
    if kind < 0.30:
        return soften(x, rng.uniform(0.4, 1.0))
    if kind < 0.55:
        return x + np.float32(rng.uniform(0.3, 1.2)) * (x - soften(x, 0.9))
    return x


def grain(side, thickness, rng):
    """Noise of 5 to 60 HU: mottled by the kernel; in thick slices it runs along z."""
    x = rng.standard_normal((side,) * 3, np.float32)
    kind = rng.random()
    if kind < 0.35:
        x = soften(x, rng.uniform(0.4, 0.9))
    elif kind < 0.55:                    # the mid frequencies of a sharp kernel's noise
        x = soften(x, 0.5) - soften(x, 1.3)
    if thickness > 0:
        x = thicken(x, thickness, rng.random() * thickness)
    return x * np.float32(5 * 12 ** rng.random() / 1632 / max(float(x[::4].std()), 1e-6))


def change_grey(crop, rng):
    """float32 0..1 as another scanner would show it: kernel, slice thickness, calibration, dose."""
    x = crop.astype(np.float32) / 255.0
    if rng.random() < 0.5:
        air, thickness = crop == 0, rng.uniform(1.2, 4.0) if rng.random() < 0.4 else 0
        x = change_kernel(x, rng)
        if thickness:
            x = thicken(x, thickness, rng.random() * thickness)
        x = x * np.float32(rng.uniform(0.93, 1.07)) + np.float32(rng.uniform(-0.02, 0.02))
        if rng.random() < 0.5:
            x += grain(len(x), thickness, rng)
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
