"""The shipped models over one CT, as the engine runs them: marks with calibrated scores."""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch

import crops
import decode
import lungs
import onnx_run


LOOSE = (0.02, 60)        # score_min and candidates_max of what is kept for calibration


class Pipeline:
    """models/model.json and its two graphs."""

    def __init__(self, models, cache=None, fitted=None, heads=None):
        """fitted: calibration.json, whose fits without a host judge that host (calibrate.py). heads: a folder with the
        stage 2 that never saw it, for each host that the shipped one has seen (train_head.py --without)."""
        self.cache = cache
        self.left_out = json.loads(Path(fitted).read_text())["left_out"] if fitted else {}
        self.text = json.loads((Path(models) / "model.json").read_text())
        self.detector = onnx.load(str(Path(models) / self.text["detector"]["file"]))
        self.flips = self.text["candidate"].get("flips", 1)
        self.candidate = onnx.load(str(Path(models) / self.text["candidate"]["file"]))
        self.heads = {path.stem: onnx.load(str(path)) for path in sorted(Path(heads).glob("*.onnx"))} if heads else {}

    def detect(self, image):
        got = onnx_run.run(self.detector, {"image": image})
        return got["heatmap"], got["offset"], got["log_diameter"]

    def candidate_of(self, host=None):
        """Stage 2 that may judge `host`: the one that ships where it has not seen it."""
        return self.heads.get(host, self.candidate)

    def classify(self, image, rows, host=None):
        """logit, texture (0 solid, 1 part-solid, 2 ground-glass) and diameter of each row: the mean over the
        mirror images of its crop."""
        if not len(rows):
            return np.zeros(0), np.zeros(0, int), np.zeros(0)
        crops40 = torch.from_numpy(decode.crops40(image, rows))
        views = [onnx_run.run(self.candidate_of(host), {"crop": decode.mirrored(crops40, n)}) for n in range(self.flips)]

        def mean(of):
            return torch.stack([of(view).double() for view in views]).mean(0).numpy()
        return (mean(lambda v: v["logit"][:, 0]), mean(lambda v: torch.softmax(v["texture"], 1)).argmax(1),
                mean(lambda v: torch.exp(v["log_diameter"][:, 0])))

    def thresholds(self, host=None):
        """calibration, operating_point and score_min: those that ship, or the fit that never saw `host`."""
        if host is None:
            return {"calibration": self.text["calibration"], "operating_point": self.text["operating_point"],
                    "score_min": self.text["detector"]["score_min"]}
        return self.left_out[host]

    def score(self, logit1, logit2, host=None):
        c = self.thresholds(host)["calibration"]
        return 1 / (1 + np.exp(-(c["a"] * logit1 + c["b"] * logit2 + c["c"])))

    def rows(self, volume, name):
        """All marks of stage 1 above LOOSE. With a name they are kept in the cache under the digest
        of the graph: calibration and evaluation then need not run it again."""
        kept = None
        if self.cache and name:
            digest = self.text["detector"]["sha256"][:12]
            kept = Path(self.cache) / f"marks-{digest}" / f"{name}.npy"
            if kept.exists():
                return np.load(kept)
        hu = volume.astype(np.float32) * (1632 / 255) - 1024
        mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(hu, 2), (1, 1, 1))
        distance = lungs.distance_mm(mask, volume.shape)
        rows = decode.candidates(self.detect, volume.astype(np.float32) / 255, distance, *LOOSE)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, rows)
        return rows

    def looked(self, volume, name, score_min, limit, host=None):
        """(rows of stage 1, logit, texture, diameter of stage 2) of what stage 1 hands on at score_min."""
        rows = self.rows(volume, name)
        # suppression goes from the best down, so a stricter cut is a prefix of a looser one
        rows = rows[rows[:, 4] >= np.log(score_min / (1 - score_min))][:limit]
        return rows, *self.classify(volume.astype(np.float32) / 255, rows, host)

    def marks(self, volume, name=None, score_min=None, limit=None, host=None):
        """volume uint8 at 1 mm, masked. A list of dicts, best first; with a host, judged without that host's copies."""
        rows, logit2, texture, diameter = self.looked(volume, name, score_min or self.thresholds(host)["score_min"],
                                                      limit or self.text["detector"]["candidates_max"], host)
        score = self.score(rows[:, 4], logit2, host)
        order = np.argsort(-score, kind="stable")
        return [{"at": rows[i, :3].tolist(), "mm1": rows[i, 3], "logit1": rows[i, 4],
                 "logit2": logit2[i], "texture": int(texture[i]), "mm": diameter[i],
                 "score": score[i]} for i in order]


def main():
    """Fills the cache of marks: python3 train/scan.py MODELS CACHE PART …"""
    models, cache, *parts = sys.argv[1:]
    pipeline = Pipeline(models, cache)
    for part in parts:
        copies = crops.Copies(Path(cache) / part)
        for volume, name in zip(copies.volumes, copies.by_name):
            print(part, name, len(pipeline.rows(np.array(volume), f"{part}-{name}")), flush=True)


if __name__ == "__main__":
    main()
