"""Checks that the fit which judges a host has not seen it. Runs in a second.

    python3 train/test_calibrate.py
"""
import copy
import sys

import numpy as np

import calibrate


def check(condition, text):
    if not condition:
        sys.exit(f"FAIL {text}")
    print(f"ok   {text}")


def made(rng, host):
    """A copy with 12 nodules and 40 false marks, whose logits overlap."""
    label = np.repeat([1, 0, -1], [12, 40, 3])
    return {"host": host, "nodules": 12, "label": label, "logit1": rng.normal(label * 2.0, 1.2),
            "logit2": rng.normal(label * 3.0 - 1.0, 1.5)}


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
