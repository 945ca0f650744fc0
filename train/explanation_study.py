"""Do the maps show why a finding was made? Pointing game, deletion and insertion, randomised weights.

    python3 train/explanation_study.py            writes runs/explanation.json

On the nodules of the test copies that are reported at the operating point. Implants know their masks: the copies are
made again with their cover, and must come out as they are in the cache (runs/masks keeps the cover).
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats

import crops
import frame
import froc
import generate
import judge
import maps
import onnx_run
import split as splits
import trust
from scan import Pipeline

OFFSET_MM = 8.0
SHARES = [2.0**-n for n in range(10, -1, -1)]      # of the crop's voxels deleted or inserted, highest heat first
BLUR_MM = 5.0
COPIES = 12                                        # three of each test host: a map costs more than a mark
WINDOW = 64                                        # of the detector, where only the middle is read


# ---- masks -----------------------------------------------------------------------------------------------

def make_masks(data, cache, folder, part="test", nodules=12, shams=6):
    """folder/<number>.npy: where a nodule takes half of a voxel or more, on the copy's grid."""
    copies = crops.Copies(Path(cache) / f"{part}-plain")
    wanted = [name for name in list(copies.by_name)[:COPIES] if not (folder / f"{name}.npy").exists()]
    if not wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    hosts = [generate.Host(data, r) for r in splits.hosts(data, part)]
    patches = generate.load_nodules(data, part)
    order = np.random.default_rng(11).permutation(len(patches))
    for name in wanted:
        number = int(name)
        host = hosts[number % len(hosts)]
        few = [patches[order[(number * nodules + i) % len(order)]] for i in range(nodules)]
        cover = np.zeros(host.volume.hu.shape, np.float32)
        rng = np.random.default_rng([splits.PARTS.index(part), 1, number])
        volume, text = generate.make_copy(host, few, hosts, rng, nodules, shams, True, cover)
        if not np.array_equal(volume, copies.volumes[copies.by_name[name]]):
            raise SystemExit(f"copy {name} does not come out as it is in the cache: make its data again")
        small = frame.resample(cover, host.volume.spacing_mm)
        low = text["low"]
        box = tuple(slice(l, l + n) for l, n in zip(low, volume.shape))
        np.save(folder / f"{name}.npy", small[box] >= 0.5)
        print("mask of", name, flush=True)


# ---- cases -----------------------------------------------------------------------------------------------

class Case:
    """A reported nodule: its copy, its mask, the mark on it."""

    def __init__(self, volume, mask, host, scan, finding, mark):
        self.volume, self.mask, self.host, self.scan = volume, mask, host, scan
        self.mm, self.at, self.mark = finding["mm"], np.array(finding["at"]), np.array(mark["at"])

    def hit(self, heat, centre, reach_mm):
        """Whether the hottest voxel lies in this nodule's mask, or within reach_mm of it."""
        if not heat.max() > 0:
            return False
        start = maps.crop_start(centre)
        voxel = np.array(np.unravel_index(heat.argmax(), heat.shape)) + start
        inside = maps.window(self.mask, start - 8, maps.SIDE + 16) > 0       # beyond the crop too: a large nodule
        grid = np.stack(np.meshgrid(*[np.arange(maps.SIDE + 16) + s - 8 for s in start], indexing="ij"))
        own = inside & (np.linalg.norm(grid - self.at[:, None, None, None], axis=0) < self.mm / 2 + 4)
        if not own.any():
            return False
        places = grid[:, own].T
        return bool(np.linalg.norm(places - voxel, axis=1).min() <= reach_mm)


def cases_of(pipeline, cache, folder, part="test"):
    copies = crops.Copies(Path(cache) / f"{part}-plain")
    out = []
    for number, (volume, text, name) in enumerate(list(zip(copies.volumes, copies.texts, copies.by_name))[:COPIES]):
        volume, mask = np.array(volume), np.load(folder / f"{name}.npy", mmap_mode="r")
        host = text["host"]
        marks = [m for m in pipeline.marks(volume, f"{part}-plain-{name}", host=host)
                 if m["score"] >= pipeline.thresholds(host)["operating_point"]]
        for f in text["findings"]:
            hit = next((m for m in marks if f["kind"] == "nodule" and
                        froc.within(m["at"], f["at"] + [f["mm"]])), None)
            if hit:
                out.append(Case(volume, mask, host, number, f, hit))
    return out


# ---- the pointing game -----------------------------------------------------------------------------------

def pointing(cases, makers, centres):
    """Per map: hits in the mask, hits within one detector cell of it, and the former at 6 mm and more."""
    scan = np.array([c.scan for c in cases])
    large = np.array([c.mm >= 6 for c in cases])
    weights = list(trust.resamples(scan))
    out = {}
    for name, make in makers.items():
        heats = [make(c, centre) for c, centre in zip(cases, centres)]
        strict = np.array([c.hit(h, centre, 0.01) for c, h, centre in zip(cases, heats, centres)])
        near = np.array([c.hit(h, centre, maps.STRIDE) for c, h, centre in zip(cases, heats, centres)])
        out[name] = {"cases": len(cases), "hits": int(strict.sum()), "within_4_mm": int(near.sum()),
                     "interval": trust.interval([np.average(strict, weights=w) for w in weights if w.sum()]),
                     "cases_from_6_mm": int(large.sum()), "hits_from_6_mm": int(strict[large].sum())}
        print(name, out[name], flush=True)
    return out


def offsets(count, seed=5):
    """Uniform in a ball of OFFSET_MM."""
    rng = np.random.default_rng(seed)
    step = rng.normal(size=(count, 3))
    return step / np.linalg.norm(step, axis=1, keepdims=True) * OFFSET_MM * rng.random((count, 1)) ** (1 / 3)


# ---- deletion and insertion ------------------------------------------------------------------------------

class Scorer:
    """The calibrated probability of a case whose crop was changed: both stages look again."""

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def __call__(self, case, crops_changed):
        start = maps.crop_start(case.mark)
        shift = (WINDOW - maps.SIDE) // 2
        low = start - shift + (-(start - shift) + 4) % 8 - 8       # on the lattice of the detector's tiles
        tile = maps.window(case.volume, low, WINDOW)
        inside = tuple(slice(s - l, s - l + maps.SIDE) for s, l in zip(start, low))
        tiles = np.repeat(tile[None], len(crops_changed), 0)
        tiles[(slice(None),) + inside] = crops_changed
        graphs = self.pipeline.graphs_of(case.host)
        heat = onnx_run.run(graphs.detector, {"image": torch.from_numpy(tiles[:, None])})["heatmap"][:, 0]
        cell = np.rint((case.mark - low - 1.5) / 4).astype(int)
        around = tuple(slice(max(c - 1, 0), c + 2) for c in cell)
        logit1 = heat[(slice(None),) + around].flatten(1).amax(1).numpy().astype(float)
        logit2 = onnx_run.run(graphs.candidate, {"crop": torch.from_numpy(crops_changed[:, None])})
        return self.pipeline.score(logit1, logit2["logit"][:, 0].numpy().astype(float), case.host)


def curves(score, case, heat):
    """Mean score (area under the curve over the logarithm of the share) of deletion and of insertion."""
    crop = maps.window(case.volume, maps.crop_start(case.mark), maps.SIDE)
    blurred = ndimage.gaussian_filter(crop, BLUR_MM)
    noise = np.random.default_rng(1).random(heat.shape) * 1e-9     # ties in any order, not in that of the voxels
    rank = np.argsort(np.argsort(-(heat / max(heat.max(), 1e-12) + noise).ravel())).reshape(heat.shape)
    taken = [rank < share * rank.size for share in SHARES]
    changed = np.stack([np.where(t, blurred, crop) for t in taken] + [np.where(t, crop, blurred) for t in taken])
    p = score(case, changed.astype(np.float32))
    return p[:len(SHARES)].mean(), p[len(SHARES):].mean()


def faithfulness(cases, makers, score):
    scan = np.array([c.scan for c in cases])
    weights = [w for w in trust.resamples(scan) if w.sum()]
    areas = {}
    for name, make in makers.items():
        areas[name] = np.array([curves(score, c, make(c, c.mark)) for c in cases])
        print(name, areas[name].mean(0).round(3).tolist(), flush=True)
    out = {"cases": len(cases), "maps": {n: {"deletion": round(float(a[:, 0].mean()), 4),
                                             "insertion": round(float(a[:, 1].mean()), 4)}
                                         for n, a in areas.items()}, "against": {}}
    for name in OWN:
        for control in maps.CONTROLS:
            gap = areas[name] - areas[control]      # lower is better for deletion, higher for insertion
            out["against"][f"{name} less {control}"] = {
                way: {"mean": round(float(gap[:, i].mean()), 4),
                      "interval": trust.interval([np.average(gap[:, i], weights=w) for w in weights])}
                for i, way in enumerate(("deletion", "insertion"))}
    return out


# ---- randomised weights ----------------------------------------------------------------------------------

def shuffled(tensor):
    """The values of a weight tensor in another order (Adebayo et al., NeurIPS 2018); small ones are constants."""
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(tensor.numel())
    return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)


OWN = ("attention", "HiResCAM", "HiResCAM at stride 4")


def maps_of(pipeline, cases, weights=None):
    """name -> function of a case and a place: the maps of the networks that may judge the case's host."""
    def of(host):
        graphs = pipeline.graphs_of(host)
        return maps.Maps(graphs.detector, graphs.candidate, pipeline.text["detector"]["cam_layer"], weights)
    made = {host: of(host) for host in {c.host for c in cases}}
    return {name: lambda case, at, method=method: getattr(made[case.host], method)(case.volume, at)
            for name, method in zip((*OWN, "HiResCAM at stride 4, candidate's cell"),
                                    ("attention", "hirescam", "hirescam_join", "hirescam_join_near"))}


def randomisation(cases, trained, pipeline):
    """Rank correlation of each map with itself under shuffled weights."""
    other = maps_of(pipeline, cases, shuffled)
    out = {}
    for name, a, b in zip(OWN, trained.values(), other.values()):
        got = np.array([stats.spearmanr(a(c, c.mark).ravel(), b(c, c.mark).ravel())[0] for c in cases])
        got = np.nan_to_num(got)                   # a map that is cold everywhere correlates with nothing
        out[name] = {"cases": len(cases), "mean_rank_correlation": round(float(got.mean()), 4),
                     "interval": trust.interval([np.average(got, weights=w) for w in
                                                 trust.resamples(np.arange(len(got)))])}
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--fitted", default=str(splits.HERE / "runs/calibration.json"))
    parser.add_argument("--faithful", type=int, default=30, help="cases of deletion and insertion")
    parser.add_argument("--cases", type=int, default=1000, help="cases of the pointing game, for a trial")
    parser.add_argument("--part", default="test", choices=splits.PARTS, help="validation, to choose a map")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judges", default=str(judge.FOLDER))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(args.runs) / ("masks" if args.part == "test" else f"masks-{args.part}")
    make_masks(args.data, args.cache, folder, args.part)
    pipeline = Pipeline(args.models, args.cache, args.fitted, args.judges)
    cases = cases_of(pipeline, args.cache, folder, args.part)
    few = [cases[i] for i in np.random.default_rng(2).permutation(len(cases))[:args.faithful]]
    cases = cases[:args.cases]
    trained = maps_of(pipeline, cases)
    controls = {name: lambda case, at, make=make: make(case.volume, at) for name, make in maps.CONTROLS.items()}
    makers = {**trained, **controls}
    result = {"operating_point": pipeline.text["operating_point"], "offset_mm": OFFSET_MM,
              "detector_sha256": pipeline.text["detector"]["sha256"],
              "candidate_sha256": pipeline.text["candidate"]["sha256"],
              "pointing_offset": pointing(cases, makers, [c.at + o for c, o in zip(cases, offsets(len(cases)))]),
              "pointing_as_shown": pointing(cases, makers, [c.mark for c in cases]),
              "faithfulness": faithfulness(few, {n: m for n, m in makers.items() if "candidate" not in n},
                                           Scorer(pipeline)),
              "randomised": randomisation(few[:20], trained, pipeline)}
    name = "explanation.json" if args.part == "test" else f"explanation-{args.part}.json"
    (Path(args.runs) / name).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
