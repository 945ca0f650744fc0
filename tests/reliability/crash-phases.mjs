// The phases whose every durable call is a place to die at. A phase prepares a data folder once; `run` then does its work
// with one process of the appliance, as far as it is not done yet, and returns early when that process dies. So the same
// function is the victim's run and the normal restart after it.

import assert from 'node:assert/strict';
import path from 'node:path';
import { Client, program, sleep } from '../../packaging/appliance.mjs';
import { ANALYSE, DECODE, Ledger, SIGN, checkPacs } from './crash-check.mjs';
import { Process } from './crash-lab.mjs';

export const PASSWORD = 'a password of the crash tests';
/** Argon2id of that password at the least memory, so that a login costs nothing. */
const CHEAP = '$argon2id$v=19$m=64,t=1,p=1$Y3Jhc2ggbWF0cml4IHRlcw$Ll4VLDsP04myKFX0LaesG3GZpTBe/bkayQHxjZ2uNTs';
const LISTENING = /listening port=(\d+)/;
const open = ({ state }) => state === 'queued' || state === 'leased';

/** Starts a process that takes jobs, until `count` are done (the victim) or none is left (the restart). */
async function work(lane, trace, { only, kind, count }) {
  const worker = lane.start(only, trace);
  if (trace) await worker.line(/job (done|failed) /, { count });
  else {
    await Promise.race([worker.line(/ job taken /), sleep(400)]);
    while (worker.alive) {
      const { studies, jobs } = await lane.state();
      const waits = kind !== SIGN && studies.some((study) => study.revision > study.queued_revision);
      if (!waits && !jobs.some((job) => job.kind === kind && open(job))) break;
      await worker.change(100);
    }
  }
  return worker.stop();
}

/** Reception of associations, one after the other or side by side; ends by SIGTERM. */
async function receive(lane, ledger, trace, { associations, together = false }) {
  const scp = lane.start('scp', trace);
  const port = (await scp.line(LISTENING))?.[1];
  if (port && together) await Promise.all(associations.map((instances, index) => ledger.send(port, instances, `CRASH${index}`)));
  else if (port) for (const instances of associations) if (!(await ledger.send(port, instances))) break;
  return scp.stop();
}

async function sendResults(lane, trace, count) {
  const scp = lane.start('scp', trace);
  if (trace) await scp.line(/ outbox sent /, { count });
  else {
    await scp.line(LISTENING);
    while (scp.alive && (await lane.state()).outbox.some(open)) await scp.change(100);
  }
  return scp.stop();
}

/** One step of a reader; what was acknowledged is not done again. False when the server went away. */
async function once(ledger, name, request) {
  if (ledger.web.has(name)) return true;
  try {
    const answer = await request();
    assert.ok(answer.status < 300 || answer.status === 409, `${name}: ${answer.status} ${answer.body}`);
    ledger.web.add(name);
    return true;
  } catch (error) {
    if (!error.code?.startsWith('E') || error.code === 'ERR_ASSERTION') throw error;
    return false;
  }
}

/** A reader logs in, judges a finding of one result and signs both results. */
async function read(lane, ledger, trace, { judged, signed }) {
  const web = lane.start('web', trace);
  const port = (await web.line(LISTENING))?.[1];
  if (port) {
    const client = new Client(port, path.join(lane.data, 'https-certificate.pem'));
    const post = (target, body) => client.request('POST', target, body);
    const login = await post('/api/login', { user: 'jane', password: PASSWORD }).catch(() => null);
    const steps = [
      ['verdict', () => post(`/api/results/${judged}/verdicts`, { finding_id: 1, verdict: 'accepted' })],
      ...signed.map((result) => [`sign ${result}`, () => post(`/api/results/${result}/sign`, { password: PASSWORD })]),
    ];
    for (const [name, request] of login ? steps : []) if (!(await once(ledger, name, request))) break;
    client.agent.destroy();
  }
  return web.stop();
}

export async function addUser(lane) {
  const add = new Process(['bash', '-c', 'printf %s "$PASSWORD" | "$@"', 'bash', program, 'user', 'add', 'jane',
    '--name', 'Jane Reader', '--password-stdin', '-c', lane.config], { env: { ...process.env, PASSWORD } });
  assert.equal(await add.ended, 0, add.log);
  await lane.load(`UPDATE user SET password = '${CHEAP}';`);
}

/** Prepared folders, each from the one before: they are what the appliance itself made. */
export async function prepare(lab, { slices, chest }) {
  const [lane] = lab.lanes;
  const ledger = new Ledger();
  const prepared = {};
  const keep = async (name) => { prepared[name] = { folder: await lab.keep(lane, name), before: [...ledger.stored.keys()] }; };
  await addUser(lane);
  const web = lane.start('web'); // makes its certificate
  await web.line(LISTENING);
  assert.equal(await web.stop(), 0);
  const fresh = await lab.keep(lane, 'fresh');
  await receive(lane, ledger, undefined, { associations: [chest] });
  await keep('chest');
  await lane.reset(fresh);
  ledger.stored.clear();
  await receive(lane, ledger, undefined, { associations: [slices.study(1, 4)] });
  await keep('small');
  await receive(lane, ledger, undefined, { associations: [chest] });
  await work(lane, undefined, { only: 'work', kind: ANALYSE });
  await work(lane, undefined, { only: 'decode', kind: DECODE });
  await keep('analysed');
  await sendResults(lane);
  const { results } = await lane.state();
  const [refused, analysed] = [2, 1].map((wanted) => results.find(({ status }) => status === wanted)?.id);
  assert.ok(refused && analysed, `a refused and an analysed study: ${JSON.stringify(results)}`);
  prepared.results = { refused, analysed };
  await keep('returned');
  await read(lane, ledger, undefined, { judged: analysed, signed: [refused] });
  await keep('signing');
  return prepared;
}

const count = (rows, wanted) => rows.filter((row) => Object.entries(wanted).every(([key, value]) => row[key] === value)).length;

function checkReception(state, ledger) {
  assert.equal(ledger.stored.size, ledger.sent.size, 'everything was acknowledged in the end');
  assert.equal(state.associations, 0, 'no association is left open');
}

function checkReturn(state, ledger, lane) {
  const { wanted, there } = checkPacs(state, lane.pacs.received());
  assert.deepEqual(state.outbox.filter(open), [], 'everything was sent');
  assert.equal(there.length, wanted.length, 'the PACS has no object beside them');
}

/** The phases in the order of a study's way. `seconds`: what the bounded run may spend on one; none = all of its points. */
export function phases({ slices, prepared }) {
  const { small, chest, analysed, returned, signing, results } = prepared;
  const first = slices.make(2, 1);
  const one = [
    [first, slices.make(2, 2), slices.make(1, 5)],
    [{ ...first, again: true }, slices.make(2, 2, 'pixels'), slices.make(1, 1, 'CORRECTED^NAME')],
  ];
  const three = [3, 4, 5].map((study) => slices.study(study, 2));
  return [
    { name: 'first start', process: 'scp', before: [], seconds: 8,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: [] }),
      check: checkReception },
    { name: 'reception', process: 'scp', ...small,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: one }),
      check: checkReception },
    { name: 'reception of three associations at once', process: 'scp', ...small, seconds: 8,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: three, together: true }),
      check: checkReception },
    { name: 'analysis, refused study', process: 'work', ...small, seconds: 10,
      run: (lane, ledger, trace) => work(lane, trace, { only: 'work', kind: ANALYSE, count: 1 }),
      check: (state) => assert.equal(count(state.results, { status: 2, superseded_by: null }), 1) },
    { name: 'analysis, chest', process: 'work', ...chest, seconds: 15, heavy: true,
      run: (lane, ledger, trace) => work(lane, trace, { only: 'work', kind: ANALYSE, count: 1 }),
      check: (state) => assert.equal(count(state.results, { status: 1, superseded_by: null }), 1) },
    { name: 'decoding', process: 'decode', ...small, seconds: 6,
      run: (lane, ledger, trace) => work(lane, trace, { only: 'decode', kind: DECODE, count: 1 }),
      check: (state) => assert.equal(count(state.jobs, { kind: DECODE, state: 'done' }), 1) },
    { name: 'return of results', process: 'scp', ...analysed, seconds: 8,
      run: (lane, ledger, trace) => sendResults(lane, trace, 3), check: checkReturn },
    { name: 'reading and request of signatures', process: 'web', ...returned, seconds: 8,
      run: (lane, ledger, trace) => read(lane, ledger, trace, { judged: results.analysed, signed: [results.refused, results.analysed] }),
      check(state, ledger) {
        assert.equal(ledger.web.size, 3, 'the reader was answered in the end');
        assert.ok(count(state.verdicts, { finding: 1, verdict: 'accepted' }) >= 1);
        for (const result of [results.refused, results.analysed])
          assert.equal(count(state.jobs, { kind: SIGN, result, state: 'queued' }), 1, `one signing of result ${result}`);
      } },
    { name: 'signing', process: 'work', ...signing, seconds: 8,
      run: (lane, ledger, trace) => work(lane, trace, { only: 'work', kind: SIGN, count: 1 }),
      check(state) {
        assert.equal(count(state.signatures, { result: results.refused }), 1);
        assert.equal(count(state.outbox, { result: results.refused, name: 'signed-sr.dcm', state: 'queued' }), 1);
      } },
  ];
}
