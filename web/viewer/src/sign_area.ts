// The foot of the side panel: what was decided so far, undo, sign.
import { h } from "./dom";
import type { Reading } from "./reading";

export interface SignAreaHandlers {
  undo: () => void;
  sign: () => void;
}

export function signArea(
  reading: Reading,
  signing: boolean,
  mayJudge: boolean,
  handlers: SignAreaHandlers,
): HTMLElement | null {
  if (reading.result.status === "failed") return null;
  if (reading.result.signed) return h("p", { class: "signed", "data-testid": "signed" }, "✓ Signed");
  if (signing) return h("p", { class: "signing", "data-testid": "signing" }, "Signing …");
  return h(
    "div",
    {},
    h("p", { class: "tally", "data-testid": "tally" }, tallyText(reading)),
    mayJudge && buttons(reading, handlers),
  );
}

function tallyText(reading: Reading): string {
  if (!reading.signable.length)
    return reading.result.status === "refused" ? "Nothing was analysed." : "No findings.";
  const { accepted, rejected, undecided, added } = reading.tally;
  const parts = [`${accepted} accepted`, `${rejected} rejected`, `${undecided} undecided`];
  if (added) parts.push(`${added} added`);
  return parts.join(" · ");
}

function buttons(reading: Reading, handlers: SignAreaHandlers): HTMLElement {
  return h(
    "div",
    { class: "actions" },
    h(
      "button",
      { class: "quiet", "data-testid": "undo", disabled: !reading.canUndo, onclick: handlers.undo },
      "Undo",
      h("kbd", {}, "U"),
    ),
    h(
      "button",
      { class: "primary", "data-testid": "sign", disabled: !reading.open, onclick: handlers.sign },
      "Sign …",
    ),
  );
}
