// Out of memory, one allocation at a time: each process of the appliance is refused the first, the second, ... one of what it
// does, and all from there on. It does not end, it says so with the right status, nothing acknowledged is lost, nothing that
// could not be read passes for absent, and the next time all is well.
//
//   node tests/reliability/memory.test.mjs               a share of each part's, another one each day (PULMO_CRASH_SEED)
//   ... NAME...                                           of these parts' (reception web decode work analysis)
//   PULMO_MEMORY=full ...                                 every allocation, but 40 of an analysis

import assert from 'node:assert/strict';
import path from 'node:path';
import { Client, program, sleep, until } from '../../packaging/appliance.mjs';
import { test } from '../integration/scenario.mjs';
import { Ledger, checkStore } from './crash-check.mjs';
import { Slices, asStudy, chest } from './crash-instances.mjs';
import { Lane, Process } from './crash-lab.mjs';
import { PASSWORD, addUser } from './crash-phases.mjs';
import { generator, shuffled } from './crash-seed.mjs';
import { Memory } from './memory.mjs';
import { Appliance } from './power.mjs';

const full = process.env.PULMO_MEMORY === 'full';
const WITHOUT_MS = 400; // so long a process of jobs is left without any memory: it tries again meanwhile
const OUT_OF_RESOURCES = 0xa700;
const { seed, random } = generator();

/** Which of `count` allocations fail: all, or `share` of them. */
function chosen(count, share, whole = full) {
  const all = Array.from({ length: count }, (_, index) => index);
  return whole ? all : shuffled(all, random).slice(0, share).sort((a, b) => a - b);
}

async function started(context, lane, memory, only) {
  const appliance = await Appliance.start(lane, { env: memory?.env, only });
  context.onEnd(async (failure) => {
    if (failure) console.log(`${appliance.log.split('\n').slice(-15).join('\n')}\n${memory?.place() ?? ''}`);
    await appliance.end();
  });
  return appliance;
}

async function lives(appliance, where) {
  if (!appliance.process.alive) assert.fail(`${where}: the process ended with ${await appliance.process.ended}`);
}

async function opened(context, name, settings) {
  const lane = await Lane.open(path.join(context.folder, name), settings);
  context.onEnd(() => lane.pacs.process.kill());
  const memory = new Memory(lane.folder);
  context.onEnd(async () => memory.close());
  return { lane, memory, ledger: new Ledger() };
}

const say = (tally) => Object.entries(tally).map(([what, count]) => `${what} ${count}`).join(', ');

function count(tally, what) { tally[what] = (tally[what] ?? 0) + 1; }

async function settled(lane, ledger, studies, states) {
  await until('the work is not finished', 300, async () => {
    const { jobs, outbox, worklist } = await lane.state();
    return worklist.filter(({ state }) => states.includes(state)).length === studies &&
      ![...jobs, ...outbox].some(({ state }) => state === 'queued' || state === 'leased');
  });
  ledger.kills = 1;
  return checkStore(lane, ledger);
}

/** Ends the back-off of jobs, as time would. */
const dueNow = (lane) => lane.load("UPDATE job SET due_ms = 0, attempt = 0 WHERE state = 'queued';");

/** All studies are the same slices, so all have the same result: nothing was taken for absent. */
function sameReasons({ worklist }) {
  const reasons = [...new Set(worklist.map(({ reason }) => reason))];
  assert.equal(reasons.length, 1, `one reason for all: ${reasons.join(' | ')}`);
}

const parts = {
  /** One C-STORE on an association of its own. */
  async reception(context, slices) {
    const { lane, memory, ledger } = await opened(context, 'reception', { quiet_ms: 60000 });
    const appliance = await started(context, lane, memory, 'scp');
    const note = (instance, status) => {
      ledger.sent.set(Ledger.key(instance), instance);
      if (status === 0) ledger.stored.set(Ledger.key(instance), instance);
    };
    let number = 1; // a study has at most 90 here
    const first = slices.make(1, number++);
    note(first, await appliance.send(first));
    memory.watch();
    const second = slices.make(1, number++);
    note(second, await appliance.send(second));
    const { seen } = memory.disarm();
    const tally = {};
    for (const times of [1, 0])
      for (const skip of chosen(seen, times ? 60 : 15)) {
        const instance = slices.make(1 + Math.floor(number / 90), 1 + (number++ % 90));
        memory.arm(skip, times);
        const status = await appliance.send(instance);
        memory.disarm();
        await lives(appliance, `allocation ${skip}`);
        if (typeof status === 'number') assert.ok(status === 0 || status === OUT_OF_RESOURCES, `allocation ${skip}: 0x${status.toString(16)}`);
        count(tally, status === 0 ? 'stored' : status === OUT_OF_RESOURCES ? '0xA700' : 'association ended');
        note(instance, status);
        if (status !== 0) note(instance, await appliance.send(instance));
        assert.ok(ledger.stored.has(Ledger.key(instance)), `allocation ${skip}: taken when there is memory again`);
      }
    assert.ok(tally['0xA700'] > 0, say(tally));
    assert.equal(await appliance.stop(), 0);
    const { instances } = await lane.state();
    assert.deepEqual(instances.filter(({ version }) => version !== 'first'), [], 'none passed for another patient\'s');
    ledger.kills = 1;
    await checkStore(lane, ledger);
    context.step(`reception: ${seen} allocations a C-STORE, ${say(tally)}; never ended, nothing lost`);
  },

  /** What a reader asks for: an answer with 200 is the whole answer. */
  async web(context, slices) {
    const { lane, memory, ledger } = await opened(context, 'web');
    await addUser(lane);
    let appliance = await started(context, lane);
    assert.ok(await ledger.send(appliance.dicom, slices.study(1, 3)));
    await settled(lane, ledger, 1, ['refused']);
    assert.equal(await appliance.stop(), 0);
    const [{ study, result }] = (await lane.state()).worklist;
    memory.except = 'libevent'; // 2.1 frees what it has not set up yet when it has no memory for a connection
    appliance = await started(context, lane, memory, 'web');
    const client = new Client(appliance.web, path.join(lane.data, 'https-certificate.pem'));
    client.agent.keepAlive = true; // what fails shall be the request, not each time the handshake before it
    context.onEnd(async () => client.agent.destroy());
    const ask = (method, target, body) => client.request(method, target, body)
      .then(({ status, body: text }) => ({ status, text: text.toString().replace(/"(now_ms|disk_free_bytes)":\d+/g, '') }), ({ code }) => ({ status: code ?? 'gone' }));
    const login = ['POST', '/api/login', { user: 'jane', password: PASSWORD }];
    assert.equal((await ask(...login)).status, 200);
    const requests = [login, ...['/api/studies', `/api/studies/${study}`, `/api/results/${result}`, `/api/results/${result}/state`,
      `/api/results/${result}/artifacts/sr.dcm`, '/api/health', '/'].map((target) => ['GET', target])];
    const tally = {};
    let allocations = 0;
    for (const request of requests) {
      await ask(...request);
      memory.watch();
      const wanted = await ask(...request);
      const { seen } = memory.disarm();
      assert.equal(wanted.status, 200, request.join(' '));
      allocations += seen;
      for (const times of [1, 0])
        for (const skip of chosen(seen, times ? 12 : 3)) {
          memory.arm(skip, times);
          const answer = await ask(...request);
          memory.disarm();
          const where = `${request[1]}, allocation ${skip}`;
          await lives(appliance, where);
          // libevent itself says 400, in HTML, where it has no memory for a header
          const isOurs = answer.status !== 400 || !answer.text.startsWith('<');
          if (typeof answer.status === 'number' && isOurs) assert.ok([200, 503].includes(answer.status), `${where}: ${answer.status} ${answer.text.slice(0, 200)}`);
          if (answer.status === 200 && request !== login && request[1] !== '/api/health') assert.equal(answer.text, wanted.text, `${where}: 200 is the whole answer`);
          count(tally, typeof answer.status === 'number' ? answer.status : 'connection ended');
          const again = await ask(...request);
          assert.equal(again.status, 200, `${where}: answered when there is memory again: ${again.text}`);
        }
    }
    assert.equal(await appliance.stop(), 0);
    await lane.verifyAudit();
    context.step(`web: ${allocations} allocations of ${requests.length} requests, ${say(tally)}; never ended, no answer cut`);
  },

  decode: (context, slices) => jobs(context, slices, { only: 'decode', share: 12 }),
  work: (context, slices) => jobs(context, slices, { only: 'work', share: 16 }),

  /** A whole analysis: maps, SEG, SR. What oneDNN and the OpenMP library do not survive ends that process alone, and its job
   *  is taken again. */
  async analysis(context) {
    const { lane, memory, ledger } = await opened(context, 'analysis');
    const instances = await chest(path.join(context.folder, 'chest-files'));
    const tally = {};
    let studies = 0;
    const one = async (arm) => {
      const scp = await started(context, lane, null, 'scp');
      assert.ok(await ledger.send(scp.dicom, asStudy(instances, 100 + studies++)));
      assert.equal(await scp.stop(), 0);
      const worker = new Process([program, 'serve', '-c', lane.config, '--only', 'work'], { env: memory.env });
      context.onEnd(() => worker.kill());
      assert.ok(await worker.line(/ model opened /, { seconds: 120 }), worker.log);
      arm();
      await worker.line(/ job (done|failed) /, { seconds: 300 });
      const { seen } = memory.disarm();
      return { seen, status: await worker.stop(), log: worker.log };
    };
    const whole = await one(() => memory.watch());
    for (const skip of chosen(whole.seen, full ? 40 : 2, false)) {
      const { status, log } = await one(() => memory.arm(skip));
      if (/ job failed /.test(log)) assert.match(log, /kind="memory"|Cannot allocate memory/, log.slice(-600));
      count(tally, status !== 0 ? `ended with ${status}` : / job done /.test(log) ? 'done' : 'failed, to be tried again');
      if (status !== 0) console.log(`            allocation ${skip} ended the process:\n${memory.place()}`);
    }
    await dueNow(lane);
    const appliance = await started(context, lane);
    const { results } = await settled(lane, ledger, studies, ['analysed']);
    assert.ok(results.every(({ status }) => status === 1));
    assert.equal(await appliance.stop(), 0);
    context.step(`analysis of a chest, ${studies - 1} of ${whole.seen} allocations: ${say(tally)}; then all done once`);
  },
};

/** Many small studies, one allocation of each one's job is refused; then all are done, once, with the same result. */
async function jobs(context, slices, { only, share }) {
  const { lane, memory, ledger } = await opened(context, only, { attempts_max: 100 });
  const scp = await started(context, lane, null, 'scp');
  let process = await started(context, lane, memory, only);
  const tally = {};
  let study = 1;
  const done = () => (process.log.match(/ job (done|failed) /g) ?? []).length;
  const one = async () => {
    const before = done();
    assert.ok(await ledger.send(scp.dicom, slices.study(study++, 2)));
    await until(`the job of study ${study - 1} neither ends nor fails`, 60, () => !process.process.alive || done() > before);
  };
  await one();
  memory.watch();
  await one();
  const { seen } = memory.disarm();
  for (const times of [1, 0])
    for (const skip of chosen(seen, times ? share : share / 4)) {
      memory.arm(skip, times);
      const failedBefore = (process.log.match(/ job failed /g) ?? []).length;
      const sent = one();
      if (!times && await memory.met(sent)) await Promise.race([sent, sleep(WITHOUT_MS)]);
      else await sent;
      memory.disarm();
      await sent;
      await lives(process, `allocation ${skip}${times ? '' : ' and all after it'}`);
      count(tally, (process.log.match(/ job failed /g) ?? []).length > failedBefore ? 'failed, to be tried again' : 'done');
    }
  for (const line of process.log.split('\n').filter((text) => / job failed /.test(text))) assert.match(line, /kind="memory"|Cannot allocate memory/);
  await dueNow(lane);
  assert.equal(await process.stop(), 0);
  assert.equal(await scp.stop(), 0);
  process = await started(context, lane);
  sameReasons(await settled(lane, ledger, study - 1, ['refused']));
  assert.equal(await process.stop(), 0);
  context.step(`${only}: ${seen} allocations a job, ${say(tally)}; never ended, all done once, with the same result`);
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(parts);

await test('memory', async (context) => {
  context.step(`seed ${seed}${full ? ', all of them' : ''}`);
  const slices = await Slices.open(path.join(context.folder, 'slices'));
  for (const [name, part] of Object.entries(parts))
    if (wanted.includes(name)) await part(context, slices);
});
