// A peer that opens associations as fast as it can, or is refused as fast as it can, is told once one by one and then by
// numbers: audit trail and log do not grow as it likes, every association is in a row or in a number, the chain is whole.

import assert from 'node:assert/strict';
import path from 'node:path';
import { freePort, pulmo, serve } from '../../packaging/appliance.mjs';
import { IMPLICIT_LITTLE, Peer, VERIFICATION } from '../integration/dimse.mjs';
import { test } from '../integration/scenario.mjs';

const FIRST = 10; // tally.h
const TOGETHER = 8;
const COUNT = 600;

/** What comes in one of three ways: opened and released, opened and reset, refused for the title it calls. */
async function knock(port, number) {
  const peer = await Peer.connect(port);
  const called = number % 3 === 2 ? 'NOBODY' : 'PULMO';
  const answer = await peer.associate(called, 'FLOOD', [[VERIFICATION, IMPLICIT_LITTLE]]).catch(() => 'gone');
  if (answer === 'accepted' && number % 3 === 0) await peer.release();
  peer.socket.resetAndDestroy();
}

/** { rows, events } of the audit rows about one kind of event: each is one event, or says how many more it stands for. */
function counted(lines, name) {
  const rows = lines.map((line) => JSON.parse(line)).filter(({ detail }) => detail.startsWith(`${name};`));
  const events = rows.map(({ detail }) => Number(/; (\d+) more within \d+ s, /.exec(detail)?.[1] ?? 1));
  return { rows: rows.length, events: events.reduce((sum, each) => sum + each, 0) };
}

await test('flood', async (context) => {
  const { step } = context;
  const dicomPort = await freePort();
  const data = path.join(context.folder, 'data');
  const appliance = await serve(context.folder, { data_folder: data, dicom_port: dicomPort, https_port: await freePort(), disk_reserve_mb: 16 });
  const audit = async () => (await pulmo('audit', 'export', '-c', appliance.configPath)).split('\n').filter(Boolean);
  let next = 0;
  const began = Date.now();
  await Promise.all(Array.from({ length: TOGETHER }, async () => { while (next < COUNT) await knock(dicomPort, next++); }));
  assert.equal(await appliance.stop(), 0);
  const lines = await audit();
  const minutes = Math.ceil((Date.now() - began) / 60000);
  step(`${COUNT} associations in ${((Date.now() - began) / 1000).toFixed(1)} s: ${lines.length} rows of audit`);
  const all = Object.fromEntries(['association opened', 'association closed', 'association rejected', 'protocol error']
    .map((name) => [name, counted(lines, name)]));
  const accepted = COUNT - COUNT / 3;
  assert.equal(all['association opened'].events, accepted);
  assert.equal(all['association closed'].events, accepted);
  assert.equal(all['association rejected'].events, COUNT / 3);
  for (const [name, { rows }] of Object.entries(all)) assert.ok(rows <= FIRST + minutes, `${name}: ${rows} rows`);
  const told = appliance.log().split('\n').filter((line) => / scp (association|protocol)/.test(line));
  assert.ok(told.length <= 4 * (FIRST + minutes), `${told.length} lines of log`);
  await pulmo('audit', 'verify', '-c', appliance.configPath);
  step(`${lines.length} rows and ${told.length} lines of log stand for all of them, the chain is whole`);
});
