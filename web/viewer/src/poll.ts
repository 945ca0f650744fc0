// Asking again and again, but not for a page that nobody looks at: a forgotten screen must let its session end.
const READER_AWAY_MS = 10 * 60 * 1000;
let lastInputMs = Date.now();
for (const type of ["pointermove", "pointerdown", "keydown", "wheel"])
  document.addEventListener(type, () => (lastInputMs = Date.now()), { capture: true, passive: true });

export class Poll {
  private timer = 0;
  private stopped = false;

  constructor(
    private readonly intervalMs: number,
    private readonly ask: () => Promise<void>,
  ) {}

  /** Asks at once, and then in intervals counted from each answer. */
  now(): void {
    window.clearTimeout(this.timer);
    void this.ask().finally(() => this.later());
  }

  later(): void {
    window.clearTimeout(this.timer);
    if (!this.stopped) this.timer = window.setTimeout(() => this.tick(), this.intervalMs);
  }

  stop(): void {
    this.stopped = true;
    window.clearTimeout(this.timer);
  }

  private tick(): void {
    if (document.hidden || Date.now() - lastInputMs > READER_AWAY_MS) this.later();
    else this.now();
  }
}
