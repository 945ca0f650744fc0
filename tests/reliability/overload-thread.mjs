// What presses on the appliance, in a thread of its own so that the measuring thread is not kept waiting by it: attackers
// that come back whenever they are thrown out, or associations that are aborted.

import { parentPort, workerData } from 'node:worker_threads';
import { sleep } from '../../packaging/appliance.mjs';
import { abortMany, attackDicom, attackHttps } from './overload-peers.mjs';

const { dicomPort, httpsPort, attackers, aborts } = workerData;
const BACK_MS = 300;
const held = {}; // kind of attack -> how long each of its connections was let, in ms
let stopped = false;

async function attack({ kind, protocol, from }) {
  while (!stopped) {
    const [run, port] = protocol === 'dicom' ? [attackDicom, dicomPort] : [attackHttps, httpsPort];
    const ms = await run(port, kind, from).catch(() => null); // thrown out in the handshake
    if (ms !== null) (held[kind] ??= []).push(ms);
    await sleep(BACK_MS);
  }
}

parentPort.on('message', () => {
  stopped = true;
  parentPort.postMessage({ held });
  parentPort.close();
});
if (aborts) {
  await abortMany({ ...aborts, port: aborts.protocol === 'dicom' ? dicomPort : httpsPort });
  parentPort.postMessage('done');
}
for (const attacker of attackers ?? []) attack(attacker);
