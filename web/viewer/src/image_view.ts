// The image with everything around it: stage, overlay, annotations, slice bar, adding a missed nodule.
import { getShouldUseCPURendering } from "@cornerstonejs/core";
import { Annotations } from "./annotations";
import type { Result, Series, Study, Vector } from "./api";
import { h, sentence, toast } from "./dom";
import { attachGestures } from "./gestures";
import { Grid } from "./geometry";
import { installHook, removeHook } from "./hook";
import { Overlay } from "./overlay";
import type { Item } from "./reading";
import { SliceBar } from "./slice_bar";
import { Stage, type Window } from "./stage";

const CLICK_MM = 1.5; // a drag shorter than this is a click: the diameter is asked for

export class ImageView {
  readonly element: HTMLElement;
  readonly grid: Grid;
  readonly stage: Stage;
  readonly overlay: Overlay;
  onAdd: (center_lps_mm: Vector, diameter_mm: number | undefined) => void = () => undefined;
  private readonly frame = h("div", { class: "stage", tabindex: 0, "data-testid": "stage" });
  private readonly hint = h("div", { class: "hint-bar", "data-testid": "add-hint" });
  private readonly annotations: Annotations;
  private readonly bar: SliceBar;
  private adding = false;

  constructor(study: Study, series: Series, result: Result | null, overlayFits: boolean) {
    this.grid = new Grid(series);
    this.element = h("section", { class: "image-view" }, this.frame);
    this.stage = new Stage(this.frame, study.study_uid, this.grid);
    this.overlay = new Overlay(this.stage, result, overlayFits);
    this.annotations = new Annotations(study, this.stage);
    this.bar = new SliceBar(this.stage);
    this.frame.append(this.overlay.canvas, this.annotations.element, this.hint);
    this.element.append(this.bar.element);
    this.connect();
    this.hook();
  }

  private connect(): void {
    const { stage } = this;
    stage.onRendered = () => this.rendered();
    stage.onSlice = (k) => {
      this.overlay.prepare(k);
      this.bar.update();
    };
    stage.onLoaded = (loaded) => this.bar.setLoaded(loaded);
    stage.onError = (error) => toast(sentence(error), "error");
    attachGestures(this.frame, stage, {
      isAdding: () => this.adding,
      addStart: (x, y) => {
        const [i, j] = stage.toPixel(x, y);
        this.overlay.draft = { i, j, radius_mm: 0 };
        this.overlay.draw();
      },
      addMove: (x, y) => this.stretch(x, y),
      addEnd: () => this.finishAdding(),
      hover: (x, y) => this.annotations.hover(...stage.toPixel(x, y)),
      leave: () => this.annotations.leave(),
      windowed: () => this.annotations.update(),
    });
  }

  private rendered(): void {
    if (this.stage.drawn < 0) return;
    this.overlay.draw();
    this.annotations.update();
    this.annotations.updateScale((mm) => this.overlay.screenLength(mm));
  }

  async open(k: number): Promise<void> {
    await this.stage.open(k);
    this.frame.focus({ preventScroll: true });
    void this.overlay.loadContours().catch((error) => toast(`Contours: ${sentence(error)}`, "error"));
  }

  close(): void {
    removeHook();
    this.stage.close();
  }

  setItems(items: Item[], selected: number): void {
    this.overlay.items = items;
    this.overlay.selected = selected;
    this.bar.setItems(items, selected);
    if (this.stage.k >= 0) this.overlay.draw();
  }

  sliceOf(item: Item): number {
    return Math.round(this.grid.toIjk(item.center_lps_mm)[2]);
  }

  imageNumber(item: Item): number {
    return this.stage.position(this.sliceOf(item)) + 1;
  }

  setWindow(window: Window): void {
    this.stage.setWindow(window);
    this.annotations.update();
  }

  changeOverlay(change: Partial<Overlay["state"]>): void {
    this.overlay.state = { ...this.overlay.state, ...change };
    if (change.kind) this.overlay.prepare(this.stage.k);
    this.overlay.draw();
  }

  /* ---- a missed nodule ---- */

  setAdding(adding: boolean): void {
    this.adding = adding;
    this.overlay.draft = undefined;
    this.frame.classList.toggle("adding", adding);
    this.hint.textContent = adding
      ? "Missed nodule: press at its centre and drag to its edge, or click and type the diameter. Esc cancels."
      : "";
    this.overlay.draw();
  }

  get isAdding(): boolean {
    return this.adding;
  }

  private stretch(x: number, y: number): void {
    const { draft } = this.overlay;
    if (!draft) return;
    const [i, j] = this.stage.toPixel(x, y);
    const [sx, sy] = this.grid.series.spacing_ijk_mm;
    draft.radius_mm = Math.hypot((i - draft.i) * sx, (j - draft.j) * sy);
    this.overlay.draw();
  }

  private finishAdding(): void {
    const { draft } = this.overlay;
    this.setAdding(false);
    if (!draft) return;
    const center = this.grid.toLps([draft.i, draft.j, this.stage.k]);
    this.onAdd(center, draft.radius_mm < CLICK_MM ? undefined : draft.radius_mm * 2);
  }

  /* ---- for tests ---- */

  private hook(): void {
    const { stage, overlay, grid } = this;
    const origin = (): DOMRect => stage.element.getBoundingClientRect();
    const heatDue = (): boolean =>
      overlay.state.heat && overlay.expects(stage.k) && overlay.heatShown !== stage.k;
    const pixelToScreen = (i: number, j: number): [number, number] => {
      const [x, y] = stage.toCanvas(i, j);
      return [x + origin().left, y + origin().top];
    };
    installHook({
      get ready() {
        return stage.drawn >= 0 && !heatDue();
      },
      get k() {
        return stage.drawn;
      },
      get window() {
        return stage.window;
      },
      get overlay() {
        return { ...overlay.state };
      },
      get heatShown() {
        return overlay.heatShown;
      },
      get selected() {
        return overlay.selected;
      },
      rendering: getShouldUseCPURendering() ? "cpu" : "gpu",
      slices: grid.series.slices,
      columns: grid.series.columns,
      rows: grid.series.rows,
      goTo: (k) => stage.show(k),
      pixelToScreen,
      screenToPixel: (x, y) => stage.toPixel(x - origin().left, y - origin().top),
      lpsToPixel: (lps) => grid.toIjk(lps),
      hu: (i, j) => stage.hu(i, j),
      overlayAt: (i, j) => {
        const [x, y] = stage.toCanvas(i, j);
        const ratio = overlay.canvas.width / Math.max(1, stage.element.clientWidth);
        const { data } = overlay.canvas
          .getContext("2d")!
          .getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1);
        return [data[0]!, data[1]!, data[2]!, data[3]!];
      },
    });
  }
}
