// Power cuts: the appliance works on a file system that writes down every change and every sync; then, for each sync, the
// disk is built as a power cut just before it would leave it, in several variants, and everything that anyone was told
// before has to be there. On some of these disks the appliance is started again and finishes the work.
//
//   node tests/reliability/power-cut.test.mjs            every sync: what was synced alone, of every second one more; few restarts
//   PULMO_POWER=full ...                                 every sync, both models, every variant, four seeds; many restarts
//   PULMO_POWER_CUT=120:posix:subset:3 ...               one state, kept with its folder

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import path from 'node:path';
import { Client, program, pulmo, sleep, until } from '../../packaging/appliance.mjs';
import { test, skip } from '../integration/scenario.mjs';
import { instanceOf } from '../integration/dimse.mjs';
import { Ledger, checkPacs, checkStore } from './crash-check.mjs';
import { Slices, digest } from './crash-instances.mjs';
import { Lane, Process } from './crash-lab.mjs';
import { MODELS, PowerFs, missing, workInMemory } from './power.mjs';

const full = process.env.PULMO_POWER === 'full';
const only = process.env.PULMO_POWER_CUT?.split(':');
const VARIANTS = ['none', 'all', 'names', 'data', 'torn', 'subset'];
const RANDOM = ['torn', 'subset'];
const SEEDS = 4;
const RESTARTS = full ? 120 : 5;
const lanes = Math.min(4, cpus().length);
const PATIENCE_S = 600; // only what never happens is a failure: on a busy machine a start on FUSE took more than two minutes

/** What was told to whom, and how much the log held by then: a cut at or after that position must keep it. */
class Told {
  entries = [];

  constructor(fs) { this.fs = fs; }

  add(what, check) { this.entries.push({ what, check, position: this.fs.position() }); }

  before(position) { return this.entries.filter((entry) => entry.position <= position); }
}

class CutLedger extends Ledger {
  constructor(told) {
    super();
    const { stored } = this;
    stored.set = (key, value) => {
      told.add(`instance ${key}`, (state) =>
        assert.ok(state.instances.some(({ sop, content }) => `${sop} ${content}` === key), `acknowledged and not there: ${key}`));
      return Map.prototype.set.call(stored, key, value);
    };
  }
}

const port = async (appliance, name) =>
  Number((await appliance.line(new RegExp(` ${name} listening port=(\\d+)`), { seconds: PATIENCE_S }))[1]);

function serve(lane, env) {
  return new Process([program, 'serve', '-c', lane.config], { env });
}

/** Notes what the PACS was sent as soon as its file is there: then the store must know it too. */
async function watchPacs(pacs, told, goOn) {
  const seen = new Set();
  while (goOn()) {
    for (const name of readdirSync(pacs.folder)) {
      const bytes = readFileSync(path.join(pacs.folder, name));
      if (seen.has(name) || bytes.length < 132) continue;
      seen.add(name);
      told.add(`object ${name} in the PACS`, (state) => {
        const content = digest(instanceOf(readFileSync(path.join(pacs.folder, name)), '').dataset);
        assert.ok(state.artifacts.some((artifact) => artifact.content === content), `${name} is in the PACS and not in the store`);
      });
    }
    await sleep(10);
  }
}

/** A whole day in seconds: a user, two senders at once, two refused studies, a signature, everything sent to the PACS. */
async function work(lane, fs, told, ledger, studies) {
  const password = (await pulmo('user', 'add', 'jane', '--name', 'Jane Reader', '-c', lane.config)).trim();
  told.add('user', (state, users) => assert.match(users, /^jane /m, 'the user is there'));
  const appliance = serve(lane, fs.env);
  try {
    const dicom = await port(appliance, 'scp');
    const web = await port(appliance, 'web');
    let working = true;
    const watch = watchPacs(lane.pacs, told, () => working);
    await Promise.all(studies.map((instances, index) => ledger.send(dicom, instances, `SENDER${index}`)));
    const client = new Client(web, path.join(lane.data, 'https-certificate.pem'));
    await client.login('jane', password);
    const results = await until('the studies are not refused', PATIENCE_S, async () => {
      const shown = await client.studies();
      return shown.length === studies.length && shown.every(({ state }) => state === 'refused') && shown.map(({ result_id: id }) => id);
    });
    for (const id of results)
      told.add(`result ${id}`, (state) => assert.ok(state.results.some((result) => result.id === id && result.status === 2), `result ${id} was shown`));
    await client.json('POST', `/api/results/${results[0]}/sign`, { password });
    told.add('request of a signature', (state) =>
      assert.ok(state.jobs.some((job) => job.kind === 3 && job.result === results[0]), 'the signature was asked for'));
    await until('the result is not signed', PATIENCE_S, async () => (await client.studies()).some(({ state }) => state === 'signed'));
    told.add('signature', (state) => assert.ok(state.signatures.some(({ result }) => result === results[0]), 'the signature was shown'));
    await until('the PACS has not got everything', PATIENCE_S, () => readdirSync(lane.pacs.folder).length === studies.length + 1);
    await until('not everything is marked sent', PATIENCE_S, () => (appliance.log.match(/ outbox sent /g) ?? []).length === studies.length + 1);
    working = false;
    await watch;
    client.agent.destroy();
    assert.equal(await appliance.stop(), 0, appliance.log);
  } finally {
    if (appliance.alive) await appliance.kill();
  }
}

function named(state) {
  return `${state.sync}:${state.model}:${state.variant}:${state.seed}`;
}

/** The states that are looked at: at each sync what was synced alone, in the strictest reading, at every second one more in turn; or all. */
function statesOf(syncs) {
  if (only) return [{ sync: Number(only[0]), model: only[1], variant: only[2], seed: Number(only[3] ?? 1) }];
  const kinds = MODELS.flatMap((model) => VARIANTS.flatMap((variant) => {
    const seeds = full && RANDOM.includes(variant) ? SEEDS : 1;
    return Array.from({ length: seeds }, (_, seed) => ({ model, variant, seed: seed + 1 }));
  }));
  const strictest = kinds.findIndex(({ model, variant }) => model === 'posix' && variant === 'none');
  return [...syncs, { number: 0 }].flatMap(({ number }, index) =>
    kinds.filter((_, kind) => full || kind === strictest || (index % 2 === 0 && kind === (index / 2) % kinds.length))
      .map((kind) => ({ ...kind, sync: number, seed: kind.seed + SEEDS * number })));
}

/** What a checker has of its own: a lane whose data folder is the cut disk. */
class Checker {
  static async open(folder, number, day) {
    const checker = new Checker();
    Object.assign(checker, day);
    checker.out = path.join(folder, `cut-${number}`);
    checker.lane = await Lane.open(path.join(folder, `lane-${number}`), { data_folder: path.join(checker.out, 'data') });
    checker.lane.data = path.join(checker.out, 'data');
    checker.pacs = checker.lane.pacs;
    return checker;
  }

  /** Builds the disk; the PACS holds what it got of results that the disk knows. */
  async cut(state) {
    await this.fs.cut(this.out, state);
    this.position = this.syncs.find(({ number }) => number === state.sync)?.position ?? Infinity;
  }

  async check() {
    const audit = await this.lane.verifyAudit(); // opens the store as the appliance does, before anything else looks at it
    await this.lane.replay(); // as reception does, before it takes anything
    const known = new Ledger();
    known.sent = this.ledger.sent;
    known.kills = 1;
    const told = this.told.before(this.position);
    const users = told.length ? await pulmo('user', 'list', '-c', this.lane.config) : '';
    this.lane.pacs = { received: () => this.received };
    const state = await checkStore(this.lane, known);
    for (const { check } of told) check(state, users);
    return audit;
  }

  /** The appliance goes on from the disk: everything is sent again, each study gets one result, the PACS all of them. */
  async restart(studies) {
    const { pacs } = this;
    for (const name of readdirSync(pacs.folder)) rmSync(path.join(pacs.folder, name));
    const state = await this.lane.state();
    const again = new Ledger();
    again.kills = 1;
    const appliance = serve(this.lane, process.env);
    try {
      const dicom = await port(appliance, 'scp');
      for (const instances of studies) assert.ok(await again.send(dicom, instances, 'AGAIN'), appliance.log);
      const done = await until('the work is not finished', PATIENCE_S, async () => {
        const { jobs, outbox, results } = await this.lane.state();
        const waits = [...jobs, ...outbox].some((row) => row.state === 'queued' || row.state === 'leased');
        return !waits && results.filter((result) => result.superseded_by === null).length === studies.length;
      }).catch((error) => { throw new Error(`${error.message}\n${appliance.log}`); });
      assert.ok(done);
      await until('the worklist is not settled', PATIENCE_S, async () =>
        (await this.lane.state()).worklist.every(({ state: shown }) => shown === 'refused' || shown === 'signed'));
      assert.equal(await appliance.stop(), 0, appliance.log);
    } finally {
      if (appliance.alive) await appliance.kill();
    }
    const before = new Set(state.outbox.filter((row) => row.state === 'sent').map(({ id }) => id));
    this.lane.pacs = { received: () => [...pacs.received(), ...this.received] };
    const after = await checkStore(this.lane, again);
    const fresh = { ...after, outbox: after.outbox.filter(({ id }) => !before.has(id)) };
    const { wanted, there } = checkPacs(fresh, pacs.received());
    assert.equal(there.length, wanted.length, 'the PACS got each object once');
  }
}

async function inTurn(checkers, items, body) {
  const rest = items.entries();
  await Promise.all(checkers.map(async (checker) => {
    for (const [index, item] of rest) await body(checker, item, index);
  }));
}

const why = await missing();
if (why) skip(why);
workInMemory();

await test('power-cut', async (context) => {
  const fs = await PowerFs.open(context.folder);
  let mounted = true;
  context.onEnd(async () => { if (mounted) await fs.close(); });
  const lane = await Lane.open(path.join(context.folder, 'day'), { data_folder: path.join(fs.mount, 'data') });
  context.onEnd(() => lane.pacs.process.kill());
  lane.data = path.join(fs.mount, 'data');
  const told = new Told(fs);
  const ledger = new CutLedger(told);
  const slices = await Slices.open(path.join(context.folder, 'slices'));
  const studies = [slices.study(1, 4), slices.study(2, 3)];
  await work(lane, fs, told, ledger, studies);
  const received = lane.pacs.received();
  await fs.close();
  mounted = false;
  const syncs = await fs.syncs();
  context.step(`a day: ${ledger.stored.size} instances, ${told.entries.length} things told, ${syncs.length} syncs`);

  const checkers = [];
  for (let index = 0; index < lanes; index++)
    checkers.push(await Checker.open(context.folder, index, { fs, told, ledger, syncs, received }));
  context.onEnd(() => Promise.all(checkers.map((checker) => checker.pacs.process.kill())));
  const states = statesOf(syncs);
  const every = Math.max(1, Math.floor(states.length / RESTARTS));
  let restarts = 0;
  await inTurn(checkers, states, async (checker, state, index) => {
    try {
      await checker.cut(state);
      await checker.check();
      if (only || index % every === every - 1) {
        await checker.restart(studies);
        restarts++;
      }
    } catch (error) {
      const at = syncs.find(({ number }) => number === state.sync);
      throw new Error(`PULMO_POWER_CUT=${named(state)} (before ${at ? `the sync of ${at.what} ${at.path}` : 'the end'}): ${error.message}`);
    }
  });
  const lost = states.filter(({ variant }) => variant === 'none').length;
  context.step(`${states.length} disks after a cut (${lost} with nothing but what was synced), ${restarts} of them started again`);
});
