// Bad disks: no room, no writes, I/O errors, bits that flip, a database that is damaged or locked. Reception refuses with
// 0xA700, what was acknowledged stays, health names what is wrong, and all goes on by itself when the cause is gone.
//
//   node tests/reliability/disk.test.mjs [NAME...]       only these parts; their names are at the end of this file
//   PULMO_POWER=full ...                                 faults at each write of analysis and return as well

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, openSync, closeSync, readFileSync, readdirSync, renameSync, rmSync, statSync, statfsSync, writeSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { processTree, program, pulmo, sleep, until } from '../../packaging/appliance.mjs';
import { Peer } from '../integration/dimse.mjs';
import { filesBelow, skip, test } from '../integration/scenario.mjs';
import { Ledger, checkInstances, checkStore } from './crash-check.mjs';
import { Slices } from './crash-instances.mjs';
import { Lane, Process } from './crash-lab.mjs';
import { Appliance, PowerFs, missing, workInMemory } from './power.mjs';

const run = promisify(execFile);
const full = process.env.PULMO_POWER === 'full';
const ROUNDS_MAX = 5; // until a fault that comes once has met an instance
const TOGETHER = 3;
const RECOVERY_SYNCS = 2; // of a start, before anything new is written
const OUT_OF_RESOURCES = 0xa700;
const MIB = 1 << 20;
const hex = (status) => (typeof status === 'number' ? `0x${status.toString(16).padStart(4, '0')}` : String(status));

/** A lane on a file system that fails when told to. */
async function failing(context, name, { settings, ...options } = {}) {
  const folder = path.join(context.folder, name);
  const fs = await PowerFs.open(folder, options);
  context.onEnd(() => fs.close());
  const lane = await Lane.open(path.join(folder, 'lane'), { data_folder: path.join(fs.mount, 'data'), ...settings });
  context.onEnd(() => lane.pacs.process.kill());
  lane.data = path.join(fs.mount, 'data');
  return { fs, lane };
}

async function started(context, lane, options) {
  const appliance = await Appliance.start(lane, options);
  context.onEnd(async (failure) => {
    if (failure) await sleep(500); // what it says of its end may still be on its way
    if (failure) console.log(appliance.log.split('\n').slice(-20).join('\n'));
    await appliance.end();
  });
  return appliance;
}

/** Notes a status in the ledger; what was refused was refused as "out of resources". */
function answered(ledger, instance, status, what) {
  ledger.sent.set(Ledger.key(instance), instance);
  if (status === 0) ledger.stored.set(Ledger.key(instance), instance);
  else assert.equal(status, OUT_OF_RESOURCES, `${what}: ${hex(status)}`);
  return status === 0;
}

async function settled(lane, ledger, studies) {
  await until('the work is not finished', 90, async () => {
    const { jobs, outbox, worklist } = await lane.state();
    return worklist.filter(({ state }) => state === 'refused' || state === 'signed').length === studies &&
      ![...jobs, ...outbox].some(({ state }) => state === 'queued' || state === 'leased');
  });
  ledger.kills = 1;
  return checkStore(lane, ledger);
}

/**
 * Reception with a fault at its first, second, ... operation of a class, until one instance meets no more of them. What a
 * power cut would leave then has everything that was acknowledged: a sync that failed is not believed later.
 */
async function receptionFaults(context, { fs, lane, appliance, ledger, slices }, { error, classes, times, study }) {
  const cut = { ...lane, data: path.join(context.folder, 'cut', 'data') };
  let [refused, made, rounds] = [0, 0, 0];
  for (let skipped = 0; ; skipped++) {
    const instance = slices.make(study, ++made);
    fs.fail(error, classes, { skip: skipped, times, path: '/data' });
    const status = await appliance.send(instance);
    const { hit } = fs.counts();
    fs.heal();
    if (!answered(ledger, instance, status, `${error} of ${classes} number ${skipped + 1}`)) refused++;
    if (status !== 0) assert.ok(hit > 0, 'refused, though nothing failed');
    if (full || classes.includes('sync') || skipped % 8 === 0 || hit === 0) {
      await fs.cut(path.dirname(cut.data), { sync: 0, model: 'posix', variant: 'none' });
      await Lane.prototype.replay.call(cut);
      checkInstances(await Lane.prototype.state.call(cut), ledger);
    }
    if (status !== 0) assert.ok(answered(ledger, instance, await appliance.send(instance), 'sent again'), 'taken when all is well');
    if (hit === 0) {
      context.step(`${error} of ${classes}${times ? ', once' : ' from there on'}: ${skipped + 1} places, ${refused} times refused`);
      // one failure may each time meet a row of the association or a checkpoint, which are tried again: 0 of 4 was seen
      if (times && refused === 0 && ++rounds < ROUNDS_MAX) { skipped = -1; continue; }
      assert.ok(refused > 0, 'some place refused');
      return;
    }
    assert.ok(skipped < 200, 'the operations of one instance have an end');
  }
}

const parts = {
  async reception(context, slices) {
    const { fs, lane } = await failing(context, 'reception', { settings: { quiet_ms: 3000 } }); // no work meanwhile
    const ledger = new Ledger();
    const appliance = await started(context, lane, { env: fs.env });
    const all = { fs, lane, appliance, ledger, slices };
    assert.equal((await appliance.health()).status, 'ok');
    await receptionFaults(context, all, { error: 'ENOSPC', classes: ['space'], times: 0, study: 1 });
    await receptionFaults(context, all, { error: 'EIO', classes: ['space'], times: 1, study: 2 });
    await receptionFaults(context, all, { error: 'EIO', classes: ['sync'], times: 1, study: 3 });
    await receptionFaults(context, all, { error: 'EIO', classes: ['sync'], times: 0, study: 4 });
    for (const [error, code] of [['EROFS', 'DISK_READ_ONLY'], ['EIO', 'DISK_FAILS']]) {
      fs.fail(error, ['change'], { path: '/data' });
      assert.ok(!answered(ledger, slices.make(5, 1), await appliance.send(slices.make(5, 1)), error), `${error}: refused`);
      assert.deepEqual((await appliance.health()).codes, [code]);
      fs.heal();
      assert.equal((await appliance.health()).status, 'ok', 'health recovers by itself');
    }
    assert.ok(answered(ledger, slices.make(5, 1), await appliance.send(slices.make(5, 1)), 'healed'));
    context.step('read only and failing disk: refused, named by health, recovered');
    await settled(lane, ledger, 5);
    assert.equal(await appliance.stop(), 0);
    context.step('everything acknowledged is there, every study has its result');
  },

  /**
   * The sync of the database's log fails, then every process is killed. The kernel still shows what the disk never got: a
   * recovery that believed it could lose what is acknowledged later. Cut at each sync of the next start and after.
   */
  async believed(context, slices) {
    const { fs, lane } = await failing(context, 'believed', { settings: { quiet_ms: 60000 } });
    const told = [];
    const send = async (appliance, number) => {
      const instance = slices.make(1, number);
      assert.equal(await appliance.send(instance), 0);
      told.push({ key: Ledger.key(instance), position: fs.position() });
    };
    let appliance = await started(context, lane, { env: fs.env });
    for (const number of [1, 2, 3]) await send(appliance, number);
    fs.fail('EIO', ['sync'], { path: 'pulmo.db-wal' });
    assert.equal(await appliance.send(slices.make(1, 4)), OUT_OF_RESOURCES);
    for (const pid of processTree(appliance.process.child.pid).reverse()) process.kill(pid, 'SIGKILL');
    await appliance.process.ended;
    fs.heal();
    const { length: before } = await fs.syncs();
    appliance = await started(context, lane, { env: fs.env });
    for (const number of [5, 6]) await send(appliance, number);
    assert.equal(await appliance.stop(), 0);
    const out = path.join(context.folder, 'believed-cut');
    const cut = await Lane.open(path.join(context.folder, 'believed-lane'), { data_folder: path.join(out, 'data') });
    context.onEnd(() => cut.pacs.process.kill());
    cut.data = path.join(out, 'data');
    const syncs = (await fs.syncs()).slice(before);
    let disks = 0;
    for (const [index, { number: sync, position }] of syncs.entries())
      for (let seed = 0; seed <= (full || index < RECOVERY_SYNCS ? 8 : 0); seed++) {
        const place = `sync ${sync}, seed ${seed}`;
        await fs.cut(out, { sync, model: 'posix', variant: seed ? 'subset' : 'none', seed: seed + 8 * sync });
        await cut.verifyAudit().catch((error) => { throw new Error(`${place}: ${error.message} ${error.stdout}`); });
        const { integrity, instances } = await cut.state();
        assert.deepEqual(integrity, ['ok'], place);
        const there = new Set(instances.map(({ sop, content }) => `${sop} ${content}`));
        for (const { key, position: since } of told) assert.ok(since > position || there.has(key), `${place}: ${key} is lost`);
        disks++;
      }
    context.step(`a failed sync, all killed, started again: ${syncs.length} syncs later, ${disks} disks after a cut are whole`);
  },

  /** Faults while studies are decoded, analysed and returned: jobs wait or are tried again, and end once. */
  async work(context, slices) {
    const { fs, lane } = await failing(context, 'work', { log: false });
    const ledger = new Ledger();
    const appliance = await started(context, lane, { env: fs.env });
    const faults = [
      ...Array.from({ length: full ? 60 : 6 }, (_, index) => ['ENOSPC', ['space'], { skip: full ? index : 7 * index }]),
      ...Array.from({ length: full ? 30 : 4 }, (_, index) => ['EIO', ['sync'], { skip: full ? index : 3 * index, times: 1 }]),
      ...Array.from({ length: full ? 30 : 3 }, (_, index) => ['EIO', ['space'], { skip: full ? index : 5 * index, times: 1 }]),
      ['EIO', ['read'], { path: 'blobs/', times: 2 }],
    ];
    let hits = 0;
    for (const [index, [error, classes, options]] of faults.entries()) {
      const instances = slices.study(100 + index, 2);
      assert.ok(await ledger.send(appliance.dicom, instances));
      fs.fail(error, classes, { path: '/data', ...options });
      await sleep(400);
      hits += fs.counts().hit > 0;
      fs.heal();
    }
    context.step(`${faults.length} studies, ${hits} of them met a fault on their way`);
    assert.ok(hits >= faults.length / 2, 'the faults were met');
    const { jobs } = await settled(lane, ledger, faults.length);
    assert.ok(jobs.some(({ attempt }) => attempt > 1), 'some job was tried again');
    assert.equal(await appliance.stop(), 0);
    context.step('all have one result, which the PACS has once');
  },

  /** A disk of 96 MiB that others fill. */
  async full(context, slices) {
    const disk = path.join(context.folder, 'disk');
    mkdirSync(disk);
    try {
      await run('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', disk]);
    } catch (error) {
      console.log(`            not done: a small disk cannot be mounted here (${error.message.trim()})`);
      return;
    }
    context.onEnd(() => run('umount', ['-l', disk]));
    const lane = await Lane.open(path.join(context.folder, 'full'), { data_folder: path.join(disk, 'data'), disk_reserve_mb: 32 });
    context.onEnd(() => lane.pacs.process.kill());
    lane.data = path.join(disk, 'data');
    const reserve = path.join(lane.data, 'reserve');
    const free = () => { const { bavail, bsize } = statfsSync(disk); return bavail * bsize; };
    const others = `${disk}/others`;
    const fill = (leave) => until('the disk does not fill', 10, () => // the appliance writes meanwhile
      run('fallocate', ['-l', String(statOf(others) + free() - leave), others]).then(() => true, () => false));
    const ledger = new Ledger();
    const password = (await pulmo('user', 'add', 'jane', '--name', 'Jane Reader', '-c', lane.config)).trim();
    let appliance = await started(context, lane);
    await until('there is no reserve', 10, () => existsSync(reserve));
    assert.ok(await ledger.send(appliance.dicom, slices.study(1, 2)));
    await settled(lane, ledger, 1);

    const late = slices.make(2, 1);
    assert.ok(await ledger.send(appliance.dicom, [late]));
    await fill(20 * MIB);
    const early = slices.make(3, 1);
    assert.ok(!answered(ledger, early, await appliance.send(early), 'below the reserve of reception'));
    assert.deepEqual((await appliance.health()).codes, ['DISK_LOW']);
    await settled(lane, ledger, 2);
    context.step('20 MiB left: refused early; what was received before is finished');

    await fill(0);
    await until('the reserve is not given up', 10, () => !existsSync(reserve));
    assert.ok(!answered(ledger, early, await appliance.send(early), 'disk full'));
    assert.equal((await appliance.health()).codes.length, 1);
    const client = await appliance.reader('jane', password);
    const [{ result_id: result }] = await client.studies();
    await client.json('POST', `/api/results/${result}/sign`, { password });
    client.agent.destroy();
    await until('the result is not signed', 60, async () => (await lane.state()).signatures.length === 1);
    assert.equal(await appliance.stop(), 0);
    appliance = await started(context, lane);
    assert.ok(!answered(ledger, early, await appliance.send(early), 'disk full after a restart'));
    context.step('full: the reserve was given up; a signature and a restart still worked');

    await fill(0);
    await sleep(1500);
    assert.ok(!answered(ledger, early, await appliance.send(early), 'not a byte left'));
    assert.deepEqual((await appliance.health()).codes, ['DISK_FULL']);
    rmSync(others);
    await until('it does not recover', 20, async () => (await appliance.health()).status === 'ok' && existsSync(reserve));
    assert.ok(answered(ledger, early, await appliance.send(early), 'room again'));
    await settled(lane, ledger, 3);
    assert.equal(await appliance.stop(), 0);
    context.step('room again: all goes on by itself, the reserve is there, nothing is lost');
  },

  /** Another program holds the write lock: refused after SQLite's patience, named with its process. */
  async locked(context, slices) {
    const lane = await Lane.open(path.join(context.folder, 'locked'), { dicom_timeout_s: 30 });
    context.onEnd(() => lane.pacs.process.kill());
    const ledger = new Ledger();
    const appliance = await started(context, lane);
    assert.ok(await ledger.send(appliance.dicom, [slices.make(1, 1)]));
    const foreign = new Process(['python3', '-c', `
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.execute("BEGIN IMMEDIATE")
print("locked", file=sys.stderr, flush=True)
time.sleep(600)`, path.join(lane.data, 'pulmo.db')]);
    context.onEnd(() => foreign.kill());
    assert.ok(await foreign.line(/locked/), foreign.log);
    const refused = appliance.send(slices.make(1, 2));
    const { problems } = await appliance.health();
    assert.deepEqual(problems.map(({ code }) => code), ['DATABASE_LOCKED']);
    assert.match(problems[0].text, new RegExp(`process ${foreign.child.pid} \\(python3`));
    assert.ok(!answered(ledger, slices.make(1, 2), await refused, 'locked'));
    await foreign.kill();
    await until('health does not recover', 10, async () => (await appliance.health()).status === 'ok');
    assert.ok(answered(ledger, slices.make(1, 2), await appliance.send(slices.make(1, 2)), 'free again'));
    await settled(lane, ledger, 1);
    assert.equal(await appliance.stop(), 0);
    context.step('a foreign lock: refused, the process named, recovered');
  },

  /** A damaged database, at the start and while it is in use; then the operator restores the backup. */
  async corrupt(context, slices) {
    const lane = await Lane.open(path.join(context.folder, 'corrupt'));
    context.onEnd(() => lane.pacs.process.kill());
    const ledger = new Ledger();
    const database = path.join(lane.data, 'pulmo.db');
    const backup = path.join(context.folder, 'backup');
    let appliance = await started(context, lane);
    assert.ok(await ledger.send(appliance.dicom, slices.study(1, 20)));
    await settled(lane, ledger, 1);
    await pulmo('backup', backup, '-c', lane.config);
    await damage(lane, database, async () => { assert.equal(await appliance.stop(), 0); });
    await refusesToStart(lane, /damaged \(.*\) and was moved aside as pulmo\.db\.corrupt-/);
    await refusesToStart(lane, /was damaged and lies aside as pulmo\.db\.corrupt-/);
    await assert.rejects(pulmo('audit', 'verify', '-c', lane.config), /pulmo restore BACKUP --to/);
    assert.ok(!existsSync(database), 'no new database was made');
    const aside = readdirSync(lane.data).find((name) => /^pulmo\.db\.corrupt-\w+$/.test(name));
    assert.deepEqual(readFileSync(path.join(lane.data, aside)), lane.damaged, 'the damaged one is kept as it was');
    context.step('damaged while stopped: moved aside, named, never written over');

    renameSync(lane.data, `${lane.data}.aside`);
    await pulmo('restore', backup, '--to', lane.data);
    appliance = await started(context, lane);
    await settled(lane, ledger, 1);
    await damage(lane, database, async () => {});
    for (let number = 1; appliance.process.alive && number < 200; number++) {
      await appliance.send(slices.make(2, number));
      await sleep(50);
    }
    assert.equal(await Promise.race([appliance.process.ended, sleep(30000).then(() => 'lives')]), 1, 'the service ends');
    assert.match(appliance.log, /database suspect/);
    await refusesToStart(lane, /lies aside as pulmo\.db\.corrupt-/);
    context.step('damaged while in use: all processes stop, moved aside, the service ends with the sentence');
  },

  /** Bits of a stored instance flip: its job fails with a sentence, health tells it; sent again, all is well. */
  async flipped(context, slices) {
    const lane = await Lane.open(path.join(context.folder, 'flipped'), { quiet_ms: 4000, attempts_max: 1 });
    context.onEnd(() => lane.pacs.process.kill());
    const ledger = new Ledger();
    const appliance = await started(context, lane);
    const instances = slices.study(1, 3);
    assert.ok(await ledger.send(appliance.dicom, instances));
    const blobs = await until('the contents do not leave the journal', 4, () => {
      const there = filesBelow(path.join(lane.data, 'blobs'));
      return there.length === instances.length && there;
    });
    const file = openSync(blobs[0], 'r+');
    const bytes = readFileSync(blobs[0]);
    writeSync(file, Buffer.from([bytes[bytes.length - 100] ^ 4]), 0, 1, bytes.length - 100);
    closeSync(file);
    const shown = await until('the study does not fail', 60, async () =>
      (await lane.state()).worklist.find(({ state }) => state === 'failed'));
    assert.match(shown.reason, /^instance [\d.]+: stored content [0-9a-f]{64} has changed: its digest is/);
    const health = await appliance.health();
    assert.deepEqual(health.codes, ['CONTENT_DAMAGED']);
    assert.match(health.problems[0].text, /^1 stored contents/);
    for (const instance of instances) assert.equal(await appliance.send(instance, 'CRASH'), 0); // the bytes include the sender's title
    await pulmo('requeue', shown.study, '-c', lane.config);
    await settled(lane, ledger, 1);
    assert.equal((await appliance.health()).status, 'ok');
    assert.equal(await appliance.stop(), 0);
    context.step('a flipped bit: found, named, mended by the same instance sent again');
  },

  /** As few descriptors and as little memory as an operator may grant by mistake. */
  async starved(context, slices) {
    const lane = await Lane.open(path.join(context.folder, 'starved'), { associations_max: 64 });
    context.onEnd(() => lane.pacs.process.kill());
    const ledger = new Ledger();
    let appliance = await started(context, lane, { only: 'scp', prefix: ['prlimit', '--nofile=64:64'] });
    const senders = Array.from({ length: 32 }, (_, index) => slices.make(1, index + 1));
    const peers = await Promise.all(senders.map(() => Peer.connect(appliance.dicom)));
    const answers = await Promise.all(peers.map((peer, index) =>
      Promise.race([peer.associate('PULMO', 'SENDER', [[senders[index].sopClass, senders[index].syntax]]), sleep(3000).then(() => 'waits')])));
    const statuses = await Promise.all(peers.map((peer, index) =>
      (answers[index] === 'accepted' ? peer.store(senders[index].sopClass, senders[index].sopInstance, senders[index].dataset) : null)));
    statuses.forEach((status, index) => { if (status !== null) answered(ledger, senders[index], status, 'few descriptors'); });
    peers.forEach((peer) => peer.abort());
    const taken = statuses.filter((status) => status === 0).length;
    for (const instance of senders) {
      await until(`${instance.sopInstance} is not taken`, 30, async () => (await appliance.send(instance)) === 0);
      answered(ledger, instance, 0);
    }
    assert.equal(await appliance.stop(), 0);
    assert.doesNotMatch(appliance.log, /child ended|assert|terminate called/);
    context.step(`64 descriptors for 32 senders at once: ${taken} taken, the others later`);

    appliance = await started(context, lane, { only: 'scp' });
    const { child } = appliance.process;
    let refused = 0;
    for (const number of Array.from({ length: full ? 24 : 6 }, (_, index) => index * (full ? 1 : 2))) {
      const used = Number(/VmSize:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))[1]) * 1024;
      await run('prlimit', ['--pid', String(child.pid), `--as=${used + number * 4096 * 32}:unlimited`]);
      const instance = slices.make(2, number + 1);
      const status = await appliance.send(instance);
      await run('prlimit', ['--pid', String(child.pid), '--as=unlimited:unlimited']);
      assert.ok(appliance.process.alive, `reception lives with ${number * 128} KiB left: ${appliance.log.slice(-400)}`);
      if (typeof status === 'number' && !answered(ledger, instance, status, 'little memory')) refused++;
      else if (typeof status !== 'number') refused++;
      assert.ok(answered(ledger, instance, await appliance.send(instance), 'memory again'));
    }
    assert.equal(await appliance.stop(), 0);
    appliance = await started(context, lane);
    await settled(lane, ledger, 2);
    assert.equal(await appliance.stop(), 0);
    context.step(`little memory at ${full ? 24 : 6} sizes: ${refused} times refused, never ended`);
  },

  /** The worker within limits of address space that are too small for it at one place after the other. */
  async memory(context, slices) {
    const lane = await Lane.open(path.join(context.folder, 'memory'));
    context.onEnd(() => lane.pacs.process.kill());
    const ledger = new Ledger();
    let appliance = await started(context, lane, { only: 'scp' });
    assert.ok(await ledger.send(appliance.dicom, slices.study(1, 3)));
    await appliance.stop();
    const ends = {};
    for (let megabytes = 64; ; megabytes += full ? 8 : 48) {
      const worker = new Process(['prlimit', `--as=${megabytes * MIB}`, program, 'serve', '-c', lane.config, '--only', 'work']);
      const settledLine = await Promise.race([worker.line(/ job (done|failed) .*/, { seconds: 60 }), worker.ended.then(() => null)]);
      const status = await worker.stop();
      // oneDNN 2.6 does not look whether its memory for generated code was granted: that process dies, no other
      // and a library whose variables find no memory while the program is loaded ends it before any of its own code
      const unborn = status === 'SIGABRT' && worker.log.startsWith('terminate called');
      assert.ok(typeof status === 'number' || status === 'SIGSEGV' || unborn, `${megabytes} MiB: ended by ${status}\n${worker.log}`);
      const end = settledLine ? settledLine[1] : `ends with ${status}`;
      ends[end] = (ends[end] ?? 0) + 1;
      if (settledLine?.[1] === 'done') break;
      if (settledLine) assert.match(settledLine[0], /kind="memory"|Cannot allocate memory/);
      else assert.ok(status === 'SIGSEGV' || unborn || /memory|allocate|shared object/.test(worker.log), `${megabytes} MiB: says why`);
      assert.ok(megabytes < 8192, 'some size is enough');
      const { jobs } = await lane.state();
      assert.ok(jobs.every(({ state }) => state !== 'dead'));
      await dueNow(lane);
    }
    appliance = await started(context, lane);
    await settled(lane, ledger, 1);
    assert.equal(await appliance.stop(), 0);
    context.step(`a worker in too little memory: ${JSON.stringify(ends)}; then the job is done once`);
  },
};

/** Overwrites half of the database's pages; `before` runs first. Remembers what it looks like then. */
async function damage(lane, database, before) {
  await before();
  const file = openSync(database, 'r+');
  const size = statSync(database).size;
  writeSync(file, Buffer.alloc(Math.floor(size / 2), 0xa5), 0, Math.floor(size / 2), 4096);
  closeSync(file);
  lane.damaged = readFileSync(database);
}

async function refusesToStart(lane, sentence) {
  const refused = new Process([program, 'serve', '-c', lane.config]);
  assert.equal(await refused.ended, 1, refused.log);
  assert.match(refused.log, sentence);
  assert.match(refused.log, /pulmo restore BACKUP --to/);
}

/** Ends the back-off of jobs, as time would. */
async function dueNow(lane) {
  await run('python3', ['-c', `
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("UPDATE job SET due_ms = 0, attempt = 0 WHERE state = 'queued'")
database.commit()`, path.join(lane.data, 'pulmo.db')]);
}

function statOf(file) {
  try { return statSync(file).size; } catch { return 0; }
}

const why = await missing();
if (why) skip(why);
workInMemory();
const wanted = process.argv.slice(2);

await test('disk', async (context) => {
  const slices = await Slices.open(path.join(context.folder, 'slices'));
  const chosen = Object.keys(parts).filter((name) => !wanted.length || wanted.includes(name)).values();
  await Promise.all(Array.from({ length: TOGETHER }, async () => { // most of their time is waiting
    for (const name of chosen) await parts[name](context, slices).catch((error) => { throw new Error(`${name}: ${error.stack}`); });
  }));
});
