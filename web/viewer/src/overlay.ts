// What is drawn over the image: heat, contours, marks of findings. Never on the pixels themselves.
import { api, type Contours, type OverlayKind, type Result } from "./api";
import type { Item } from "./reading";
import type { Stage } from "./stage";

const HEAT_CACHE = 96;

export interface OverlayState {
  heat: boolean;
  contours: boolean;
  marks: boolean;
  kind: OverlayKind;
  opacity: number;
}

/** A circle under construction: a missed nodule, or nothing. */
export interface Draft {
  i: number;
  j: number;
  radius_mm: number;
}

export class Overlay {
  readonly canvas = document.createElement("canvas");
  state: OverlayState = { heat: true, contours: true, marks: true, kind: "cam", opacity: 0.7 };
  items: Item[] = [];
  selected = 0;
  draft: Draft | undefined;
  /** The slice whose heat is on the screen, for tests; -1 when none is. */
  heatShown = -1;
  private contours = new Map<number, Map<number, [number, number][][]>>();
  private readonly heat = new Map<string, ImageBitmap | null>();
  private readonly used: Record<OverlayKind, Set<number>>;

  constructor(
    private readonly stage: Stage,
    private readonly result: Result | null,
    private readonly enabled: boolean,
  ) {
    this.canvas.className = "overlay";
    this.canvas.dataset["testid"] = "overlay";
    this.used = {
      attention: new Set(result?.overlays?.attention ?? []),
      cam: new Set(result?.overlays?.cam ?? []),
    };
    if (!this.used.cam.size && this.used.attention.size) this.state.kind = "attention";
  }

  has(kind: OverlayKind): boolean {
    return this.enabled && this.used[kind].size > 0;
  }

  get hasAny(): boolean {
    return this.has("attention") || this.has("cam");
  }

  /** Has the result heat for this slice, in the kind that is chosen? */
  expects(k: number): boolean {
    return this.enabled && this.used[this.state.kind].has(k);
  }

  async loadContours(): Promise<void> {
    if (!this.result || !this.enabled || this.result.status !== "analysed") return;
    this.setContours(await api.contours(this.result.id));
    this.draw();
  }

  private setContours(contours: Contours): void {
    for (const finding of contours.findings)
      this.contours.set(finding.id, new Map(finding.slices.map((slice) => [slice.k, slice.paths])));
  }

  /** Asks for the heat of a slice and of its neighbours, and draws when it comes. */
  prepare(k: number): void {
    for (const near of [k, k + 1, k - 1, k + 2, k - 2]) void this.fetchHeat(this.state.kind, near);
  }

  private async fetchHeat(kind: OverlayKind, k: number): Promise<void> {
    const key = `${kind}/${k}`;
    if (!this.enabled || !this.result || !this.used[kind].has(k) || this.heat.has(key)) return;
    this.heat.set(key, null); // under way
    try {
      this.heat.set(key, await createImageBitmap(await api.overlay(this.result.id, kind, k)));
      this.forget();
      if (k === this.stage.k) this.draw();
    } catch {
      this.heat.delete(key); // the next visit asks again
    }
  }

  private forget(): void {
    for (const [key, bitmap] of this.heat) {
      if (this.heat.size <= HEAT_CACHE) return;
      bitmap?.close();
      this.heat.delete(key);
    }
  }

  draw(): void {
    const { clientWidth, clientHeight } = this.stage.element;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(clientWidth * ratio);
    const height = Math.round(clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const context = this.canvas.getContext("2d");
    if (!context) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (this.stage.k < 0) return;
    const transform = this.pixelTransform(ratio);
    this.drawHeat(context, transform);
    if (this.enabled && this.state.contours) this.drawContours(context, transform);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.state.marks) this.drawMarks(context);
    if (this.draft) this.drawDraft(context, this.draft);
  }

  /** Source pixels (centres at integers) → canvas pixels. */
  private pixelTransform(ratio: number): DOMMatrix {
    const [x0, y0] = this.stage.toCanvas(0, 0);
    const [xi, yi] = this.stage.toCanvas(1, 0);
    const [xj, yj] = this.stage.toCanvas(0, 1);
    return new DOMMatrix([
      (xi - x0) * ratio,
      (yi - y0) * ratio,
      (xj - x0) * ratio,
      (yj - y0) * ratio,
      x0 * ratio,
      y0 * ratio,
    ]);
  }

  private drawHeat(context: CanvasRenderingContext2D, transform: DOMMatrix): void {
    const bitmap = this.heat.get(`${this.state.kind}/${this.stage.k}`);
    this.heatShown = this.state.heat && bitmap ? this.stage.k : -1;
    if (!bitmap || !this.state.heat) return;
    context.setTransform(transform);
    context.globalAlpha = this.state.opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(bitmap, -0.5, -0.5, bitmap.width, bitmap.height);
    context.globalAlpha = 1;
  }

  private drawContours(context: CanvasRenderingContext2D, transform: DOMMatrix): void {
    for (const item of this.items) {
      const paths = this.contours.get(item.id)?.get(this.stage.k);
      if (!paths || item.verdict === "rejected") continue;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.beginPath();
      for (const path of paths) {
        path.forEach(([i, j], index) => {
          const { x, y } = transform.transformPoint({ x: i, y: j });
          if (index) context.lineTo(x, y);
          else context.moveTo(x, y);
        });
        context.closePath();
      }
      context.strokeStyle = item.id === this.selected ? "#4de0ff" : "#2a9fc0";
      context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
      context.stroke();
    }
  }

  /** Four corners around a finding: they point at it and leave its edge free. */
  private drawMarks(context: CanvasRenderingContext2D): void {
    const [, , spacing] = this.stage.grid.series.spacing_ijk_mm;
    for (const item of this.items) {
      const [i, j, k] = this.stage.grid.toIjk(item.center_lps_mm);
      const off_mm = Math.abs(k - this.stage.k) * spacing;
      if (off_mm > Math.max(item.diameter_mm / 2, spacing * 0.75)) continue;
      const [x, y] = this.stage.toCanvas(i, j);
      const half = Math.max(12, this.screenLength(item.diameter_mm * 0.5) * 1.35 + 6);
      const selected = item.id === this.selected;
      context.strokeStyle = context.fillStyle = markColour(item, selected);
      context.lineWidth = selected ? 2 : 1.25;
      corners(context, x, y, half);
      context.font = `${selected ? 600 : 400} 12px system-ui, sans-serif`;
      context.fillText(item.model ? String(item.id) : "+", x + half + 4, y - half + 10);
    }
  }

  private drawDraft(context: CanvasRenderingContext2D, draft: Draft): void {
    const [x, y] = this.stage.toCanvas(draft.i, draft.j);
    context.strokeStyle = context.fillStyle = "#ffd166";
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(x, y, Math.max(2, this.screenLength(draft.radius_mm)), 0, 2 * Math.PI);
    context.stroke();
    context.font = "600 13px system-ui, sans-serif";
    context.fillText(`${(draft.radius_mm * 2).toFixed(1)} mm`, x + 12, y - 12);
  }

  /** Millimetres → CSS pixels at the present zoom. */
  screenLength(mm: number): number {
    const [x0, y0] = this.stage.toCanvas(0, 0);
    const [x1, y1] = this.stage.toCanvas(1, 0);
    return (Math.hypot(x1 - x0, y1 - y0) * mm) / this.stage.grid.series.spacing_ijk_mm[0];
  }
}

function markColour(item: Item, selected: boolean): string {
  if (item.verdict === "rejected") return "#8b949e";
  if (item.verdict === "accepted") return "#56d364";
  if (item.verdict === "added") return "#ffd166";
  return selected ? "#ffb454" : "#d29922";
}

function corners(context: CanvasRenderingContext2D, x: number, y: number, half: number): void {
  const arm = half * 0.45;
  context.beginPath();
  for (const [sx, sy] of [
    [-1, -1],
    [1, -1],
    [1, 1],
    [-1, 1],
  ] as const) {
    context.moveTo(x + sx * half, y + sy * (half - arm));
    context.lineTo(x + sx * half, y + sy * half);
    context.lineTo(x + sx * (half - arm), y + sy * half);
  }
  context.stroke();
}
