// Kills at random instants, of random processes, while modalities send, a reader signs and a PACS receives, on a real disk.
// First the four processes, each started again at once; then the appliance as it is served, with its supervisor. When it
// is over: all that was acknowledged is there, done once and in the PACS once.
//
//   node tests/reliability/crash-random.test.mjs      PULMO_KILLS=200 (at least), PULMO_CRASH_SEED=<the day's number>

import assert from 'node:assert/strict';
import path from 'node:path';
import { Client, freePort, processTree, sleep } from '../../packaging/appliance.mjs';
import { skip } from '../integration/scenario.mjs';
import { Ledger, checkPacs, checkStore } from './crash-check.mjs';
import { Slices, chest } from './crash-instances.mjs';
import { Lab, missing } from './crash-lab.mjs';
import { PASSWORD, addUser } from './crash-phases.mjs';
import { generator } from './crash-seed.mjs';

const ROLES = ['scp', 'work', 'decode', 'web'];
const SENDERS = 3;
const STUDIES_WAITING_MAX = 12;
const KILLS = Number(process.env.PULMO_KILLS ?? 200);
const SUPERVISED_KILLS = 12;
const SETTLE_S = 300;

/** Runs the four processes as the supervisor would, but without its back-off. */
class Crew {
  constructor(lane) {
    this.lane = lane;
    this.running = new Map();
    this.unexpected = [];
    for (const role of ROLES) this.start(role);
  }

  start(role) {
    const worker = this.lane.start(role);
    this.running.set(role, worker);
    worker.ended.then((status) => {
      if (this.stopping || this.lane.closed) return;
      if (status !== 'SIGKILL') this.unexpected.push(`${role} ended with ${status}:\n${worker.log.split('\n').slice(-6).join('\n')}`);
      this.start(role);
    });
  }

  async kill(roles) { await Promise.all(roles.map((role) => this.running.get(role).kill())); }

  async stop() {
    this.stopping = true;
    for (const worker of this.running.values()) {
      const status = await worker.stop();
      assert.ok(status === 0 || (status === 'SIGTERM' && !worker.log), `it ended with ${status}: ${worker.log}`); // or just begun
    }
    assert.deepEqual(this.unexpected, [], 'no process ended but by a kill');
  }
}

/** Sends study after study until told to stop; a study is sent until every instance of it was acknowledged. */
async function modality(context, first, random) {
  const { ledger, slices, dicomPort } = context;
  for (let number = first; !context.stopSending; number += SENDERS) {
    const instances = slices.study(number, 2 + Math.floor(3 * random()));
    while (!(await ledger.send(dicomPort, instances, `CT${first}`))) await sleep(20);
    context.studies++;
    while (!context.stopSending && (await waiting(context)) > STUDIES_WAITING_MAX) await sleep(100);
  }
}

const waiting = async ({ lane }) => (await lane.state()).worklist.filter(({ result }) => !result).length;

/** Signs whatever result it sees. What the server acknowledged is in the ledger. */
async function reader({ lane, ledger, httpsPort }, stopped) {
  while (!stopped()) {
    try {
      const client = new Client(httpsPort, path.join(lane.data, 'https-certificate.pem'));
      await client.login('jane', PASSWORD);
      for (const study of (await client.studies()).filter(({ state }) => state === 'refused')) {
        const { result } = await client.json('GET', `/api/studies/${study.study_uid}`);
        const { status } = await client.request('POST', `/api/results/${result.id}/sign`, { password: PASSWORD });
        if (status < 300) ledger.web.add(result.id);
      }
      client.agent.destroy();
    } catch { /* the server was killed: what it did not acknowledge is asked for again */ }
    await sleep(150);
  }
}

const pick = (items, random) => items[Math.floor(items.length * random())];

async function killRandomly(context, random) {
  const crew = new Crew(context.lane);
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(10 + 220 * random());
    const roles = random() < 0.15 ? ROLES : [pick(ROLES, random)];
    await crew.kill(roles);
    context.kills += roles.length;
    if (kill === KILLS - 8) context.late = context.ledger.send(context.dicomPort, context.chest, 'CHEST');
  }
  return crew;
}

/** The appliance as it is served: one of its processes, or the supervisor itself, is killed. */
async function killSupervised(context, random) {
  const { lane } = context;
  let appliance = null;
  for (let kill = 0; kill < SUPERVISED_KILLS; kill++) {
    if (!appliance?.alive) appliance = lane.start();
    await appliance.line(/ scp listening /);
    await sleep(300 + 500 * random());
    const [supervisor, ...children] = processTree(appliance.child.pid);
    const victim = random() < 0.3 ? supervisor : pick(children, random);
    process.kill(victim, 'SIGKILL');
    context.kills++;
    if (victim === supervisor) await appliance.ended; // its children follow: they hold its standard error
  }
  if (!appliance.alive) appliance = lane.start();
  return appliance;
}

/** Until nothing is left to do. */
async function settle({ lane, ledger, chest: instances, dicomPort }) {
  const deadline = Date.now() + 1000 * SETTLE_S;
  while (!(await ledger.send(dicomPort, instances, 'CHEST'))) await sleep(50);
  for (;;) {
    const { studies, jobs, outbox } = await lane.state();
    const open = [...jobs, ...outbox].filter(({ state }) => state === 'queued' || state === 'leased').length +
      studies.filter(({ revision, queued_revision: queued }) => revision > queued).length;
    if (!open) return;
    if (Date.now() > deadline) throw new Error(`${open} things are still to be done after ${SETTLE_S} s`);
    await sleep(200);
  }
}

async function checkEnd({ lane, ledger, kills, studies }) {
  ledger.kills = kills;
  const state = await checkStore(lane, ledger);
  assert.equal(ledger.stored.size, ledger.sent.size, 'everything was acknowledged in the end');
  assert.equal(state.instances.length, ledger.stored.size);
  for (const { study, revision } of state.studies) {
    const current = state.results.filter((result) => result.study === study && result.superseded_by === null);
    assert.deepEqual(current.map((result) => result.revision), [revision], `one current result of ${study}, of all its instances`);
  }
  for (const result of ledger.web) assert.ok(state.results.find(({ id }) => id === result).signed, `result ${result} is signed`);
  const received = lane.pacs.received();
  const { wanted, there } = checkPacs(state, received);
  assert.equal(there.length, wanted.length, 'each object is in the PACS under one UID, and no other');
  assert.ok(studies > 3 && ledger.web.size > 0 && state.results.some(({ status }) => status === 1));
  return `${state.instances.length} instances of ${state.studies.length} studies acknowledged, ${state.results.length} results, ` +
    `${ledger.web.size} signatures, ${there.length} objects in the PACS (${received.length} sendings): 0 lost, 0 doubled`;
}

async function main() {
  const why = await missing({ trace: false });
  if (why) skip(why);
  const { seed, random } = generator();
  const began = Date.now();
  const context = { ledger: new Ledger(), dicomPort: await freePort(), httpsPort: await freePort(), kills: 0, studies: 0, stopSending: false };
  const lab = await Lab.open(1, { dicom_port: context.dicomPort, https_port: context.httpsPort }, { memory: false });
  [context.lane] = lab.lanes;
  let failure = null;
  try {
    context.slices = await Slices.open(path.join(lab.folder, 'slices'));
    context.chest = await chest(path.join(lab.folder, 'chest-files'));
    await addUser(context.lane);
    const senders = Array.from({ length: SENDERS }, (_, index) => modality(context, 1 + index, random));
    let ended = false;
    const reads = reader(context, () => ended);
    const crew = await killRandomly(context, random);
    await crew.stop();
    const appliance = await killSupervised(context, random);
    context.stopSending = true;
    const early = appliance.ended.then((status) => { throw new Error(`the appliance ended with ${status}: ${appliance.log}`); });
    await Promise.race([Promise.all(senders), early]); // who sends would wait for ever
    await settle(context);
    ended = true;
    await reads;
    await settle(context);
    assert.equal(await appliance.stop(), 0, appliance.log);
    console.log(`crash random: ${context.kills} kills (seed ${seed}) in ${((Date.now() - began) / 1000).toFixed(0)} s; ${await checkEnd(context)}`);
  } catch (error) {
    failure = error;
  }
  await lab.close({ keep: failure !== null });
  if (!failure) process.exit(0);
  console.log(`crash random FAILED after ${context.kills} kills (seed ${seed}); its folder is ${lab.folder}\n${failure.stack}`);
  process.exit(1);
}

await main();
