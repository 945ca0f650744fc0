// Entry: who is logged in, and which page the address names.
import { api, whenLoggedOut, type User } from "./api";
import { h, replace, sentence } from "./dom";
import { showLogin } from "./login";
import { watchMachine } from "./machine_banner";
import { StudyPage } from "./study_page";
import { topBar } from "./bar";
import { Worklist } from "./worklist";

interface Page {
  close(): void;
}

const root = document.getElementById("page")!;
let user: User | undefined;
let page: Page | undefined;

function leave(): void {
  page?.close();
  page = undefined;
}

function loggedOut(): void {
  leave();
  user = undefined;
  document.title = "Pulmo";
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  showLogin(root, (who) => {
    user = who;
    route();
  });
}

/** "#/" worklist, "#/study/<uid>", "#/result/<id>" (an earlier result). */
function route(): void {
  if (!user) return;
  leave();
  document.title = "Pulmo";
  if (!user.may_read) {
    replace(root, topBar(user, loggedOut), h("main", { class: "center" }, auditNote()));
    return;
  }
  const match = /^#\/(study|result)\/([0-9.]+)$/.exec(location.hash);
  if (match)
    page = new StudyPage(root, user, loggedOut, { kind: match[1] as "study" | "result", id: match[2]! });
  else page = new Worklist(root, user, loggedOut);
}

function auditNote(): HTMLElement {
  return h(
    "p",
    {},
    "Auditors read the audit trail: ",
    h("a", { href: "/api/audit", download: "audit.ndjson" }, "download it"),
    ".",
  );
}

async function start(): Promise<void> {
  watchMachine(document.getElementById("machine")!);
  whenLoggedOut(loggedOut);
  window.addEventListener("hashchange", route);
  try {
    user = await api.me();
  } catch (error) {
    loggedOut();
    if (!(error instanceof Error && "status" in error && error.status === 401))
      replace(root, h("main", { class: "center" }, h("p", { class: "problem" }, sentence(error))));
    return;
  }
  route();
}

void start();
