// Reception: instances acknowledged a second, over one association and over four, by Pulmo (durable: file, folder and row
// synced before each acknowledgement), Orthanc, and DCMTK's storescp (no database, nothing synced). The same sender,
// DCMTK's storescu, TCP_NODELAY set on both ends, the same files.

import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { answers, freePort, pulmo, serve, until } from '../packaging/appliance.mjs';
import { Orthanc } from '../tests/integration/orthanc.mjs';

const env = { ...process.env, TCP_NODELAY: '1' };
const folder = mkdtempSync(path.join(tmpdir(), 'pulmo-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Four phantoms of different seeds, so that four associations never send the same instance. */
async function chests() {
  const made = [];
  for (const seed of [1, 2, 3, 4]) {
    made.push(path.join(folder, `ct-${seed}`));
    await pulmo('phantom', '--out', made.at(-1), '--seed', String(seed), '--slices', '100');
  }
  return made;
}

function send(port, aet, ct) {
  return new Promise((resolve, reject) => {
    const child = spawn('storescu', ['-aet', 'BENCH', '-aec', aet, '+sd', '127.0.0.1', String(port), ct], { env, stdio: 'ignore' });
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`storescu ended with ${code}`))));
  });
}

async function measure(name, port, aet, cts) {
  const slices = (list) => list.reduce((sum, ct) => sum + readdirSync(ct).length, 0);
  const rate = async (lists) => {
    const began = process.hrtime.bigint();
    await Promise.all(lists.map((ct) => send(port, aet, ct)));
    return slices(lists) / (Number(process.hrtime.bigint() - began) / 1e9);
  };
  const one = await rate([cts[0]]);
  const four = await rate(cts.slice(1).concat(cts[4]));
  console.log(`  ${name.padEnd(34)} ${one.toFixed(0).padStart(6)} /s   ${four.toFixed(0).padStart(6)} /s`);
}

const cts = await chests();
cts.push(path.join(folder, 'ct-5')); // a fifth, so that the four of the second measurement are new
await pulmo('phantom', '--out', cts[4], '--seed', '5', '--slices', '100');
console.log('reception of CT slices of 512 KiB        1 association   4 associations');

const port = await freePort();
const appliance = await serve(path.join(folder, 'pulmo'), {
  data_folder: path.join(folder, 'pulmo', 'data'), dicom_port: port, https_port: await freePort(), quiet_ms: 3600000, disk_reserve_mb: 64,
});
await measure('Pulmo (durable)', port, 'PULMO', cts);
await appliance.stop();

const orthanc = await Orthanc.create(path.join(folder, 'orthanc'), {});
if (orthanc) {
  await measure('Orthanc', orthanc.dicomPort, 'ORTHANC', cts);
  await orthanc.stop();
}

if (spawnSync('storescp', ['--version']).status === 0) {
  const storePort = await freePort();
  const store = path.join(folder, 'storescp');
  mkdirSync(store);
  const child = spawn('storescp', ['--fork', '-od', store, String(storePort)], { env, stdio: 'ignore' });
  await until('storescp does not listen', 10, () => answers(storePort));
  await measure('storescp (files only)', storePort, 'STORESCP', cts);
  child.kill();
}
