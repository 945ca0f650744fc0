// Keys: one table drives both the shortcuts and the help that shows them.
import { h, modal } from "./dom";

export interface KeyAction {
  keys: string[]; // KeyboardEvent.key, lower case letters
  label: string; // as printed in the help
  group: "Scroll" | "Findings" | "Overlay" | "Image" | "Other";
  help: string;
  run: () => void;
  button?: string; // also a button below the image, with this text
}

const mouse: [string, string][] = [
  ["Wheel", "scroll through slices"],
  ["Left drag", "window width and level"],
  ["Middle drag, Shift + drag", "move the image"],
  ["Right drag, Ctrl + wheel", "zoom"],
  ["Bar at the right edge", "jump to a slice; marks are findings"],
];

function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement | null;
  const input = target instanceof HTMLInputElement && target.type !== "range" && target.type !== "checkbox";
  return input || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

function nameOf(event: KeyboardEvent): string {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return event.ctrlKey || event.metaKey ? `Ctrl+${key}` : key;
}

/** Returns what detaches the keys again. */
export function attachKeys(actions: KeyAction[]): () => void {
  const byKey = new Map(actions.flatMap((action) => action.keys.map((key) => [key, action] as const)));
  const listener = (event: KeyboardEvent): void => {
    if (isTyping(event) || event.altKey || document.querySelector("dialog[open]")) return;
    const action = byKey.get(nameOf(event));
    if (!action) return;
    event.preventDefault();
    action.run();
  };
  document.addEventListener("keydown", listener);
  return () => document.removeEventListener("keydown", listener);
}

export function toolBar(actions: KeyAction[]): HTMLElement {
  const buttons = actions
    .filter((action) => action.button)
    .map((action) =>
      h(
        "button",
        { class: "quiet", title: action.help, "data-testid": `tool-${action.keys[0]}`, onclick: action.run },
        action.button,
        h("kbd", {}, action.label.split(",")[0]),
      ),
    );
  return h("nav", { class: "toolbar" }, ...buttons);
}

export function showHelp(actions: KeyAction[]): void {
  const groups = [...new Set(actions.map((action) => action.group))];
  const row = (label: string, help: string): HTMLElement =>
    h("tr", {}, h("td", {}, h("kbd", {}, label)), h("td", {}, help));
  const section = (title: string, rows: HTMLElement[]): HTMLElement =>
    h("section", {}, h("h3", {}, title), h("table", {}, ...rows));
  const dialog = modal(
    { class: "help", "data-testid": "help" },
    h("h2", {}, "Mouse and keys"),
    h(
      "div",
      { class: "columns" },
      section(
        "Mouse",
        mouse.map(([label, help]) => row(label, help)),
      ),
      ...groups.map((group) =>
        section(
          group,
          actions.filter((action) => action.group === group).map((action) => row(action.label, action.help)),
        ),
      ),
    ),
    h("div", { class: "actions" }, h("button", { class: "primary", onclick: () => dialog.close() }, "Close")),
  );
}
