// Signing: shows what will be signed, asks for the password, sends the request.
import { api, ApiError, type Study } from "./api";
import { h, modal, replace, sentence, toast } from "./dom";
import { date, lobe, millimetres, personName } from "./format";
import type { Item, Reading } from "./reading";

const labels = { accepted: "Accepted", rejected: "Rejected", none: "Undecided", added: "Added", removed: "" };

export interface SignHandlers {
  onRequested: () => void;
  /** Somebody else judged, signed or replaced the result meanwhile: what was on the screen is not what would be signed. */
  onChanged: () => void;
}

export function showSignDialog(study: Study, reading: Reading, signer: string, handlers: SignHandlers): void {
  const password = h("input", {
    type: "password",
    id: "sign-password",
    autocomplete: "current-password",
    "data-testid": "sign-password",
    required: true,
  });
  const problem = h("p", { class: "problem", role: "alert", "data-testid": "sign-problem" });
  const confirm = h("button", { class: "primary", type: "submit", "data-testid": "sign-confirm" }, "Sign");
  const form = h(
    "form",
    { method: "dialog" },
    h("label", { for: "sign-password" }, `Password of ${signer}`),
    password,
    problem,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      confirm,
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    confirm.disabled = true;
    replace(problem);
    api
      .sign(reading.result.id, password.value, reading.verdicts)
      .then(() => {
        dialog.close();
        handlers.onRequested();
      })
      .catch((error) => {
        if (error instanceof ApiError && error.status === 409) {
          dialog.close();
          toast(sentence(error), "error");
          handlers.onChanged();
          return;
        }
        replace(problem, sentence(error));
        password.select();
      })
      .finally(() => {
        confirm.disabled = false;
      });
  });
  const dialog = modal(
    { class: "sign", "data-testid": "sign-dialog" },
    h("h2", {}, "Sign this result"),
    h(
      "p",
      { class: "patient" },
      `${personName(study.patient_name)} · ${study.patient_id} · ${date(study.study_date)}`,
    ),
    summary(reading),
    h("p", { class: "hint" }, closing(reading)),
    form,
  );
  password.focus();
}

function summary(reading: Reading): HTMLElement {
  if (reading.result.status === "refused")
    return h("p", {}, "The study was not analysed; that is what you confirm.");
  if (!reading.signable.length) return h("p", {}, "No findings.");
  return h("ul", { class: "summary", "data-testid": "sign-summary" }, ...reading.signable.map(line));
}

function line(item: Item): HTMLElement {
  const place = item.model ? `${item.id}. ${lobe(item.model.lobe)}` : "Missed by the model";
  return h(
    "li",
    { class: item.verdict },
    h("b", {}, labels[item.verdict]),
    ` ${place}, ${millimetres(item.diameter_mm)}`,
  );
}

function closing(reading: Reading): string {
  const { undecided } = reading.tally;
  const left =
    undecided === 0
      ? ""
      : `${undecided} finding${undecided === 1 ? " is" : "s are"} undecided and will be reported as the model's, without a verdict. `;
  return `${left}A verified structured report with these verdicts goes to the PACS. It cannot be changed afterwards.`;
}
