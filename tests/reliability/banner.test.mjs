// Whoever has a page of the appliance open sees what is wrong with its disk, and that it is over: nearly full, full, read only.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { pulmo, root, until } from '../../packaging/appliance.mjs';
import { byId, login, startBrowser } from '../browser/fixture.mjs';
import { skip, test } from '../integration/scenario.mjs';
import { Ledger } from './crash-check.mjs';
import { Slices } from './crash-instances.mjs';
import { Lane } from './crash-lab.mjs';
import { Appliance, PowerFs, missing } from './power.mjs';

const run = promisify(execFile);
const MIB = 1 << 20;
const why = await missing();
if (why) skip(why);

const problem = (code) => `${byId('machine-problem')}[data-code="${code}"]`;

/** The sentence of that problem, once the page shows it. */
async function shown(page, code, sentence) {
  const text = await (await page.waitForSelector(problem(code))).textContent();
  assert.match(text, sentence);
  return text;
}

async function calm(page) {
  await page.waitForFunction((selector) => !document.querySelector(selector), byId('machine-problem'));
  await page.waitForResponse((response) => response.url().endsWith('/api/health'));
  assert.equal(await page.locator(byId('machine-problem')).count(), 0);
  assert.equal(await page.textContent(byId('machine')), '');
}

await test('banner', async (context) => {
  const { step } = context;
  const disk = path.join(context.folder, 'disk');
  mkdirSync(disk);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', disk])
    .catch((error) => skip(`a small disk cannot be mounted here (${error.message.trim()})`));
  context.onEnd(() => run('umount', ['-l', disk]));
  const fs = await PowerFs.open(disk, { log: false });
  context.onEnd(() => fs.close());
  const lane = await Lane.open(path.join(context.folder, 'lane'), {
    data_folder: path.join(fs.mount, 'data'), disk_reserve_mb: 32, viewer_folder: path.join(root, 'web', 'viewer', 'dist'),
  });
  context.onEnd(() => lane.pacs.process.kill());
  lane.data = path.join(fs.mount, 'data');
  const others = path.join(disk, 'others');
  const fill = (leave) => until('the disk does not fill', 10, () => { // the appliance writes meanwhile
    const { bavail, bsize } = statfsSync(disk);
    const there = statSync(others, { throwIfNoEntry: false })?.size ?? 0;
    return run('fallocate', ['-l', String(there + bavail * bsize - leave), others]).then(() => true, () => false);
  });
  const password = (await pulmo('user', 'add', 'jane', '--name', 'Jane Reader', '-c', lane.config)).trim();
  const appliance = await Appliance.start(lane, { env: fs.env });
  context.onEnd(() => appliance.end());
  const { browser, page, faults } = await startBrowser();
  context.onEnd(() => browser.close());

  await login(page, `https://127.0.0.1:${appliance.web}/`, password, 'jane');
  await calm(page);
  step('all is well: no banner');
  await fill(20 * MIB);
  await shown(page, 'DISK_LOW', /^The disk has \d+ MiB left\. Nothing is received below 32 MiB\. Make room on the disk that holds data_folder/);
  const slices = await Slices.open(path.join(context.folder, 'slices'));
  assert.equal(await appliance.send(slices.make(1, 1)), 0xa700, 'what the banner says is true');
  step('nearly full: the banner says that nothing is received, and so it is');
  await fill(0);
  await until('the reserve is not given up', 60, () => !existsSync(path.join(lane.data, 'reserve')));
  await fill(0);
  await shown(page, 'DISK_FULL', /^The disk is full \(\d MiB free.*\)\. .* Make room on the disk that holds data_folder/);
  rmSync(others);
  await calm(page);
  step('full: said; room again: the banner is gone by itself');

  fs.fail('EROFS', ['change'], { path: '/data' });
  await shown(page, 'DISK_READ_ONLY', /^The disk takes no writes \(Read-only file system\)\. .* See the kernel's log/);
  assert.equal(await appliance.send(slices.make(1, 1)), 0xa700);
  fs.heal();
  await calm(page);
  const ledger = new Ledger();
  assert.ok(await ledger.send(appliance.dicom, [slices.make(1, 1)]), 'taken when all is well');
  step('read only: said; writable again: gone');
  await page.waitForSelector(byId('study-row'));
  await page.click(byId('study-row'));
  fs.fail('EIO', ['change'], { path: '/data' });
  await shown(page, 'DISK_FAILS', /^The disk takes no writes \(Input\/output error\)\./);
  fs.heal();
  await calm(page);
  step('a disk that fails: said on the page of a study, too');
  assert.deepEqual(faults.filter((fault) => !/status of 5\d\d/.test(fault)), [], 'the page met no error of its own');
  assert.equal(await appliance.stop(), 0);
});
