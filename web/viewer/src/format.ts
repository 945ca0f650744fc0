// Figures and names as a reader wants them.

export function date(dicom: string): string {
  return /^\d{8}$/.test(dicom)
    ? `${dicom.slice(0, 4)}-${dicom.slice(4, 6)}-${dicom.slice(6)}`
    : dicom || "no date";
}

/** A moment as the day that it has here. */
export function day(ms: number): string {
  const at = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** PS3.5 6.2 PN: family^given^middle^prefix^suffix; ideographic and phonetic groups after "=". */
export function personName(dicom: string): string {
  const [family = "", given = "", middle = "", prefix = ""] = (dicom.split("=")[0] ?? "").split("^");
  const first = [prefix, given, middle].filter((part) => part.trim()).join(" ");
  return first ? `${family}, ${first}` : family || "no name";
}

export const millimetres = (value: number): string => `${value.toFixed(1)} mm`;
/** No line ends between a number and what belongs to it. */
export const unbroken = (text: string): string => text.replace(/(?<=[\dØ×]) (?=[%m\d×(])/g, "\u00a0");
export const percent = (value: number): string => `${Math.round(value * 100)} %`;

const lobes: Record<string, string> = {
  RUL: "Right upper lobe",
  RML: "Right middle lobe",
  RLL: "Right lower lobe",
  LUL: "Left upper lobe",
  LLL: "Left lower lobe",
};
export const lobe = (code: string): string => lobes[code] ?? "Finding";

export function texture(name: string): string {
  return name === "unknown" ? "texture unknown" : name;
}

export function ago(ms: number, nowMs: number): string {
  const minutes = Math.round((nowMs - ms) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h ago` : `${Math.round(hours / 24)} days ago`;
}

/** "NOT_A_CHEST: the images …" as a heading and a sentence. */
export function reason(text: string): { title: string; detail: string } {
  const match = /^([A-Z_]+): *(.*)$/s.exec(text);
  if (!match) return { title: "", detail: text.charAt(0).toUpperCase() + text.slice(1) };
  const words = (match[1] ?? "").toLowerCase().replaceAll("_", " ");
  const detail = match[2] ?? "";
  return {
    title: words.charAt(0).toUpperCase() + words.slice(1).replace(/\bct\b/, "CT"),
    detail: detail.charAt(0).toUpperCase() + detail.slice(1),
  };
}
