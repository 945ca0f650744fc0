"""Checks that the fit which judges a host has not seen it. Runs in a second.

    python3 train/test_calibrate.py
"""
import copy
import sys

import numpy as np

import calibrate
import masks
import scan
import trust


def check(condition, text):
    if not condition:
        sys.exit(f"FAIL {text}")
    print(f"ok   {text}")


def made(rng, host):
    """A copy with 12 nodules and 40 false marks, whose logits overlap, and passes that disagree."""
    label = np.repeat([1, 0, -1], [12, 40, 3])
    passes = rng.normal(label * 3.0 - 1.0, 1.5)[:, None] + rng.normal(0, 1.5, (len(label), 30))
    true_mm = np.exp(rng.normal(2, 0.5, len(label)))
    return {"host": host, "nodules": 12, "label": label, "logit1": rng.normal(label * 2.0, 1.2), "passes": passes,
            "true_mm": true_mm, "mm": true_mm * rng.normal(0.95, 0.1, len(label)), "sphere_mm": true_mm + rng.normal(0.4, 1, len(label))}


def a_mask_helps():
    """Of two measures with faults of their own each says something; one that leaks moves the diameter by no more than its reach."""
    rng = np.random.default_rng(6)
    true_mm = np.exp(rng.normal(2, 0.5, 2000))
    mm, sphere_mm = true_mm * rng.normal(0.93, 0.08, 2000), true_mm + rng.normal(0.3, 0.5, 2000)
    sphere_mm[::50] *= 2
    joined = masks.joined(masks.fit(mm, sphere_mm, true_mm), mm, sphere_mm)
    errors = [np.abs(of - true_mm) for of in (joined, mm, sphere_mm)]
    check(np.mean(errors[0]) < 0.75 * min(map(np.mean, errors[1:])), "both together are nearer than either")
    check(np.max(errors[0]) < 0.4 * np.max(errors[2]), "a mask that leaks counts as far as the reach")
    check(masks.joined(None, mm, None) is mm, "without weights the network's stands")


def shown_is_fitted():
    """Over what was fitted the mean of the passes is neither too bold nor too modest; fitted without the passes it is."""
    rng = np.random.default_rng(3)
    passes = rng.normal(0, 2.5, 4000)[:, None] + rng.normal(0, 2.0, (4000, 30))
    x = np.stack([rng.normal(0, 1, (4000, 1)) + 0 * passes, passes], 2)
    y = (rng.random(4000) < calibrate.probability(np.array([0.5, 1.0, -0.5]), x)).astype(float)

    def steepness(beta):
        """1 where logit(p) is as steep as the truth."""
        p = calibrate.probability(beta, x)
        return calibrate.fit_logistic(np.log(p / (1 - p))[:, None], y, np.ones(4000))[0]
    fitted, plain = (steepness(of) for of in (calibrate.fit_passes(x, y), calibrate.fit_logistic(x.mean(1), y, np.ones(4000))))
    check(abs(fitted - 1) < 0.03 < plain - 1, f"the mean of the passes is fitted: steepness {fitted:.3f}, without the passes {plain:.3f}")


def a_step_is_followed():
    """False marks that end at one logit: the curve rises there, the logistic function cannot."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-4, 4, 3000)
    truth = np.column_stack([calibrate.KNOTS, (-4, -3, -2.5, -2, -1.5, 1.5, 2, 2.5, 4)])

    def shown(curve):
        return 1 / (1 + np.exp(-calibrate.bent(curve, x)))
    y = (rng.random(3000) < shown(truth)).astype(float)
    curve, straight = calibrate.fit_curve(x, y), np.column_stack([calibrate.KNOTS] * 2)
    errors = [trust.ece(shown(c), y) for c in (curve, straight)]
    check((np.diff(curve[:, 1]) > 0).all(), "the curve rises everywhere")
    passes, given = rng.normal(x[:, None], 2, (3000, 30)), {"a": 0, "b": 1, "c": 0, "curve": curve.tolist()}
    mean, straight = (scan.calibrated(c, x, passes).mean(1) for c in (given, {"a": 0, "b": 1, "c": 0}))
    check(np.allclose(mean, 1 / (1 + np.exp(-calibrate.bent(curve, np.log(straight / (1 - straight)))))),
          "passes move together until their mean lies on the curve")
    check(errors[0] < 0.02 < 0.05 < errors[1], f"a step is followed: ECE {errors[0]:.3f}, without the curve {errors[1]:.3f}")


def changed(copies, host):
    """The same copies, those of one host with other logits and the truth turned round."""
    out = copy.deepcopy(copies)
    for c in out:
        if c["host"] == host:
            c["logit1"] = c["logit1"][::-1] + 1
            c["label"] = np.where(c["label"] < 0, -1, 1 - c["label"])
    return out


def without(fitted):
    return {k: v for k, v in fitted.items() if k != "left_out"}


def main():
    shown_is_fitted()
    a_step_is_followed()
    a_mask_helps()
    rng = np.random.default_rng(4)
    copies = [made(rng, host) for host in ("one", "two", "three", "never") for _ in range(3)]
    fitted, _ = calibrate.fits(copies, ["never"])
    check(fitted["calibration"]["a"] > 0 and fitted["calibration"]["b"] > 0, "both logits count")
    again, _ = calibrate.fits(changed(copies, "two"), ["never"])
    check(again["left_out"]["two"] == fitted["left_out"]["two"], "a host is judged by a fit that does not depend on it")
    check(again["left_out"]["one"] != fitted["left_out"]["one"], "the others' fits do")
    check(without(again) != without(fitted), "and so does what ships")
    again, _ = calibrate.fits(changed(copies, "never"), ["never"])
    check(without(again) == without(fitted), "what ships does not depend on a host that must never be fitted on")
    check(again["left_out"] == fitted["left_out"], "nor does any other fit")
    check(fitted["left_out"]["never"] == without(fitted), "which is therefore judged by what ships")


if __name__ == "__main__":
    main()
