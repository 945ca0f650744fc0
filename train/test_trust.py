"""The statistics of trust.py on cases worked by hand; `pulmo evaluate` has the same in tests/cases.

    python3 train/test_trust.py
"""
import math
import unittest

import numpy as np

import trust

# tests/cases/evaluation-six-marks, by hand
P = np.array([0.95, 0.90, 0.93, 0.41, 0.45, 0.05])
Y = np.array([1, 1, 0, 1, 0, 0])
MUTUAL = np.array([0.01, 0.1, 0.2, 0.1, 0.05, 0.02])
WRONG = (P >= 0.5) != (Y == 1)


class Trust(unittest.TestCase):
    def test_ece_of_six_marks(self):
        self.assertAlmostEqual(trust.ece(P, Y), (0.05 + 0.83 + 0.14 + 0.05) / 6)
        self.assertEqual([b[1:3] for b in trust.bins_of(P, Y) if b[1]], [[1, 0], [2, 1], [2, 1], [1, 1]])

    def test_a_weight_of_two_is_a_row_twice(self):
        weight = np.array([2, 1, 1, 1, 3, 1.0])
        twice = np.repeat(np.arange(6), weight.astype(int))
        self.assertAlmostEqual(trust.ece(P, Y, weight), trust.ece(P[twice], Y[twice]))
        self.assertAlmostEqual(trust.auroc(MUTUAL, WRONG, weight), trust.auroc(MUTUAL[twice], WRONG[twice]))

    def test_auroc_counts_ties_half(self):
        self.assertAlmostEqual(trust.auroc(np.minimum(P, 1 - P), WRONG), 5 / 8)
        self.assertAlmostEqual(trust.auroc(MUTUAL, WRONG), 7.5 / 8)
        self.assertTrue(math.isnan(trust.auroc(MUTUAL, np.zeros(6, bool))))

    def test_rejection_keeps_the_certain(self):
        curve = trust.rejection(MUTUAL, WRONG)
        self.assertEqual(curve[0], [0, 6, 4])
        self.assertEqual(curve[10], [0.5, 3, 3])

    def test_compare_is_paired_and_seeded(self):
        scan = np.arange(60) % 10
        wrong = np.arange(60) % 4 == 0
        rng = np.random.default_rng(3)
        measures = {"plain": rng.random(60), "good": wrong + rng.random(60) / 4}
        a, b = (trust.compare(measures, wrong, scan, "plain", 200) for _ in range(2))
        self.assertEqual(a, b)
        self.assertEqual(a["plain"]["gain_interval"], [0, 0])
        self.assertGreater(a["good"]["gain_interval"][0], 0)

    def test_chance_alone_shows_an_error(self):
        mean, high = trust.ece_by_chance(np.full(100, 0.5))
        self.assertAlmostEqual(mean, math.sqrt(0.25 / 100) * math.sqrt(2 / math.pi), delta=0.005)
        self.assertGreater(high, mean)


if __name__ == "__main__":
    unittest.main()
