"""Writes a DICOM study to try the appliance by hand: a whole CT with unseen patients' nodules in it.

    python3 train/implant_study.py OUT [--count 6] [--seed 1]

OUT/slice-000.dcm … (CT Image Storage, Explicit VR Little Endian, new UIDs, patient PULMO^IMPLANT) and
OUT/truth.csv with the centres in LPS mm. The host is the whole CT of ct/cptac-c3n-00247; its implants
come from test patients, but the CT itself was trained on: for figures there is evaluate.py.
"""
import argparse
import copy
import csv
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import frame
import generate
import implant
import lungs
import split as splits


def read_series(folder):
    """Slices from feet to head, and the CT as a Volume (axial, identity orientation)."""
    slices = [pydicom.dcmread(p) for p in Path(folder).rglob("*") if p.is_file()
              and p.suffix != ".csv" and p.suffix != ".xml"]
    slices = sorted((s for s in slices if "PixelData" in s),
                    key=lambda s: float(s.ImagePositionPatient[2]))
    first = slices[0]
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept)
                   for s in slices])
    step = float(slices[1].ImagePositionPatient[2]) - float(first.ImagePositionPatient[2])
    x, y, z = (float(v) for v in first.ImagePositionPatient)
    row, column = (float(v) for v in first.PixelSpacing)
    return slices, frame.Volume(np.maximum(hu, -1024).astype(np.int16), (step, row, column),
                                (z, y, x))


class WholeHost(generate.Host):
    """A host from DICOM instead of NIfTI: nothing is masked."""

    def __init__(self, volume):
        self.name, self.volume = "whole", volume
        self.prepare(lungs.lung_mask_2mm(volume.hu, volume.spacing_mm))
        self.lesions = []


def write_series(slices, hu, out):
    study, series, place = generate_uid(), generate_uid(), generate_uid()
    for number, (old, plane) in enumerate(zip(slices, hu), 1):
        new = copy.deepcopy(old)
        new.remove_private_tags()
        new.PatientName, new.PatientID = "PULMO^IMPLANT", "PULMO-IMPLANT"
        for name in ("PatientBirthDate", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
            setattr(new, name, "")
        new.StudyInstanceUID, new.SeriesInstanceUID, new.FrameOfReferenceUID = study, series, place
        new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        new.is_little_endian, new.is_implicit_VR = True, False
        new.InstanceNumber = number
        new.SeriesDescription = "implanted nodules, not a patient"
        stored = np.round((plane - float(old.RescaleIntercept)) / float(old.RescaleSlope))
        signed = old.PixelRepresentation == 1
        top = 2**(old.BitsStored - int(signed)) - 1
        low = -top - 1 if signed else 0
        stored = np.clip(stored, low, top)
        new.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        new.save_as(out / f"slice-{number - 1:03d}.dcm", write_like_original=False)
    return series


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smallest-mm", type=float, default=6.0)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    slices, volume = read_series(Path(args.data) / "ct" / "cptac-c3n-00247")
    host = WholeHost(volume)
    rng = np.random.default_rng(args.seed)
    rows = [r for r in splits.nodules(args.data, "test")
            if float(r["diameter_mm"]) >= args.smallest_mm]
    original = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept)
                         for s in slices])
    hu = volume.hu.astype(np.float32)
    taken, truth = [], []
    for index in rng.permutation(len(rows)):
        patch = implant.load_nodule(args.data, rows[index])
        at = generate.place(host, "free", patch.diameter_mm, taken, rng)
        before = hu.copy()
        mm, visible, _ = implant.paste(hu, volume.spacing_mm, host.noise, host.lung_voxels, patch, at,
                                       rng)
        if visible < 0.6:
            hu = before
            continue
        taken.append((at, mm))
        centre = volume.origin_mm + at * volume.spacing_mm
        truth.append([*centre[::-1], mm, rows[index]["file"], patch.texture])
        if len(taken) == args.count:
            break
    changed = hu != volume.hu
    series = write_series(slices, np.where(changed, hu, original), out)
    with open(out / "truth.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "included",
                         "source", "texture"])
        for x, y, z, mm, source, texture in truth:
            writer.writerow([series, f"{x:.3f}", f"{y:.3f}", f"{z:.3f}", f"{mm:.2f}", 1, source,
                             texture])
    print(f"{len(slices)} slices, {len(truth)} nodules in {out}")


if __name__ == "__main__":
    main()
