// The viewer on a real web server with a real store (tests/test_web_api --serve), in headless Chromium.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
const viewer = path.join(root, 'web', 'viewer', 'dist');
const packages = path.join(root, 'web', 'viewer', 'node_modules');
const program = path.join(process.env.PULMO_BUILD ?? path.join(root, 'build'), 'tests', 'test_web_api');
const chromiumPath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);

export const studies = {
  found: '1.2.826.0.1.3680043.10.9.1',
  negative: '1.2.826.0.1.3680043.10.9.2',
  refused: '1.2.826.0.1.3680043.10.9.3',
  failed: '1.2.826.0.1.3680043.10.9.4',
  arriving: '1.2.826.0.1.3680043.10.9.5',
};
export const byId = (id) => `[data-testid="${id}"]`;

function skip(why) {
  console.log(`skipped: ${why}`);
  process.exit(77);
}

/** The fixture's server; stop() ends it in order. */
export async function startServer() {
  if (!existsSync(program)) throw new Error(`${program} is not built`);
  if (!existsSync(path.join(viewer, 'index.html'))) throw new Error('web/viewer/dist is not built');
  const child = spawn(program, ['--serve', viewer], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the fixture ended');
    return JSON.parse(value);
  };
  const { port, password } = await next();
  return {
    url: `https://127.0.0.1:${port}/`,
    password,
    /** Does the worker's part: "sign" (the id of its job, 0 when none was asked for), "supersede" (the id of the newer
     *  result of the study without findings), "arrive" (the study that was arriving is decoded and analysed). */
    async work(what) {
      child.stdin.write(`${what}\n`);
      return (await next()).number;
    },
    stop() {
      const ended = new Promise((resolve) => child.on('exit', resolve));
      child.stdin.end();
      return ended;
    },
  };
}

/** Chromium with one page that reports what went wrong in it. */
export async function startBrowser() {
  if (!chromiumPath) skip('Chromium is not installed');
  if (!existsSync(path.join(packages, 'playwright-core'))) skip('the packages of web/viewer are not installed');
  const { chromium } = createRequire(path.join(packages, 'x.js'))('playwright-core');
  const browser = await chromium.launch({
    executablePath: chromiumPath,
    args: ['--headless', '--no-sandbox', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
  });
  const page = await browser.newPage({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(30000);
  const faults = [];
  page.on('pageerror', (error) => faults.push(`page: ${error.message}`));
  page.on('console', (message) => {
    // A refused login is an answer of the server's, which Chromium also writes to the console.
    if (message.type() === 'error' && !/status of (401|403|404|409|429)/.test(message.text())) faults.push(`console: ${message.text()}`);
  });
  return { browser, page, faults };
}

export async function login(page, url, password, user = 'reader') {
  await page.goto(url);
  await page.fill(byId('login-user'), user);
  await page.fill(byId('login-password'), password);
  await page.click(byId('login-submit'));
  await page.waitForSelector(byId('worklist'));
}

export async function openStudy(page, studyUid) {
  await page.evaluate((uid) => { location.hash = `#/study/${uid}`; }, studyUid);
  await page.waitForFunction(() => globalThis.pulmo?.ready);
}
