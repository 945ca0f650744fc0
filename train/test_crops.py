"""Checks that what a crop shows and what its targets say stay together. Runs in seconds, on made-up volumes.

    python3 train/test_crops.py
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

import crops
import evaluate
import implant
import train_candidate
import train_detector

RADIUS = 4.0


def check(condition, text):
    if not condition:
        sys.exit(f"FAIL {text}")
    print(f"ok   {text}")


def ball(shape, at, radius):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(float)
    r = np.sqrt(((grid - np.array(at)[:, None, None, None]) ** 2).sum(0))
    return (20 + 200 * np.clip(radius + 0.5 - r, 0, 1)).astype(np.uint8)


def seen(crop):
    """Centre of what is bright, and the diameter of a ball of its volume."""
    weight = np.clip(crop.astype(float) - crop.min() - 0.3 * np.ptp(crop), 0, None)
    size = ((crop.astype(float) - np.median(crop)) / (crop.max() - np.median(crop))).clip(0).sum()
    return np.array(ndimage.center_of_mass(weight)), 2 * (size * 3 / 4 / np.pi) ** (1 / 3)


def turned_crops(rng):
    far, wrong_size, turned = 0.0, 0.0, 0
    for _ in range(60):
        at = rng.uniform(45, 75, 3)
        volume = ball((120,) * 3, at, RADIUS)
        crop, points, zoom = train_detector.draw_crop(volume, at, np.array([at], np.float32), rng)
        crop, points = crops.flip(crop, points, rng)
        if (points < 8).any() or (points > 56).any() or (crop == 0).any():
            continue
        turned += zoom != 1
        centre, diameter = seen(crop)
        far = max(far, np.abs(centre - points[0]).max())
        wrong_size = max(wrong_size, abs(diameter / zoom - (2 * RADIUS + 0.3)))
    check(turned >= 10, f"{turned} of the crops were turned")
    check(far < 0.25, f"a point follows its voxel ({far:.3f} voxels)")
    check(wrong_size < 0.5, f"the zoom says the size ({wrong_size:.2f} voxels of {2 * RADIUS:.0f})")


def goals_follow():
    finding = {"kind": "nodule", "mm": 8.0, "texture": 5, "at": [0, 0, 0]}
    for zoom in (0.85, 1.2):
        point = np.array([30.2, 27.9, 33.3], np.float32)
        heat, negative, offset, size = train_detector.targets([finding], point[None], zoom)
        cells = np.argwhere(heat > 0)
        check(len(cells) > 0, f"a nodule has cells at zoom {zoom}")
        for cell in cells:
            centre = train_detector.CENTRES[(slice(None), *cell)]
            check(np.allclose(centre + offset[(slice(None), *cell)], point, atol=1e-4) and
                  np.isclose(size[tuple(cell)], np.log(8 * zoom)) and negative[tuple(cell)] == 0,
                  f"cell {cell.tolist()} points at the nodule")


def scanner_changes(rng):
    at = (31.3, 32.2, 30.9)
    crop = ball((64,) * 3, at, RADIUS)
    worst = 0.0
    for _ in range(80):
        grey = crops.change_grey(crop, rng)
        check_quietly(grey.dtype == np.float32 and grey.min() >= 0 and grey.max() <= 1)
        smooth = ndimage.gaussian_filter(grey, 1.5)
        worst = max(worst, np.abs(np.array(np.unravel_index(smooth.argmax(), smooth.shape)) - at).max())
    check(worst < 3.1, f"another scanner leaves the nodule where it is ({worst:.1f} voxels)")
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (64,) * 3)
    for thickness in (1.2, 2.5, 4.0):
        moved = np.abs(crops.thicken(ramp, thickness, rng.random() * thickness) - ramp)[6:-6].max()
        check(moved < 0.1, f"slices of {thickness} do not shift and keep HU ({moved:.3f})")
    line = np.zeros((64, 4, 4), np.float32)
    line[32] = 1
    wide = crops.thicken(line, 4.0, 0)[:, 0, 0]
    check(wide.max() < 0.3 and abs(wide.sum() - 1) < 0.05, "a slice of 4 mm spreads a line of 1 mm")
    noise = crops.grain(64, 0, rng)
    check(5 / 1632 * 0.8 < noise.std() < 60 / 1632 * 1.2, "noise of 5 to 60 HU")


def shown(background_hu, nodule_hu, rng):
    """Share of its density that a ball of 8 mm shows where the host has background_hu; the lung around is at -850."""
    hu = np.full((40, 40, 40), -850, np.float32)
    hu[:, :, 16:24] = background_hu
    r = np.sqrt(((np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - 11.5) ** 2).sum(0))
    patch = implant.Patch(np.where(r < 4, nodule_hu, -850).astype(np.float32), (4 - r).astype(np.float32), (1, 1, 1), (11.5,) * 3, 8, 5, "")
    noise = np.zeros_like(hu)
    mm, visible, shows = implant.paste(hu, np.ones(3), noise, np.arange(hu.size), patch, np.full(3, 19.5), rng, core_hu=0)
    return shows


def what_hardly_shows(rng):
    got = [shown(-850, 30, rng), shown(-850, -600, rng), shown(-500, 30, rng), shown(-400, -500, rng), shown(30, 30, rng)]
    check(all(0.95 < v < 1.05 for v in got[:2]), f"in aerated lung all of a nodule shows ({got[0]:.2f}, {got[1]:.2f})")
    check(0.5 < got[2] < 0.9, f"a solid one in denser lung still does ({got[2]:.2f})")
    check(all(v < crops.SHOWS for v in got[3:]), f"ground glass in denser lung, a solid one in tissue do not ({got[3]:.2f}, {got[4]:.2f})")
    findings = [{"at": [5.0, 5.0, 5.0 + 20 * n], "mm": 6.0, "kind": kind, "name": "", "shows": shows, "texture": 5, "site": "free"}
                for n, (kind, shows) in enumerate((("nodule", 0.9), ("nodule", 0.3), ("sham", 0.0)))]
    text, marks = {"findings": findings}, [{"at": [5.0, 5.0, 25.0], "score": 1.0}]
    sizes = [[len(evaluate.as_scan(text, marks, shown=shown)[of]) for of in ("nodules", "excluded")] for shown in (False, True)]
    check(sizes == [[2, 0], [1, 1]], "what hardly shows counts, unless it is asked to be excluded")
    crops.hide(findings)
    check([f["kind"] for f in findings] == ["nodule", "ignore", "sham"], "and is not taught")


def left_out_hosts():
    """Copies of two folders; a fold's hosts are in none of what is left, and a crop comes from no other."""
    with tempfile.TemporaryDirectory() as folder:
        for part, hosts in (("train", "ab"), ("more", "cba")):
            (Path(folder) / part).mkdir()
            for number, host in enumerate(hosts):
                np.save(Path(folder) / part / f"{number}.npy", np.full((48,) * 3, ord(host), np.uint8))
                text = {"host": host, "scale": [1, 1, 1], "low": [0, 0, 0], "step_mm": [1, 1, 1],
                        "findings": [{"at": [at] * 3, "mm": 6, "kind": kind, "texture": 5} for at, kind in ((8, "nodule"), (40, "sham"))]}
                (Path(folder) / part / f"{number}.json").write_text(json.dumps(text))
        copies = crops.Copies(Path(folder) / "train", taught=True, without=["a"])
        copies.add(Path(folder) / "more")
        copies.refresh()
    check([t["host"] for t in copies.texts] == ["b", "c", "b"] and list(copies.by_name.values()) == [0, 1, 2]
          and [int(v[0, 0, 0]) for v in copies.volumes] == [ord(h) for h in "bcb"], "a host that is left out has no copy left")
    pool, rng = train_candidate.Pool(copies, {"a": [[24, 24, 24]]}), np.random.default_rng(1)
    drawn = [pool.draw(rng, [kind]) for kind in ("nodule", "sham", "hard", "lung") for _ in range(8)]
    check(set(pool.copies.texts[index]["host"] for index, *_ in drawn) == set("bc"), "and no crop")


def check_quietly(condition):
    if not condition:
        sys.exit("FAIL grey values are float32 from 0 to 1")


def main():
    rng = np.random.default_rng(5)
    turned_crops(rng)
    left_out_hosts()
    goals_follow()
    scanner_changes(rng)
    what_hardly_shows(rng)


if __name__ == "__main__":
    main()
