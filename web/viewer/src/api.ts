// The server's REST interface: documents and requests.

export type Vector = [number, number, number];
export type VerdictName = "accepted" | "rejected" | "none" | "added" | "removed";

export interface User {
  name: string;
  display_name: string;
  role: string;
  may_read: boolean;
  may_judge: boolean;
  version: string;
}

export interface Study {
  study_uid: string;
  patient_name: string;
  patient_id: string;
  accession_number: string;
  study_date: string;
  description: string;
  state: "receiving" | "queued" | "analysing" | "analysed" | "refused" | "failed" | "signed";
  reason: string;
  received_ms: number;
  instances: number;
  result_id: number;
  findings_reported: number;
  probability_max: number;
  review: boolean;
  /** When the images were given up; 0 = they are here. */
  purged_ms: number;
  /** Since when the images are kept whatever the settings say; 0 = not. */
  held_ms: number;
  hold_reason: string;
  /** The result that the current one replaced; 0 = none. */
  supersedes: number;
}

export interface Finding {
  id: number;
  center_lps_mm: Vector;
  diameter_mm: number;
  long_axis_mm: number;
  short_axis_mm: number;
  volume_mm3: number;
  texture: string;
  lobe: string;
  probability: number;
  probability_low: number;
  probability_high: number;
  reported: boolean;
  review: boolean;
  sentence?: string;
}

export interface Analysis {
  quality?: { slices?: number; lung_volume_ml?: number };
  model?: { name: string; version: string };
  operating_point: number;
  /** What the triage rule behind Finding.review is worth, as measured with the model. */
  review_rule?: string;
  reasons: string[];
  findings: Finding[];
}

export interface Verdict {
  finding_id: number;
  verdict: VerdictName;
  center_lps_mm?: Vector;
  diameter_mm?: number;
  user: string;
  created_ms: number;
}

export interface Result {
  id: number;
  study_uid: string;
  series_uid: string;
  status: "analysed" | "refused" | "failed";
  reason: string;
  created_ms: number;
  superseded_by: number;
  supersedes: number;
  signed: boolean;
  analysis: Analysis | null;
  overlays: Record<OverlayKind, number[]> | null;
  verdicts: Verdict[];
}
export type OverlayKind = "attention" | "cam";

export interface StudyDocument {
  study: Study;
  result: Result | null;
}

export interface ResultState {
  superseded_by: number;
  signed: boolean;
  study_state: Study["state"];
  /** Why the last attempt to sign was given up; "" when it was not. */
  sign_failure: string;
}

export interface Series {
  version: string;
  columns: number;
  rows: number;
  slices: number;
  spacing_ijk_mm: Vector;
  ijk_to_lps_mm: [number[], number[], number[]];
  window_center_hu: number;
  window_width_hu: number;
  series_uid: string;
  series_description: string;
}

export interface Contours {
  findings: { id: number; slices: { k: number; paths: [number, number][][] }[] }[];
}

/** What is wrong with the machine; the sentences are for its administrator. */
export interface Health {
  status: "ok" | "degraded";
  /** Why the disk stays full; "" when it does not. */
  disk: string;
  problems: { code: string; text: string }[];
}

/** A refusal of the server; message is a sentence for the reader. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

let onLoggedOut: () => void = () => undefined;
/** Called when a request meets the end of the session. */
export function whenLoggedOut(action: () => void): void {
  onLoggedOut = action;
}

async function refusal(response: Response): Promise<ApiError> {
  let message = `The server answered ${response.status}.`;
  try {
    message = ((await response.json()) as { message?: string }).message ?? message;
  } catch {
    // No JSON: the status alone must do.
  }
  return new ApiError(response.status, message.charAt(0).toUpperCase() + message.slice(1));
}

async function request(path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "/api/login" && path !== "/api/me") onLoggedOut();
  throw await refusal(response);
}

async function get<T>(path: string): Promise<T> {
  return (await (await request(path)).json()) as T;
}

function post(path: string, body: unknown): Promise<Response> {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Pulmo": "1" },
    body: JSON.stringify(body),
  });
}

export const api = {
  health: () => get<Health>("/api/health"),
  me: () => get<User>("/api/me"),
  login: async (user: string, password: string) =>
    (await (await post("/api/login", { user, password })).json()) as User,
  logout: async () => void (await post("/api/logout", {})),
  studies: () => get<{ now_ms: number; studies_max: number; studies: Study[] }>("/api/studies"),
  study: (uid: string) => get<StudyDocument>(`/api/studies/${uid}`),
  result: (id: number) => get<StudyDocument>(`/api/results/${id}`),
  state: (id: number) => get<ResultState>(`/api/results/${id}/state`),
  series: (uid: string) => get<Series>(`/api/studies/${uid}/series.json`),
  contours: (id: number) => get<Contours>(`/api/results/${id}/artifacts/contours.json`),
  overlay: async (id: number, kind: OverlayKind, k: number) =>
    (await request(`/api/results/${id}/artifacts/overlay/${kind}/${k}.png`)).blob(),
  slice: async (uid: string, version: string, k: number) =>
    (await request(`/api/studies/${uid}/slices/${version}/${k}`)).arrayBuffer(),
  hold: async (uid: string, held: boolean, reason: string) =>
    (await (await post(`/api/studies/${uid}/hold`, held ? { held, reason } : { held })).json()) as Study,
  judge: async (id: number, body: object) =>
    (await (await post(`/api/results/${id}/verdicts`, body)).json()) as Verdict,
  sign: async (id: number, password: string, verdicts: { finding_id: number; verdict: string }[]) =>
    void (await post(`/api/results/${id}/sign`, { password, verdicts })),
};
