"""Measures the whole gate of the product on chests it has not seen and on what is no chest.

    python3 train/evaluate_gate.py frames WORK --part test [--pulmo ../build/pulmo]
    python3 train/evaluate_gate.py score WORK

`frames` writes every case as a DICOM series, lets `pulmo survey --frames` judge it and keeps its
verdict and the gate's frame; the pixels are deleted again. `score` reads those. The cases are a
function of their number: the same hosts, the same seeds, the same pixels.

Good cases: the hosts of the part, changed within what clinics see (`good`). Bad ones: `BAD`, one
function a class, made of the same hosts with a body laid around them (`complete`), of the abdomen
in ct/not-a-chest, or of nothing but geometry.
"""
import argparse
import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
import torch

import frame
import gate
import implant_study
import onnx_run
import split as splits

PARTS = {"validation": ["qin-lung-ct-lsc-0049", "qin-lung-ct-lsc-0064"],
         "test": ["lidc-idri-0001", "lctsc-test-s1-102", "qin-lung-ct-01-0007",
                  "qin-lung-ct-lsc-0003"]}


class Case:
    """A CT: hu [z][y][x] and spacing_mm (z, y, x)."""

    def __init__(self, hu, spacing_mm):
        self.hu, self.spacing_mm = hu, np.array(spacing_mm, float)


def write_series(case, folder, number):
    """One slice a file, 16 bits unsigned with intercept -1024. Returns the study's UID."""
    folder.mkdir(parents=True)
    uids = [generate_uid(entropy_srcs=["pulmo-gate", str(folder.name), str(number), what])
            for what in ("study", "series", "frame")]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    slices, rows, columns = case.hu.shape
    stored = (np.clip(np.round(case.hu), -1024, 3071) + 1024).astype("<u2")
    z, y, x = case.spacing_mm
    for k in range(slices):
        meta.MediaStorageSOPInstanceUID = f"{uids[1][:58]}.{k + 1}"
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = uids
        data.PatientName, data.PatientID, data.Modality = "PULMO^GATE", "PULMO-GATE", "CT"
        data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        data.SeriesDescription, data.InstanceNumber = "made for the gate, not a patient", k + 1
        data.ImagePositionPatient = [0, 0, round(k * z, 4)]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [round(y, 5), round(x, 5)], round(z, 3)
        data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = stored[k].tobytes()
        data.save_as(folder / f"{k:04d}.dcm", write_like_original=False)
    return uids[0]


# ---- good chests -------------------------------------------------------------------------------------

def good(case, rng):
    """Kernel, dose, slice thickness, size, tilt, density and field of view within clinical range.
    Other numbers and other code than the training's (train_gate.py)."""
    blank = case.hu <= -1024
    hu, (z, y, x) = case.hu.astype(np.float32), case.spacing_mm
    kind = rng.integers(4)
    if kind == 0:
        hu = ndimage.gaussian_filter(hu, (0, rng.uniform(0.3, 0.7) / y, rng.uniform(0.3, 0.7) / x))
    elif kind == 1:
        hu = hu + rng.uniform(0.3, 1.0) * (hu - ndimage.gaussian_filter(hu, (0, 0.8 / y, 0.8 / x)))
    if rng.random() < 0.6:
        hu = hu + rng.uniform(5, 40) * rng.normal(0, 1, hu.shape).astype(np.float32)
    hu = hu + rng.normal(0, 15) * (hu < -500)
    hu[blank] = -1024
    if z < 2.6 and rng.random() < 0.4:                  # every two slices as one
        pairs = len(hu) // 2
        hu = hu[:2 * pairs].reshape(pairs, 2, *hu.shape[1:]).mean(1)
        hu[blank[:2 * pairs].reshape(pairs, 2, *hu.shape[1:]).any(1)] = -1024
        z = 2 * z
    if rng.random() < 0.25:                             # the patient lies a little turned
        degrees = rng.uniform(-8, 8)
        hu = ndimage.rotate(hu, degrees, (1, 2), reshape=False, order=1, cval=-1024)
    if rng.random() < 0.4:                              # the scan begins or ends early
        lung = (hu < -500) & (hu > -1020)
        used = np.flatnonzero(lung.any((1, 2)))
        low, high = used[0] + int(rng.uniform(0, 15) / z), used[-1] - int(rng.uniform(0, 6) / z)
        hu = hu[low:high]
    size = rng.uniform(0.9, 1.1) * rng.uniform(0.96, 1.04, 3)
    return Case(hu, np.array([z, y, x]) * size)


# ---- bad cases ---------------------------------------------------------------------------------------

def complete(case, rng):
    """A body around a host, which comes as -1024 beyond 15 mm of the lungs: soft tissue in an
    ellipse, air and noise around it. Every two pixels become one, which costs a quarter."""
    spacing = case.spacing_mm * (1, 2, 2)
    pad = [(int(12 / s),) * 2 for s in spacing]
    slices, rows, columns = (n // m * m for n, m in zip(case.hu.shape, (1, 2, 2)))
    blank = (case.hu <= -1024)[:, :rows:2, :columns:2]
    hu = case.hu[:, :rows, :columns].reshape(slices, rows // 2, 2, columns // 2, 2).mean((2, 4))
    hu = np.pad(np.where(blank, -1024, hu), pad, constant_values=-1024).astype(np.float32)
    rows, columns = hu.shape[1:]
    y, x = np.mgrid[-1:1:rows * 1j, -1:1:columns * 1j]
    tissue = np.where(np.abs(x)**2.6 + np.abs(y)**2.6 < 0.97, 30, -1000)
    noise = rng.normal(0, 12, hu.shape).astype(np.float32)
    return Case(np.where(hu <= -1024, tissue + noise, hu), spacing)


def upside_down(case, rng):
    return Case(case.hu[::-1], case.spacing_mm)


def back_to_front(case, rng):
    return Case(case.hu[:, ::-1], case.spacing_mm)


def rolled(case, rng):
    """Head to feet and front to back: feet first, face down, said of nobody."""
    return Case(case.hu[::-1, ::-1], case.spacing_mm)


def inverted(case, rng):
    low, high = [(-1024, 1024), (-1024, 608), (-1000, 0), (-1024, 3071)][rng.integers(4)]
    return Case(low + high - np.clip(case.hu, low, high), case.spacing_mm)


def shifted_up(case, rng):
    return Case(case.hu + 1024, case.spacing_mm)


def shifted_down(case, rng):
    return Case(case.hu - 1024, case.spacing_mm)


def scaled(case, rng):
    """A wrong rescale slope."""
    slope = [0.25, 0.5, 2, 4][rng.integers(4)]
    return Case((case.hu + 1024) * slope - 1024, case.spacing_mm)


def noisy(case, rng):
    sigma = rng.uniform(250, 600)
    return Case(case.hu + rng.normal(0, sigma, case.hu.shape).astype(np.float32), case.spacing_mm)


def middle(case, rng, count):
    """`count` slices of the middle of the lungs, without repetition."""
    slices = len(case.hu)
    return rng.choice(np.arange(slices // 4, 3 * slices // 4), count, replace=False)


def zeroed_slices(case, rng):
    hu = case.hu.copy()
    count = int(rng.integers(5, 16))
    if rng.random() < 0.5:
        hu[middle(case, rng, count)] = -1024
    else:
        at = int(middle(case, rng, 1)[0])
        hu[at:at + count] = -1024
    return Case(hu, case.spacing_mm)


def shuffled_slices(case, rng):
    order = np.arange(len(case.hu))
    chosen = middle(case, rng, int(rng.integers(len(order) // 6, len(order) // 2)))
    order[chosen] = rng.permutation(chosen)
    return Case(case.hu[order], case.spacing_mm)


def swapped_blocks(case, rng):
    slices, length = len(case.hu), int(rng.integers(6, 14))
    a = int(rng.integers(slices // 5, slices // 2 - length))
    b = int(rng.integers(slices // 2, 4 * slices // 5 - length))
    order = np.arange(slices)
    order[a:a + length], order[b:b + length] = np.arange(b, b + length), np.arange(a, a + length)
    return Case(case.hu[order], case.spacing_mm)


def repeated_slices(case, rng):
    hu, length = case.hu.copy(), int(rng.integers(10, 25))
    at = int(rng.integers(len(hu) // 4, 3 * len(hu) // 4 - length))
    hu[at:at + length] = hu[at]
    return Case(hu, case.spacing_mm)


def shuffled_tiles(case, rng):
    side = int(rng.choice([16, 24, 32]))
    rows, columns = (n // side for n in case.hu.shape[1:])
    hu = case.hu.copy()
    for to, source in enumerate(rng.permutation(rows * columns)):
        (j, i), (m, n) = divmod(to, columns), divmod(int(source), columns)
        hu[:, j * side:(j + 1) * side, i * side:(i + 1) * side] = \
            case.hu[:, m * side:(m + 1) * side, n * side:(n + 1) * side]
    return Case(hu, case.spacing_mm)


def striped(case, rng):
    hu, period = case.hu.copy(), int(rng.integers(3, 8))
    value = [-1024, 608, 3071][rng.integers(3)]
    if rng.random() < 0.5:
        hu[:, ::period] = value
    else:
        hu[:, :, ::period] = value
    return Case(hu, case.spacing_mm)


def stored(case):
    return (np.clip(np.round(case.hu), -1024, 3071) + 1024).astype(np.uint16)


def swapped_bytes(case, rng):
    return Case(stored(case).byteswap().astype(np.float32) - 1024, case.spacing_mm)


def wrong_bits(case, rng):
    """Twelve bits read as eleven, ten or nine, or a bit that is always set."""
    pixels = stored(case)
    if rng.random() < 0.5:
        return Case((pixels & (2 ** int(rng.integers(7, 10)) - 1)).astype(np.float32) - 1024,
                    case.spacing_mm)
    return Case((pixels | 2 ** int(rng.integers(8, 11))).astype(np.float32) - 1024, case.spacing_mm)


def saturated(case, rng):
    """A window's values instead of the CT's."""
    low, high = [(-160, 240), (-1024, -700), (-1024, -500), (-200, 300)][rng.integers(4)]
    return Case(np.clip(case.hu, low, high), case.spacing_mm)


def cylinder(shape, spacing, radius_mm, centre=(0, 0)):
    at = [(np.arange(n) - (n - 1) / 2) * s - c for n, s, c in zip(shape[1:], spacing[1:], centre)]
    return at[0][:, None]**2 + at[1][None]**2 < radius_mm**2


def rods(hu, spacing, rng, radius_mm, count):
    """Metal with the streaks that photon starvation draws between and around it."""
    rows, columns = hu.shape[1:]
    j, i = np.mgrid[:rows, :columns]
    for _ in range(count):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.7) * radius_mm
        y = rows / 2 + far * np.sin(angle) / spacing[1]
        x = columns / 2 + far * np.cos(angle) / spacing[2]
        gap = np.hypot((j - y) * spacing[1], (i - x) * spacing[2])
        turn = np.arctan2(j - y, i - x)
        hu += (rng.uniform(150, 500) * np.sin(turn * rng.integers(8, 30)) * np.exp(-gap / 60))[None]
        hu[:, gap < rng.uniform(3, 9)] = 3071
    return hu


def phantom(rng, filling, metal):
    """A shell of plastic around water or foam, as quality assurance scans it."""
    spacing = np.array([rng.uniform(1.5, 3), 1.0, 1.0])
    shape = (int(rng.uniform(180, 300) / spacing[0]), 340, 340)
    radius = rng.uniform(110, 150)
    hu = np.full(shape, -1000, np.float32)
    hu[:, cylinder(shape, spacing, radius)] = 120
    hu[:, cylinder(shape, spacing, radius - 8)] = filling
    ends = max(1, int(10 / spacing[0]))
    lid = cylinder(shape, spacing, radius)
    hu[:ends, lid] = hu[-ends:, lid] = 120
    for _ in range(int(rng.integers(3, 7))):                      # inserts
        centre = rng.uniform(-0.5, 0.5, 2) * radius
        hu[:, cylinder(shape, spacing, rng.uniform(8, 20), centre)] = rng.choice([-900, -100, 60, 340, 950])
    if metal:
        hu = rods(hu, spacing, rng, radius, int(rng.integers(1, 5)))
    return Case(hu + rng.normal(0, 15, shape).astype(np.float32), spacing)


def water_phantom(case, rng):
    return phantom(rng, 0, False)


def metal_phantom(case, rng):
    return phantom(rng, [0, 60, -100][rng.integers(3)], True)


def foam_phantom(case, rng):
    return phantom(rng, rng.uniform(-900, -650), False)


def foam_phantom_metal(case, rng):
    return phantom(rng, rng.uniform(-900, -650), True)


def head(case, rng):
    """Skin, skull, brain, sinuses and the air of the mouth; no head is among the shared data."""
    spacing = np.array([rng.uniform(1.5, 3), 1.0, 1.0])
    shape = (int(rng.uniform(190, 230) / spacing[0]), 260, 220)
    k, j, i = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing)),
                          indexing="ij", sparse=True)

    def ball(z, y, x, a, b, c):
        return ((k - z) / a)**2 + ((j - y) / b)**2 + ((i - x) / c)**2 < 1
    size = rng.uniform(0.92, 1.08)
    hu = np.full(shape, -1000, np.float32)
    for value, a, b, c in ((20, 100, 96, 78), (900, 95, 91, 73), (36, 89, 85, 67)):
        hu[ball(0, 0, 0, a * size, b * size, c * size)] = value
    for z, y, x, a, b, c in ((-45, -70, 12, 12, 10, 9), (-45, -70, -12, 12, 10, 9),
                             (-70, -45, 0, 22, 30, 14), (-30, 40, 55, 12, 14, 8)):
        hu[ball(z, y, x, a, b, c)] = -950
    return Case(hu + rng.normal(0, 10, shape).astype(np.float32), spacing)


def abdomen(case, rng):
    """A run of the real abdomen and pelvis of ct/not-a-chest."""
    count = int(rng.integers(18, 40))
    low = int(rng.integers(0, len(case.hu) - count + 1))
    return Case(case.hu[low:low + count], case.spacing_mm)


def below_the_lungs(case, rng):
    """The upper abdomen of a chest CT: what lies below the widest section of the lungs."""
    air = ((case.hu < -500) & (case.hu > -980)).sum((1, 2))
    widest = int(np.argmax(air[:len(air) // 2 + 1]))
    return Case(case.hu[:max(16, widest)], case.spacing_mm)


def neck(case, rng):
    """The top of a chest CT: the apices and the neck."""
    return Case(case.hu[-int(rng.integers(16, 26)):], case.spacing_mm)


# class: (function, base, count). Base: "body" = a completed host or a whole CT, "abdomen", or None.
BAD = {
    "head, synthetic": (head, None, 8),
    "abdomen and pelvis": (abdomen, "abdomen", 12),
    "upper abdomen": (below_the_lungs, "body", 5),
    "neck and apices": (neck, "body", 4),
    "water phantom": (water_phantom, None, 4),
    "water phantom with metal": (metal_phantom, None, 8),
    "foam phantom": (foam_phantom, None, 6),
    "foam phantom with metal": (foam_phantom_metal, None, 10),
    "inverted": (inverted, "body", 16),
    "HU + 1024": (shifted_up, "body", 8),
    "HU - 1024": (shifted_down, "body", 8),
    "wrong slope": (scaled, "body", 8),
    "upside down": (upside_down, "body", 16),
    "back to front": (back_to_front, "body", 16),
    "both ways round": (rolled, "body", 8),
    "heavy noise": (noisy, "body", 16),
    "zeroed slices": (zeroed_slices, "body", 10),
    "shuffled slices": (shuffled_slices, "body", 8),
    "swapped blocks of slices": (swapped_blocks, "body", 8),
    "repeated slices": (repeated_slices, "body", 8),
    "shuffled tiles": (shuffled_tiles, "body", 8),
    "stripes": (striped, "body", 8),
    "swapped bytes": (swapped_bytes, "body", 4),
    "wrong bits": (wrong_bits, "body", 8),
    "saturated": (saturated, "body", 8),
}
GOOD = "good chest"


# ---- the product judges ---------------------------------------------------------------------------------

def whole_ct(data, name):
    _, volume = implant_study.read_series(Path(data) / "ct" / name)
    return Case(volume.hu.astype(np.float32), volume.spacing_mm)


class Sources:
    """The CTs that cases are made of, read once."""

    def __init__(self, data, part):
        self.hosts = [frame.load_host(data, name) for name in PARTS[part]]
        self.bodies = [complete(host, np.random.default_rng(n)) for n, host in enumerate(self.hosts)]
        self.abdomen = whole_ct(data, "not-a-chest")
        if part == "test":                    # JPEG-LS, which pydicom reads with dcmdjpls's help only
            self.bodies.append(None)
        self.whole_path = Path(data) / "ct" / "lidc-idri-0001"

    def body(self, number):
        at = number % len(self.bodies)
        if self.bodies[at] is None:
            with tempfile.TemporaryDirectory() as folder:
                for path in self.whole_path.glob("*.dcm"):
                    subprocess.run(["dcmdjpls", path, Path(folder) / path.name], check=True)
                _, volume = implant_study.read_series(folder)
            self.bodies[at] = Case(volume.hu.astype(np.float32), volume.spacing_mm)
        return self.bodies[at]


def cases_of(part, good_count, scale):
    """[(class, number)] in an order that mixes them, so that a run that is cut short saw all."""
    out = [(GOOD, n) for n in range(good_count)]
    for name, (_, _, count) in BAD.items():
        out += [(name, n) for n in range(max(1, round(count * scale)))]
    return sorted(out, key=lambda c: (c[1], c[0]))


def make(sources, name, number):
    rng = np.random.default_rng([sorted(BAD).index(name) if name in BAD else 1000, number])
    if name == GOOD:
        host = sources.hosts[number % len(sources.hosts)]
        return good(Case(host.hu, host.spacing_mm), rng)
    function, base, _ = BAD[name]
    case = {None: lambda: None, "abdomen": lambda: sources.abdomen,
            "body": lambda: sources.body(number)}[base]()
    return function(case, rng)


def survey(pulmo, folder, frames):
    """study UID -> the product's verdict."""
    run = subprocess.run([pulmo, "survey", folder, "--json", "--frames", frames],
                         stdout=subprocess.PIPE, check=False)
    return {s["study_uid"]: s for s in json.loads(run.stdout)["studies"]}


def run_frames(args):
    out = Path(args.out)
    (out / "frames").mkdir(parents=True, exist_ok=True)
    sources = Sources(args.data, args.part)
    todo = cases_of(args.part, args.good, args.scale)
    done = {(c["class"], c["number"]) for c in map(json.loads, open(out / "cases.jsonl"))} \
        if (out / "cases.jsonl").exists() else set()
    todo = [c for c in todo if c not in done]
    for start in range(0, len(todo), 8):
        batch = todo[start:start + 8]
        with tempfile.TemporaryDirectory(prefix="pulmo-gate-") as folder:
            uids = [write_series(make(sources, *case), Path(folder) / f"{case[0]}-{case[1]}".replace(" ", "-"),
                                 case[1]) for case in batch]
            verdicts = survey(args.pulmo, folder, out / "frames")
        with open(out / "cases.jsonl", "a") as f:
            for (name, number), uid in zip(batch, uids):
                f.write(json.dumps({"class": name, "number": number, "uid": uid,
                                    "verdict": verdicts[uid]}) + "\n")
        print(f"{start + len(batch)} of {len(todo)}", flush=True)


# ---- figures --------------------------------------------------------------------------------------------

def judged(out, models):
    """[(class, reason or None, score or None)]: the product's own reasons, and the shipped network's score of
    the frame that the product kept. The two are computed apart so that one run of the product serves
    every network; where the product had a gate already, both scores must agree."""
    model = onnx.load(str(models / "gate.onnx"))
    limits = gate.limits_of(json.loads((models / "model.json").read_text())["gate"]["limits"])

    def network(x):
        return onnx_run.run(model, {"frame": x})["reconstruction"]
    rows = []
    for case in map(json.loads, open(out / "cases.jsonl")):
        reasons = [r for r in case["verdict"]["reasons"] if not r.startswith("OUT_OF_DISTRIBUTION")]
        path, score = out / "frames" / f"{case['uid']}.f32", None
        if path.exists():
            frame_of = torch.from_numpy(np.fromfile(path, np.float32).reshape(1, -1, *gate.CELLS))
            score = gate.scores(gate.parts(frame_of, network), limits).item()
        rows.append((case["class"], case["number"], reasons[0].split(":")[0] if reasons else None, score))
    return rows


def run_score(args):
    rows = judged(Path(args.out), Path(args.models))
    print("| class | cases | refused | by another reason first | by the autoencoder | lowest score |")
    print("|---|---|---|---|---|---|")
    total = Counter()
    for name in [GOOD] + list(BAD):
        mine = [r for r in rows if r[0] == name]
        first = Counter(r[2] for r in mine if r[2])
        own = sum(1 for r in mine if not r[2] and r[3] > 1)
        scores = [r[3] for r in mine if r[3] is not None and not r[2]]
        refused = sum(first.values()) + own
        worst = (max if name == GOOD else min)(scores) if scores else None
        print(f"| {name} | {len(mine)} | {refused} | "
              f"{', '.join(f'{k} {v}' for k, v in sorted(first.items())) or '–'} | {own} of {len(scores)} | "
              f"{'–' if worst is None else f'{worst:.2f}'} |")
        if name != GOOD:
            total.update(cases=len(mine), refused=refused, own=own, left=len(scores))
    print(f"\n{total['refused']} of {total['cases']} bad cases refused; the autoencoder alone "
          f"{total['own']} of the {total['left']} that no other reason had refused.")
    for name, number, reason, score in rows:
        if (name == GOOD) == bool(reason or score > 1):
            print(f"wrong: {name} {number}: {reason or f'score {score:.2f}'}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["frames", "score"])
    parser.add_argument("out")
    parser.add_argument("--part", default="test", choices=list(PARTS))
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--pulmo", default=str(splits.HERE / "../build/pulmo"))
    parser.add_argument("--good", type=int, default=56)
    parser.add_argument("--scale", type=float, default=0.92, help="of the counts in BAD")
    args = parser.parse_args()
    torch.set_num_threads(1)
    (run_frames if args.what == "frames" else run_score)(args)


if __name__ == "__main__":
    main()
