// Controls of the overlay: which map, how strong, what it means.
import type { OverlayKind } from "./api";
import { h } from "./dom";
import type { ImageView } from "./image_view";

const names: Record<OverlayKind, string> = { attention: "Attention", cam: "Gradient map" };
const meanings: Record<OverlayKind, string> = {
  attention: "Where the candidate network looked, 0 to 1 within each finding.",
  cam: "What raised the detector's score (HiResCAM), 0 to 1 within each finding.",
};

export class OverlayControls {
  readonly element: HTMLElement;
  private readonly heat: HTMLInputElement;
  private readonly contours: HTMLInputElement;
  private readonly opacity: HTMLInputElement;
  private readonly meaning = h("p", { class: "meaning" });
  private readonly kinds = new Map<OverlayKind, HTMLButtonElement>();
  private quick = false; // everything hidden by one key

  constructor(
    private readonly view: ImageView,
    fits: boolean,
  ) {
    this.heat = this.check("heat", () => this.setHeat(this.heat.checked));
    this.contours = this.check("contours", () => this.setContours(this.contours.checked));
    this.opacity = h("input", {
      type: "range",
      min: 5,
      max: 100,
      step: 5,
      "aria-label": "Opacity of the heatmap",
      "data-testid": "opacity",
      oninput: () => this.setOpacity(Number(this.opacity.value) / 100),
    });
    for (const kind of ["attention", "cam"] as const)
      this.kinds.set(
        kind,
        h(
          "button",
          {
            class: "tab",
            "data-testid": `kind-${kind}`,
            disabled: !view.overlay.has(kind),
            onclick: () => this.setKind(kind),
          },
          names[kind],
        ),
      );
    this.element = h(
      "section",
      { class: "overlay-controls", "data-testid": "overlay-controls" },
      h("label", { class: "switch" }, this.heat, "Heatmap", h("kbd", {}, "H")),
      h("label", { class: "switch" }, this.contours, "Outline", h("kbd", {}, "C")),
      h("div", { class: "kinds" }, ...this.kinds.values()),
      h("label", { class: "range" }, "Opacity", this.opacity),
      h(
        "div",
        { class: "colour-bar" },
        h("span", {}, "0"),
        h("div", { class: "ramp", "data-testid": "colour-bar" }),
        h("span", {}, "1"),
      ),
      this.meaning,
      !fits &&
        h(
          "p",
          { class: "review" },
          "The images changed after this result: its overlays do not fit and are not shown.",
        ),
    );
    this.update();
  }

  private check(name: string, onchange: () => void): HTMLInputElement {
    return h("input", { type: "checkbox", "data-testid": `toggle-${name}`, onchange });
  }

  private update(): void {
    const { state } = this.view.overlay;
    this.heat.checked = state.heat;
    this.contours.checked = state.contours;
    this.opacity.value = String(Math.round(state.opacity * 100));
    this.element.style.setProperty("--heat-opacity", String(state.opacity));
    for (const [kind, button] of this.kinds) button.classList.toggle("active", kind === state.kind);
    this.meaning.textContent = this.view.overlay.has(state.kind)
      ? meanings[state.kind]
      : "This result has no map.";
  }

  private change(change: Parameters<ImageView["changeOverlay"]>[0]): void {
    this.view.changeOverlay(change);
    this.update();
  }

  setHeat = (heat: boolean): void => this.change({ heat });
  setContours = (contours: boolean): void => this.change({ contours });
  setKind = (kind: OverlayKind): void => this.change({ kind, heat: true });
  setOpacity = (opacity: number): void => this.change({ opacity: Math.max(0.05, Math.min(1, opacity)) });
  toggleHeat = (): void => this.setHeat(!this.view.overlay.state.heat);
  toggleContours = (): void => this.setContours(!this.view.overlay.state.contours);

  /** The bare image, and back to what was there. */
  toggleAll = (): void => {
    this.quick = !this.quick;
    this.view.overlay.canvas.hidden = this.quick;
  };

  toggleKind = (): void => {
    const other: OverlayKind = this.view.overlay.state.kind === "attention" ? "cam" : "attention";
    if (this.view.overlay.has(other)) this.setKind(other);
  };

  moreOpacity = (by: number): void => this.setOpacity(this.view.overlay.state.opacity + by);
}
