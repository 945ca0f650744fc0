// What stands in the corners and at the edges of the image.
import type { Study } from "./api";
import { h, replace } from "./dom";
import { date, personName } from "./format";
import { orientationLetters } from "./geometry";
import type { Stage } from "./stage";
import type { Vector } from "./api";

const SCALE_MM = [200, 100, 50, 20, 10, 5, 2, 1];
const SCALE_PIXELS_MAX = 180;

export class Annotations {
  readonly element: HTMLElement;
  private readonly slice = h("div", { "data-testid": "slice-number" });
  private readonly position = h("div", {});
  private readonly windowText = h("div", { "data-testid": "window-text" });
  private readonly zoom = h("div", {});
  private readonly hu = h("div", { class: "hu", "data-testid": "hu" });
  private readonly scaleBar = h("div", { class: "scale-bar" });
  private readonly scaleText = h("div", {});

  constructor(
    study: Study,
    private readonly stage: Stage,
  ) {
    const { series } = stage.grid;
    const [x, , z] = series.spacing_ijk_mm;
    const right = orientationLetters(stage.grid.direction(0));
    const down = orientationLetters(stage.grid.direction(1));
    const edge = (side: string, letters: string): HTMLElement =>
      h("div", { class: `edge ${side}`, "data-testid": `edge-${side}` }, letters);
    this.element = h(
      "div",
      { class: "annotations" },
      h(
        "div",
        { class: "corner top-left" },
        h("div", {}, personName(study.patient_name)),
        h("div", {}, study.patient_id),
        h("div", {}, date(study.study_date)),
      ),
      h(
        "div",
        { class: "corner top-right" },
        h("div", {}, series.series_description || study.description),
        h("div", {}, `${series.columns} × ${series.rows}, ${x.toFixed(2)} mm`),
        h("div", {}, `slices every ${z.toFixed(2)} mm`),
      ),
      h("div", { class: "corner bottom-left" }, this.slice, this.position, this.windowText),
      h(
        "div",
        { class: "corner bottom-right" },
        this.hu,
        this.zoom,
        h("div", { class: "scale", "data-testid": "scale" }, this.scaleText, this.scaleBar),
      ),
      edge("left", opposite(right)),
      edge("right", right),
      edge("top", opposite(down)),
      edge("bottom", down),
    );
  }

  update(): void {
    const { stage } = this;
    const [, , z] = stage.grid.toLps(this.middle());
    replace(this.slice, `Image ${stage.position(stage.k) + 1} / ${stage.count}`);
    replace(this.position, `z ${z.toFixed(1)} mm`);
    replace(this.windowText, `W ${Math.round(stage.window.width)}  L ${Math.round(stage.window.center)}`);
    replace(this.zoom, `Zoom ${stage.zoom.toFixed(2)}`);
  }

  updateScale(pixels: (mm: number) => number): void {
    const mm = SCALE_MM.find((length) => pixels(length) <= SCALE_PIXELS_MAX) ?? 1;
    this.scaleBar.style.setProperty("width", `${pixels(mm).toFixed(1)}px`);
    replace(this.scaleText, mm >= 10 ? `${mm / 10} cm` : `${mm} mm`);
  }

  hover(i: number, j: number): void {
    const value = this.stage.hu(i, j);
    replace(this.hu, value === undefined ? "" : `${value} HU`);
  }

  leave(): void {
    replace(this.hu);
  }

  private middle(): Vector {
    const { columns, rows } = this.stage.grid.series;
    return [(columns - 1) / 2, (rows - 1) / 2, this.stage.k];
  }
}

function opposite(letters: string): string {
  const pairs: Record<string, string> = { R: "L", L: "R", A: "P", P: "A", F: "H", H: "F" };
  return [...letters].map((letter) => pairs[letter] ?? letter).join("");
}
