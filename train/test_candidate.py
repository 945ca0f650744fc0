"""Stage 2's attention and what it is trained on: a gate lets its best keys through, no crop of a host that is left out is seen.

    python3 train/test_candidate.py
"""
import shutil
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch

import features
import from_onnx
import judge
import onnx_run
import scan
import split
import train_candidate
import train_texture
from candidate import KEEP, TOKENS, Candidate, Density, GatedAttention
from detector import Detector
from train_candidate import Pool


class GateTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.block, self.tokens = GatedAttention(64, 4, KEEP).eval(), torch.randn(3, TOKENS**3, 64)

    def weights(self):
        """What each key received, over the KEEP that a gate lets through at most."""
        with torch.no_grad():
            return self.block(self.tokens)[1]

    def test_a_gate_that_says_nothing_is_dense_attention(self):
        q, k, v = (self.block.split(f(self.tokens)) for f in (self.block.query, self.block.key, self.block.value))
        weights = torch.softmax(q @ k.transpose(2, 3) * self.block.scale, -1)
        wanted = self.block.out((weights @ v).transpose(1, 2).reshape(3, TOKENS**3, 64))
        torch.testing.assert_close(self.block(self.tokens)[0], wanted)

    def test_training_computes_the_same(self):
        self.block.SPAN = 1e9
        for std in (0.1, 3):
            torch.nn.init.normal_(self.block.gate.weight, std=std)
            wanted = self.block.eval()(self.tokens)[0]
            torch.testing.assert_close(self.block.train()(self.tokens)[0], wanted)

    def test_only_the_best_keys_of_the_gate_are_seen(self):
        self.block.SPAN = 1e9
        torch.nn.init.normal_(self.block.gate.weight, std=0.1)
        gate = self.block.gate(self.tokens)[:, :, 0]
        for received, value in zip(self.weights(), gate):
            best = set(torch.topk(value, KEEP).indices.tolist())
            self.assertEqual(set(received.nonzero()[:, 0].tolist()), best)

    def test_a_sure_gate_lets_fewer_through(self):
        torch.nn.init.normal_(self.block.gate.weight, std=3)
        seen = (self.weights() > 0).sum(1)
        self.assertTrue((seen < KEEP).all() and (seen > 0).all(), seen)

    def test_keys_become_fewer(self):
        self.assertEqual([train_candidate.keys_at(d) for d in (0, train_candidate.GATE_SETTLES, 1)], [TOKENS**3, KEEP, KEEP])

    def test_the_head_is_what_follows_the_trunk(self):
        net, crop = Candidate(gated=True).eval(), torch.rand(2, 1, 40, 40, 40)
        with torch.no_grad():
            for a, b in zip(net(crop), net.judge(net.trunk(crop))):
                torch.testing.assert_close(a, b)


class DensityTest(unittest.TestCase):
    def test_shells_are_means_that_a_mirror_does_not_change(self):
        net, crop = Density(), torch.rand(2, 1, 40, 40, 40)
        mean, spread = net.measured(crop)
        away = (torch.stack(torch.meshgrid(*[torch.arange(40) - 19.5] * 3, indexing="ij"))**2).sum(0).sqrt()
        shell = crop[:, 0, (away > 2.5) & (away <= 3.5)]
        torch.testing.assert_close(mean[:, 2], shell.mean(1))
        torch.testing.assert_close(spread[:, 2], (shell.var(1, unbiased=False) + 1e-6).sqrt(), rtol=1e-3, atol=1e-4)
        for axis in (2, 3, 4):
            torch.testing.assert_close(net(torch.flip(crop, [axis])), net(crop))

    def test_rounding_does_not_show(self):
        """Where a nodule is even, a deviation is a small difference of large numbers, and a fit gives it a large weight."""
        torch.manual_seed(1)
        net, crop = Density(), 0.6 + 0.001 * torch.rand(8, 1, 40, 40, 40)
        with torch.no_grad():
            net.spread.weight *= 100
            said, exact = net(crop), net.double()(crop.double())
        self.assertLess((said - exact).abs().max().item(), 1e-3)

    def test_a_fit_takes_up_the_scale_of_what_it_saw(self):
        rng = np.random.default_rng(0)
        kinds = torch.from_numpy(rng.integers(0, 3, 600))
        seen = torch.from_numpy(rng.normal(0, 0.01, (600, 12)).astype(np.float32)) + 0.3 + 0.05 * kinds[:, None]
        net = train_texture.fit(seen, kinds, 1, steps=200)
        with torch.no_grad():
            said = net.said(seen[:, :6], seen[:, 6:]).argmax(1)
        self.assertGreater((said == kinds).float().mean(), 0.98)

    def test_the_shipped_graph_tells_ground_glass_from_solid(self):
        away = (torch.stack(torch.meshgrid(*[torch.arange(40) - 19.5] * 3, indexing="ij"))**2).sum(0).sqrt()
        model = onnx.load(str(Path(__file__).parent / "../models/candidate.onnx"))
        for hu, kind in ((20, 0), (-560, 2)):
            crop = torch.where(away < 4, (hu + 1024) / 1632, 150 / 1632) + 0.01 * torch.randn(away.shape)
            said = onnx_run.run(model, {"crop": crop[None, None]})["texture"]
            self.assertEqual(int(said.argmax()), kind, f"{hu} HU: {said}")


class ShippedTest(unittest.TestCase):
    """The scripts that go on from the shipped graph take it, whether it has a gate or not."""

    def test_the_trunk_and_both_heads_are_read(self):
        path = Path(__file__).parent / "../models/candidate.onnx"
        x = features.trunk_of(path)(torch.rand(1, 1, 40, 40, 40))
        for gated in (True, False):
            net = Candidate(gated=gated)
            from_onnx.load(net, path)
            self.assertTrue(torch.isfinite(net.eval().judge(x)[0]).all())


    def test_training_goes_on_where_the_graph_stopped(self):
        """What a graph computes is what its network computes in training, too, once the norms are measured."""
        torch.manual_seed(3)
        for make, file, shape in ((lambda: Candidate(gated=True, dropout=0), "candidate", (4, 1, 40, 40, 40)),
                                  (Detector, "detector", (2, 1, 32, 32, 32))):
            folded, net, images = make(), make(), torch.rand(shape) * 0.5
            for one in (folded, net):
                from_onnx.load(one, Path(__file__).parent / f"../models/{file}.onnx")
            with torch.no_grad():
                wanted = folded.eval()(images)[0]
                self.assertGreater((folded.train()(images)[0] - wanted).abs().max(), 0.1, "folded norms would do")
                from_onnx.measure_norms(net, [images])
                torch.testing.assert_close(net.eval()(images)[0], wanted, rtol=1e-3, atol=1e-3)
                if file == "detector":      # stage 2's gate lets other keys through in training
                    torch.testing.assert_close(net.train()(images)[0], wanted, rtol=1e-3, atol=1e-3)


class JudgesTest(unittest.TestCase):
    MODELS = Path(__file__).parent / "../models"

    def test_a_host_is_judged_by_graphs_that_have_not_seen_it_or_by_none(self):
        with tempfile.TemporaryDirectory() as folder:
            for host, stages in (("one", ["candidate"]), ("two", ["detector", "candidate"])):
                (Path(folder) / host).mkdir()
                for stage in stages:
                    model = onnx.load(str(self.MODELS / f"{stage}.onnx"))
                    model.doc_string = host
                    onnx.save(model, str(Path(folder) / host / f"{stage}.onnx"))
            pipeline = scan.Pipeline(self.MODELS, judges=folder)
            for fold in split.ANEW:
                (Path(folder) / fold).mkdir()
                shutil.copy(Path(folder) / "two/candidate.onnx", Path(folder) / fold)
                with self.assertRaises(FileNotFoundError):      # what ships of stage 1 has seen a training host
                    scan.Pipeline(self.MODELS, judges=folder)
                shutil.copy(Path(folder) / "two/detector.onnx", Path(folder) / fold)
            anew = scan.Pipeline(self.MODELS, judges=folder)
            self.assertIn(split.JUDGED, anew.parts())
            for host in split.load()["hosts"]["train"]:
                self.assertEqual(anew.graphs_of(host).detector.doc_string, "two")
        one, two, shipped = pipeline.graphs_of("one"), pipeline.graphs_of("two"), pipeline.graphs_of()
        self.assertEqual((one.candidate.doc_string, two.candidate.doc_string, two.detector.doc_string), ("one", "two", "two"))
        self.assertEqual(one.digest, shipped.digest)      # so that its marks are those in the cache
        self.assertNotEqual(two.digest, shipped.digest)
        self.assertIs(pipeline.graphs_of(split.never_fitted(split.load())[0]), shipped)
        with self.assertRaises(SystemExit):
            pipeline.graphs_of("three")
        self.assertEqual(pipeline.parts(), split.UNSEEN)      # a training host has no graphs here that have not seen it

    def test_a_head_is_kept_beside_the_trunk_that_ships(self):
        shipped = self.MODELS / "candidate.onnx"
        with tempfile.TemporaryDirectory() as folder:
            model = onnx.load(str(shipped))
            logit = next(i for i in model.graph.initializer if i.name == "logit.weight")
            wanted = onnx.numpy_helper.to_array(logit) + 1
            logit.CopyFrom(onnx.numpy_helper.from_array(wanted, logit.name))
            (Path(folder) / "one").mkdir()
            judge.write_head(Path(folder) / "one", model, shipped)
            self.assertEqual(sorted(np.load(Path(folder) / "one" / judge.HEAD).files), ["logit.weight", "of"])
            graphs = scan.Pipeline(self.MODELS, judges=folder).graphs_of("one")
            self.assertEqual(graphs.candidate.SerializeToString(), model.SerializeToString())
            with self.assertRaises(SystemExit):      # of another version
                judge.with_head(Path(folder) / "one" / judge.HEAD, self.MODELS / "detector.onnx")


class FeaturesTest(unittest.TestCase):
    def test_a_host_that_is_left_out_is_not_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            for number, hosts in enumerate((["a", "b", "a"], ["c", "b", "b"])):
                np.savez(Path(folder) / f"{number}.npz", features=np.arange(3), goals=np.full(3, number), hosts=hosts)
            seen, goals, hosts = features.load(folder, ["b"])
        self.assertEqual((seen.tolist(), goals.tolist(), hosts.tolist()), ([0, 2, 0], [0, 0, 1], ["a", "a", "c"]))

    def test_a_sham_is_marked_where_it_is_dense(self):
        class Copies:
            volumes = [np.zeros((60, 60, 60), np.uint8)]
            texts = [{"host": "a", "findings": []}]
        Copies.volumes[0][34:38, 28:32, 28:32] = 200
        pool, rng = Pool(Copies, {}), np.random.default_rng(0)
        near = [np.linalg.norm(pool.densest(0, np.full(3, 30.0), 16, rng) - [35.5, 29.5, 29.5]) for _ in range(200)]
        self.assertLess(np.median(near), 4.5)


if __name__ == "__main__":
    unittest.main()
