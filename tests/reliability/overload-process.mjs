// What presses on the appliance, in a process of its own so that the measuring one is not kept waiting by it: attackers
// that come back whenever they are thrown out, or associations that are aborted.

import { sleep } from '../../packaging/appliance.mjs';
import { abortMany, attackDicom, attackHttps } from './overload-peers.mjs';

const { dicomPort, httpsPort, attackers, aborts } = JSON.parse(process.argv[2]);
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

process.on('message', () => {
  stopped = true;
  process.send({ held });
});
if (aborts) {
  await abortMany({ ...aborts, port: aborts.protocol === 'dicom' ? dicomPort : httpsPort });
  process.send('done');
}
for (const attacker of attackers ?? []) attack(attacker);
