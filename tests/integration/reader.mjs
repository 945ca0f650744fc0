// A radiologist in headless Chromium: logs in, opens a study, looks, judges, signs.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { root } from '../../packaging/appliance.mjs';

const executable = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const byId = (id) => `[data-testid="${id}"]`;

export class Reader {
  /** Null where there is no Chromium or no playwright-core. */
  static async open(httpsPort) {
    const packages = path.join(root, 'web', 'viewer', 'node_modules');
    if (!executable || !existsSync(path.join(packages, 'playwright-core'))) return null;
    const { chromium } = createRequire(path.join(packages, 'x.js'))('playwright-core');
    const reader = new Reader();
    reader.browser = await chromium.launch({
      executablePath: executable,
      args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--disable-dev-shm-usage'],
    });
    reader.page = await reader.browser.newPage({ ignoreHTTPSErrors: true, viewport: { width: 1400, height: 900 } });
    reader.page.setDefaultTimeout(60000);
    reader.errors = [];
    reader.page.on('pageerror', (error) => reader.errors.push(error.message));
    await reader.page.goto(`https://127.0.0.1:${httpsPort}/`);
    return reader;
  }

  close() { return this.browser.close(); }

  async login(user, password) {
    await this.page.fill(byId('login-user'), user);
    await this.page.fill(byId('login-password'), password);
    await this.page.click(byId('login-submit'));
    await this.page.waitForSelector(byId('worklist'));
  }

  /** Opens a study from the worklist and waits until its image and, where there is one, its heat are on the screen. */
  async openStudy(studyUid) {
    await this.page.click(`[data-study="${studyUid}"]`);
    await this.page.waitForFunction(() => globalThis.pulmo?.ready);
  }

  /** The source pixel [i, j, k] of a place, shown. */
  async goToPlace(lps) {
    const pixel = await this.page.evaluate((place) => globalThis.pulmo.lpsToPixel(place), lps);
    const k = Math.round(pixel[2]);
    await this.page.evaluate((slice) => globalThis.pulmo.goTo(slice), k);
    await this.page.waitForFunction((slice) => globalThis.pulmo.k === slice, k);
    return [Math.round(pixel[0]), Math.round(pixel[1]), k];
  }

  heatShown(k) {
    return this.page.waitForFunction((slice) => globalThis.pulmo.heatShown === slice, k);
  }

  overlayAt(i, j) {
    return this.page.evaluate(([column, row]) => globalThis.pulmo.overlayAt(column, row), [i, j]);
  }

  /** What the screen shows around a source pixel, as PNG bytes. */
  async screenAround(i, j, size = 16) {
    const [x, y] = await this.page.evaluate(([column, row]) => globalThis.pulmo.pixelToScreen(column, row), [i, j]);
    return this.page.screenshot({ clip: { x: x - size / 2, y: y - size / 2, width: size, height: size } });
  }

  /** The heat covers the place, none is far from it, and one key hides it from the screen. Leaves the heat on. */
  async seesHeatAt(lps) {
    const [i, j, k] = await this.goToPlace(lps);
    await this.heatShown(k);
    const [, , , alpha] = await this.overlayAt(i, j);
    assert.ok(alpha > 0, `heat covers the nodule's pixel (${i}, ${j}) of slice ${k}`);
    const corner = await this.overlayAt(4, 4);
    assert.equal(corner[3], 0, 'no heat in the air beside the patient');
    const withHeat = await this.screenAround(i, j);
    await this.page.keyboard.press('h');
    await this.page.waitForFunction(() => globalThis.pulmo.heatShown === -1);
    assert.equal((await this.overlayAt(i, j))[3], 0, 'one key hides the heat');
    assert.ok(!withHeat.equals(await this.screenAround(i, j)), 'the screen shows the difference');
    await this.page.keyboard.press('h');
    await this.heatShown(k);
  }

  /** Accepts the selected finding with the key, and waits until the list says so. */
  async accept(finding) {
    await this.page.click(byId(`finding-${finding}`));
    await this.page.keyboard.press('a');
    await this.page.waitForSelector(`${byId(`finding-${finding}`)}[data-verdict="accepted"]`);
  }

  async sign(password) {
    await this.page.click(byId('sign'));
    await this.page.fill(byId('sign-password'), password);
    await this.page.click(byId('sign-confirm'));
    await this.page.waitForSelector(byId('sign-dialog'), { state: 'detached' });
  }
}
