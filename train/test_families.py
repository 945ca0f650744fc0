"""Of every family of detectors: what its goals say of a nodule is what its decoding makes of them. Runs in seconds.

    python3 train/test_families.py
"""
import unittest

import numpy as np
import torch

from families import ANCHORS_MM, FAMILIES, overlap
from train_detector import SIDE

AT, MM = np.array([30.0, 35.5, 26.2], np.float32), 9.0
FINDINGS = [{"kind": "nodule", "mm": MM, "at": AT}, {"kind": "sham", "mm": 8.0, "at": AT - 14}]
POINTS = np.stack([AT, AT - 14])
INSIDE = np.zeros((SIDE,) * 3)      # distance to the lung


def logits(where):
    return torch.from_numpy(np.where(where, 6.0, -6.0).astype(np.float32))[None]


def told(family, goals):
    """The outputs of a network that has learnt `goals` by heart."""
    if family == "segment":
        return logits(goals[0][None] > 0)
    if family == "anchors":
        positive, _, offset, size = goals
        return logits(positive > 0), torch.from_numpy(offset.reshape(-1, *offset.shape[2:]))[None], torch.from_numpy(size)[None]
    heat, _, offset, size = goals
    return logits(heat[None] > 0), torch.from_numpy(offset)[None], torch.from_numpy(size[None])[None]


def padded(out, cells):
    """As the network would see the rim that whole volumes get, with nothing in it."""
    return torch.nn.functional.pad(out, (cells,) * 6, value=-6.0)


class FamiliesTest(unittest.TestCase):
    def learnt(self, family):
        """A network whose output is the goals' for the crop of FINDINGS, in the rim of 16 voxels that whole volumes get."""
        net = FAMILIES[family]().eval()
        out = told(family, net.goals(FINDINGS, POINTS))
        seen = padded(out, 8) if family == "segment" else [padded(o, 4) for o in out]
        net.forward = lambda image: seen
        return net

    def test_goals_are_decoded_to_the_nodule(self):
        for family in FAMILIES:
            with self.subTest(family):
                rows = self.learnt(family).rows(np.zeros((SIDE,) * 3, np.float32), INSIDE, 0.02)
                best = rows[np.argmax(rows[:, 4])]
                self.assertLess(np.linalg.norm(best[:3] - AT), 1.0, best)
                self.assertLess(abs(best[3] - MM), 1.5, best)

    def test_a_loss_falls(self):
        for family in FAMILIES:
            with self.subTest(family):
                torch.manual_seed(0)
                net = FAMILIES[family]()
                goals = [torch.from_numpy(np.stack([g, g])) for g in net.goals(FINDINGS, POINTS)]
                images, optimizer, losses = torch.rand(2, 1, SIDE, SIDE, SIDE), torch.optim.AdamW(net.parameters(), 2e-3), []
                for _ in range(6):
                    loss = net.loss(net(images), goals)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
                self.assertLess(losses[-1], 0.8 * losses[0], losses)

    def test_cubes_overlap(self):
        self.assertAlmostEqual(float(overlap(np.zeros(3), 10.0, 10.0)), 1.0)
        self.assertAlmostEqual(float(overlap(np.zeros(3), 10.0, 5.0)), 1 / 8)
        self.assertAlmostEqual(float(overlap(np.array([5.0, 0, 0]), 10.0, 10.0)), 1 / 3)
        self.assertEqual(float(overlap(np.array([11.0, 0, 0]), 10.0, 10.0)), 0.0)

    def test_no_nodule_no_positive(self):
        for family in FAMILIES:
            self.assertEqual(float(FAMILIES[family].goals([], np.zeros((0, 3), np.float32))[0].sum()), 0.0, family)
        self.assertEqual(FAMILIES["anchors"].goals([], np.zeros((0, 3), np.float32))[0].shape[0], len(ANCHORS_MM))


if __name__ == "__main__":
    unittest.main()
