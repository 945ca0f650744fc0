// A backup is made while studies arrive and are analysed; what is restored of it is whole, holds every instance that was
// acknowledged before it began, and goes on working. Each damage of a backup is named, and nothing is restored of it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync, writeSync, closeSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { program, pulmo, root, sleep, until } from '../../packaging/appliance.mjs';
import { skip, test } from '../integration/scenario.mjs';
import { Ledger } from './crash-check.mjs';
import { Slices } from './crash-instances.mjs';
import { Lab, Process, missing } from './crash-lab.mjs';

const run = promisify(execFile);
const LISTENING = /listening port=(\d+)/;
const KILLS = Number(process.env.PULMO_BACKUP_KILLS ?? 6);

/** Resolves to { status, out, err } of a command, whatever it ends with. */
const outcome = (...args) => pulmo(...args).then((out) => ({ status: 0, out, err: '' }), ({ status, stdout, stderr }) => ({ status, out: stdout, err: stderr }));

/** Sends studies of four instances one after the other until stopped; each is a ledger entry when it was acknowledged. */
function sendOnAndOn(port, slices, ledger) {
  const sender = { stop: false };
  sender.ended = (async () => {
    for (let study = 100; !sender.stop; study++) assert.ok(await ledger.send(port, slices.study(study, 4)), 'a study was sent');
  })();
  return sender;
}

const rows = (state) => state.instances.map(({ sop, content }) => `${sop} ${content}`).sort();

function checkWhole(state) {
  assert.deepEqual(state.integrity, ['ok']);
  assert.equal(state.foreign_keys, 0);
  for (const { content, ...row } of [...state.instances, ...state.artifacts, ...state.study_artifacts])
    assert.doesNotMatch(content, /^bad/, `${JSON.stringify(row)}: ${content}`);
}

async function restored(lane, name) {
  const folder = path.join(lane.folder, name);
  const { status, out, err } = await outcome('restore', lane.backup, '--to', folder);
  assert.equal(status, 0, err);
  assert.match(out, /integrity_check ok, audit chain of \d+ whole/);
  return folder;
}

/** Of the manifest: [digest, name]. */
const listed = (backup) => readFileSync(path.join(backup, 'manifest.sha256'), 'utf8').split('\n')
  .filter((line) => /^[0-9a-f]{64} {2}/.test(line)).map((line) => line.split('  '));

function flip(file) {
  const descriptor = openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  const at = Math.floor(statSync(file).size / 2);
  readSync(descriptor, byte, 0, 1, at);
  byte[0] ^= 0x10;
  writeSync(descriptor, byte, 0, 1, at);
  closeSync(descriptor);
}

async function expectNamed(lane, file, damage, words) {
  const full = path.join(lane.backup, file);
  const kept = path.join(lane.folder, 'kept');
  const target = path.join(lane.folder, 'refused');
  copyFileSync(full, kept);
  damage(full);
  const { status, err } = await outcome('restore', lane.backup, '--to', target);
  assert.equal(status, 1, `${file}: a damaged backup is refused`);
  assert.ok(err.includes(file) && words.test(err), `${file} is named: ${err}`);
  assert.deepEqual(readdirSync(target), [], 'nothing is left in the folder');
  copyFileSync(kept, full);
}

/** A disk that is too small: what was saved there before stays good. */
async function fullTarget(lane, step) {
  const mount = path.join(lane.folder, 'small');
  mkdirSync(mount);
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=700k', 'pulmo-test', mount]);
  } catch {
    step('SKIPPED: a small disk cannot be mounted here');
    return;
  }
  try {
    const { status, err } = await outcome('backup', path.join(mount, 'backup'), '-c', lane.config);
    assert.equal(status, 1);
    assert.match(err, /full|free|No space/, err);
    assert.ok(!existsSync(path.join(mount, 'backup', 'manifest.sha256')), 'no manifest, so no backup');
    step(`a full target: ${err.trim()}`);
  } finally {
    await run('umount', [mount]);
  }
}

/** Killed at random instants: the former backup stays whole until the new one is, and the next run ends what was begun. */
async function killedBackups(lane, ledger, slices, port, step) {
  const began = Date.now();
  assert.equal((await outcome('backup', lane.backup, '-c', lane.config)).status, 0);
  const took = Date.now() - began;
  let cut = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    assert.ok(await ledger.send(port, slices.study(2000 + kill, 12)));
    const victim = new Process([program, 'backup', lane.backup, '-c', lane.config]);
    await sleep(Math.random() * took);
    if (victim.alive) cut++;
    await victim.kill();
    const { status, err } = await outcome('restore', lane.backup, '--check');
    assert.equal(status, 0, err);
  }
  assert.equal((await outcome('backup', lane.backup, '-c', lane.config)).status, 0);
  const folder = await restored(lane, 'after-kills');
  assert.deepEqual(rows(await lane.state(folder)), rows(await lane.state()));
  step(`${cut} of ${KILLS} backups were killed: the backup stayed whole, and the next one was complete`);
}

/** A store of version 1, as the first release made it, with one study in it. */
async function upgrade(lane, slices, step) {
  const migrations = readdirSync(path.join(root, 'store'), { withFileTypes: true }).some((entry) => entry.name === 'migrations')
    ? readdirSync(path.join(root, 'store', 'migrations')).filter((name) => name.endsWith('.sql')).length : 0;
  await lane.reset(null);
  await lane.load(`PRAGMA journal_mode = WAL; BEGIN; ${readFileSync(path.join(root, 'store', 'schema.sql'), 'utf8')} PRAGMA user_version = 1; COMMIT;`);
  const scp = lane.start('scp');
  const ledger = new Ledger();
  assert.ok(await ledger.send((await scp.line(LISTENING))[1], slices.study(1, 2)));
  assert.equal(await scp.stop(), 0);
  assert.equal((await lane.state()).version, 1 + migrations, 'the store was brought forward');
  assert.equal(existsSync(path.join(lane.data, 'pulmo.db.v1')), migrations > 0, 'a copy of version 1 was kept');
  if (migrations) {
    const refused = await outcome('restore', '--before-upgrade', '1', '-c', lane.config);
    assert.equal(refused.status, 1);
    assert.match(refused.err, /2 instances and 0 results came after the upgrade/);
    assert.equal((await outcome('restore', '--before-upgrade', '1', '--discard-newer', '-c', lane.config)).status, 0);
    const { checks } = JSON.parse(await pulmo('doctor', '--json', '--quick', '-c', lane.config));
    assert.match(checks.find(({ check }) => check === 'database').text, /version 1, the next start brings it/, 'the database of before the upgrade is back');
  }
  step(`a store of version 1 was brought to ${1 + migrations}${migrations ? ', and back' : ''}`);
  await lane.load('PRAGMA user_version = 999;');
  const newer = lane.start('scp');
  assert.equal(await newer.ended, 2);
  assert.match(newer.log, /version 999; this program knows up to/);
  const unread = await outcome('backup', path.join(lane.folder, 'backup-999'), '-c', lane.config);
  assert.equal(unread.status, 2);
  step('a store of a newer version is refused');
}

const why = await missing({ trace: false });
if (why) skip(why);
await test('backup', async ({ onEnd, step }) => {
  const lab = await Lab.open(1, { destinations: '' }, { memory: true });
  onEnd((failure) => lab.close({ keep: Boolean(failure) }));
  const [lane] = lab.lanes;
  const slices = await Slices.open(path.join(lab.folder, 'phantom'));
  const scp = lane.start('scp');
  const worker = lane.start('work');
  const [, port] = await scp.line(LISTENING);
  const ledger = new Ledger();
  const sender = sendOnAndOn(port, slices, ledger);
  await until('no result', 120, async () => (await lane.state()).results.length > 2);
  step(`${ledger.stored.size} instances are acknowledged, results are made, the sender goes on`);

  const before = [...ledger.stored.keys()];
  const first = await outcome('backup', lane.backup, '-c', lane.config);
  const during = ledger.stored.size - before.length;
  assert.equal(first.status, 0, first.err);
  assert.equal(first.err, '', 'quiet in a pipe');
  assert.match(first.out, /with secrets: users/);
  const folder = await restored(lane, 'first');
  const state = await lane.state(folder);
  checkWhole(state);
  const there = new Set(rows(state));
  for (const key of before) assert.ok(there.has(key), `acknowledged before the backup and not in it: ${key}`);
  for (const key of there) assert.ok(ledger.sent.has(key), `in the backup and never sent: ${key}`);
  assert.ok(state.results.length > 2 && state.artifacts.length > 5);
  assert.ok(during > 0, 'studies arrived while the backup was made');
  step(`saved and restored: ${there.size} instances, ${state.results.length} results; ${during} instances arrived meanwhile`);

  sender.stop = true;
  await sender.ended;
  const [total, copied] = (await outcome('backup', lane.backup, '-c', lane.config)).out.match(/(\d+) contents .* of these (\d+) copied/).slice(1).map(Number);
  assert.ok(copied > 0 && copied < total, `${copied} of ${total}: only what is new is copied`);
  await run('sha256sum', ['--check', '--quiet', '--strict', 'manifest.sha256'], { cwd: lane.backup });
  for (const [, name] of listed(lane.backup).slice(0, 50)) assert.equal(statSync(path.join(lane.backup, name)).nlink, 1, `${name} is a copy, no link`);
  step(`the second backup copied ${copied} of ${total}; sha256sum finds all of it right`);

  await killedBackups(lane, ledger, slices, port, step);
  await until('the results are not all there', 120, async () => !(await lane.state()).jobs.some(({ kind, state: job }) => kind === 1 && job !== 'done' && job !== 'superseded'));
  assert.equal(await worker.stop(), 0);
  assert.equal(await scp.stop(), 0);
  assert.equal((await outcome('backup', lane.backup, '-c', lane.config)).status, 0);

  const blob = listed(lane.backup).map(([, name]) => name).filter((name) => name.startsWith('blobs/'))[7];
  const database = listed(lane.backup).find(([, name]) => name.startsWith('database/'))[1];
  await expectNamed(lane, blob, unlinkSync, /missing/);
  await expectNamed(lane, blob, flip, /changed/);
  await expectNamed(lane, blob, (file) => writeFileSync(file, ''), /changed/);
  await expectNamed(lane, database, flip, /changed/);
  await expectNamed(lane, 'manifest.sha256', flip, /changed|no line/);
  await expectNamed(lane, 'manifest.sha256', (file) => writeFileSync(file, readFileSync(file).subarray(0, 2000)), /cut off/);
  step('a missing, a changed and a cut file, a changed database and manifest are named; nothing is restored of them');

  const taken = await outcome('restore', lane.backup, '--to', lane.data);
  assert.equal(taken.status, 1);
  assert.match(taken.err, /not empty/);
  rmSync(lane.restored, { recursive: true, force: true });
  const { status, err } = await outcome('restore', lane.backup, '--to', lane.restored);
  assert.equal(status, 0, err);
  const { folder: a, audit: liveAudit, ...live } = await lane.state();
  const { folder: b, audit: restoredAudit, ...again } = await lane.state(lane.restored);
  assert.notEqual(a, b);
  assert.deepEqual(again, live, 'every row and content is what it was');
  assert.deepEqual(restoredAudit.slice(0, liveAudit.length - 1), liveAudit.slice(0, -1), 'the last row of the store tells of the backup itself');
  assert.equal(restoredAudit.at(-1).action, 'restore');
  step(`restored equals live: ${again.instances.length} instances, ${again.results.length} results, ${restoredAudit.length} audit rows`);

  const service = new Process([program, 'serve', '-c', lane.restoredConfig, '--only', 'scp']);
  assert.ok(await new Ledger().send((await service.line(LISTENING))[1], slices.study(9000, 1)), 'the restored store receives');
  assert.equal(await service.stop(), 0);
  await pulmo('audit', 'verify', '-c', lane.restoredConfig);

  await fullTarget(lane, step);
  await upgrade(lane, slices, step);
});
