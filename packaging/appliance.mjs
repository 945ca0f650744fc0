// Starts and stops a Pulmo appliance on a folder of its own, and speaks to it: shared by `make demo` and the
// integration tests. Node.js 18, no packages.

import { execFile, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
export const program = process.env.PULMO ?? path.join(root, 'build', 'pulmo');
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs `pulmo` to its end; resolves to its standard output, rejects with its standard error. */
export async function pulmo(...args) {
  try {
    return (await promisify(execFile)(program, args, { maxBuffer: 64 << 20 })).stdout;
  } catch (failure) {
    const error = new Error(`pulmo ${args[0]} ended with ${failure.code}: ${failure.stderr?.trim()}`);
    throw Object.assign(error, { status: failure.code, stdout: failure.stdout, stderr: failure.stderr });
  }
}

/** Whether something listens there. */
export function answers(port, host = '127.0.0.1') {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host });
    const done = (result) => () => { socket.destroy(); resolve(result); };
    socket.once('connect', done(true));
    socket.once('error', done(false));
  });
}

function listens(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** A port below the ephemeral range: while nobody listens on an ephemeral one, a client that polls it may be given that
 *  very number as its own end, and then is connected to itself. */
export async function freePort() {
  for (;;) {
    const port = 20000 + Math.floor(Math.random() * 12000);
    if (await listens(port)) return port;
  }
}

/** The port itself where nobody holds it, otherwise any free one. */
export async function portNear(wanted) {
  const free = await new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(wanted, () => server.close(() => resolve(true)));
  });
  return free ? wanted : freePort();
}

/** Asks until `question` resolves to something, or fails with what was waited for. */
export async function until(what, seconds, question) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`);
    await sleep(100);
  }
}

/** Process ids of a process and everything below it. */
export function processTree(pid) {
  const parents = new Map();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch { /* it ended meanwhile */ }
  }
  const tree = [pid];
  for (const parent of tree)
    for (const [child, its] of parents) if (its === parent) tree.push(child);
  return tree;
}

/** Peak resident memory of each process of a tree, in MiB, by its last argument ("scp", "work", ...). */
export function peakMemory(pid) {
  const peaks = {};
  for (const id of processTree(pid)) {
    try {
      const name = readFileSync(`/proc/${id}/cmdline`, 'utf8').split('\0').filter(Boolean).pop();
      const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, 'utf8'));
      if (peak) peaks[path.basename(name)] = Math.round(Number(peak[1]) / 1024);
    } catch { /* it ended meanwhile */ }
  }
  return peaks;
}

/** Writes pulmo.conf from settings and serves from it until stop(). Rejects with the log's end when it does not come up. */
export async function serve(folder, settings) {
  mkdirSync(folder, { recursive: true });
  const configPath = path.join(folder, 'pulmo.conf');
  const logPath = path.join(folder, 'pulmo.log');
  writeFileSync(configPath, Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`).join(''));
  const log = openSync(logPath, 'a');
  const child = spawn(program, ['serve', '-c', configPath], { stdio: ['ignore', log, log] });
  closeSync(log);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const appliance = {
    configPath, logPath, settings, pid: child.pid,
    log: () => readFileSync(logPath, 'utf8'),
    async stop() {
      child.kill('SIGTERM');
      const status = await Promise.race([ended, sleep(25000).then(() => 'hangs')]);
      if (status === 'hangs') child.kill('SIGKILL');
      return status;
    },
  };
  let alive = true;
  ended.then(() => { alive = false; });
  try {
    await until('the appliance does not listen', 60, async () => {
      if (!alive) throw new Error('the appliance ended at once');
      return (await answers(settings.dicom_port)) && (await answers(settings.https_port));
    });
  } catch (error) {
    await appliance.stop();
    error.message += `\n${appliance.log().split('\n').slice(-15).join('\n')}`;
    throw error;
  }
  return appliance;
}

/** HTTPS with cookies, trusting exactly the appliance's own certificate. */
export class Client {
  constructor(port, certificatePath) {
    this.port = port;
    this.agent = new https.Agent({ ca: readFileSync(certificatePath), checkServerIdentity: () => undefined });
    this.cookies = new Map();
  }

  request(method, target, body) {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = {};
    if (method === 'POST') Object.assign(headers, { 'Content-Type': 'application/json', 'X-Pulmo': '1' });
    if (this.cookies.size) headers.Cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    return new Promise((resolve, reject) => {
      const request = https.request(
        { host: '127.0.0.1', port: this.port, path: target, method, headers, agent: this.agent }, (response) => {
          for (const cookie of response.headers['set-cookie'] ?? []) {
            const [name, value] = cookie.split(';')[0].split(/=(.*)/s);
            this.cookies.set(name, value);
          }
          const chunks = [];
          response.on('data', (chunk) => chunks.push(chunk));
          response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(chunks) }));
          response.on('error', reject);
        });
      request.on('error', reject);
      request.end(payload);
    });
  }

  /** The JSON document of a successful answer. */
  async json(method, target, body) {
    const answer = await this.request(method, target, body).catch((error) => {
      if (method !== 'GET' || error.code !== 'ECONNRESET') throw error;
      console.log(`            GET ${target}: the connection was reset; asked once more, as a browser does`);
      return this.request(method, target, body);
    });
    if (answer.status >= 300) throw new Error(`${method} ${target}: ${answer.status} ${answer.body.toString().slice(0, 200)}`);
    return answer.body.length ? JSON.parse(answer.body) : null;
  }

  login(user, password) { return this.json('POST', '/api/login', { user, password }); }

  /** The worklist: [{ study_uid, state, reason, ... }]. */
  async studies() { return (await this.json('GET', '/api/studies')).studies; }

  /** The analyze document of a study's current result. */
  async analysis(studyUid) { return (await this.json('GET', `/api/studies/${studyUid}`)).result?.analysis; }
}
