// Many small studies through the whole path, while processes are killed and the PACS goes away: every study that a sender
// was answered 0x0000 for has its instances, one result and one report in the PACS in the end, and nothing is there twice.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { answers, freePort, processTree, program, pulmo, serve, sleep, until } from '../../packaging/appliance.mjs';
import { instanceOf } from '../integration/dimse.mjs';
import { filesBelow, skip } from '../integration/scenario.mjs';
import { Ledger, checkStore } from './crash-check.mjs';
import { Slices, asStudy, chest, digest } from './crash-instances.mjs';
import { QUICK, gateless } from './crash-lab.mjs';
import { generator } from './crash-seed.mjs';
import { store, usage } from './overload-usage.mjs';

const LANES = 4;
const SLICES_EACH = 3;
const CHESTS_FROM = 100000; // numbers of studies
const OVERHEAD_BYTES = 256 << 20; // database, its log, preallocated space of the reception
const GROWTH = 1.25; // of processes that are killed again and again, and so are young or old by chance
const storeState = path.join(process.env.PULMO_BUILD ?? path.dirname(program), 'tests', 'reliability', 'store_state');

/** DCMTK's storescp on one port for its life; each object that it was sent is a file of its own. */
class Pacs {
  static async open(folder) {
    const pacs = new Pacs();
    pacs.folder = folder;
    pacs.port = await freePort();
    mkdirSync(folder);
    await pacs.start();
    return pacs;
  }

  async start() {
    this.child = spawn('storescp', ['--quiet', '-pm', '+xa', '+B', '-uf', '-aet', 'PACS', '-od', this.folder, String(this.port)],
      { stdio: 'ignore', env: { ...process.env, TCP_NODELAY: '1' } });
    this.ended = new Promise((resolve) => { this.child.once('exit', resolve); });
    await until('storescp does not listen', 30, () => answers(this.port));
  }

  async kill() { this.child.kill('SIGKILL'); await this.ended; }

  /** What it was sent: [{ uid, content }]. An object that its own death tore is a beginning of another one. */
  received() {
    const all = readdirSync(this.folder).map((name) => {
      const { sopInstance, dataset } = instanceOf(readFileSync(path.join(this.folder, name)), '');
      return { uid: sopInstance, dataset };
    });
    const isTorn = (object) => all.some(({ uid, dataset }) => uid === object.uid && dataset.length > object.dataset.length &&
      dataset.subarray(0, object.dataset.length).equals(object.dataset));
    const whole = this.deaths ? all.filter((object) => object.dataset.length > 0 && !isTorn(object)) : all;
    return whole.map(({ uid, dataset }) => ({ uid, content: digest(dataset) }));
  }
}

/** Sends a study until each of its instances was answered with 0x0000. */
async function deliver(port, ledger, instances, calling) {
  for (let tries = 1; !(await ledger.send(port, instances, calling)); tries++) await sleep(Math.min(1000, 100 * tries));
  for (const instance of instances) {
    ledger.stored.set(Ledger.key(instance), null); // its bytes are not needed again
    ledger.sent.set(Ledger.key(instance), null);
  }
}

/** Kills something now and then: one of the four processes, the supervisor, or the PACS for a while. */
class Reaper {
  constructor(world, { random, every_s: every, pacsToo }) {
    Object.assign(this, { world, random, every, pacsToo, kills: {}, stopped: false });
    this.ended = this.run();
  }

  async run() {
    const rest = async () => {
      const wake = Date.now() + 2000 * this.every * this.random();
      while (!this.stopped && Date.now() < wake) await sleep(50);
      return !this.stopped;
    };
    while (await rest()) await this.strike();
  }

  async strike() {
    const victims = ['scp', 'decode', 'work', 'web', 'scp', 'work', 'serve', ...(this.pacsToo ? ['pacs'] : [])];
    const victim = victims[Math.floor(this.random() * victims.length)];
    this.kills[victim] = (this.kills[victim] ?? 0) + 1;
    if (victim === 'pacs') return this.world.pacsAway(500 + 3000 * this.random());
    if (victim === 'serve') return this.world.restart();
    for (const pid of processTree(this.world.appliance.pid)) {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean);
        if (words.includes('--only') && words.at(-1) === victim) process.kill(pid, 'SIGKILL');
      } catch { /* it ended meanwhile */ }
    }
    return undefined;
  }

  async stop() {
    this.stopped = true;
    await this.ended;
    return this.kills;
  }
}

class World {
  static async open(folder, settings) {
    const world = new World();
    world.folder = path.join(folder, 'pulmo');
    world.data = path.join(world.folder, 'data');
    world.pacs = await Pacs.open(path.join(folder, 'pacs'));
    world.pacs.deaths = 0;
    world.settings = {
      model: gateless(path.join(folder, 'model'), QUICK), operating_point: 0.7, data_folder: world.data, dicom_port: await freePort(), https_port: await freePort(), dicom_bind: '127.0.0.1',
      https_bind: '127.0.0.1', quiet_ms: 300, disk_reserve_mb: 64, threads: 1, passes: 2, attempts_max: 100, dicom_timeout_s: 10,
      destinations: `PACS@127.0.0.1:${world.pacs.port}`, ...settings,
    };
    world.appliance = await serve(world.folder, world.settings);
    return world;
  }

  /** SIGKILL of the supervisor: its children end by themselves. */
  async restart() {
    const children = processTree(this.appliance.pid);
    process.kill(this.appliance.pid, 'SIGKILL');
    const alive = (pid) => { try { return process.kill(pid, 0); } catch { return false; } };
    await until('orphans do not end', 180, () => !children.some(alive));
    this.appliance = await serve(this.folder, this.settings);
  }

  async pacsAway(ms) {
    this.pacs.deaths++;
    await this.pacs.kill();
    await sleep(ms);
    await this.pacs.start();
  }

  async state() {
    return JSON.parse((await promisify(execFile)(storeState, [this.data], { maxBuffer: 1 << 29 })).stdout);
  }

  verifyAudit() { return pulmo('audit', 'verify', '-c', this.appliance.configPath); }
}

function sample(world, samples) {
  const processes = Object.entries(usage(world.appliance.pid));
  samples.push(Object.fromEntries(processes.map(([name, { rssKb, descriptors }]) => [name, { rssKb, descriptors }])));
}

/** The largest figure of each process, in the first and in the second half of the samples. */
function checkFlat(step, samples) {
  const most = (part, name, figure) => Math.max(0, ...part.map((one) => one[name]?.[figure] ?? 0));
  const half = Math.ceil(samples.length / 2);
  const [first, second] = [samples.slice(0, half), samples.slice(half)];
  for (const name of ['scp', 'decode', 'web']) // the worker's memory is the size of the study it had last
    for (const [figure, room] of [['rssKb', 0], ['descriptors', 16]]) {
      const [before, after] = [most(first, name, figure), most(second, name, figure)];
      step(`${name}: at most ${before} ${figure} in the first half, ${after} in the second`);
      assert.ok(after <= before * GROWTH + room, `${name}: ${figure} grew from ${before} to ${after}`);
    }
}

/** Every byte is a content that the store names, the database, or what the kills left behind. */
async function checkDisk(step, world, kills) {
  const sizes = filesBelow(world.data).map((file) => statSync(file).size);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const { contents } = await store(world.data);
  const mega = (size) => `${(size / 1e6).toFixed(1)} MB`;
  step(`${sizes.length} files, ${mega(bytes)} on the disk; contents that the store names: ${mega(contents)}`);
  assert.ok(bytes <= contents * 1.02 + OVERHEAD_BYTES, `${bytes} bytes on the disk for ${contents}, after ${kills} kills`);
}

/** options: studies, chests (of them, analysed ones), minutes, pause_ms after each study, every_s between two kills.
 *  Resolves to what was done. */
export async function soak(context, options) {
  const { step, folder } = context;
  if (await promisify(execFile)('storescp', ['--version']).then(() => false, () => true)) skip('storescp is not installed');
  const { random, seed } = generator();
  const slices = await Slices.open(path.join(folder, 'slices'));
  const whole = options.chests ? await chest(path.join(folder, 'chest')) : [];
  const world = await World.open(folder, options.settings);
  context.onEnd(async (failure) => {
    await world.appliance.stop();
    await world.pacs.kill();
    if (failure) console.log(world.appliance.log().split('\n').slice(-25).join('\n'));
  });
  step(`the appliance and the PACS are up; seed ${seed}`);
  const ledger = new Ledger();
  const samples = [];
  const timer = setInterval(() => sample(world, samples), 1000);
  const reaper = new Reaper(world, { random, every_s: options.every_s, pacsToo: true });
  const ends = Date.now() + 60000 * options.minutes;
  const chestEvery = options.chests ? Math.max(1, Math.floor(options.studies / options.chests)) : Infinity;
  let [next, chests] = [0, 0];
  await Promise.all(Array.from({ length: LANES }, async (_, lane) => {
    while (next < options.studies && Date.now() < ends) {
      const number = ++next;
      const isChest = number % chestEvery === Math.ceil(chestEvery / 2);
      chests += isChest;
      await deliver(world.settings.dicom_port, ledger,
        isChest ? asStudy(whole, CHESTS_FROM + number) : slices.study(number, SLICES_EACH), `LANE${lane}`);
      await sleep(options.pause_ms ?? 0);
      if (number % 100 === 0) step(`${number} studies were acknowledged; kills: ${JSON.stringify(reaper.kills)}`);
    }
  }));
  step(`${next} studies were acknowledged`);
  const seconds = Math.max(120, 60 * options.minutes);
  await until('much work is left', seconds, async () => {
    const { waits } = await store(world.data);
    return waits.studies + waits.jobs + waits.sendings <= LANES;
  });
  const kills = await reaper.stop();
  await until('results are missing', seconds, async () => {
    const { waits } = await store(world.data);
    return Object.values(waits).every((count) => count === 0);
  });
  clearInterval(timer);
  step(`everything is done; kills: ${JSON.stringify(kills)}`);
  assert.equal(await world.appliance.stop(), 0, 'the appliance stops in order');
  ledger.kills = Object.values(kills).reduce((sum, count) => sum + count, 0);
  const state = await checkStore(world, ledger, []);
  const reports = new Set(world.pacs.received().map(({ uid }) => uid));
  const current = state.results.filter(({ superseded_by: by }) => by === null);
  const count = (status) => current.filter((result) => result.status === status).length;
  step(`sent ${next} studies = stored ${state.studies.length} = current results ${current.length} (${count(1)} analysed, ` +
    `${count(2)} refused, ${count(3)} failed); ${state.results.length} results, ${state.outbox.length} objects to send, ` +
    `${reports.size} in the PACS`);
  assert.equal(state.studies.length, next);
  assert.equal(current.length, next);
  assert.equal(count(3), 0);
  assert.equal(count(1), chests);
  assert.equal(state.outbox.filter(({ state: sending }) => sending === 'sent').length, state.outbox.length);
  assert.equal(state.outbox.filter(({ name }) => name === 'sr.dcm').length, state.results.length, 'one report a result');
  assert.equal(reports.size, state.outbox.length, 'each object once in the PACS');
  checkFlat(step, samples);
  await checkDisk(step, world, ledger.kills);
  return { studies: next, kills };
}
