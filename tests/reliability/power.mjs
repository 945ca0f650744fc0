// The file system under test (powerfs.c): mounted for a test, told to fail, asked what a power cut would leave.

import { execFile, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync, statfsSync, writeSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Client, program, until } from '../../packaging/appliance.mjs';
import { store } from '../integration/dimse.mjs';
import { Process } from './crash-lab.mjs';

const run = promisify(execFile);
const tools = path.join(process.env.PULMO_BUILD ?? path.dirname(program), 'tests', 'reliability');
const powerfs = path.join(tools, 'powerfs');
const replay = path.join(tools, 'power_replay');
const preload = path.join(tools, 'libpower_preload.so');

/** struct power_control */
const CLASSES = { read: 1, space: 2, sync: 4, change: 8 };
const ERRORS = { EIO: 5, ENOSPC: 28, EROFS: 30 };
const CONTROL_BYTES = 128;
const PATH_AT = 32;

export const MODELS = ['posix', 'ordered'];

/** Why there can be no such file system here, or null. */
export async function missing() {
  if (!existsSync(replay)) throw new Error(`${replay} is not built (ninja reliability_tools)`);
  if (!existsSync(powerfs)) return 'powerfs is not built: libfuse3-dev was missing';
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  try {
    closeSync(openSync('/dev/fuse', 'r+'));
    await run('fusermount3', ['--version']);
    return null;
  } catch (error) {
    return `FUSE file systems cannot be mounted: ${error.message}`;
  }
}

/** Test folders go to memory where there is enough: what counts is in the log, and thousands of disks are built. */
export function workInMemory() {
  try {
    accessSync('/dev/shm', constants.W_OK);
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize >= 2 ** 30) process.env.TMPDIR = '/dev/shm';
  } catch { /* the usual folder then */ }
}

export class PowerFs {
  /** Mounts folder/mount; what is written there lies in folder/backing. `log`: whether cuts shall be built from it. */
  static async open(folder, { log = true, syncUs = 300 } = {}) {
    const fs = new PowerFs();
    fs.mount = path.join(folder, 'mount');
    fs.backing = path.join(folder, 'backing');
    fs.log = path.join(folder, 'power.log');
    for (const each of [fs.mount, fs.backing]) mkdirSync(each, { recursive: true });
    const outside = statSync(fs.mount).dev;
    fs.process = spawn(powerfs, [fs.mount, fs.backing, log ? fs.log : '-', path.join(folder, 'control'), String(syncUs)],
      { stdio: 'inherit' });
    fs.ended = new Promise((resolve) => { fs.process.once('exit', resolve); });
    await until('powerfs is not mounted', 10, () => statSync(fs.mount).dev !== outside);
    fs.control = openSync(path.join(folder, 'control'), 'r+');
    return fs;
  }

  /** For processes on it: a sync of the whole file system does not reach FUSE by itself. */
  get env() { return { ...process.env, LD_PRELOAD: preload, POWER_MOUNT: this.mount }; }

  /** How much is in the log: what took effect before has a lower position. */
  position() { return statSync(this.log).size; }

  /**
   * From the next operation but `skip` on, `times` of them (0 = all) fail: those of `classes`, of paths that contain `path`.
   */
  fail(error, classes, { skip = 0, times = 0, path: name = '' } = {}) {
    const order = Buffer.alloc(CONTROL_BYTES);
    order.write(name, PATH_AT);
    const bits = classes.reduce((sum, each) => sum | CLASSES[each], 0);
    this.write(order); // first without an error: the new counts must not meet the old order
    [ERRORS[error], bits, skip, times].forEach((value, index) => order.writeUInt32LE(value, 4 * index));
    this.write(order);
  }

  heal() { this.write(Buffer.alloc(CONTROL_BYTES)); }

  write(order) { writeSync(this.control, order, 0, order.length, 0); }

  /** How many operations the present order has met, and how many of them failed. */
  counts() {
    const order = readFileSync(path.join(path.dirname(this.mount), 'control'));
    return { seen: order.readUInt32LE(16), hit: order.readUInt32LE(20) };
  }

  /** Every sync of the log: { number, position, what, path }. */
  async syncs() {
    const { stdout } = await run(replay, [this.log, 'list'], { maxBuffer: 64 << 20 });
    return stdout.trim().split('\n').filter(Boolean).map((line) => {
      const [number, position, what, ...name] = line.split(' ');
      return { number: Number(number), position: Number(position), what, path: name.join(' ') };
    });
  }

  /** Makes `out` what the mount would be after a power cut just before that sync (0 = at the end). */
  async cut(out, { sync, model, variant, seed = 1 }) {
    rmSync(out, { recursive: true, force: true });
    await run(replay, [this.log, 'build', out, String(sync), model, variant, String(seed)]);
  }

  async close() {
    await run('umount', [this.mount]).catch(() => run('umount', ['-l', this.mount]));
    await this.ended;
    closeSync(this.control);
  }
}

/** The appliance on a lane, as its tests use it: some of its processes or all. */
export class Appliance {
  static async start(lane, { env = process.env, only, prefix = [] } = {}) {
    const appliance = new Appliance();
    appliance.lane = lane;
    const command = [...prefix, program, 'serve', '-c', lane.config, ...(only ? ['--only', only] : [])];
    appliance.process = new Process(command, { env });
    if (!only || only === 'scp') appliance.dicom = await appliance.port('scp');
    if (!only || only === 'web') appliance.web = await appliance.port('web');
    return appliance;
  }

  get log() { return this.process.log; }

  async port(name) {
    const found = await this.process.line(new RegExp(` ${name} listening port=(\\d+)`));
    if (!found) throw new Error(`it ended instead of listening:\n${this.log}`);
    return Number(found[1]);
  }

  /** The status of a C-STORE, or what happened instead. */
  send({ sopClass, sopInstance, syntax, dataset }, calling = 'SENDER') {
    return store(this.dicom, 'PULMO', calling, { sopClass, sopInstance, syntax, dataset }).catch((error) => error.code ?? error.message);
  }

  /** Asks as a monitoring system would, without a login. */
  async health() {
    const client = new Client(this.web, path.join(this.lane.data, 'https-certificate.pem'));
    const health = await client.json('GET', '/api/health');
    client.agent.destroy();
    return { ...health, codes: health.problems.map(({ code }) => code) };
  }

  async reader(user, password) {
    const client = new Client(this.web, path.join(this.lane.data, 'https-certificate.pem'));
    await client.login(user, password);
    return client;
  }

  stop() { return this.process.stop(); }

  async end() { if (this.process.alive) await this.process.kill(); }
}
