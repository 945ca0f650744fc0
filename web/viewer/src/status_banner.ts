// What a reader must know of a study before its findings: refused, failed, waiting, replaced.
import type { StudyDocument } from "./api";
import { h } from "./dom";
import { reason } from "./format";

export function statusBanner({ study, result }: StudyDocument, hasImages: boolean): HTMLElement | null {
  if (result?.superseded_by)
    return h(
      "div",
      { class: "banner warning", "data-testid": "superseded" },
      h("b", {}, "A newer result replaced this one."),
      h("p", {}, "It can be read, but not judged or signed. "),
      h(
        "a",
        { href: `#/study/${study.study_uid}`, onclick: () => reopen(study.study_uid) },
        "Open the newer result",
      ),
    );
  if (study.state === "failed" || result?.status === "failed")
    return stopped(
      "failed",
      "The analysis failed",
      result?.reason || study.reason,
      "No finding is shown because none was computed. This does not mean that there is none.",
    );
  if (result?.status === "refused")
    return stopped(
      "refused",
      "Not analysed",
      result.reason,
      "Pulmo did not look for nodules in this study. This does not mean that there is none.",
    );
  if (!result || ["receiving", "queued", "analysing"].includes(study.state))
    return waiting(study.state, result !== null, hasImages);
  return null;
}

function stopped(kind: string, heading: string, text: string, meaning: string): HTMLElement {
  const { title, detail } = reason(text);
  return h(
    "div",
    { class: `banner ${kind}`, "data-testid": `${kind}-banner` },
    h("h2", {}, heading),
    title && h("p", { class: "title" }, title),
    h("p", { class: "detail", "data-testid": "reason" }, detail || "No reason was recorded."),
    h("p", { class: "meaning" }, meaning),
  );
}

function waiting(state: string, hasResult: boolean, hasImages: boolean): HTMLElement {
  const texts: Record<string, string> = {
    receiving: "Images are still arriving.",
    queued: "The analysis waits for its turn.",
    analysing: "The analysis is running.",
  };
  const rest = hasResult
    ? "A newer result will replace this one."
    : hasImages
      ? "You can read the images meanwhile; findings appear by themselves."
      : "Images and findings appear by themselves.";
  return h(
    "div",
    { class: "banner info", "data-testid": "waiting" },
    h("b", {}, texts[state] ?? "The result is on its way."),
    h("p", {}, rest),
  );
}

/** The address may be the open one already: then nothing but a new start shows the newer result. */
function reopen(studyUid: string): void {
  if (location.hash === `#/study/${studyUid}`) location.reload();
}
