// The worklist: studies in the order in which they need eyes (the server's order).
import { api, type Study, type User } from "./api";
import { topBar } from "./bar";
import { h, replace, sentence } from "./dom";
import { ago, date, day, percent, personName, reason } from "./format";
import { Poll } from "./poll";

const REFRESH_MS = 4000;
const states: Record<Study["state"], string> = {
  receiving: "Receiving",
  queued: "Waiting",
  analysing: "Analysing",
  analysed: "To read",
  refused: "Not analysed",
  failed: "Failed",
  signed: "Signed",
};
type Filter = "open" | "all";

export class Worklist {
  private readonly body = h("tbody", { "data-testid": "worklist" });
  private readonly note = h("p", { class: "note", "data-testid": "worklist-note" });
  private readonly search = h("input", {
    type: "search",
    placeholder: "Name, ID or accession",
    "aria-label": "Search",
    "data-testid": "search",
    oninput: () => this.render(),
  });
  private readonly poll: Poll;
  private studies: Study[] = [];
  private nowMs = 0;
  private filter: Filter = "all";

  constructor(page: HTMLElement, user: User, onLogout: () => void) {
    const tab = (filter: Filter, text: string): HTMLElement =>
      h(
        "button",
        {
          class: "tab",
          "data-filter": filter,
          "data-testid": `filter-${filter}`,
          onclick: () => {
            this.filter = filter;
            this.render();
          },
        },
        text,
      );
    const columns = [
      "State",
      "Findings",
      "Most suspicious",
      "Patient",
      "Study",
      "Accession",
      "Date",
      "Received",
    ];
    replace(
      page,
      topBar(user, onLogout),
      h(
        "main",
        { class: "worklist" },
        h(
          "div",
          { class: "tools" },
          h("h1", {}, "Worklist"),
          tab("all", "All"),
          tab("open", "Not signed"),
          this.search,
        ),
        this.note,
        h("table", {}, h("thead", {}, h("tr", {}, ...columns.map((title) => h("th", {}, title)))), this.body),
      ),
    );
    this.poll = new Poll(REFRESH_MS, () => this.refresh());
    this.poll.now();
  }

  close(): void {
    this.poll.stop();
  }

  private async refresh(): Promise<void> {
    try {
      const list = await api.studies();
      this.studies = list.studies;
      this.nowMs = list.now_ms;
      const full = list.studies.length >= list.studies_max;
      replace(this.note, full ? `Only the first ${list.studies_max} studies are shown.` : "");
      this.render();
    } catch (error) {
      replace(this.note, `Not up to date: ${sentence(error)}`);
    }
  }

  private matches(study: Study): boolean {
    const wanted = this.search.value.trim().toLowerCase();
    const text = `${study.patient_name} ${personName(study.patient_name)} ${study.patient_id} ${study.accession_number}`;
    return (this.filter === "all" || study.state !== "signed") && text.toLowerCase().includes(wanted);
  }

  private render(): void {
    for (const tab of document.querySelectorAll(".tab"))
      tab.classList.toggle("active", (tab as HTMLElement).dataset["filter"] === this.filter);
    const shown = this.studies.filter((study) => this.matches(study));
    const empty = this.studies.length
      ? "No study matches."
      : "No studies yet. Send a chest CT to this machine.";
    replace(
      this.body,
      ...shown.map((study) => this.row(study)),
      shown.length === 0 && h("tr", { class: "empty" }, h("td", { colspan: 8 }, empty)),
    );
  }

  private row(study: Study): HTMLElement {
    const href = `#/study/${study.study_uid}`;
    const open = (): void => {
      location.hash = href;
    };
    const row = h(
      "tr",
      {
        class: study.state,
        "data-testid": "study-row",
        "data-study": study.study_uid,
        "data-state": study.state,
        onclick: open,
      },
      h("td", {}, h("span", { class: `state ${study.state}` }, states[study.state] ?? study.state)),
      findingsCell(study),
      suspicionCell(study),
      h(
        "td",
        {},
        h("a", { href, class: "patient" }, personName(study.patient_name)),
        h("small", {}, study.patient_id),
      ),
      h(
        "td",
        {},
        study.description || "CT",
        h("small", { "data-testid": "images" }, images(study)),
        study.held_ms > 0 &&
          h("span", { class: "chip held", "data-testid": "held", title: study.hold_reason }, "held"),
      ),
      h("td", {}, study.accession_number),
      h("td", {}, date(study.study_date)),
      h("td", {}, ago(study.received_ms, this.nowMs)),
    );
    return row;
  }
}

function images(study: Study): string {
  if (study.purged_ms) return `images purged on ${day(study.purged_ms)}`;
  return `${study.instances} image${study.instances === 1 ? "" : "s"}`;
}

function findingsCell(study: Study): HTMLElement {
  if ((study.state === "refused" || study.state === "failed") && study.reason) {
    const { title, detail } = reason(study.reason);
    return h(
      "td",
      { colspan: 2, class: "why", "data-testid": "reason" },
      h("b", {}, title),
      title ? " " : "",
      detail,
    );
  }
  if (!study.result_id) return h("td", { class: "muted" }, "–");
  return h(
    "td",
    { class: "count" },
    String(study.findings_reported),
    study.review && h("span", { class: "chip review" }, "uncertain"),
    study.supersedes > 0 &&
      study.state !== "signed" &&
      h("span", { class: "chip", "data-testid": "supersedes" }, "replaces an earlier result"),
  );
}

function suspicionCell(study: Study): HTMLElement | null {
  if ((study.state === "refused" || study.state === "failed") && study.reason) return null;
  const shown = study.result_id > 0 && study.findings_reported > 0;
  return h("td", { class: shown ? "" : "muted" }, shown ? percent(study.probability_max) : "–");
}
