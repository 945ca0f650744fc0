// The browser application, from the login to the signature, as a radiologist uses it.

import assert from 'node:assert/strict';
import { inflateSync } from 'node:zlib';
import { byId, login, openStudy, startBrowser, startServer, studies } from './fixture.mjs';

const PIXEL = { found: [52, 70, 15], second: [138, 96, 8], missed: [140, 60, 18] };

const hook = (page, name) => page.evaluate((key) => globalThis.pulmo[key], name);
const atSlice = (page, k) => page.waitForFunction((slice) => globalThis.pulmo.k === slice, k);
const overlayAt = (page, [i, j]) => page.evaluate(([x, y]) => globalThis.pulmo.overlayAt(x, y), [i, j]);
const verdictOf = (page, id) => page.getAttribute(byId(`finding-${id}`), 'data-verdict');
const isVerdict = (page, id, verdict) => page.waitForSelector(`${byId(`finding-${id}`)}[data-verdict="${verdict}"]`);

/** The red of a PNG's first pixel: with nothing before it, every filter leaves it as it is (PNG 9.2). */
function firstPixel(png) {
  const data = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at))
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT') data.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  return inflateSync(Buffer.concat(data))[1];
}

async function testLogin({ page, server }) {
  await page.goto(server.url);
  await page.fill(byId('login-user'), 'reader');
  await page.fill(byId('login-password'), 'not the password');
  await page.click(byId('login-submit'));
  await page.waitForFunction(() => document.querySelector('[data-testid="login-problem"]').textContent.includes('wrong'));
  await login(page, server.url, server.password);
  assert.match(await page.textContent(byId('user')), /Dr\. R\. Reader/);
}

async function testWorklist({ page }) {
  await page.waitForSelector(byId('study-row'));
  const rows = await page.$$eval(byId('study-row'), (list) => list.map((row) => [row.dataset.study, row.textContent]));
  assert.equal(rows.length, 5);
  assert.equal(rows[0][0], studies.found, 'what needs eyes comes first');
  const text = Object.fromEntries(rows);
  assert.match(text[studies.found], /82 %/);
  assert.match(text[studies.refused], /Not a chest.*0 ml of lung/);
  assert.match(text[studies.failed], /slice 31 ends/i);
  await page.fill(byId('search'), 'Dora');
  assert.equal(await page.locator(byId('study-row')).count(), 1);
  await page.fill(byId('search'), '');
}

/** The study opens on its most suspicious finding with the overlay on; the heat lies on the nodule and nowhere else. */
async function testOpening({ page }) {
  await page.click(`[data-study="${studies.found}"]`);
  await page.waitForFunction(() => globalThis.pulmo?.ready);
  assert.equal(await hook(page, 'k'), PIXEL.found[2]);
  assert.equal(await hook(page, 'selected'), 1);
  assert.equal(await page.textContent(byId('sentence-1')), 'Nodule, likely: 82 % (74 to 88 %), the passes agree');
  assert.match(await page.textContent(byId('finding-1')), /solid · Ø\s12\.0\smm \(13\.2\s×\s10\.8\) · 905\smm³/);
  const [red, , blue, alpha] = await overlayAt(page, PIXEL.found);
  assert.ok(alpha > 60 && red > blue, `heat at the nodule: ${red}, ${blue}, ${alpha}`);
  assert.equal((await overlayAt(page, [96, 20]))[3], 0, 'no heat in the chest wall');
  assert.equal(await page.evaluate(([i, j]) => globalThis.pulmo.hu(i, j), PIXEL.found), 40);
  assert.equal(await page.evaluate(() => globalThis.pulmo.hu(56, 100)), -870 + PIXEL.found[2]);
}

/** The canvas itself shows the nodule where the hook says it is: brighter than the lung around it. */
async function testPixelsOnScreen({ page }) {
  await page.keyboard.press('Space');
  const brightness = async ([i, j]) => {
    const [x, y] = await page.evaluate(([a, b]) => globalThis.pulmo.pixelToScreen(a, b), [i, j]);
    return firstPixel(await page.screenshot({ clip: { x: x - 1, y: y - 1, width: 2, height: 2 } }));
  };
  const [nodule, lung] = [await brightness(PIXEL.found), await brightness([56, 100])];
  assert.ok(nodule > lung + 60 && lung > 40, `nodule ${nodule}, lung ${lung}`);
  await page.keyboard.press('Space');
}

async function testScrolling({ page }) {
  const stage = await page.locator(byId('stage')).boundingBox();
  await page.mouse.move(stage.x + stage.width / 2, stage.y + stage.height / 2);
  await page.mouse.wheel(0, 100);
  await atSlice(page, 14); // towards the feet: this series counts upwards to the head
  await page.mouse.wheel(0, -100);
  await atSlice(page, 15);
  const keys = [['ArrowDown', 14], ['ArrowUp', 15], ['PageDown', 5], ['PageUp', 15], ['Home', 23], ['End', 0]];
  for (const [key, k] of keys) {
    await page.keyboard.press(key);
    await atSlice(page, k);
  }
  assert.match(await page.textContent(byId('slice-number')), /24 \/ 24/);
  await page.keyboard.press('n');
  await atSlice(page, PIXEL.second[2]);
  await page.keyboard.press('p');
  await atSlice(page, PIXEL.found[2]);
  assert.deepEqual(
    await Promise.all(['left', 'right', 'top', 'bottom'].map((side) => page.textContent(byId(`edge-${side}`)))),
    ['R', 'L', 'A', 'P'],
  );
}

async function testWindow({ page }) {
  const presets = [['1', -600, 1500], ['2', 50, 350], ['3', 400, 2000], ['4', 40, 400]];
  for (const [key, center, width] of presets) {
    await page.keyboard.press(key);
    assert.deepEqual(await hook(page, 'window'), { center, width });
  }
  const stage = await page.locator(byId('stage')).boundingBox();
  const [x, y] = [stage.x + stage.width / 2, stage.y + stage.height / 2];
  const drag = async (button, dx, dy) => {
    await page.mouse.move(x, y);
    await page.mouse.down({ button });
    await page.mouse.move(x + dx, y + dy, { steps: 3 });
    await page.mouse.up({ button });
  };
  await drag('left', 40, 20);
  const window = await hook(page, 'window');
  assert.ok(window.width > 400 && window.center > 40, JSON.stringify(window));
  const before = await page.evaluate(() => globalThis.pulmo.pixelToScreen(0, 0));
  await drag('middle', 30, 15);
  const moved = await page.evaluate(() => globalThis.pulmo.pixelToScreen(0, 0));
  assert.ok(Math.abs(moved[0] - before[0] - 30) < 2 && Math.abs(moved[1] - before[1] - 15) < 2, `${before} to ${moved}`);
  const size = () => page.evaluate(() => globalThis.pulmo.pixelToScreen(100, 0)[0] - globalThis.pulmo.pixelToScreen(0, 0)[0]);
  const small = await size();
  await drag('right', 0, -60);
  assert.ok(await size() > small * 1.2, 'right drag up zooms in');
  await page.keyboard.press('f');
  await page.keyboard.press('1');
  const back = await page.evaluate(() => globalThis.pulmo.pixelToScreen(0, 0));
  assert.ok(Math.abs(back[0] - before[0]) < 2);
  const [mx, my] = await page.evaluate(() => globalThis.pulmo.pixelToScreen(52, 70));
  await page.mouse.move(mx, my);
  assert.equal(await page.textContent(byId('hu')), '40 HU');
}

async function testOverlay({ page }) {
  const alpha = async () => (await overlayAt(page, PIXEL.found))[3];
  const strong = await alpha();
  await page.keyboard.press('-');
  assert.ok(await alpha() < strong);
  await page.keyboard.press('+');
  await page.keyboard.press('h');
  assert.equal(await alpha(), 0);
  await page.keyboard.press('h');
  assert.ok(await alpha() > 60);
  await page.fill(byId('opacity'), '100');
  assert.ok(await alpha() > strong);
  await page.fill(byId('opacity'), '40');
  const edge = [PIXEL.found[0] + 6 / 1.6, PIXEL.found[1]];
  await page.keyboard.press('h');
  assert.ok((await overlayAt(page, edge))[3] > 60, 'the outline runs along the edge');
  await page.keyboard.press('c');
  assert.equal((await overlayAt(page, edge))[3], 0);
  await page.keyboard.press('c');
  await page.keyboard.press('h');
}

async function testJudging({ page }) {
  await page.keyboard.press('a');
  await isVerdict(page, 1, 'accepted');
  await page.keyboard.press('u');
  await isVerdict(page, 1, 'none');
  await page.click(byId('accept-1'));
  await isVerdict(page, 1, 'accepted');
  await page.keyboard.press('n');
  await page.keyboard.press('r');
  await isVerdict(page, 2, 'rejected');
  await page.keyboard.press('a');
  await isVerdict(page, 2, 'accepted');
  await page.keyboard.press('Control+z');
  await isVerdict(page, 2, 'rejected');
  assert.equal(await verdictOf(page, 1), 'accepted');
}

async function testAdding({ page }) {
  const [i, j, k] = PIXEL.missed;
  await page.evaluate((slice) => globalThis.pulmo.goTo(slice), k);
  await atSlice(page, k);
  await page.keyboard.press('m');
  const center = await page.evaluate(([a, b]) => globalThis.pulmo.pixelToScreen(a, b), [i, j]);
  const edge = await page.evaluate(([a, b]) => globalThis.pulmo.pixelToScreen(a, b), [i + 2.5, j]);
  await page.mouse.move(...center);
  await page.mouse.down();
  await page.mouse.move(...edge, { steps: 3 });
  await page.mouse.up();
  await isVerdict(page, 10001, 'added');
  assert.match(await page.textContent(byId('finding-10001')), /Ø\s8\.\d\smm/); // 2 x 2.5 pixels of 1.6 mm
  await page.keyboard.press('u');
  await page.waitForSelector(byId('finding-10001'), { state: 'detached' });
  await page.click(byId('add'));
  await page.mouse.click(...center);
  await page.fill(byId('diameter'), '7.5');
  await page.click(byId('diameter-ok'));
  await isVerdict(page, 10002, 'added');
  assert.match(await page.textContent(byId('finding-10002')), /Ø\s7\.5\smm/);
}

async function testVerdictsLast({ page }) {
  await page.reload();
  await page.waitForFunction(() => globalThis.pulmo?.ready);
  assert.equal(await verdictOf(page, 1), 'accepted');
  assert.equal(await verdictOf(page, 2), 'rejected');
  assert.equal(await verdictOf(page, 10002), 'added');
}

async function testSigning({ page, server }) {
  await page.click(byId('sign'));
  const summary = await page.textContent(byId('sign-summary'));
  for (const part of [/Accepted 1/, /Rejected 2/, /Undecided 3/, /Added Missed by the model, 7\.5 mm/]) assert.match(summary, part);
  await page.fill(byId('sign-password'), 'not the password');
  await page.click(byId('sign-confirm'));
  await page.waitForFunction(() => document.querySelector('[data-testid="sign-problem"]').textContent.includes('wrong'));
  assert.equal(await server.work('sign'), 0, 'nothing to sign yet');
  await page.fill(byId('sign-password'), server.password);
  await page.click(byId('sign-confirm'));
  await page.waitForSelector(byId('sign-dialog'), { state: 'detached' });
  await page.waitForSelector(byId('signing'));
  assert.ok(await server.work('sign') > 0, 'the request was recorded');
  await page.waitForSelector(byId('signed'));
  await page.keyboard.press('r');
  assert.equal(await verdictOf(page, 1), 'accepted', 'a signed result does not change');
  assert.equal(await page.locator(byId('accept-1')).count(), 0);
}

async function testOtherStates({ page }) {
  await openStudy(page, studies.negative);
  await page.waitForSelector(byId('no-findings'));
  await openStudy(page, studies.refused);
  assert.match(await page.textContent(byId('reason')), /0 ml of lung/);
  const goTo = (uid) => page.evaluate((study) => { location.hash = `#/study/${study}`; }, uid);
  await goTo(studies.failed);
  await page.waitForSelector(byId('failed-banner'));
  assert.match(await page.textContent(byId('reason')), /slice 31 ends/i);
  await goTo(studies.arriving);
  await page.waitForSelector(byId('waiting'));
  await goTo('1.2.3.4');
  await page.waitForSelector(byId('problem'));
  for (const id of ['notice']) assert.equal(await page.textContent(byId(id)), 'Research use only. Not for diagnosis.');
}

/** Images and findings appear while the reader waits. */
async function testArriving({ page, server }) {
  await page.evaluate((study) => { location.hash = `#/study/${study}`; }, studies.arriving);
  await page.waitForSelector(byId('waiting'));
  await server.work('arrive');
  await page.waitForFunction(() => globalThis.pulmo?.ready);
  await page.waitForSelector(byId('finding-1'));
  assert.equal(await page.locator(byId('waiting')).count(), 0);
}

/** An older result can be read, but not judged or signed; the newer one is a click away. */
async function testSuperseded({ page, server }) {
  await openStudy(page, studies.negative);
  await page.waitForSelector(byId('no-findings'));
  assert.ok(await server.work('supersede') > 2);
  await page.evaluate(() => { location.hash = '#/result/2'; }); // the fixture's second result
  await page.waitForSelector(byId('superseded'));
  assert.equal(await page.isDisabled(byId('sign')), true);
  await page.click(`${byId('superseded')} a`);
  await page.waitForSelector(byId('finding-1'));
  assert.equal(await page.isDisabled(byId('sign')), false);
}

/** Thin clients have no WebGL: the same pixels, drawn by the CPU. */
async function testCpuRendering({ page, server }) {
  await page.goto(`${server.url}?render=cpu#/study/${studies.found}`);
  await page.waitForFunction(() => globalThis.pulmo?.ready);
  assert.equal(await hook(page, 'rendering'), 'cpu');
  const [, , , alpha] = await overlayAt(page, PIXEL.found);
  assert.ok(alpha > 60);
  const before = await page.evaluate(() => globalThis.pulmo.pixelToScreen(52, 70));
  await page.keyboard.press('ArrowDown');
  await atSlice(page, 14);
  const after = await page.evaluate(() => globalThis.pulmo.pixelToScreen(52, 70));
  assert.ok(Math.hypot(after[0] - before[0], after[1] - before[1]) < 1);
  const lung = await page.evaluate(() => {
    const canvas = document.querySelector('[data-testid="stage"] .image canvas');
    const box = canvas.getBoundingClientRect();
    const [x, y] = globalThis.pulmo.pixelToScreen(56, 120);
    const scale = canvas.width / box.width;
    return [...canvas.getContext('2d').getImageData(Math.round((x - box.left) * scale), Math.round((y - box.top) * scale), 1, 1).data];
  });
  assert.ok(lung[0] > 60 && lung[0] < 120 && lung[3] === 255, `lung in the lung window: ${lung}`);
}

async function testViewerRole({ page, server }) {
  await page.click(byId('logout'));
  await page.waitForSelector(byId('login-user'));
  await login(page, server.url, server.password, 'viewer');
  await openStudy(page, studies.found);
  assert.equal(await page.locator(byId('accept-1')).count(), 0);
  assert.equal(await page.locator(byId('sign')).count(), 0);
  await page.keyboard.press('a');
  await page.waitForSelector(byId('toast-info'));
}

const tests = [testLogin, testWorklist, testOpening, testPixelsOnScreen, testScrolling, testWindow, testOverlay, testJudging,
  testAdding, testVerdictsLast, testSigning, testOtherStates, testArriving,
  testSuperseded, testCpuRendering, testViewerRole];

const server = await startServer();
const { browser, page, faults } = await startBrowser();
let failed = false;
for (const body of tests) {
  const began = Date.now();
  try {
    await body({ page, server });
    assert.deepEqual(faults, []);
    console.log(`passed ${body.name} (${Date.now() - began} ms)`);
  } catch (error) {
    failed = true;
    console.log(`FAILED ${body.name}: ${error.stack}`);
    break;
  }
}
await browser.close();
await server.stop();
process.exit(failed ? 1 : 0);
