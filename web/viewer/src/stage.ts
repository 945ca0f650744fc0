// The image: one Cornerstone stack viewport, addressed by source slice k.
import { cache, Enums, init, RenderingEngine, setUseCPURendering, type Types } from "@cornerstonejs/core";
import type { Vector } from "./api";
import type { Grid } from "./geometry";
import { imageIds, LoadAhead, registerSlices } from "./slices";

const VIEWPORT = "stage";
const CACHE_BYTES = 2 ** 30;
let initialised = false;

export interface Window {
  center: number;
  width: number;
}

/** Cornerstone, once. Without WebGL (thin clients, remote desktops) it draws on the CPU. */
function initialise(): void {
  if (initialised) return;
  init();
  if (new URLSearchParams(location.search).get("render") === "cpu" || !hasWebGl()) setUseCPURendering(true);
  cache.setMaxCacheSize(CACHE_BYTES);
  registerSlices();
  initialised = true;
}

function hasWebGl(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}

export class Stage {
  readonly element: HTMLDivElement;
  onRendered: () => void = () => undefined;
  onSlice: (k: number) => void = () => undefined;
  onLoaded: (loaded: number) => void = () => undefined;
  onError: (error: unknown) => void = () => undefined;
  /** The slice that the next drawing shows; -1 before the first. */
  k = -1;
  /** The slice that is drawn. */
  drawn = -1;
  window: Window;
  private readonly engine: RenderingEngine;
  private readonly ids: string[];
  private readonly loadAhead: LoadAhead;
  private readonly resizing: ResizeObserver;
  private wanted = -1;
  private moving = false;

  constructor(
    parent: HTMLElement,
    studyUid: string,
    readonly grid: Grid,
  ) {
    initialise();
    this.element = document.createElement("div");
    this.element.className = "image";
    parent.prepend(this.element);
    this.window = { center: grid.series.window_center_hu, width: grid.series.window_width_hu };
    // Displayed from the head down, whatever the order of the series.
    this.ids = imageIds(studyUid, grid);
    if (grid.headLast) this.ids.reverse();
    this.loadAhead = new LoadAhead(this.ids, (loaded) => this.onLoaded(loaded));
    this.engine = new RenderingEngine(`pulmo-${Date.now()}`);
    this.engine.enableElement({
      viewportId: VIEWPORT,
      element: this.element,
      type: Enums.ViewportType.STACK,
      defaultOptions: { background: [0, 0, 0] },
    });
    this.element.addEventListener(Enums.Events.STACK_NEW_IMAGE, (event) =>
      this.arrived((event as CustomEvent<{ imageIdIndex: number }>).detail.imageIdIndex),
    );
    this.element.addEventListener(Enums.Events.IMAGE_RENDERED, () => {
      this.drawn = this.k;
      this.onRendered();
    });
    this.resizing = new ResizeObserver(() => this.engine.resize(true, true));
    this.resizing.observe(this.element);
  }

  close(): void {
    this.loadAhead.stop();
    this.resizing.disconnect();
    this.engine.destroy();
    cache.purgeCache();
  }

  private get viewport(): Types.IStackViewport {
    return this.engine.getViewport(VIEWPORT) as Types.IStackViewport;
  }

  /** Position in the displayed order, from 0 at the head; its own inverse. */
  position(k: number): number {
    return this.grid.headLast ? this.ids.length - 1 - k : k;
  }

  get count(): number {
    return this.ids.length;
  }

  async open(k: number): Promise<void> {
    const start = this.clamp(this.position(k));
    await this.viewport.setStack(this.ids, start);
    this.expect(start);
    this.setWindow(this.window);
  }

  /** Shows a slice; while one is under way only the last wish counts, so that fast scrolling never lags behind. */
  async show(k: number): Promise<void> {
    this.wanted = this.clamp(this.position(k));
    if (this.moving) return;
    this.moving = true;
    try {
      while (this.wanted !== this.position(this.k)) {
        const target = this.wanted;
        await this.viewport.setImageIdIndex(target);
        this.expect(target);
      }
    } catch (error) {
      this.wanted = this.position(this.k);
      this.onError(error);
    } finally {
      this.moving = false;
    }
  }

  /** Down = towards the feet. */
  step(slices: number): void {
    const from = this.moving ? this.wanted : this.position(this.k);
    void this.show(this.position(this.clamp(from + slices)));
  }

  private clamp(position: number): number {
    return Math.max(0, Math.min(this.ids.length - 1, Math.round(position)));
  }

  private arrived(position: number): void {
    this.k = this.position(position);
    this.loadAhead.moveTo(position);
    this.onSlice(this.k);
  }

  /** Cornerstone tells of a slice that did not load by not showing it. */
  private expect(position: number): void {
    if (this.position(this.k) !== position) throw new Error(`Image ${position + 1} could not be loaded.`);
  }

  setWindow(window: Window): void {
    this.window = { center: window.center, width: Math.max(1, window.width) };
    const lower = this.window.center - this.window.width / 2;
    this.viewport.setProperties({ voiRange: { lower, upper: lower + this.window.width } });
    this.viewport.render();
  }

  get zoom(): number {
    return this.viewport.getZoom();
  }

  zoomBy(factor: number): void {
    this.viewport.setZoom(Math.max(0.2, Math.min(20, this.viewport.getZoom() * factor)));
    this.viewport.render();
  }

  panBy(dx: number, dy: number): void {
    const [x, y] = this.viewport.getPan();
    this.viewport.setPan([x + dx, y + dy]);
    this.viewport.render();
  }

  fit(): void {
    this.viewport.resetCamera();
    this.viewport.render();
  }

  /** A source pixel of the shown slice → CSS pixels from the image's top left. */
  toCanvas(i: number, j: number): [number, number] {
    return this.viewport.worldToCanvas(this.grid.toLps([i, j, this.k])) as [number, number];
  }

  toPixel(x: number, y: number): [number, number] {
    const [i, j] = this.grid.toIjk(this.viewport.canvasToWorld([x, y]) as Vector);
    return [i, j];
  }

  /** Hounsfield units of a pixel of the shown slice; undefined outside or while loading. */
  hu(i: number, j: number): number | undefined {
    const { columns, rows } = this.grid.series;
    const column = Math.round(i);
    const row = Math.round(j);
    if (this.k < 0 || column < 0 || row < 0 || column >= columns || row >= rows) return undefined;
    return this.viewport.getCornerstoneImage()?.getPixelData()[row * columns + column];
  }
}
