// The list of findings at the right: what the model says, in words, and what the reader says to it.
import { h, replace } from "./dom";
import { lobe, millimetres, percent, texture, unbroken } from "./format";
import type { Grid } from "./geometry";
import type { Item, Reading } from "./reading";

export interface PanelHandlers {
  select: (item: Item) => void;
  accept: (item: Item) => void;
  reject: (item: Item) => void;
  clear: (item: Item) => void;
  remove: (item: Item) => void;
  imageNumber: (item: Item) => number;
}

export class FindingsPanel {
  readonly element = h("div", { class: "findings", "data-testid": "findings" });
  selected = 0;
  private all = false;

  constructor(
    private readonly reading: Reading,
    private readonly grid: Grid | undefined,
    private readonly mayJudge: boolean,
    private readonly handlers: PanelHandlers,
  ) {
    this.render();
  }

  /** What the list shows: reported, judged and added findings; all candidates on request. */
  get shown(): Item[] {
    return this.all ? this.reading.items : this.reading.signable;
  }

  render(): void {
    const shown = this.shown;
    const hidden = this.reading.items.length - this.reading.signable.length;
    replace(
      this.element,
      ...shown.map((item) => this.card(item)),
      shown.length === 0 && h("p", { class: "no-findings", "data-testid": "no-findings" }, this.noFindings()),
      (hidden > 0 || this.all) &&
        h(
          "button",
          { class: "quiet", "data-testid": "toggle-candidates", onclick: () => this.toggle() },
          this.all ? "Hide weak candidates" : `Show ${hidden} weak candidate${hidden === 1 ? "" : "s"}`,
        ),
    );
    this.element.querySelector(".card.selected")?.scrollIntoView({ block: "nearest" });
  }

  private noFindings(): string {
    const point = this.reading.result.analysis?.operating_point;
    return point === undefined
      ? "No finding."
      : `No finding: none reaches ${percent(point)}, from which on findings are reported.`;
  }

  private toggle(): void {
    this.all = !this.all;
    this.render();
  }

  private card(item: Item): HTMLElement {
    const selected = item.id === this.selected;
    const card = h(
      "article",
      {
        class: `card ${item.verdict}${selected ? " selected" : ""}`,
        "data-testid": `finding-${item.id}`,
        "data-verdict": item.verdict,
        tabindex: 0,
        onclick: () => this.handlers.select(item),
        onkeydown: (event: KeyboardEvent) => event.key === "Enter" && this.handlers.select(item),
      },
      h(
        "header",
        {},
        h("span", { class: "number" }, item.model ? String(item.id) : "+"),
        h("span", { class: "place" }, item.model ? lobe(item.model.lobe) : "Added by reader"),
        this.verdictChip(item),
        this.grid && h("span", { class: "image-number" }, `image ${this.handlers.imageNumber(item)}`),
      ),
      item.model && h("p", { class: "sentence", "data-testid": `sentence-${item.id}` }, sentenceOf(item)),
      item.model && probabilityBar(item),
      h("p", { class: "facts", title: "Diameter (axes of the outline), volume of the outline" }, facts(item)),
      item.model?.review &&
        h("p", { class: "review", "data-testid": `review-${item.id}` }, this.review()),
      selected && this.mayJudge && this.reading.open && this.buttons(item),
    );
    return card;
  }

  private review(): string {
    const rule = this.reading.result.analysis?.review_rule;
    return unbroken(`Review: less certain than most findings. Please look twice.${rule ? ` ${rule}` : ""}`);
  }

  private verdictChip(item: Item): HTMLElement | false {
    const text = { accepted: "accepted", rejected: "rejected", none: "", added: "added", removed: "" }[
      item.verdict
    ];
    return text !== "" && h("span", { class: `chip ${item.verdict}` }, text);
  }

  private buttons(item: Item): HTMLElement {
    const button = (label: string, key: string, kind: string, run: () => void): HTMLElement =>
      h(
        "button",
        {
          class: kind,
          "data-testid": `${kind}-${item.id}`,
          onclick: (event: Event) => {
            event.stopPropagation();
            run();
          },
        },
        label,
        key ? h("kbd", {}, key) : null,
      );
    if (!item.model)
      return h(
        "div",
        { class: "judge" },
        button("Remove", "", "remove", () => this.handlers.remove(item)),
      );
    return h(
      "div",
      { class: "judge" },
      button("Accept", "A", "accept", () => this.handlers.accept(item)),
      button("Reject", "R", "reject", () => this.handlers.reject(item)),
      item.verdict !== "none" && button("Undecided", "", "clear", () => this.handlers.clear(item)),
    );
  }
}

function sentenceOf(item: Item): string {
  const model = item.model!;
  const interval = `${Math.round(model.probability_low * 100)} to ${percent(model.probability_high)}`;
  return model.sentence ?? `Nodule: ${percent(model.probability)} (${interval})`;
}

/** The diameter is the one whose error is measured; axes and volume are those of the outline. */
function facts(item: Item): string {
  const diameter = `Ø ${millimetres(item.diameter_mm)}`;
  if (!item.model) return unbroken(diameter);
  const { long_axis_mm, short_axis_mm, volume_mm3, texture: name } = item.model;
  const axes = long_axis_mm > 0 ? ` (${long_axis_mm.toFixed(1)} × ${short_axis_mm.toFixed(1)})` : "";
  const parts = [texture(name), diameter + axes];
  if (volume_mm3 > 0) parts.push(`${Math.round(volume_mm3)} mm³`);
  return parts.map(unbroken).join(" · ");
}

/** A thin scale from 0 to 100 % with the interval as a band and the mean as a tick. */
function probabilityBar(item: Item): HTMLElement {
  const { probability, probability_low, probability_high } = item.model!;
  const band = h("span", { class: "band" });
  const tick = h("span", { class: "tick" });
  band.style.setProperty("left", `${probability_low * 100}%`);
  band.style.setProperty("width", `${Math.max(0.5, (probability_high - probability_low) * 100)}%`);
  tick.style.setProperty("left", `${probability * 100}%`);
  return h("div", { class: "bar", "aria-hidden": "true" }, band, tick);
}
