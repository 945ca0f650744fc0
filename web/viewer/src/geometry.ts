// Source voxels and patient space (DICOM LPS, voxel centres at integers).
import type { Series, Vector } from "./api";

export class Grid {
  private readonly inverse: number[][];

  constructor(readonly series: Series) {
    this.inverse = invert(series.ijk_to_lps_mm);
  }

  toLps(ijk: Vector): Vector {
    return this.series.ijk_to_lps_mm.map(
      (row) => row[0]! * ijk[0] + row[1]! * ijk[1] + row[2]! * ijk[2] + row[3]!,
    ) as Vector;
  }

  toIjk(lps: Vector): Vector {
    const offset = lps.map((value, axis) => value - this.series.ijk_to_lps_mm[axis]![3]!);
    return this.inverse.map(
      (row) => row[0]! * offset[0]! + row[1]! * offset[1]! + row[2]! * offset[2]!,
    ) as Vector;
  }

  /** Unit vector along columns (axis 0), rows (1) or slices (2). */
  direction(axis: 0 | 1 | 2): Vector {
    const column = this.series.ijk_to_lps_mm.map((row) => row[axis]!) as Vector;
    const length = Math.hypot(...column);
    return column.map((value) => value / length) as Vector;
  }

  /** Chest CT is read from the head down: is the last slice of the series nearest to the head? */
  get headLast(): boolean {
    return this.direction(2)[2] > 0;
  }
}

function invert(affine: number[][]): number[][] {
  const at = (row: number, column: number): number => affine[row % 3]![column % 3]!;
  const cofactor = (row: number, column: number): number =>
    at(row + 1, column + 1) * at(row + 2, column + 2) - at(row + 1, column + 2) * at(row + 2, column + 1);
  const determinant = at(0, 0) * cofactor(0, 0) + at(0, 1) * cofactor(0, 1) + at(0, 2) * cofactor(0, 2);
  return [0, 1, 2].map((row) => [0, 1, 2].map((column) => cofactor(column, row) / determinant));
}

/** The letters of the patient side to which a direction points, the strongest first: "L", "AR" … (PS3.3 C.7.6.1.1.1). */
export function orientationLetters(direction: Vector): string {
  const names = [
    ["R", "L"],
    ["A", "P"],
    ["F", "H"],
  ];
  return direction
    .map((value, axis) => ({ size: Math.abs(value), letter: names[axis]![value > 0 ? 1 : 0]! }))
    .filter((part) => part.size > 0.25)
    .sort((a, b) => b.size - a.size)
    .map((part) => part.letter)
    .join("");
}
