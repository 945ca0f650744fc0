// One study: images at the left, what was found and what the reader says at the right.
import { api, ApiError, type Series, type Study, type StudyDocument, type User, type Vector } from "./api";
import { topBar } from "./bar";
import { h, replace, sentence, toast } from "./dom";
import { FindingsPanel } from "./findings_panel";
import { date, day, personName } from "./format";
import { ImageView } from "./image_view";
import { attachKeys, showHelp, toolBar, type KeyAction } from "./keys";
import { OverlayControls } from "./overlay_controls";
import { Poll } from "./poll";
import { Reading, type Item } from "./reading";
import { signArea } from "./sign_area";
import { showSignDialog } from "./sign_dialog";
import type { Window } from "./stage";
import { statusBanner } from "./status_banner";
import { askDiameter } from "./diameter_dialog";
import { overlaysFit, seriesOf } from "./study_document";
import { studyKeys } from "./study_keys";

const WAIT_MS = 2000;
const WATCH_MS = 10000;
const SIGNING_MS = 1000;

export interface Address {
  kind: "study" | "result";
  id: string;
}

export class StudyPage {
  view: ImageView | undefined;
  controls: OverlayControls | undefined;
  reading: Reading | undefined;
  private panel: FindingsPanel | undefined;
  private document: StudyDocument | undefined;
  private detachKeys: () => void = () => undefined;
  private poll: Poll | undefined;
  private adder: HTMLButtonElement | undefined;
  private signing = false;
  private kept: { k: number; window: Window; waiting: boolean } | undefined;
  private closed = false;
  private keys: KeyAction[] = [];
  private readonly main = h("main", { class: "study" });
  private readonly side = h("aside", { class: "side" });
  private readonly banner = h("div", { class: "banner-slot" });
  private readonly signArea = h("div", { class: "sign-area" });

  constructor(
    private readonly page: HTMLElement,
    private readonly user: User,
    private readonly onLogout: () => void,
    private readonly address: Address,
  ) {
    replace(page, topBar(user, onLogout), this.main);
    replace(this.main, h("p", { class: "waiting" }, "Opening …"));
    void this.load();
  }

  close(): void {
    this.closed = true;
    this.poll?.stop();
    this.detachKeys();
    this.view?.close();
    this.view = undefined;
  }

  /* ---- loading ---- */

  private async load(): Promise<void> {
    try {
      const document =
        this.address.kind === "study"
          ? await api.study(this.address.id)
          : await api.result(Number(this.address.id));
      const series = await seriesOf(document.study.study_uid);
      if (!this.closed) this.build(document, series);
    } catch (error) {
      if (!this.closed)
        replace(this.main, h("p", { class: "problem big", "data-testid": "problem" }, sentence(error)));
    }
  }

  /** Findings or images came while the reader looked: they appear, and the reader's place stays. */
  private reload(): void {
    this.kept = this.view && { k: this.view.stage.k, window: this.view.stage.window, waiting: !this.panel };
    this.poll?.stop();
    this.detachKeys();
    this.view?.close();
    this.view = undefined;
    this.controls = undefined;
    this.signing = false;
    void this.load();
  }

  private build(document: StudyDocument, series: Series | undefined): void {
    this.document = document;
    const { study, result } = document;
    window.document.title = `${personName(study.patient_name)} – Pulmo`;
    this.reading = result ? new Reading(result, () => this.refresh()) : undefined;
    const heading = h(
      "div",
      { class: "patient-line", "data-testid": "patient" },
      h("b", {}, personName(study.patient_name)),
      ` ${[study.patient_id, study.description || "CT", date(study.study_date), study.accession_number].filter(Boolean).join(" · ")}`,
    );
    const help = h(
      "button",
      { class: "quiet", "data-testid": "help-button", onclick: () => showHelp(this.keys) },
      "Help",
      h("kbd", {}, "?"),
    );
    replace(this.page, topBar(this.user, this.onLogout, heading, this.mayJudge ? holdButton(study) : null, help), this.main);
    const fits = overlaysFit(document, series);
    if (series) this.view = new ImageView(study, series, result, fits);
    this.panel = this.reading && result?.status === "analysed" ? this.newPanel(this.reading) : undefined;
    const drawable = !fits || this.view?.overlay.hasAny || this.reading?.signable.some((item) => item.model);
    this.controls = this.view && this.panel && drawable ? new OverlayControls(this.view, fits) : undefined;
    this.adder = this.panel && this.mayJudge ? this.addButton() : undefined;
    replace(
      this.side,
      this.banner,
      this.panel && h("h2", {}, "Findings"),
      this.panel?.element,
      this.adder,
      this.controls?.element,
      this.signArea,
    );
    replace(this.main, this.view?.element ?? noImages(study), this.side);
    this.keys = studyKeys(this);
    this.view?.element.append(toolBar(this.keys));
    this.detachKeys = attachKeys(this.keys);
    this.refresh();
    this.openFirst();
    this.watch();
  }

  private newPanel(reading: Reading): FindingsPanel {
    return new FindingsPanel(reading, this.view?.grid, this.mayJudge, {
      select: (item) => this.select(item),
      accept: (item) => this.judge(item, "accepted"),
      reject: (item) => this.judge(item, "rejected"),
      clear: (item) => this.judge(item, "none"),
      remove: (item) => this.attempt(this.reading!.remove(item)),
      imageNumber: (item) => this.view?.imageNumber(item) ?? 0,
    });
  }

  private addButton(): HTMLButtonElement {
    return h(
      "button",
      { class: "quiet add", "data-testid": "add", onclick: () => this.toggleAdding() },
      "Add a missed nodule",
      h("kbd", {}, "M"),
    );
  }

  /** On the most suspicious finding, or in the middle. */
  private openFirst(): void {
    if (!this.view) return;
    const first = this.panel?.shown[0];
    const start = first ? this.view.sliceOf(first) : Math.floor(this.view.grid.series.slices / 2);
    const { slices } = this.view.grid.series;
    const k = this.kept && this.kept.k < slices ? this.kept.k : start;
    if (this.kept) this.view.stage.window = this.kept.window;
    if (this.kept?.waiting && this.panel)
      toast(
        first
          ? "The findings are here. N goes to the next, a click to any."
          : "The analysis is done: no finding.",
      );
    this.kept = undefined;
    if (first) this.mark(first);
    this.view.onAdd = (center, diameter) => this.add(center, diameter);
    this.view.open(k).catch((error) => toast(sentence(error), "error"));
  }

  /* ---- state that changes while the page is open ---- */

  private watch(): void {
    const { result, study } = this.document!;
    const waiting = !result || (!this.view && !study.purged_ms) || ["receiving", "queued", "analysing"].includes(study.state);
    const interval = this.signing ? SIGNING_MS : waiting ? WAIT_MS : WATCH_MS;
    this.poll?.stop();
    this.poll = new Poll(interval, () => this.ask());
    this.poll.later();
  }

  private async ask(): Promise<void> {
    const { result, study } = this.document!;
    try {
      if (!result) {
        const now = await api.study(study.study_uid);
        if (now.result || now.study.state !== study.state || !this.view) await this.reloadWhenNew(now);
        return;
      }
      const state = await api.state(result.id);
      if (state.signed !== result.signed || state.superseded_by !== result.superseded_by) {
        Object.assign(result, { signed: state.signed, superseded_by: state.superseded_by });
        if (state.signed && this.signing) toast("Signed. The verified report goes to the PACS.");
        this.signing = this.signing && !state.signed;
        this.watch();
      }
      if (state.sign_failure && this.signing && !state.signed) {
        toast(`Not signed: ${state.sign_failure}`);
        this.signing = false;
        this.watch();
      }
      study.state = state.study_state;
      if (!this.view && (await seriesOf(study.study_uid))) this.reload();
      else this.refresh();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.poll?.stop();
    }
  }

  private async reloadWhenNew(now: StudyDocument): Promise<void> {
    const imagesCame = !this.view && (await seriesOf(now.study.study_uid)) !== undefined;
    if (now.result || imagesCame) this.reload();
    else {
      this.document = now;
      this.refresh();
    }
  }

  /* ---- what the reader does ---- */

  get mayJudge(): boolean {
    return this.user.may_judge;
  }

  private get selectedItem(): Item | undefined {
    return this.reading?.find(this.panel?.selected ?? 0);
  }

  private mark(item: Item): void {
    if (this.panel) this.panel.selected = item.id;
    this.refresh();
  }

  select(item: Item): void {
    this.mark(item);
    if (this.view) void this.view.stage.show(this.view.sliceOf(item));
  }

  /** 1 = next, -1 = previous finding of the list, round and round. */
  move(by: number): void {
    const shown = this.panel?.shown ?? [];
    if (!shown.length) return;
    const at = shown.findIndex((item) => item.id === this.panel?.selected);
    this.select(shown[(at + by + shown.length) % shown.length]!);
  }

  judgeSelected(verdict: "accepted" | "rejected"): void {
    const item = this.selectedItem;
    if (item?.model) this.judge(item, verdict);
    else toast("Select a finding of the model first.");
  }

  private judge(item: Item, verdict: "accepted" | "rejected" | "none"): void {
    if (this.refusesChange()) return;
    this.mark(item);
    this.attempt(this.reading!.judge(item, verdict));
  }

  private refusesChange(): boolean {
    if (!this.mayJudge) toast("Only a radiologist judges findings.");
    else if (!this.reading?.open) toast("This result can no longer be changed.");
    else return false;
    return true;
  }

  private attempt(action: Promise<unknown>): void {
    action.catch((error) => {
      toast(sentence(error), "error");
      this.poll?.now();
    });
  }

  undo(): void {
    if (!this.reading) return;
    this.attempt(
      this.reading.undo().then((text) => {
        toast(text ?? "Nothing to undo.");
        this.refresh();
      }),
    );
  }

  toggleAdding(): void {
    if (this.view?.isAdding) this.view.setAdding(false);
    else if (!this.refusesChange() && this.panel) this.view?.setAdding(true);
  }

  private add(center: Vector, diameter: number | undefined): void {
    if (diameter === undefined) askDiameter((mm) => this.add(center, mm));
    else
      this.attempt(
        this.reading!.add(center, Math.min(200, Math.max(1, diameter))).then((id) => {
          const item = this.reading!.find(id);
          if (item) this.mark(item);
        }),
      );
  }

  sign(): void {
    const reading = this.reading;
    if (!reading || !this.document || !this.maySign) return;
    showSignDialog(this.document.study, reading, this.user.display_name || this.user.name, {
      onRequested: () => {
        this.signing = true;
        this.refresh();
        this.watch();
      },
      onChanged: () => this.reload(),
    });
  }

  private get maySign(): boolean {
    return this.mayJudge && this.reading?.open === true && !this.signing;
  }

  showHelp(): void {
    showHelp(this.keys);
  }

  /* ---- drawing ---- */

  private refresh(): void {
    if (!this.document) return;
    this.panel?.render();
    if (this.panel) this.view?.setItems(this.panel.shown, this.panel.selected);
    if (this.adder) this.adder.disabled = !this.view || !this.reading?.open || this.signing;
    replace(this.banner, statusBanner(this.document, this.view !== undefined));
    replace(
      this.signArea,
      this.reading &&
        signArea(this.reading, this.signing, this.mayJudge, {
          undo: () => this.undo(),
          sign: () => this.sign(),
        }),
    );
  }
}

/** Keeps the study's images on this machine, or no longer. */
function holdButton(study: Study): HTMLButtonElement {
  const text = (): string => (study.held_ms ? "Held" : "Hold");
  const button = h(
    "button",
    {
      class: "quiet",
      "data-testid": "hold",
      title: "A held study keeps its images on this machine.",
      onclick: () => {
        const reason = study.held_ms ? "" : window.prompt("Why are the images of this study to be kept?");
        if (reason === null) return;
        api.hold(study.study_uid, !study.held_ms, reason).then(
          (now) => {
            Object.assign(study, { held_ms: now.held_ms, hold_reason: now.hold_reason });
            replace(button, text());
            toast(study.held_ms ? "Held: its images are kept." : "No longer held.");
          },
          (error) => toast(sentence(error), "error"),
        );
      },
    },
    text(),
  );
  return button;
}

function noImages(study: Study): HTMLElement {
  return h(
    "section",
    { class: "image-view empty" },
    h(
      "p",
      { class: "waiting", "data-testid": "no-images" },
      study.purged_ms
        ? `The images were removed from this machine on ${day(study.purged_ms)}, after the PACS had confirmed them. ` +
            "Result and report are kept. Send the study again from the PACS to see the images here."
        : "No images to show.",
    ),
  );
}
