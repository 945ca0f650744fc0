// A clock that is set: back a year and forward two, again and again, while studies come, are worked on and are returned,
// while a PACS is down, while a reader is logged in and another account is locked. Nothing waits for a year to pass.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { program, pulmo, until } from '../../packaging/appliance.mjs';
import { test, skip } from '../integration/scenario.mjs';
import { Ledger, checkStore } from './crash-check.mjs';
import { Slices } from './crash-instances.mjs';
import { Lane, Process } from './crash-lab.mjs';
import { Appliance, workInMemory } from './power.mjs';

const run = promisify(execFile);
const preload = path.join(process.env.PULMO_BUILD ?? path.dirname(program), 'tests', 'reliability', 'libclock_preload.so');
const YEAR_S = 365 * 86400;
const JUMPS = [-YEAR_S, YEAR_S, 0, -YEAR_S];
const PATIENCE_S = 45;

if (!existsSync(preload)) throw new Error(`${preload} is not built (ninja reliability_tools)`);
if ((await run('storescp', ['--version']).catch(() => null)) === null) skip('storescp is not installed');
workInMemory();

await test('clock', async (context) => {
  const lane = await Lane.open(path.join(context.folder, 'clock'), { quiet_ms: 1000, lease_s: 60 });
  context.onEnd(() => lane.pacs.process.kill());
  const clock = path.join(context.folder, 'clock-offset');
  const set = (seconds) => writeFileSync(clock, String(seconds));
  set(0);
  const year = async () => Number((await run('date', ['+%Y'], { env })).stdout);
  const env = { ...process.env, LD_PRELOAD: preload, CLOCK_OFFSET: clock };
  const slices = await Slices.open(path.join(context.folder, 'slices'));
  const ledger = new Ledger();
  const password = (await pulmo('user', 'add', 'jane', '--name', 'Jane Reader', '-c', lane.config)).trim();
  await pulmo('user', 'add', 'joe', '--name', 'Joe Reader', '-c', lane.config);
  const appliance = await Appliance.start(lane, { env });
  context.onEnd(async (failure) => {
    if (failure) console.log(appliance.log.split('\n').slice(-20).join('\n'));
    await appliance.end();
  });
  let studies = 0;
  const settled = async (what) => until(`${what}: the work is not finished`, PATIENCE_S, async () => {
    const { jobs, outbox, worklist } = await lane.state();
    return worklist.filter(({ state }) => state === 'refused' || state === 'signed').length === studies &&
      ![...jobs, ...outbox].some(({ state }) => state === 'queued' || state === 'leased');
  });
  const send = async (count = 2) => assert.ok(await ledger.send(appliance.dicom, slices.study(++studies, count)));
  set(YEAR_S);
  assert.equal(await year(), new Date(Date.now() + YEAR_S * 1000).getFullYear(), 'the clock can be set');
  set(0);

  for (const [index, jump] of JUMPS.entries()) {
    await send();
    set(jump); // within the quiet time
    await send();
    await settled(`jump ${index + 1}`);
    await send();
    await appliance.process.line(/ job taken /, { count: 4 * index + 1 });
    set(JUMPS[(index + 1) % JUMPS.length]); // while a job is leased, or about to be
    await settled(`jump ${index + 1}, leased`);
  }
  context.step(`${studies} studies, the clock set ${2 * JUMPS.length} times around them: each has its result`);

  await lane.pacs.process.kill();
  set(0);
  await send();
  await until('the PACS does not fail', 30, () => / outbox not sent /.test(appliance.log));
  set(-YEAR_S);
  lane.pacs = await reopen(lane);
  context.onEnd(() => lane.pacs.process.kill());
  await settled('back-off of the outbox, clock back');
  context.step('a back-off does not last a year when the clock goes back');

  set(YEAR_S);
  let client = await appliance.reader('jane', password);
  const wrong = async () => (await client.request('POST', '/api/login', { user: 'joe', password: 'wrong password' })).status;
  for (let tries = 0; tries < 5; tries++) assert.equal(await wrong(), 401);
  assert.ok([429, 503].includes(await wrong()), 'the account is locked');
  set(-YEAR_S);
  const old = await client.request('GET', '/api/studies');
  assert.ok(old.status === 200 || old.status === 401, `a session is good or over, not ${old.status}`);
  client.agent.destroy();
  client = await appliance.reader('jane', password);
  const [{ result_id: result }] = await client.studies();
  assert.equal(await wrong(), 401, 'an account is not locked for a year: a wrong password is only wrong');
  set(0);
  client.agent.destroy();
  client = await appliance.reader('jane', password);
  await client.json('POST', `/api/results/${result}/sign`, { password });
  set(-YEAR_S);
  await until('the result is not signed', PATIENCE_S, async () => (await lane.state()).signatures.length === 1);
  client.agent.destroy();
  await settled('signature');
  assert.equal(await appliance.stop(), 0);
  ledger.kills = 1;
  const { audit } = await checkStore(lane, ledger);
  const times = audit.map((row) => row.time_ms ?? row.time ?? 0);
  assert.ok(times.some((time, index) => index && time < times[index - 1]), 'the audit kept the times as they were');
  context.step(`sessions, a locked account, a signature; the audit chain of ${audit.length} rows is whole and in the order of events`);
});

/** The same PACS again, on its port. */
async function reopen(lane) {
  const { folder, port } = lane.pacs;
  const again = Object.create(Object.getPrototypeOf(lane.pacs));
  Object.assign(again, { folder, port });
  again.process = new Process(['storescp', '--quiet', '-pm', '+xa', '+B', '-uf', '-aet', 'PACS', '-od', folder, String(port)],
    { env: { ...process.env, TCP_NODELAY: '1' } });
  return again;
}
