// Images are given up only after the PACS, a real Orthanc, has confirmed result and images: by Storage Commitment, whose
// report comes on an association of its own, and by C-FIND. Then killed at every durable call of a purge.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Client, freePort, pulmo, program, serve, sleep, until } from '../../packaging/appliance.mjs';
import { IMPLICIT_LITTLE, Peer, STORAGE_COMMITMENT, echo } from '../integration/dimse.mjs';
import { Orthanc } from '../integration/orthanc.mjs';
import { filesBelow, phantom, skip, test, upload } from '../integration/scenario.mjs';
import { Process, killAt } from './crash-lab.mjs';

const run = promisify(execFile);
const storeState = path.join(path.dirname(killAt), 'store_state');
const SLICES = 20;
const blobs = (data) => filesBelow(path.join(data, 'blobs')).length;

/** A store's rows as they are, its contents read and digested. */
async function stateOf(data) {
  return JSON.parse((await run(storeState, [data], { maxBuffer: 64 << 20 })).stdout);
}

/** What holds at any moment: the chain and the database whole, every content there but those that were given up. */
async function assertWhole(state, configPath) {
  assert.deepEqual(state.integrity, ['ok']);
  assert.equal(state.foreign_keys, 0);
  const lost = [...state.instances.filter(({ purged }) => !purged), ...state.artifacts, ...state.study_artifacts]
    .filter(({ content }) => String(content).startsWith('bad'));
  assert.deepEqual(lost, [], 'nothing that a row names is missing');
  await pulmo('audit', 'verify', '-c', configPath);
}

class Hospital {
  static async open(context) {
    const hospital = new Hospital();
    Object.assign(hospital, { context, folder: path.join(context.folder, 'pulmo'), password: null });
    [hospital.dicomPort, hospital.httpsPort] = [await freePort(), await freePort()];
    hospital.orthanc = await Orthanc.create(path.join(context.folder, 'orthanc'), { pulmo: { aet: 'PULMO', port: hospital.dicomPort } });
    if (!hospital.orthanc) skip('Orthanc is not installed');
    context.onEnd(() => hospital.orthanc.stop());
    hospital.data = path.join(hospital.folder, 'data');
    return hospital;
  }

  /** Starts the appliance with these settings over those that all parts have. */
  async start(confirm, settings = {}) {
    mkdirSync(this.folder, { recursive: true });
    this.appliance = await serve(this.folder, {
      data_folder: this.data, dicom_port: this.dicomPort, https_port: this.httpsPort, dicom_bind: '127.0.0.1',
      https_bind: '127.0.0.1', quiet_ms: 300, disk_reserve_mb: 64, threads: 1, retention_days: 0, retention_period_s: 1,
      disk_high_percent: 100, disk_low_percent: 100, commitment_wait_s: 60,
      destinations: `ORTHANC@127.0.0.1:${this.orthanc.dicomPort}${confirm}`, ...settings,
    });
    this.password ??= (await pulmo('user', 'add', 'jane', '-c', this.appliance.configPath)).trim();
    this.client = new Client(this.httpsPort, path.join(this.data, 'https-certificate.pem'));
    await this.client.login('jane', this.password);
    this.looked = this.appliance.log().length;
  }

  async stop(failure) {
    if (failure) console.log(this.appliance.log().split('\n').slice(-30).join('\n'));
    assert.equal(await this.appliance.stop(), 0, 'the appliance stops in order');
    assert.doesNotMatch(this.appliance.log(), /child ended/, 'no process of the appliance died');
  }

  /** Twenty slices: decoded, but refused for the lungs that they cut; needs no inference, and is signed as any result. */
  async receive(seed) {
    const folder = path.join(this.context.folder, `ct-${seed}`);
    mkdirSync(folder);
    const { ct } = await phantom(folder, '--slices', String(SLICES), '--seed', String(seed));
    const { study } = await upload(this.orthanc, ct);
    await this.orthanc.send('pulmo', study);
    const { StudyInstanceUID: uid } = (await this.orthanc.get(`/studies/${study}`)).MainDicomTags;
    const row = await until('no result', 120, async () => (await this.client.studies()).find((each) => each.study_uid === uid && each.state === 'refused'));
    return { study, uid, result: row.result_id };
  }

  async ctSeries({ study }) {
    return (await this.orthanc.get(`/studies/${study}/series`)).find(({ MainDicomTags }) => MainDicomTags.Modality === 'CT');
  }

  async sign({ uid, result }) {
    await this.client.json('POST', `/api/results/${result}/sign`, { password: this.password });
    await until('not signed', 60, async () => (await this.row(uid)).state === 'signed');
  }

  async row(uid) { return (await this.client.json('GET', `/api/studies/${uid}`)).study; }

  logged(pattern, seconds = 60) {
    return until(`no line ${pattern}`, seconds, () => pattern.exec(this.appliance.log().slice(this.looked)));
  }

  /** Long enough for several looks of the appliance. */
  async assertKept({ uid }, why) {
    await sleep(2500);
    assert.equal((await this.row(uid)).purged_ms, 0, why);
  }

  purged({ uid }) {
    return until(`${uid} is not purged`, 60, async () => { const row = await this.row(uid); return row.purged_ms > 0 && row; });
  }
}

const uidLine = (event, uid) => new RegExp(`${event} .*study_uid=${uid.replaceAll('.', '\\.')} .*`);

/** By Storage Commitment, with a hold; what is left of the study afterwards, and how it comes back. */
async function byCommitment(hospital) {
  const { context: { step }, orthanc } = hospital;
  await hospital.start('/commitment');
  const { client } = hospital;
  const study = await hospital.receive(1);
  const series = await client.json('GET', `/api/studies/${study.uid}/series.json`);
  await hospital.assertKept(study, 'a result that awaits its reader keeps its images');
  await pulmo('hold', study.uid, '--reason', 'teaching', '-c', hospital.appliance.configPath);
  await hospital.sign(study);
  await hospital.logged(uidLine('confirm confirmed', study.uid));
  await hospital.logged(/scp storage commitment reported .*failed=0/);
  step('unsigned: kept; signed: confirmed by the report of a Storage Commitment');
  await hospital.assertKept(study, 'a held study keeps its images');
  assert.equal((await hospital.row(study.uid)).hold_reason, 'teaching');
  await client.json('POST', `/api/studies/${study.uid}/hold`, { held: false });
  const before = blobs(hospital.data);
  await hospital.purged(study);
  await until('the files stay', 10, () => before - blobs(hospital.data) >= SLICES + 2);
  step('held: kept; released: purged, images and what was decoded of them');

  for (const target of ['series.json', `slices/${series.version}/0`]) {
    const { status, body } = await client.request('GET', `/api/studies/${study.uid}/${target}`);
    assert.equal(status, 410);
    assert.match(JSON.parse(body).message, /images were removed from this machine on \d{4}-\d\d-\d\d, after the PACS had confirmed/);
  }
  const { status, body } = await client.request('GET', `/api/results/${study.result}/artifacts/signed-sr.dcm`);
  assert.equal(status, 200, 'the report is kept');
  assert.equal(body.toString('latin1', 128, 132), 'DICM');
  assert.match(await pulmo('replay', String(study.result), '-c', hospital.appliance.configPath).catch((error) => error.message), /20 images of study .* were purged/);
  await orthanc.send('pulmo', (await hospital.ctSeries(study)).ID);
  await until('the images do not come back', 30, async () => (await client.request('GET', `/api/studies/${study.uid}/series.json`)).status === 200);
  const again = await hospital.row(study.uid);
  assert.deepEqual([again.state, again.result_id, again.instances], ['signed', study.result, SLICES], 'sent again it is the study as it was');
  step('410 for slices, the report is kept; sent again from the PACS it opens again, without a new result');
}

/** Reports that nobody asked for, or that are none, on an association without role selection: refused, nothing noted. */
async function forgedReports(hospital) {
  const uid = (tag, value) => {
    const text = Buffer.from(value.length % 2 ? `${value}\0` : value);
    const head = Buffer.alloc(8);
    head.write(tag, 'hex');
    head.writeUInt32LE(text.length, 4);
    return Buffer.concat([head, text]);
  };
  const reports = [
    ['of an unknown transaction', uid('08009511', '2.25.1'), 0x0112],
    ['without a transaction', uid('08001800', '1.2.3'), 0x0115],
    ['that is cut off', uid('08009511', '2.25.123456789').subarray(0, 14), 0x0115],
  ];
  for (const [what, dataset, status] of reports) {
    const peer = await Peer.connect(hospital.dicomPort);
    assert.equal(await peer.associate('PULMO', 'ORTHANC', [[STORAGE_COMMITMENT, IMPLICIT_LITTLE]]), 'accepted');
    assert.equal(await peer.report(1, dataset), status, `a report ${what}`);
    await peer.release();
  }
  assert.ok(await echo(hospital.dicomPort, 'PULMO', 'ORTHANC'));
  hospital.context.step('forged and broken reports are refused');
}

/** The PACS lost an image and a report: nothing is confirmed; the report, which is ours, is sent again. */
async function somethingMissing(hospital) {
  const { orthanc, context: { step } } = hospital;
  const study = await hospital.receive(2);
  const [report] = await until('its first report does not arrive', 60, async () => {
    const found = await orthanc.results(study.study);
    return found.length && found;
  });
  await orthanc.remove(`/instances/${(await hospital.ctSeries(study)).Instances[0]}`);
  await orthanc.remove(`/instances/${report.id}`);
  await hospital.sign(study);
  const [line] = await hospital.logged(uidLine('confirm not confirmed', study.uid));
  assert.match(line, /1 results and 1 images of 22 objects are not there/);
  await hospital.assertKept(study, 'an image that the PACS has not got keeps its study');
  await until('the report is not sent again', 30, async () => (await orthanc.results(study.study)).some(({ uid }) => uid === report.uid));
  step('an image and a report are missing in the PACS: not confirmed, kept; the report is sent again');
  return study;
}

/** Signed while the PACS is down, which moves to another port meanwhile: nothing is purged before it is up, has the results,
 *  and says so by C-FIND, also of what it got at its former address. */
async function pacsDown(hospital) {
  const { orthanc, context: { step } } = hospital;
  await hospital.appliance.stop();
  await hospital.start('/find', { confirm_images: 1 });
  const study = await hospital.receive(3);
  await until('its first report does not arrive', 60, async () => (await orthanc.results(study.study)).length === 1);
  await orthanc.stop();
  await hospital.sign(study);
  await hospital.logged(/outbox not sent /);
  await hospital.assertKept(study, 'with the PACS down nothing is confirmed');
  await hospital.appliance.stop();
  await orthanc.move();
  await hospital.start('/find', { confirm_images: 1 });
  await hospital.assertKept(study, 'told where it is now, nothing is confirmed either');
  step('the PACS is down: kept; Pulmo was told where it will be');
  await orthanc.start();
  await hospital.logged(uidLine('confirm confirmed', study.uid), 120);
  assert.match(hospital.appliance.log().slice(hospital.looked), /confirmed .*by="C-FIND"/);
  await hospital.purged(study);
  step('the PACS is up at another address: sent, confirmed by C-FIND, purged');
}

/** A disk above its high mark gives up what is confirmed, whatever its days; and says so when nothing is left. */
async function fullDisk(hospital, missing) {
  const { context: { step } } = hospital;
  await hospital.appliance.stop();
  await hospital.start('/find', { retention_days: -1 });
  const study = await hospital.receive(4);
  await hospital.sign(study);
  await hospital.logged(uidLine('confirm confirmed', study.uid));
  await hospital.assertKept(study, 'retention_days = -1 purges nothing by its age');
  await hospital.appliance.stop();
  // A copy for the crash test: confirmed, not purged.
  cpSync(hospital.data, path.join(hospital.context.folder, 'eligible'), { recursive: true });
  await hospital.start('/find', { retention_days: -1, disk_high_percent: 1, disk_low_percent: 0 });
  await hospital.purged(study);
  assert.equal((await hospital.row(missing.uid)).purged_ms, 0, 'the unconfirmed one stays however full the disk is');
  const { disk } = await until('health says nothing', 20, async () => {
    const health = await hospital.client.json('GET', '/api/health');
    return health.disk && health;
  });
  assert.match(disk, /no images may be purged: 0 studies await a signature, 1 wait for the PACS/);
  assert.match(hospital.appliance.log(), /retention disk notice=/);
  step('a full disk: purged at once; health and log say that nothing else may go');
  return study;
}

/** Killed before and after every durable call of the purge, then started again. */
async function killed(hospital, study) {
  const { context: { folder, step } } = hospital;
  const data = path.join(folder, 'crash');
  const configPath = path.join(folder, 'crash.conf');
  writeFileSync(configPath, Object.entries({ ...hospital.appliance.settings, data_folder: data, retention_days: 0, disk_high_percent: 100, disk_low_percent: 100 })
    .map(([key, value]) => `${key} = ${value}\n`).join(''));
  const command = [program, 'serve', '-c', configPath, '--only', 'decode'];
  const purge = async (before) => {
    rmSync(data, { recursive: true, force: true });
    cpSync(path.join(folder, 'eligible'), data, { recursive: true });
    const process = new Process(before ? [killAt, data, path.join(folder, 'points'), ...before, ...command] : command);
    await process.line(/retention images purged .*/, { seconds: 30 });
    if (!before) await until('files stay', 10, async () => (await stateOf(data)).blob_purge === 0);
    return process;
  };
  const wholeRun = await purge(null);
  await wholeRun.stop();
  const whole = await stateOf(data);
  const expected = blobs(data);
  assert.equal(whole.instances.filter(({ study: uid, purged }) => uid === study.uid && purged).length, SLICES);
  let kills = 0;
  let points = 0;
  const step_ = Number(process.env.PULMO_RETENTION_STEP ?? 15); // 1 = every call, before and after it
  for (let ended = false, turn = 0; !ended; turn++) {
    const point = step_ === 1 ? 1 + (turn >> 1) : 1 + turn * step_;
    const process = await purge([turn % 2 ? 'after' : 'before', String(point)]);
    // what follows the purge is the sweep and silence: it lives on then, and the points are over
    ended = process.alive && (await Promise.race([process.ended.then(() => false), sleep(1500).then(() => true)]));
    await process.kill();
    if (!ended) [kills, points] = [kills + 1, point];
    assert.ok(ended || /^killed/m.test(readFileSync(path.join(folder, 'points'), 'utf8')));
    await assertWhole(await stateOf(data), configPath);
    const again = new Process(command);
    await until(`point ${point}: not purged after the next start`, 20, async () => {
      const state = await stateOf(data);
      return state.blob_purge === 0 && state.instances.every(({ study: uid, purged }) => uid !== study.uid || purged);
    });
    await again.stop();
    const state = await stateOf(data);
    await assertWhole(state, configPath);
    assert.equal(blobs(data), expected, `point ${point}: the same files as without a kill`);
    assert.equal(state.audit.filter(({ action, study_uid: uid }) => action === 'purge' && uid === study.uid).length, 1, 'purged once');
  }
  assert.ok(kills >= 5, `${kills} kills`);
  step(`killed ${kills} times at the ${points} durable calls of a purge (${step_ === 1 ? 'before and after each' : `every ${step_}`}): whole, purged once, no file lost or left`);
}

await test('retention', async (context) => {
  const hospital = await Hospital.open(context);
  context.onEnd((failure) => hospital.stop(failure));
  await byCommitment(hospital);
  await forgedReports(hospital);
  const missing = await somethingMissing(hospital);
  await pacsDown(hospital);
  const study = await fullDisk(hospital, missing);
  if (existsSync(killAt)) await killed(hospital, study);
  else console.log(`            no ${killAt}: the purge was not killed`);
  await assertWhole(await stateOf(hospital.data), hospital.appliance.configPath);
});
