"""The shipped models over one CT, as the engine runs them: marks with calibrated scores."""
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import torch

import crops
import decode
import judge
import lungs
import masks
import onnx_run
import split as splits
from passes import PLACES, Passes
from trust import sigmoid


LOOSE = (0.02, 60)        # score_min and candidates_max of what is kept for calibration


def bent(curve, x):
    """A monotone curve through points [[from, to], ...], straight between them, of slope 1 beyond (uncertainty/uncertainty.c)."""
    at, to = np.array(curve).T
    return np.interp(x, at, to) + np.minimum(x - at[0], 0) + np.maximum(x - at[-1], 0)


def calibrated(calibration, logit1, logit2, shift=0.0):
    """Probabilities of logits [N], or of passes: logit1 [N] and logit2 [N, passes], which move by one number a row, so that their mean is what
    the curve makes of it. shift moves all to another share of nodules."""
    if logit2.ndim == 2:
        logit1 = logit1[:, None]
    x = calibration["a"] * logit1 + calibration["b"] * logit2 + calibration["c"]
    if "curve" not in calibration:
        return sigmoid(x + shift)
    if logit2.ndim == 1:
        return sigmoid(bent(calibration["curve"], x) + shift)
    mean = np.clip(sigmoid(x).mean(1), 1e-12, 1 - 1e-12)
    wanted = sigmoid(bent(calibration["curve"], np.log(mean / (1 - mean))) + shift)
    low, high = np.full(len(x), -54.0), np.full(len(x), 54.0)
    for _ in range(64):
        middle = (low + high) / 2
        less = sigmoid(x + middle[:, None]).mean(1) < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return sigmoid(x + high[:, None])


class Graphs:
    """Both stages. digest: of stage 1, under which its marks are kept."""

    def __init__(self, detector, candidate):
        """Stage 1 by its path, stage 2 as a graph."""
        self.detector, self.candidate = onnx.load(str(detector)), candidate
        self.digest = judge.sha256(detector)[:12]
        self.stage = Passes(self.candidate)      # stage 2, cut for the passes

    def detect(self, image):
        got = onnx_run.run(self.detector, {"image": image})
        return got["heatmap"], got["offset"], got["log_diameter"]


class Pipeline:
    """models/model.json and its two graphs."""

    def __init__(self, models, cache=None, fitted=None, judges=None):
        """fitted: calibration.json, whose fits without a host judge that host (calibrate.py). judges: a folder of the graphs
        that never saw a host, for each host that what ships has seen (judge.py)."""
        self.cache = cache
        self.left_out = json.loads(Path(fitted).read_text())["left_out"] if fitted else {}
        self.text = json.loads((Path(models) / "model.json").read_text())
        self.flips = self.text["candidate"].get("flips", 1)
        paths = [Path(models) / self.text[stage]["file"] for stage in ("detector", "candidate")]
        self.shipped = Graphs(paths[0], onnx.load(str(paths[1])))
        self.judges = {} if judges else None
        for hosts, *stages in judge.stages(judges, *paths) if judges else ():
            self.judges.update(dict.fromkeys(hosts, Graphs(*stages)))
        self.unseen = splits.never_fitted(splits.load())

    def graphs_of(self, host=None):
        """Those that may judge `host`: what ships has seen all but those of never_train."""
        if host is None or self.judges is None or host in self.unseen:
            return self.shipped
        if host not in self.judges:
            raise SystemExit(f"no graphs that have not seen {host}: train them and run export.py")
        return self.judges[host]

    def parts(self):
        """Parts of the copies for evaluation whose hosts it may judge: those of train only by graphs made without them."""
        train = splits.load()["hosts"]["train"]
        return splits.UNSEEN + ((splits.JUDGED,) if all(host in (self.judges or {}) for host in train) else ())

    def classify(self, image, rows, host=None, seed=0):
        """Of each row: logits of the passes with dropout [N, passes]; without it logit, texture (0 solid, 1 part-solid,
        2 ground-glass) and diameter, the mean over the mirror images of its crop."""
        if not len(rows):
            return np.zeros((0, self.text["passes"])), np.zeros(0), np.zeros(0, int), np.zeros(0)
        crops40, stage = torch.from_numpy(decode.crops40(image, rows)), self.graphs_of(host).stage
        rate = self.text["candidate"]["dropout"]
        with torch.no_grad():
            carried = [stage.trunk(decode.mirrored(crops40, n)) for n in range(self.flips)]
            views = [stage.tail(c) for c in carried]
        logits = stage.logits(carried, (rate,) * len(PLACES), rate, self.text["passes"], seed).double().numpy()

        def mean(of):
            return torch.stack([of(view).double() for view in views]).mean(0).numpy()
        return (logits, mean(lambda v: v["logit"][:, 0]), mean(lambda v: torch.softmax(v["texture"], 1)).argmax(1),
                mean(lambda v: torch.exp(v["log_diameter"][:, 0])))

    def thresholds(self, host=None):
        """calibration, operating_point and score_min: those that ship, or the fit that never saw `host`."""
        if host is None:
            return {"calibration": self.text["calibration"], "operating_point": self.text["operating_point"],
                    "diameter": self.text.get("diameter"), "score_min": self.text["detector"]["score_min"]}
        return self.left_out[host]

    def score(self, logit1, logit2, host=None):
        """Calibrated probability of logits [N], or of passes [N, passes]: what is shown is the mean of theirs."""
        p = calibrated(self.thresholds(host)["calibration"], logit1, logit2)
        return p.mean(1) if p.ndim == 2 else p

    def rows(self, volume, name, host=None):
        """All marks of stage 1 above LOOSE. With a name they are kept in the cache under the digest
        of the graph: calibration and evaluation then need not run it again."""
        kept, graphs = None, self.graphs_of(host)
        if self.cache and name:
            kept = Path(self.cache) / f"marks-{graphs.digest}-{decode.INNER_MAX}" / f"{name}.npy"
            if kept.exists():
                return np.load(kept)
        hu = volume.astype(np.float32) * (1632 / 255) - 1024
        mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(hu, 2), (1, 1, 1))
        distance = lungs.distance_mm(mask, volume.shape)
        rows = decode.candidates(graphs.detect, volume.astype(np.float32) / 255, distance, *LOOSE)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, rows)
        return rows

    def looked(self, volume, name, score_min, limit, host=None):
        """(rows of stage 1, what classify says of them) of what stage 1 hands on at score_min."""
        rows = self.rows(volume, name, host)
        # suppression goes from the best down, so a stricter cut is a prefix of a looser one
        rows = rows[rows[:, 4] >= np.log(score_min / (1 - score_min))][:limit]
        return rows, *self.classify(volume.astype(np.float32) / 255, rows, host, zlib.crc32((name or "").encode()))

    def marks(self, volume, name=None, score_min=None, limit=None, host=None):
        """volume uint8 at 1 mm, masked. A list of dicts, best first; with a host, judged without that host's copies.
        The score is the probability that is shown; logit2 is that of stage 2 without dropout."""
        rows, passes, logit2, texture, diameter = self.looked(
            volume, name, score_min or self.thresholds(host)["score_min"],
            limit or self.text["detector"]["candidates_max"], host)
        score = self.score(rows[:, 4], passes, host)
        weights = self.thresholds(host).get("diameter")
        if weights:
            diameter = masks.joined(weights, diameter, masks.spheres(volume, rows[:, :3], diameter))
        order = np.argsort(-score, kind="stable")
        return [{"at": rows[i, :3].tolist(), "mm1": rows[i, 3], "logit1": rows[i, 4],
                 "logit2": logit2[i], "texture": int(texture[i]), "mm": diameter[i],
                 "score": score[i]} for i in order]


def main():
    """Fills the cache of marks: python3 train/scan.py MODELS CACHE JUDGES PART …"""
    models, cache, judges, *parts = sys.argv[1:]
    pipeline = Pipeline(models, cache, None, judges)
    for part in parts:
        copies = crops.Copies(Path(cache) / part)
        for volume, text, name in zip(copies.volumes, copies.texts, copies.by_name):
            print(part, name, len(pipeline.rows(np.array(volume), f"{part}-{name}", text["host"])), flush=True)


if __name__ == "__main__":
    main()
