// Bad input over real sockets: every file of the interoperability set, foreign protocols, silence, floods. Each gets an
// answer, nothing dies, nothing grows, and a good study is still taken afterwards. PULMO may name an instrumented build.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { freePort, peakMemory, processTree, root, serve, sleep, until } from '../../packaging/appliance.mjs';
import { CT_IMAGE_STORAGE, EXPLICIT_LITTLE, Peer, echo, instanceOf, store } from './dimse.mjs';
import { filesBelow, phantom, test } from './scenario.mjs';

const shared = process.env.PULMO_SHARED ?? path.join(root, '..', 'shared');

/** Resident MiB of the reception process now. */
function receptionMemory(pid) {
  for (const id of processTree(pid)) {
    if (!readFileSync(`/proc/${id}/cmdline`, 'utf8').includes('scp')) continue;
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'))[1]) / 1024;
  }
  throw new Error('there is no reception process');
}

/** Sends bytes that are no DICOM; resolves once the other side closed. */
function foreign(port, bytes) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', () => {});
    socket.on('close', resolve);
    socket.on('error', () => {});
    setTimeout(() => { socket.destroy(); reject(new Error('the connection was left open')); }, 45000).unref();
  });
}

/** Study Instance UID of a data set in Explicit VR Little Endian. */
function studyUidOf(dataset) {
  const at = dataset.indexOf(Buffer.from('20000d005549', 'hex'));
  return dataset.toString('latin1', at + 8, at + 8 + dataset.readUInt16LE(at + 6)).replace(/\0$/, '');
}

/** A CT header in Explicit VR Little Endian with what a case says of it, and with this many bytes of pixels. */
function ctDataset(overrides, pixelBytes) {
  const number = (value) => { const bytes = Buffer.alloc(2); bytes.writeUInt16LE(value); return bytes; };
  const elements = {
    '00080016': ['UI', CT_IMAGE_STORAGE], '00080018': ['UI', '1.2.826.0.1.3680043.10.999.1'], '00080060': ['CS', 'CT'],
    '0020000D': ['UI', '1.2.826.0.1.3680043.10.999.2'], '0020000E': ['UI', '1.2.826.0.1.3680043.10.999.3'],
    '00200032': ['DS', '0\\0\\0 '], '00200037': ['DS', '1\\0\\0\\0\\1\\0 '], '00280002': ['US', number(1)],
    '00280004': ['CS', 'MONOCHROME2 '], '00280010': ['US', number(16)], '00280011': ['US', number(16)],
    '00280030': ['DS', '1\\1 '], '00280100': ['US', number(16)], '00280101': ['US', number(16)], '00280102': ['US', number(15)],
    '00280103': ['US', number(1)], '00281052': ['DS', '-1024 '], '00281053': ['DS', '1 '], ...overrides,
  };
  const encoded = Object.entries(elements).filter(([, value]) => value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([tag, [vr, value]]) => {
    let bytes = Buffer.from(value);
    if (bytes.length % 2) bytes = Buffer.concat([bytes, Buffer.from([0])]);
    const head = Buffer.alloc(8);
    head.writeUInt16LE(parseInt(tag.slice(0, 4), 16), 0);
    head.writeUInt16LE(parseInt(tag.slice(4), 16), 2);
    head.write(vr, 4, 'latin1');
    head.writeUInt16LE(bytes.length, 6);
    return Buffer.concat([head, bytes]);
  });
  const pixels = Buffer.alloc(12 + pixelBytes);
  pixels.write('e07f1000', 0, 'hex');
  pixels.write('OW', 4, 'latin1');
  pixels.writeUInt32LE(pixelBytes, 8);
  return Buffer.concat([...encoded, pixels]);
}

const HUGE = ['US', Buffer.from([255, 255])];
const cases = {
  'sizes of 65,535 by 65,535': ctDataset({ '00280010': HUGE, '00280011': HUGE }, 512),
  'Rows as UL instead of US': ctDataset({ '00280010': ['UL', Buffer.from([16, 0, 1, 0])] }, 512),
  'pixels shorter than promised': ctDataset({}, 100),
  'no RescaleIntercept': ctDataset({ '00281052': null }, 512),
  'a length that runs past the end': ctDataset({}, 512).subarray(0, 300),
  'no bytes at all': Buffer.alloc(0),
  'a UID that climbs out of its folder': ctDataset({ '0020000D': ['UI', '../../../../etc/x'] }, 512),
};

await test('bad-input', async (context) => {
  const { step } = context;
  const [dicomPort, httpsPort] = [await freePort(), await freePort()];
  const folder = path.join(context.folder, 'pulmo');
  const appliance = await serve(folder, {
    data_folder: path.join(folder, 'data'), dicom_port: dicomPort, https_port: httpsPort, dicom_timeout_s: 5,
    associations_max: 32, quiet_ms: 1000, disk_reserve_mb: 64,
  });
  context.onEnd(async (failure) => {
    const status = await appliance.stop();
    if (failure) console.log(appliance.log().split('\n').slice(-25).join('\n'));
    assert.equal(status, 0);
    assert.doesNotMatch(appliance.log(), /child ended|Sanitizer|runtime error/);
  });
  const lives = async (what) => assert.ok(await echo(dicomPort, 'PULMO', 'TEST'), `C-ECHO is answered after ${what}`);
  await lives('the start');
  step('the appliance is up');

  for (const [what, dataset] of Object.entries(cases)) {
    const status = await store(dicomPort, 'PULMO', 'TEST',
      { sopClass: CT_IMAGE_STORAGE, sopInstance: '1.2.826.0.1.3680043.10.999.1', syntax: EXPLICIT_LITTLE, dataset });
    assert.equal(typeof status, 'number', `${what}: a status, not ${status}`);
    console.log(`            ${what}: 0x${status.toString(16).padStart(4, '0')}`);
    await lives(what);
  }
  step(`${Object.keys(cases).length} hand-made instances were answered`);

  await foreign(dicomPort, 'GET / HTTP/1.1\r\nHost: pulmo\r\n\r\n');
  await foreign(dicomPort, Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]));
  await foreign(dicomPort, 'MSH|^~\\&|HL7|||');
  await foreign(dicomPort, Buffer.from([1, 0, 0xff, 0xff, 0xff, 0xff, 0, 1]));
  await lives('foreign protocols');
  step('HTTP, TLS, HL7 and a PDU of 4 GiB were turned away');

  const silent = await Promise.all(Array.from({ length: 24 }, () => Peer.connect(dicomPort)));
  await lives('24 silent peers');
  silent.forEach((peer) => peer.abort());
  step('24 silent peers held nobody up');

  const flood = async (count) => {
    for (let index = 0; index < count; index++) {
      const peer = await Peer.connect(dicomPort);
      await peer.associate('PULMO', 'TEST', [[CT_IMAGE_STORAGE, EXPLICIT_LITTLE]]);
      peer.abort();
    }
    await until('the associations do not end', 30, () => echo(dicomPort, 'PULMO', 'TEST'));
  };
  await flood(200); // what the allocator keeps for itself
  const before = receptionMemory(appliance.pid);
  await flood(1000);
  await sleep(500);
  const grown = receptionMemory(appliance.pid) - before;
  assert.ok(grown < 6, `1000 aborted associations cost ${grown.toFixed(1)} MiB`);
  step(`1000 aborted associations; memory grew by ${grown.toFixed(1)} MiB`);

  const interop = path.join(shared, 'data', 'interop');
  if (existsSync(interop)) {
    const answers = {};
    const files = filesBelow(interop);
    for (const [index, file] of files.entries()) {
      const instance = instanceOf(readFileSync(file), `1.2.826.0.1.3680043.10.999.4.${index}`);
      // whatever the file says that it is, and, so that its bytes reach the reader in any case, as a CT
      for (const sopClass of new Set([instance.sopClass, CT_IMAGE_STORAGE])) {
        const answer = await store(dicomPort, 'PULMO', 'TEST', { ...instance, sopClass }).catch((error) => {
          throw new Error(`${path.basename(file)}: ${error.message}`);
        });
        const word = typeof answer === 'number' ? `0x${answer.toString(16).padStart(4, '0')}` : answer;
        answers[word] = (answers[word] ?? 0) + 1;
      }
    }
    await lives('the interoperability files');
    assert.ok(!answers.closed, `no association was closed without a word: ${JSON.stringify(answers)}`);
    step(`${files.length} files of other toolkits: ${JSON.stringify(answers)}`);
  } else console.log(`            no ${interop}: its files were not sent`);

  const { ct } = await phantom(context.folder);
  let studyUid = '';
  for (const file of filesBelow(ct)) {
    const instance = instanceOf(readFileSync(file), '');
    const status = await store(dicomPort, 'PULMO', 'TEST', instance);
    assert.equal(status, 0, `${file} is stored`);
    studyUid = studyUidOf(instance.dataset);
  }
  await until('the good study is not analysed', 600, () => {
    const job = new RegExp(` worker job taken job=(\\d+) kind=1 .*study_uid=${studyUid.replaceAll('.', '\\.')}$`, 'm').exec(appliance.log());
    return job && appliance.log().includes(` worker job done job=${job[1]} `);
  });
  step('a good study is taken and analysed afterwards');
  console.log(`            peak memory, MiB: ${JSON.stringify(peakMemory(appliance.pid))}`);
});
