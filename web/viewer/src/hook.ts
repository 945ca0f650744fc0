// window.pulmo: what a test, or a script of the hospital's, may ask the open study. Reading only, but for goTo.
import type { OverlayState } from "./overlay";

export interface PulmoHook {
  /** The first image and, where the slice has one, its heat are on the screen. */
  readonly ready: boolean;
  /** The source slice on the screen, as in center_ijk. */
  readonly k: number;
  readonly slices: number;
  readonly columns: number;
  readonly rows: number;
  readonly window: { center: number; width: number };
  readonly overlay: OverlayState;
  /** The slice whose heat is drawn, or -1. */
  readonly heatShown: number;
  readonly selected: number;
  readonly rendering: "gpu" | "cpu";
  goTo(k: number): Promise<void>;
  /** A source pixel (centres at integers) → CSS pixels of the page. */
  pixelToScreen(i: number, j: number): [number, number];
  screenToPixel(x: number, y: number): [number, number];
  lpsToPixel(lps_mm: [number, number, number]): [number, number, number];
  hu(i: number, j: number): number | undefined;
  /** RGBA of the overlay's canvas (heat, contours, marks) at a source pixel. */
  overlayAt(i: number, j: number): [number, number, number, number];
}

declare global {
  interface Window {
    pulmo?: PulmoHook;
  }
}

export function installHook(hook: PulmoHook): void {
  window.pulmo = hook;
}

export function removeHook(): void {
  delete window.pulmo;
}
