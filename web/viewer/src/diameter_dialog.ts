// Asks for the diameter of a nodule that was marked by a click.
import { h, modal } from "./dom";

const DIAMETER_MM_DEFAULT = 6;

export function askDiameter(onMm: (mm: number) => void): void {
  const input = h("input", {
    type: "number",
    min: 1,
    max: 200,
    step: 0.1,
    value: DIAMETER_MM_DEFAULT,
    "data-testid": "diameter",
  });
  const form = h(
    "form",
    { method: "dialog" },
    h("label", {}, "Diameter of the nodule in mm", input),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { class: "primary", type: "submit", "data-testid": "diameter-ok" }, "Add"),
    ),
  );
  form.addEventListener("submit", () => onMm(Number(input.value)));
  const dialog = modal({ class: "small" }, form);
  input.select();
}
