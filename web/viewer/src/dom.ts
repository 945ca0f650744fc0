// Elements from plain calls. Text is always text: nothing here parses HTML.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | ((event: any) => void) | undefined>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

function append(element: Element, children: Child[]): void {
  for (const child of children) if (child || child === "") element.append(child);
}

export function replace(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  append(element, children);
}

/** A short message at the edge of the screen. */
export function toast(text: string, kind: "info" | "error" = "info"): void {
  const item = h("div", { class: `toast ${kind}`, "data-testid": `toast-${kind}` }, text);
  document.getElementById("toasts")?.append(item);
  window.setTimeout(() => item.remove(), kind === "error" ? 8000 : 3500);
}

export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A modal dialog that leaves the document when it closes. It repeats the notice, which its backdrop dims. */
export function modal(attributes: Attributes, ...children: Child[]): HTMLDialogElement {
  const notice = h("p", { class: "notice" }, document.getElementById("notice")?.textContent ?? "");
  const dialog = h("dialog", attributes, ...children, notice);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
