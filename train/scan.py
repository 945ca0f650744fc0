"""The shipped models over one CT, as the engine runs them: marks with calibrated scores."""
import json
from pathlib import Path

import numpy as np
import onnx
import torch

import decode
import lungs
import onnx_run


class Pipeline:
    """models/model.json and its two graphs."""

    def __init__(self, models):
        self.text = json.loads((Path(models) / "model.json").read_text())
        self.detector = onnx.load(str(Path(models) / self.text["detector"]["file"]))
        self.candidate = onnx.load(str(Path(models) / self.text["candidate"]["file"]))

    def detect(self, image):
        got = onnx_run.run(self.detector, {"image": image})
        return got["heatmap"], got["offset"], got["log_diameter"]

    def classify(self, image, rows):
        """logit, texture (0 solid, 1 part-solid, 2 ground-glass) and diameter of each row."""
        if not len(rows):
            return np.zeros(0), np.zeros(0, int), np.zeros(0)
        got = onnx_run.run(self.candidate, {"crop": torch.from_numpy(decode.crops40(image, rows))})
        return (got["logit"][:, 0].numpy().astype(float), got["texture"].argmax(1).numpy(),
                np.exp(got["log_diameter"][:, 0].numpy().astype(float)))

    def score(self, logit1, logit2):
        c = self.text["calibration"]
        return 1 / (1 + np.exp(-(c["a"] * logit1 + c["b"] * logit2 + c["c"])))

    def marks(self, volume, score_min=None, limit=None):
        """volume uint8 at 1 mm, masked. A list of dicts, best first."""
        image = volume.astype(np.float32) / 255
        hu = volume.astype(np.float32) * (1632 / 255) - 1024
        mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(hu, 2), (1, 1, 1))
        distance = lungs.distance_mm(mask, volume.shape)
        rows = decode.candidates(self.detect, image, distance,
                                 score_min or self.text["detector"]["score_min"],
                                 limit or self.text["detector"]["candidates_max"])
        logit2, texture, diameter = self.classify(image, rows)
        score = self.score(rows[:, 4], logit2)
        order = np.argsort(-score, kind="stable")
        return [{"at": rows[i, :3].tolist(), "mm1": rows[i, 3], "logit1": rows[i, 4],
                 "logit2": logit2[i], "texture": int(texture[i]), "mm": diameter[i],
                 "score": score[i]} for i in order]
