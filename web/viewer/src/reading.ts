// What the reader decides: findings of the model and of the reader, verdicts, undo.
import { api, type Finding, type Result, type Vector, type Verdict, type VerdictName } from "./api";

/** A finding as the reader sees it. */
export interface Item {
  id: number;
  center_lps_mm: Vector;
  diameter_mm: number;
  verdict: VerdictName;
  /** Of the model; null for what a reader added. */
  model: Finding | null;
}

export interface Tally {
  accepted: number;
  rejected: number;
  undecided: number;
  added: number;
}

type Undo = { text: string; run: () => Promise<void> };

export class Reading {
  items: Item[] = [];
  private readonly undos: Undo[] = [];
  private readonly standing = new Map<number, Verdict>();
  /** Requests one after the other, so that the server sees them in the reader's order. */
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    readonly result: Result,
    private readonly onChange: () => void,
  ) {
    for (const verdict of result.verdicts) this.standing.set(verdict.finding_id, verdict);
    this.rebuild();
  }

  get open(): boolean {
    return !this.result.signed && !this.result.superseded_by && this.result.status !== "failed";
  }

  get canUndo(): boolean {
    return this.undos.length > 0;
  }

  find(id: number): Item | undefined {
    return this.items.find((item) => item.id === id);
  }

  private rebuild(): void {
    const model = (this.result.analysis?.findings ?? []).map((finding): Item => ({
      id: finding.id,
      center_lps_mm: finding.center_lps_mm,
      diameter_mm: finding.diameter_mm,
      verdict: this.standing.get(finding.id)?.verdict ?? "none",
      model: finding,
    }));
    const added = [...this.standing.values()]
      .filter((verdict) => verdict.verdict === "added" && verdict.center_lps_mm)
      .map((verdict): Item => ({
        id: verdict.finding_id,
        center_lps_mm: verdict.center_lps_mm!,
        diameter_mm: verdict.diameter_mm ?? 0,
        verdict: "added",
        model: null,
      }));
    this.items = [...model, ...added];
  }

  private put(body: object): Promise<Verdict> {
    const request = this.last.then(() => api.judge(this.result.id, body));
    this.last = request.catch(() => undefined);
    return request.then((verdict) => {
      this.standing.set(verdict.finding_id, verdict);
      this.rebuild();
      this.onChange();
      return verdict;
    });
  }

  async judge(item: Item, verdict: "accepted" | "rejected" | "none"): Promise<void> {
    const before = item.verdict;
    if (before === verdict || !item.model) return;
    await this.put({ finding_id: item.id, verdict });
    this.undos.push({
      text: `Finding ${item.id}: back to ${before === "none" ? "undecided" : before}.`,
      run: async () => void (await this.put({ finding_id: item.id, verdict: before })),
    });
    this.onChange();
  }

  async add(center_lps_mm: Vector, diameter_mm: number): Promise<number> {
    const { finding_id } = await this.put({ verdict: "added", center_lps_mm, diameter_mm });
    this.undos.push({
      text: "The added nodule is removed.",
      run: async () => void (await this.put({ verdict: "removed", finding_id })),
    });
    this.onChange();
    return finding_id;
  }

  async remove(item: Item): Promise<void> {
    await this.put({ verdict: "removed", finding_id: item.id });
    this.undos.push({
      text: "The removed nodule is back.",
      run: async () =>
        void (await this.put({
          verdict: "added",
          center_lps_mm: item.center_lps_mm,
          diameter_mm: item.diameter_mm,
        })),
    });
    this.onChange();
  }

  /** Takes the last decision back; the sentence that says so, or undefined when there is none. */
  async undo(): Promise<string | undefined> {
    const undo = this.undos.pop();
    if (!undo) return undefined;
    try {
      await undo.run();
    } catch (error) {
      this.undos.push(undo);
      throw error;
    }
    this.onChange();
    return undo.text;
  }

  /** What a signature would cover: reported findings, and whatever the reader judged or added. */
  get signable(): Item[] {
    return this.items.filter((item) => item.model === null || item.model.reported || item.verdict !== "none");
  }

  get tally(): Tally {
    const count = (verdict: VerdictName): number =>
      this.signable.filter((item) => item.verdict === verdict).length;
    return {
      accepted: count("accepted"),
      rejected: count("rejected"),
      undecided: count("none"),
      added: count("added"),
    };
  }

  get verdicts(): { finding_id: number; verdict: string }[] {
    return this.items
      .filter((item) => item.verdict !== "none")
      .map((item) => ({ finding_id: item.id, verdict: item.verdict }));
  }
}
