// Where the crash tests work: a folder in memory where there is one (a SIGKILL leaves the same files on any file system;
// what a power cut leaves is another test's), lanes that work side by side, each with a data folder, a configuration and a
// PACS of its own, and the processes of the appliance on them, traced or not.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statfsSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { answers, freePort, program, pulmo, root, sleep, until } from '../../packaging/appliance.mjs';
import { instanceOf } from '../integration/dimse.mjs';
import { digest } from './crash-instances.mjs';

const run = promisify(execFile);
const tools = path.join(process.env.PULMO_BUILD ?? path.dirname(program), 'tests', 'reliability');
export const killAt = path.join(tools, 'kill_at');
const storeState = path.join(tools, 'store_state');
/** What kill_at counts, but for what makes files. */
export const STRACED = ['write', 'pwrite64', 'writev', 'pwritev', 'pwritev2', 'copy_file_range', 'sendfile', 'fsync', 'fdatasync',
  'sync_file_range', 'syncfs', 'sync', 'ftruncate', 'truncate', 'fallocate', 'fchmod', 'rename', 'renameat', 'renameat2', 'link',
  'linkat', 'unlink', 'unlinkat', 'rmdir'];
const MEMORY = '/dev/shm';
const MEMORY_MIN = 2 ** 31;

function inMemory() {
  try {
    accessSync(MEMORY, constants.W_OK);
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= MEMORY_MIN;
  } catch {
    return false;
  }
}

/** A process of the appliance, or a command of the tool, whose log lines can be waited for. */
export class Process {
  constructor(command, options = {}) {
    this.child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], ...options });
    this.log = '';
    this.alive = true;
    this.wake = [];
    this.child.stderr.setEncoding('utf8').on('data', (text) => { this.log += text; this.notify(); });
    this.ended = new Promise((resolve) => this.child.once('close', (code, signal) => {
      this.alive = false;
      resolve(code ?? signal);
      this.notify();
    }));
  }

  notify() { for (const resolve of this.wake.splice(0)) resolve(); }

  /** Until the process says something or ends, at most `ms`. */
  change(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake.push(() => { clearTimeout(timer); resolve(); });
    });
  }

  /** The match of a line, or of the `count`th such line; null when the process ended before. */
  async line(pattern, { count = 1, seconds = 120 } = {}) {
    const global = new RegExp(pattern, 'g');
    const deadline = Date.now() + 1000 * seconds;
    for (;;) {
      const found = [...this.log.matchAll(global)];
      if (found.length >= count) return found[count - 1];
      if (!this.alive) return null;
      if (Date.now() > deadline) throw new Error(`no line ${pattern} within ${seconds} s:\n${this.log}`);
      await this.change(1000);
    }
  }

  kill() { this.child.kill('SIGKILL'); return this.ended; }

  /** Asks it to end and waits; a process that does not is a failure. */
  async stop() {
    if (this.alive) this.child.kill('SIGTERM');
    const status = await Promise.race([this.ended, sleep(120000).then(() => 'hangs')]);
    if (status === 'hangs') {
      await this.kill();
      throw new Error(`it does not stop:\n${this.log}`);
    }
    return status;
  }
}

/** DCMTK's storescp. It keeps every object that it was sent in a file of its own, also one that it has already. */
class Pacs {
  static async open(folder) {
    const pacs = new Pacs();
    pacs.folder = folder;
    pacs.port = await freePort();
    mkdirSync(folder, { recursive: true });
    pacs.process = new Process(['storescp', '--quiet', '-pm', '+xa', '+B', '+uf', '-aet', 'PACS', '-od', folder, String(pacs.port)],
      { env: { ...process.env, TCP_NODELAY: '1' } });
    await until('storescp does not listen', 30, () => answers(pacs.port));
    return pacs;
  }

  /** What it was sent: [{ uid, content }], content the digest of the data set. */
  received() {
    return readdirSync(this.folder).map((name) => {
      const { sopInstance, dataset } = instanceOf(readFileSync(path.join(this.folder, name)), '');
      return { uid: sopInstance, content: digest(dataset) };
    });
  }
}

/** The model without its gate: a chest at 55 % of its size is none that the gate knows, and the gate is not at stake here.
 *  `detector`: what it takes of its detector from elsewhere. */
export function gateless(folder, detector = {}) {
  const models = path.join(root, 'models');
  const model = JSON.parse(readFileSync(path.join(models, 'model.json'), 'utf8'));
  delete model.gate;
  Object.assign(model.detector, detector);
  mkdirSync(folder);
  for (const { file } of [model.detector, model.candidate]) symlinkSync(path.join(models, file), path.join(folder, file));
  writeFileSync(path.join(folder, 'model.json'), JSON.stringify(model));
  return path.join(folder, 'model.json');
}

/** Small cubes that do not overlap, and one candidate: a quarter of the time. What is found is not at stake either: the seams of
 *  such tiles give a finding that is reported, with its mask and its maps. */
export const QUICK = { tile: 48, margin: 0, inner_max: 0, candidates_max: 1 };

export class Lane {
  processes = [];

  static async open(folder, settings = {}) {
    const lane = new Lane();
    lane.folder = folder;
    lane.data = path.join(folder, 'data');
    lane.config = path.join(folder, 'pulmo.conf');
    lane.backup = path.join(folder, 'backup');
    lane.restored = path.join(folder, 'restored');
    lane.report = path.join(folder, 'points');
    mkdirSync(lane.data, { recursive: true });
    lane.pacs = await Pacs.open(path.join(folder, 'pacs'));
    const viewer = path.join(folder, 'viewer'); // the reader here is no browser
    mkdirSync(viewer);
    writeFileSync(path.join(viewer, 'index.html'), '');
    const all = {
      data_folder: lane.data, dicom_port: 0, https_port: 0, dicom_bind: '127.0.0.1', https_bind: '127.0.0.1', quiet_ms: 100,
      disk_reserve_mb: 16, attempts_max: 100, threads: 1, passes: 2, viewer_folder: viewer, model: gateless(path.join(folder, 'model'), QUICK), operating_point: 0.7, dicom_timeout_s: 10,
      destinations: `PACS@127.0.0.1:${lane.pacs.port}/none`, ...settings,
    };
    lane.restoredConfig = path.join(folder, 'restored.conf');
    const write = (file, values) => writeFileSync(file, Object.entries(values).map(([key, value]) => `${key} = ${value}\n`).join(''));
    write(lane.config, all);
    write(lane.restoredConfig, { ...all, data_folder: lane.restored });
    return lane;
  }

  /** A fresh copy of a prepared data folder, its backup and of what the PACS had then; nothing at all without one. */
  async reset(prepared) {
    for (const name of ['data', 'backup', 'restored']) rmSync(path.join(this.folder, name), { recursive: true, force: true });
    for (const name of readdirSync(this.pacs.folder)) rmSync(path.join(this.pacs.folder, name));
    const own = prepared && (await this.adopt(prepared));
    if (own) await run('cp', ['-a', '--reflink=auto', '--sparse=always', ...readdirSync(own).map((name) => path.join(own, name)), this.folder]);
    else mkdirSync(this.data);
  }

  /** What waits to be sent waits for a destination by its address: a lane's copy of a prepared folder names the lane's PACS. */
  async adopt(prepared) {
    const own = path.join(this.folder, path.basename(prepared));
    if (existsSync(own)) return own;
    await run('cp', ['-a', '--reflink=auto', '--sparse=always', prepared, own]);
    await this.load(`UPDATE outbox SET destination = 'PACS@127.0.0.1:${this.pacs.port}';`, path.join(own, 'data'));
    return own;
  }

  /** trace: undefined = as it is; {} = lists the fault points; { side, point } = kills there; { strace } = a second opinion. */
  command(command, trace) {
    if (!trace) return command;
    // -D: the process itself, not strace, is our child and gets our signals
    if (trace.strace) return ['strace', '-D', '-f', '-qq', '-y', '-e', `trace=${STRACED.join(',')}`, '-e', 'signal=none', '-o', this.report, ...command];
    return [killAt, this.folder, this.report, ...(trace.point ? [trace.side, String(trace.point)] : []), ...command];
  }

  run(command, trace) {
    const started = new Process(this.command(command, trace));
    this.processes = [...this.processes.filter(({ alive }) => alive), started];
    return started;
  }

  start(only, trace) { return this.run([program, 'serve', '-c', this.config, ...(only ? ['--only', only] : [])], trace); }

  /** The points of the last trace, as [call, path]; what ended it. */
  points() {
    const lines = readFileSync(this.report, 'utf8').trim().split('\n');
    const last = lines.pop();
    return { points: lines.map((line) => line.split(' ').slice(1)), killed: last.startsWith('killed'), last };
  }

  /** How many calls strace saw that write, sync, rename, cut or remove files of the lane. */
  straced() {
    return readFileSync(this.report, 'utf8').split('\n').filter((line) => line.includes(`${this.folder}/`) && !line.includes(' resumed>')).length;
  }

  async state(folder = this.data) {
    return JSON.parse((await run(storeState, [folder], { maxBuffer: 64 << 20 })).stdout);
  }

  /** Runs SQL on the database, which is made when there is none: for a store of a former version. */
  async load(sql, data = this.data) {
    const file = path.join(this.folder, 'load.sql');
    writeFileSync(file, sql);
    await run(storeState, [data, 'load', file]);
  }

  /** Adds the rows of what was acknowledged before a crash, as reception does before it takes anything. */
  async replay() { await run(storeState, [this.data, 'replay']); }

  verifyAudit() { return pulmo('audit', 'verify', '-c', this.config); }
}

export class Lab {
  static async open(count, settings, { memory = true } = {}) {
    const lab = new Lab();
    lab.folder = mkdtempSync(path.join(memory && inMemory() ? MEMORY : tmpdir(), 'pulmo-crash-'));
    process.once('exit', () => { if (!lab.kept) rmSync(lab.folder, { recursive: true, force: true }); });
    lab.lanes = [];
    for (let index = 0; index < count; index++) lab.lanes.push(await Lane.open(path.join(lab.folder, `lane-${index}`), settings));
    return lab;
  }

  /** Keeps what a lane and its PACS hold as a prepared folder. */
  async keep(lane, name) {
    const folder = path.join(this.folder, name);
    mkdirSync(folder);
    const parts = [lane.data, lane.pacs.folder, lane.backup].filter(existsSync);
    await run('cp', ['-a', '--reflink=auto', '--sparse=always', ...parts, folder]);
    return folder;
  }

  async close({ keep = false } = {}) {
    this.kept = keep;
    for (const lane of this.lanes) lane.closed = true;
    for (const { pacs, processes } of this.lanes)
      for (const each of [pacs.process, ...processes]) if (each.alive) await each.kill();
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Why the tests cannot run here, or null. */
export async function missing({ trace = true } = {}) {
  if (!existsSync(program)) throw new Error(`${program} is not built`);
  if (!existsSync(killAt)) throw new Error(`${killAt} is not built (ninja reliability_tools)`);
  if ((await run('storescp', ['--version']).catch(() => null)) === null) return 'storescp is not installed';
  if (!trace) return null;
  if ((await run('strace', ['--version']).catch(() => null)) === null) return 'strace is not installed';
  const folder = mkdtempSync(path.join(tmpdir(), 'pulmo-trace-'));
  try {
    await run(killAt, [folder, path.join(folder, '.report'), '/bin/true']);
    return null;
  } catch (error) {
    assert.equal(error.code, 77, error.message);
    return 'tracing (ptrace) is not allowed here';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
