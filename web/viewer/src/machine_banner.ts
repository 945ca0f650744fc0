// What is wrong with the machine itself: a disk that is full or takes no writes, a locked database. On every page, since
// nothing new arrives while it lasts, and the reader is often the first who could tell the administrator.
import { api, ApiError, type Health } from "./api";
import { h, replace, sentence } from "./dom";
import { Poll } from "./poll";

const REFRESH_MS = 5000;

/** Asks for as long as the page is open; the health of the machine is no secret of a session. */
export function watchMachine(slot: HTMLElement): void {
  new Poll(REFRESH_MS, async () => {
    try {
      show(slot, troubles(await api.health()));
    } catch (error) {
      // Who cannot be reached cannot be judged; the pages say that they are not up to date.
      if (error instanceof ApiError && error.status >= 500) show(slot, [["UNKNOWN", sentence(error)]]);
    }
  }).now();
}

function troubles(health: Health): [code: string, text: string][] {
  const rows = health.problems.map(({ code, text }): [string, string] => [code, text]);
  return health.disk ? [...rows, ["DISK_STAYS_FULL", health.disk]] : rows;
}

function show(slot: HTMLElement, rows: [code: string, text: string][]): void {
  const text = rows.map((row) => row.join(" ")).join("\n");
  if (slot.dataset["shown"] === text) return; // an alert is read aloud when it changes, not every five seconds
  slot.dataset["shown"] = text;
  replace(
    slot,
    rows.length > 0 && h("b", {}, "This machine needs its administrator."),
    ...rows.map(([code, what]) => h("p", { "data-testid": "machine-problem", "data-code": code }, what)),
  );
}
