// The bar beside the image: where the reader is, what is loaded, where the findings lie.
import { h } from "./dom";
import type { Item } from "./reading";
import type { Stage } from "./stage";

export class SliceBar {
  readonly element: HTMLElement;
  private readonly thumb = h("div", { class: "thumb" });
  private readonly loaded = h("div", { class: "loaded" });
  private readonly marks = h("div", { class: "marks" });

  constructor(private readonly stage: Stage) {
    this.element = h(
      "div",
      { class: "slice-bar", "data-testid": "slice-bar" },
      this.loaded,
      this.marks,
      this.thumb,
    );
    let dragging = false;
    const go = (event: PointerEvent): void => {
      const box = this.element.getBoundingClientRect();
      const position = Math.round(((event.clientY - box.top) / box.height) * (stage.count - 1));
      void stage.show(stage.position(Math.max(0, Math.min(stage.count - 1, position))));
    };
    this.element.addEventListener("pointerdown", (event) => {
      dragging = true;
      this.element.setPointerCapture(event.pointerId);
      go(event);
    });
    this.element.addEventListener("pointermove", (event) => dragging && go(event));
    this.element.addEventListener("pointerup", () => (dragging = false));
    this.element.addEventListener("pointercancel", () => (dragging = false));
  }

  private percentOf(k: number): string {
    return `${(this.stage.position(k) / Math.max(1, this.stage.count - 1)) * 100}%`;
  }

  update(): void {
    this.thumb.style.setProperty("top", this.percentOf(this.stage.k));
  }

  setLoaded(loaded: number): void {
    this.loaded.style.setProperty("height", `${(loaded / this.stage.count) * 100}%`);
    this.loaded.classList.toggle("complete", loaded >= this.stage.count);
  }

  setItems(items: Item[], selected: number): void {
    this.marks.replaceChildren(
      ...items.map((item) => {
        const mark = h("div", {
          class: `mark ${item.verdict}${item.id === selected ? " selected" : ""}`,
          title: item.model ? `Finding ${item.id}` : "Added nodule",
        });
        mark.style.setProperty("top", this.percentOf(this.stage.grid.toIjk(item.center_lps_mm)[2]));
        return mark;
      }),
    );
  }
}
