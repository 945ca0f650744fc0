// One result for each state of a study, however it arrives: the rows of the table in docs/RELIABILITY.md, over sockets,
// against real processes, with a real Orthanc as the PACS that is told.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { Client, freePort, pulmo, serve, sleep, until } from '../../packaging/appliance.mjs';
import { CT_IMAGE_STORAGE, Peer, instanceOf } from '../integration/dimse.mjs';
import { Orthanc } from '../integration/orthanc.mjs';
import { filesBelow, phantom, skip, test } from '../integration/scenario.mjs';

const QUIET_MS = 800;
const TIMEOUT_S = 12;

/** Replaces text in a data set by text of the same length. */
function edited({ dataset, ...rest }, from, to) {
  assert.equal(from.length, to.length);
  const copy = Buffer.from(dataset);
  let count = 0;
  for (let at = copy.indexOf(from); at >= 0; at = copy.indexOf(from, at + 1), count++) copy.write(to, at, 'latin1');
  assert.ok(count, `${from} is in the data set`);
  return { ...rest, dataset: copy };
}

function uidIn({ dataset }, tag) {
  const at = dataset.indexOf(Buffer.from(`${tag}5549`, 'hex'));
  return dataset.toString('latin1', at + 8, at + 8 + dataset.readUInt16LE(at + 6)).replace(/\0$/, '');
}

class Lab {
  static async open(context) {
    const lab = new Lab();
    Object.assign(lab, { context, seed: 100 });
    [lab.dicomPort, lab.httpsPort] = [await freePort(), await freePort()];
    lab.orthanc = await Orthanc.create(path.join(context.folder, 'orthanc'), { pulmo: { aet: 'PULMO', port: lab.dicomPort } });
    if (!lab.orthanc) skip('Orthanc is not installed');
    context.onEnd(() => lab.orthanc.stop());
    const folder = path.join(context.folder, 'pulmo');
    lab.appliance = await serve(folder, {
      data_folder: path.join(folder, 'data'), dicom_port: lab.dicomPort, https_port: lab.httpsPort, dicom_bind: '127.0.0.1',
      https_bind: '127.0.0.1', quiet_ms: QUIET_MS, dicom_timeout_s: TIMEOUT_S, disk_reserve_mb: 64, threads: 1,
      destinations: `ORTHANC@127.0.0.1:${lab.orthanc.dicomPort}/none`,
    });
    context.onEnd(async (failure) => {
      const status = await lab.appliance.stop();
      if (failure) console.log(lab.appliance.log().split('\n').slice(-30).join('\n'));
      assert.equal(status, 0, 'the appliance stops in order');
      assert.doesNotMatch(lab.appliance.log(), /child ended/, 'no process of the appliance died');
    });
    const password = (await pulmo('user', 'add', 'jane', '--role', 'administrator', '-c', lab.appliance.configPath)).trim();
    lab.client = new Client(lab.httpsPort, path.join(folder, 'data', 'https-certificate.pem'));
    await lab.client.login('jane', password);
    return lab;
  }

  /** Twelve slices as instances: a study of its own, refused by the gate, which needs no inference. */
  async make(seed, ...options) {
    const folder = path.join(this.context.folder, `ct-${seed}-${options.length}`);
    mkdirSync(folder);
    const { ct } = await phantom(folder, '--slices', '12', '--seed', String(seed), ...options);
    return filesBelow(ct).map((file) => instanceOf(readFileSync(file), ''));
  }

  async next(...options) {
    const seed = this.seed++;
    const instances = await this.make(seed, ...options);
    return { instances, seed, uid: uidIn(instances[0], '20000d00') };
  }

  async connect(instances, calling = 'SENDER', from = '127.0.0.1') {
    const peer = await Peer.connect(this.dicomPort, from);
    assert.equal(await peer.associate('PULMO', calling, [[CT_IMAGE_STORAGE, instances[0].syntax]]), 'accepted');
    return peer;
  }

  async store(peer, instances) {
    for (const { sopClass, sopInstance, dataset } of instances) assert.equal(await peer.store(sopClass, sopInstance, dataset), 0);
  }

  /** All of them on one association. */
  async send(instances, calling, from) {
    const peer = await this.connect(instances, calling, from);
    await this.store(peer, instances);
    await peer.release();
  }

  async study(uid) { return this.client.json('GET', `/api/studies/${uid}`).catch(() => null); }

  /** The result after `former`, once the study rests. */
  result(uid, former = 0) {
    return until(`no result of ${uid} after ${former}`, 90, async () => {
      const document = await this.study(uid);
      return document?.result && document.result.id > former && document.study.state === 'refused' && document;
    });
  }

  /** Nothing comes of what was sent: the result stays what it was. */
  async assertSame(uid, id) {
    await sleep(3 * QUIET_MS + 1000);
    const { study, result } = await this.study(uid);
    assert.deepEqual([study.state, result.id, result.superseded_by], ['refused', id, 0]);
    return study;
  }

  jobs(uid) {
    return [...this.appliance.log().matchAll(new RegExp(`worker job taken .*kind=1 .*study_uid=${uid.replaceAll('.', '\\.')}$`, 'gm'))].length;
  }

  async audit(action, uid) {
    const { body } = await this.client.request('GET', '/api/audit');
    return body.toString().trim().split('\n').map((line) => JSON.parse(line)).map((row) => row.content ?? row)
      .map((row) => (typeof row === 'string' ? JSON.parse(row) : row)).filter((row) => row.action === action && row.study_uid === uid);
  }

  /** SRs of a study in the PACS, by their time of creation, once there are `count`. */
  async reports(uid, count) {
    const [study] = await until('the study is not in the PACS', 60, async () => {
      const found = await this.orthanc.post('/tools/find', JSON.stringify({ Level: 'Study', Query: { StudyInstanceUID: uid } }));
      return found.length && found;
    });
    await until(`not ${count} reports in the PACS`, 60, async () => (await this.orthanc.results(study)).length >= count);
    const found = await this.orthanc.results(study);
    assert.equal(found.length, count, 'one report a result');
    return found.sort((a, b) => `${a.tags.ContentDate}${a.tags.ContentTime}`.localeCompare(`${b.tags.ContentDate}${b.tags.ContentTime}`));
  }
}

const cases = {
  async 'a slow sender'(lab) {
    const { instances, uid } = await lab.next();
    const peer = await lab.connect(instances);
    for (const instance of instances.slice(0, 5)) {
      await lab.store(peer, [instance]);
      await sleep(1.5 * QUIET_MS); // silence that is longer than the quiet time, within the association
      assert.equal((await lab.study(uid)).study.state, 'receiving');
    }
    await lab.store(peer, instances.slice(5));
    await peer.release();
    const { study, result } = await lab.result(uid);
    assert.deepEqual([study.instances, result.supersedes, lab.jobs(uid)], [12, 0, 1]);
  },

  async 'two associations for one study'(lab) {
    const { instances, uid } = await lab.next();
    const [first, second] = [await lab.connect(instances), await lab.connect(instances, 'SECOND', '127.0.0.2')];
    await Promise.all([lab.store(first, instances.slice(0, 7)), lab.store(second, instances.slice(7, 11))]);
    await first.release();
    await sleep(2 * QUIET_MS);
    assert.equal((await lab.study(uid)).study.state, 'receiving', 'the second one may still send');
    await lab.store(second, instances.slice(11));
    await second.release();
    const { study } = await lab.result(uid);
    assert.deepEqual([study.instances, lab.jobs(uid)], [12, 1]);
  },

  async 'a series sent twice'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances);
    const { result } = await lab.result(uid);
    await lab.send(instances);
    const study = await lab.assertSame(uid, result.id);
    assert.deepEqual([study.instances, lab.jobs(uid)], [12, 1]);
    assert.equal((await lab.reports(uid, 1)).length, 1);
  },

  async 'a late slice after the result'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances.slice(0, 11));
    const { result: first } = await lab.result(uid);
    const [before] = await lab.reports(uid, 1);
    assert.equal(before.tags.PredecessorDocumentsSequence, undefined);
    await lab.send(instances.slice(11));
    const { study, result: second } = await lab.result(uid, first.id);
    assert.deepEqual([study.instances, study.supersedes, second.supersedes, second.superseded_by], [12, first.id, first.id, 0]);
    const { result: old } = await lab.client.json('GET', `/api/results/${first.id}`);
    assert.equal(old.superseded_by, second.id, 'the former result says which one replaced it');
    const [, after] = await lab.reports(uid, 2);
    const [series] = after.tags.PredecessorDocumentsSequence[0].ReferencedSeriesSequence;
    assert.equal(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID, before.uid, 'the new report names the former one');
    assert.equal(series.SeriesInstanceUID, before.tags.SeriesInstanceUID);
    assert.match(await pulmo('replay', String(second.id), '-c', lab.appliance.configPath), / 0 different|identical/, 'and is computed again with it');
  },

  async 'a study that never completes'(lab) {
    const { instances, uid } = await lab.next();
    const peer = await lab.connect(instances);
    await lab.store(peer, instances.slice(0, 4)); // and then nothing, on an open association
    const silent = Date.now();
    await sleep(2 * QUIET_MS);
    const early = await lab.study(uid);
    if (Date.now() - silent < 1000 * TIMEOUT_S) // a machine that stood still that long has dropped the peer by now
      assert.equal(early.study.state, 'receiving');
    const { study } = await lab.result(uid);
    peer.abort();
    assert.deepEqual([study.instances, lab.jobs(uid)], [4, 1]);
    assert.match(study.reason, /TOO_FEW_SLICES/, 'what is there is judged as it is');
  },

  async 'one study from two sources'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances.slice(0, 8));
    const { result } = await lab.result(uid);
    await lab.send(instances.slice(4), 'ARCHIVE', '127.0.0.3');
    const { study } = await lab.result(uid, result.id);
    assert.deepEqual([study.instances, lab.jobs(uid)], [12, 2]);
    assert.equal((await lab.audit('receive-second-source', uid)).length, 1);
  },

  async 'two studies with the same UID'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances);
    const { result } = await lab.result(uid);
    const series = uidIn(instances[0], '20000e00');
    const strangers = instances.map((instance, index) => {
      const other = instance.sopInstance.replace(/\d{4}$/, String(1000 + index));
      const moved = edited(edited(instance, 'PULMO-PHANTOM', 'OTHER-PATIENT'), instance.sopInstance, other);
      return { ...moved, sopInstance: other };
    });
    assert.ok(series);
    await lab.send(strangers, 'ARCHIVE', '127.0.0.3');
    const study = await lab.assertSame(uid, result.id);
    assert.deepEqual([study.instances, study.patient_id], [12, 'PULMO-PHANTOM'], "the first patient's study is untouched");
    assert.equal((await lab.audit('instance-foreign', uid)).length, 12, 'each is kept beside, and alarms');
  },

  async 'the same UID transcoded'(lab) {
    const { instances, seed, uid } = await lab.next();
    await lab.send(instances);
    const { result } = await lab.result(uid);
    const transcoded = await lab.make(seed, '--transfer-syntax', 'jpegls');
    assert.notEqual(transcoded[0].syntax, instances[0].syntax);
    await lab.send(transcoded);
    const study = await lab.assertSame(uid, result.id);
    assert.equal(study.instances, 12);
    assert.equal((await lab.audit('instance-transcoded', uid)).length, 12);
  },

  async 'the same UID with a corrected header'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances);
    const { result: first } = await lab.result(uid);
    await lab.send(instances.map((instance) => edited(instance, 'PHANTOM^PULMO', 'CORRECT^PULMO')));
    const { study, result } = await lab.result(uid, first.id);
    assert.deepEqual([study.instances, study.patient_name, result.supersedes], [12, 'CORRECT^PULMO', first.id]);
    assert.equal((await lab.audit('instance-corrected', uid)).length, 12);
    const [before, after] = await lab.reports(uid, 2);
    assert.equal(after.tags.PatientName, 'CORRECT^PULMO');
    assert.equal(after.tags.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID, before.uid);
  },

  async 'the same UID in conflict'(lab) {
    const { instances, uid } = await lab.next();
    await lab.send(instances);
    const { result } = await lab.result(uid);
    const dataset = Buffer.from(instances[0].dataset);
    dataset[dataset.length - 1000] ^= 1;
    await lab.send([{ ...instances[0], dataset }], 'ARCHIVE', '127.0.0.3');
    const study = await lab.assertSame(uid, result.id);
    assert.equal(study.instances, 12);
    assert.equal((await lab.audit('instance-conflict', uid)).length, 1, 'both are kept, and a human is told');
  },
};

await test('completeness', async (context) => {
  const lab = await Lab.open(context);
  context.step('Orthanc and Pulmo are up');
  const wanted = process.env.PULMO_CASE;
  // Side by side: each has a study of its own, and most of the time is quiet time.
  await Promise.all(Object.entries(cases).filter(([name]) => !wanted || name.includes(wanted)).map(async ([name, body]) => {
    await body(lab).catch((error) => { error.message = `${name}: ${error.message}`; throw error; });
    context.step(name);
  }));
  await pulmo('audit', 'verify', '-c', lab.appliance.configPath);
});
