// `pulmo doctor` on an installation that is well, and on one that is broken in one way after the other: each is found, with
// what to do, and nothing is changed by looking.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { freePort, pulmo } from '../../packaging/appliance.mjs';
import { filesBelow, skip, test } from '../integration/scenario.mjs';
import { Ledger } from './crash-check.mjs';
import { Slices } from './crash-instances.mjs';
import { Lab, missing } from './crash-lab.mjs';

/** The checks by name, each a list of { state, text }. */
async function doctor(lane, ...options) {
  const answer = await pulmo('doctor', '--json', '--quick', '-c', lane.config, ...options).then((stdout) => ({ status: 0, stdout }), (error) => error);
  const document = JSON.parse(answer.stdout);
  assert.equal(document.healthy, answer.status === 0);
  const checks = {};
  for (const { check, state, text } of document.checks) (checks[check] ??= []).push({ state, text });
  return { healthy: document.healthy, checks };
}

/** Breaks something, expects exactly this check to fail with these words, mends it. */
async function expectFound(lane, step, check, words, breakIt) {
  const mend = await breakIt();
  const { healthy, checks } = await doctor(lane);
  assert.equal(healthy, false, `${check} is found`);
  const failed = Object.entries(checks).filter(([, rows]) => rows.some(({ state }) => state === 'failed')).map(([name]) => name);
  assert.deepEqual(failed, [check], JSON.stringify(checks, null, 1));
  const { text } = checks[check].find(({ state }) => state === 'failed');
  assert.match(text, words);
  step(`${check}: ${text}`);
  await mend();
}

function withFile(file, change) {
  return async () => {
    const content = readFileSync(file);
    writeFileSync(file, change(content));
    return async () => writeFileSync(file, content);
  };
}

/** The database is restored as it was, logs and all. */
function withSql(lane, sql) {
  return async () => {
    const database = path.join(lane.data, 'pulmo.db');
    copyFileSync(database, `${database}.kept`);
    await lane.load(sql);
    return async () => {
      await lane.load('PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;');
      copyFileSync(`${database}.kept`, database);
    };
  };
}

function flipped(content) {
  const changed = Buffer.from(content);
  changed[changed.length >> 1] ^= 1;
  return changed;
}

const why = await missing({ trace: false });
if (why) skip(why);
await test('doctor', async ({ onEnd, step }) => {
  const settings = { dicom_port: await freePort(), https_port: await freePort() };
  const lab = await Lab.open(1, settings, { memory: false });
  onEnd((failure) => lab.close({ keep: Boolean(failure) }));
  const [lane] = lab.lanes;
  const slices = await Slices.open(path.join(lab.folder, 'phantom'));

  const fresh = await doctor(lane);
  assert.equal(fresh.healthy, true, JSON.stringify(fresh.checks, null, 1));
  assert.equal(fresh.checks.database[0].state, 'skipped');
  assert.deepEqual(readdirSync(lane.data), [], 'looking made nothing');
  step('before the first start: fit, and nothing was made');

  const [scp, web] = [lane.start('scp'), lane.start('web')];
  await Promise.all([scp.line(/listening/), web.line(/listening/)]);
  assert.ok(await new Ledger().send(settings.dicom_port, slices.study(1, 4)));
  const running = await doctor(lane);
  assert.equal(running.healthy, true, JSON.stringify(running.checks, null, 1));
  assert.match(running.checks.port[0].text, /answers as PULMO/);
  assert.match(running.checks.port[1].text, /answers with our certificate/);
  assert.match(running.checks.destination[0].text, /PACS@127\.0\.0\.1:\d+ answers C-ECHO/);
  assert.match(running.checks['stored files'][0].text, /4 files of the newest/);
  assert.match(running.checks.model[0].text, /digests right/);
  assert.equal(await scp.stop(), 0);
  assert.equal(await web.stop(), 0);
  await lane.load('PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;');
  step('beside the running appliance: ports are ours, the PACS answers, files are whole');

  const [blob] = filesBelow(path.join(lane.data, 'blobs'));
  const key = path.join(lane.data, 'https-key.pem');
  const stranger = (port) => async () => {
    const server = net.createServer((socket) => socket.on('error', () => {}).resume().end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
    return () => new Promise((resolve) => server.close(resolve));
  };
  const setting = (name, value) => withFile(lane.config, (content) => content.toString().replace(new RegExp(`^${name} = .*$`, 'm'), `${name} = ${value}`));
  const expect = (...rest) => expectFound(lane, step, ...rest);
  await expect('stored files', new RegExp(`1 of 4 .*${path.basename(blob)}`), withFile(blob, flipped));
  await expect('audit chain', /broken at row 2/, withSql(lane, "DROP TRIGGER audit_no_update; UPDATE audit SET content = replace(content, '\"row\":2', '\"row\": 2') WHERE id = 2;"));
  await expect('database', /version 999, this program knows up to \d+/, withSql(lane, 'PRAGMA user_version = 999;'));
  await expect('certificate', /is not the key of/, withFile(key, () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' })));
  await expect('port', /DICOM port \d+ is taken/, stranger(settings.dicom_port));
  await expect('port', /HTTPS port \d+ is taken, and not by us/, stranger(settings.https_port));
  await expect('destination', /NOWHERE@127\.0\.0\.1:9/, setting('destinations', 'NOWHERE@127.0.0.1:9'));
  await expect('disk space', /instances are refused/, setting('disk_reserve_mb', '1048576'));
  await expect('configuration', /:3: .*no_such_key/, withFile(lane.config, (content) => content.toString().replace(/^((?:.*\n){2})/, '$1no_such_key = 1\n')));

  const mended = await doctor(lane);
  assert.equal(mended.healthy, true, JSON.stringify(mended.checks, null, 1));
  assert.ok(!existsSync(path.join(lane.data, 'pulmo.db.v999')));
  const lines = await pulmo('doctor', '-c', lane.config, ...(process.env.PULMO_DOCTOR_FULL ? [] : ['--quick']));
  assert.match(lines, /\nfit for work\n$/);
  step('mended: fit for work');
});
