// The phases whose every durable call is a place to die at. A phase prepares a data folder once; `run` then does its work
// with one process of the appliance, as far as it is not done yet, and returns early when that process dies. So the same
// function is the victim's run and the normal restart after it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Client, program, sleep } from '../../packaging/appliance.mjs';
import { ANALYSE, DECODE, Ledger, SIGN, checkPacs } from './crash-check.mjs';
import { Process } from './crash-lab.mjs';

export const PASSWORD = 'a password of the crash tests';
/** Argon2id of that password at the least memory, so that a login costs nothing. */
const CHEAP = '$argon2id$v=19$m=64,t=1,p=1$Y3Jhc2ggbWF0cml4IHRlcw$Ll4VLDsP04myKFX0LaesG3GZpTBe/bkayQHxjZ2uNTs';
const FORMER = path.join(path.dirname(fileURLToPath(import.meta.url)), 'store-1');
const PATIENCE_S = 900; // an analysis beside other work on a slow machine
const LISTENING = /listening port=(\d+)/;
const open = ({ state }) => state === 'queued' || state === 'leased';

/** Starts a process that takes jobs, until `count` are done (the victim) or none is left (the restart). */
export async function work(lane, ledger, trace, { only, kind, count }) {
  const worker = lane.start(only, trace);
  if (trace) await worker.line(/job (done|failed) /, { count, seconds: PATIENCE_S });
  else {
    await Promise.race([worker.line(/ job taken /), sleep(400)]);
    await ledger.onRestart?.();
    while (worker.alive) {
      const { studies, jobs } = await lane.state();
      const waits = kind !== SIGN && studies.some((study) => study.revision > study.queued_revision);
      if (!waits && !jobs.some((job) => job.kind === kind && open(job))) break;
      await worker.change(waits ? 100 : 1000); // it says what it has done
    }
  }
  return worker.stop();
}

/** Reception of associations, one after the other or side by side; ends by SIGTERM. */
export async function receive(lane, ledger, trace, { associations, together = false }) {
  const scp = lane.start('scp', trace);
  const port = (await scp.line(LISTENING))?.[1];
  await ledger.onRestart?.();
  if (port && together) await Promise.all(associations.map((instances, index) => ledger.send(port, instances, `CRASH${index}`)));
  else if (port) for (const instances of associations) if (!(await ledger.send(port, instances))) break;
  return scp.stop();
}

async function sendResults(lane, ledger, trace, count) {
  const scp = lane.start('scp', trace);
  if (trace) await scp.line(/ outbox sent /, { count });
  else {
    await scp.line(LISTENING);
    await ledger.onRestart?.();
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

/** A reader logs in, judges a finding of one result and signs results. */
export async function read(lane, ledger, trace, { judged, signed }) {
  const web = lane.start('web', trace);
  const port = (await web.line(LISTENING))?.[1];
  await ledger.onRestart?.();
  if (port) {
    const client = new Client(port, path.join(lane.data, 'https-certificate.pem'));
    const post = (target, body) => client.request('POST', target, body);
    const login = await post('/api/login', { user: 'jane', password: PASSWORD }).catch(() => null);
    const verdict = ['verdict', () => post(`/api/results/${judged}/verdicts`, { finding_id: 1, verdict: 'accepted' })];
    const steps = [
      ...(judged ? [verdict] : []),
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

/** A command of the tool, run to its end. */
async function tool(lane, trace, ...command) {
  const running = lane.run([program, ...command], trace);
  const status = await running.ended;
  return { status, log: running.log };
}

/** Saves the store. A former backup in the folder is whole whenever the new one ended; in the end all comes back. */
async function backUp(lane, ledger, trace, { former }) {
  await ledger.onRestart?.();
  if (!trace && former) {
    const { status, log } = await tool(lane, null, 'restore', lane.backup, '--check');
    assert.equal(status, 0, `the former backup: ${log}`);
  }
  const { status, log } = await tool(lane, trace, 'backup', lane.backup, '-c', lane.config);
  if (trace) return status;
  assert.equal(status, 0, log);
  return restore(lane, {}, null);
}

const sameRows = (now, then, names) => names.forEach((name) => assert.deepEqual(now[name], then[name], name));
const KEPT = ['instances', 'studies', 'jobs', 'results', 'artifacts', 'verdicts', 'signatures'];

/** Makes a data folder of the backup. What a killed restore left is refused by whoever opens it, or it is the whole. */
async function restore(lane, ledger, trace) {
  await ledger.onRestart?.();
  if (!trace && existsSync(lane.restored)) {
    const begun = readdirSync(lane.restored).length > 0; // an empty folder is nobody's store yet
    const { status } = await tool(lane, null, 'audit', 'verify', '-c', lane.restoredConfig);
    if (begun && status === 0) sameRows(await lane.state(lane.restored), await lane.state(), KEPT);
    rmSync(lane.restored, { recursive: true });
  }
  const { status, log } = await tool(lane, trace, 'restore', lane.backup, '--to', lane.restored);
  if (trace) return status;
  assert.equal(status, 0, log);
  const restored = await lane.state(lane.restored);
  sameRows(restored, await lane.state(), KEPT);
  assert.deepEqual(restored.integrity, ['ok']);
  assert.equal((await tool(lane, null, 'audit', 'verify', '-c', lane.restoredConfig)).status, 0);
  return 0;
}

/** A store that version 1 of the program wrote: a signed result, its successor, objects on their way to the PACS. */
async function formerStore(lab, prepared) {
  const [lane] = lab.lanes;
  await lane.reset();
  for (const name of readdirSync(path.join(FORMER, 'blobs'))) {
    mkdirSync(path.join(lane.data, 'blobs', name.slice(0, 2)), { recursive: true });
    copyFileSync(path.join(FORMER, 'blobs', name), path.join(lane.data, 'blobs', name.slice(0, 2), name));
  }
  await lane.load(readFileSync(path.join(FORMER, 'pulmo.sql'), 'utf8'));
  const state = await lane.state();
  assert.equal(state.version, 1);
  prepared.former = { folder: await lab.keep(lane, 'former'), before: state.instances.map(({ sop, content }) => `${sop} ${content}`), state };
}

/** Whether a phase needs more than a small study that was received: what the chest's analysis, of seconds, makes. */
export const needsChest = (name) => !/^(first start|reception|analysis, refused study|decoding|migration)/.test(name);

/** Prepared folders, each from the one before: they are what the appliance itself made. Without a chest only `small`. */
export async function prepare(lab, { slices, chest }) {
  const [lane] = lab.lanes;
  const ledger = new Ledger();
  const { stdout: help } = await promisify(execFile)(program, ['help']);
  const prepared = { hasBackup: / pulmo backup /.test(help) };
  const keep = async (name) => { prepared[name] = { folder: await lab.keep(lane, name), before: [...ledger.stored.keys()] }; };
  await addUser(lane);
  const web = lane.start('web'); // makes its certificate
  await web.line(LISTENING);
  assert.equal(await web.stop(), 0);
  const fresh = await lab.keep(lane, 'fresh');
  await formerStore(lab, prepared);
  await lane.reset(fresh);
  if (chest) {
    await receive(lane, ledger, undefined, { associations: [chest] });
    await keep('chest');
  }
  await lane.reset(fresh);
  ledger.stored.clear();
  await receive(lane, ledger, undefined, { associations: [slices.study(1, 4)] });
  await keep('small');
  if (!chest) return prepared;
  await receive(lane, ledger, undefined, { associations: [chest] });
  await work(lane, ledger, undefined, { only: 'work', kind: ANALYSE });
  await work(lane, ledger, undefined, { only: 'decode', kind: DECODE });
  await keep('analysed');
  prepared.objects = (await lane.state()).outbox.filter(open).length;
  await sendResults(lane, ledger);
  const { results } = await lane.state();
  const [refused, analysed] = [2, 1].map((wanted) => results.find(({ status }) => status === wanted)?.id);
  assert.ok(refused && analysed, `a refused and an analysed study: ${JSON.stringify(results)}`);
  prepared.results = { refused, analysed };
  await keep('returned');
  await read(lane, ledger, undefined, { judged: analysed, signed: [refused] });
  await keep('signing');
  if (prepared.hasBackup) {
    await lane.reset(prepared.returned.folder);
    assert.equal((await tool(lane, null, 'backup', lane.backup, '-c', lane.config)).status, 0);
    await keep('saved');
    prepared.saved.before = prepared.returned.before;
  }
  return prepared;
}

const nothing = () => {}; // the run has compared everything
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

function checkMigration(then) {
  const unchanged = ['instances', 'results', 'artifacts', 'study_artifacts', 'verdicts', 'signatures'];
  return (state, ledger, lane) => {
    sameRows(state, then, unchanged);
    assert.deepEqual(state.audit.slice(0, then.audit.length), then.audit, 'the audit rows of before');
    checkReturn(state, ledger, lane);
  };
}

/** The phases in the order of a study's way. `seconds`: what the bounded run may spend on one; none = all of its points. */
export function phases({ slices, prepared }) {
  const { small, chest, analysed, returned, signing, former, saved, results } = prepared;
  const waiting = former?.state.outbox.filter(open).length;
  const first = slices.make(2, 1);
  const one = [
    [first, slices.make(2, 2), slices.make(1, 5)],
    [{ ...first, again: true }, slices.make(2, 2, 'pixels'), slices.make(1, 1, 'CORRECTED^NAME')],
  ];
  const three = [3, 4, 5].map((study) => slices.study(study, 2));
  return [
    { name: 'first start', process: 'scp', before: [], seconds: 5,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: [] }),
      check: checkReception },
    { name: 'reception', process: 'scp', ...small,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: one }),
      check: checkReception },
    { name: 'reception of three associations at once', process: 'scp', ...small, seconds: 6,
      run: (lane, ledger, trace) => receive(lane, ledger, trace, { associations: three, together: true }),
      check: checkReception },
    { name: 'analysis, refused study', process: 'work', ...small, seconds: 8,
      run: (lane, ledger, trace) => work(lane, ledger, trace, { only: 'work', kind: ANALYSE, count: 1 }),
      check: (state) => assert.equal(count(state.results, { status: 2, superseded_by: null }), 1) },
    { name: 'analysis, chest', process: 'work', ...chest, seconds: 8,
      run: (lane, ledger, trace) => work(lane, ledger, trace, { only: 'work', kind: ANALYSE, count: 1 }),
      check: (state) => assert.equal(count(state.results, { status: 1, superseded_by: null }), 1) },
    { name: 'decoding', process: 'decode', ...small, seconds: 4,
      run: (lane, ledger, trace) => work(lane, ledger, trace, { only: 'decode', kind: DECODE, count: 1 }),
      check: (state) => assert.equal(count(state.jobs, { kind: DECODE, state: 'done' }), 1) },
    { name: 'return of results', process: 'scp', ...analysed, seconds: 6,
      run: (lane, ledger, trace) => sendResults(lane, ledger, trace, prepared.objects), check: checkReturn },
    { name: 'reading and request of signatures', process: 'web', ...returned, seconds: 6,
      run: (lane, ledger, trace) => read(lane, ledger, trace, { judged: results.analysed, signed: [results.refused, results.analysed] }),
      check(state, ledger) {
        assert.equal(ledger.web.size, 3, 'the reader was answered in the end');
        assert.ok(count(state.verdicts, { finding: 1, verdict: 'accepted' }) >= 1);
        for (const result of [results.refused, results.analysed])
          assert.equal(count(state.jobs, { kind: SIGN, result, state: 'queued' }), 1, `one signing of result ${result}`);
      } },
    { name: 'signing', process: 'work', ...signing, seconds: 6,
      run: (lane, ledger, trace) => work(lane, ledger, trace, { only: 'work', kind: SIGN, count: 1 }),
      check(state) {
        assert.equal(count(state.signatures, { result: results.refused }), 1);
        assert.equal(count(state.outbox, { result: results.refused, name: 'signed-sr.dcm', state: 'queued' }), 1);
      } },
    { name: 'migration from version 1', process: 'scp', ...former, seconds: 6,
      run: (lane, ledger, trace) => sendResults(lane, ledger, trace, waiting), check: checkMigration(former?.state) },
    ...(prepared.hasBackup ? [
      { name: 'backup', process: 'backup', ...returned, seconds: 4, run: (lane, ledger, trace) => backUp(lane, ledger, trace, {}), check: nothing },
      { name: 'backup into a former one', process: 'backup', ...saved, seconds: 4,
        run: (lane, ledger, trace) => backUp(lane, ledger, trace, { former: true }), check: nothing },
      { name: 'restore', process: 'restore', ...saved, seconds: 4, run: (lane, ledger, trace) => restore(lane, ledger, trace), check: nothing },
    ] : [{ name: 'backup', missing: 'this build has no `pulmo backup`' }]),
  ];
}
