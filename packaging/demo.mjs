// `make demo`: the appliance on a fresh folder, a chest CT sent to it over C-STORE, its findings, and a page to look at.
//
// DEMO_CT=<folder> sends that CT instead of the phantom; DEMO_ONCE=1 ends after the result.

import { existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { Client, portNear, pulmo, root, serve, until } from './appliance.mjs';

const folder = path.join(root, 'demo-data');
const say = (text = '') => console.log(text);
const percent = (value) => `${Math.round(100 * value)} %`;

function describe(finding) {
  const spread = `${percent(finding.probability)} (${Math.round(100 * finding.probability_low)} to ${percent(finding.probability_high)})`;
  const size = `${finding.diameter_mm.toFixed(1)} mm`;
  const place = finding.center_lps_mm.map((value) => value.toFixed(1)).join(' ');
  return `  ${finding.id}. nodule ${spread}, ${size}, ${finding.texture}, lobe ${finding.lobe}, at LPS ${place} mm` +
    (finding.review ? ', uncertain: review' : '');
}

function report(study, analysis) {
  if (study.state === 'refused' || study.state === 'failed') {
    say(`The study was ${study.state}: ${study.reason}`);
    return;
  }
  const reported = analysis.findings.filter((finding) => finding.reported);
  say(`${reported.length} finding${reported.length === 1 ? '' : 's'} reported, of ${analysis.findings.length} candidates; ` +
    `${analysis.timings_ms.total} ms on ${analysis.backend}:`);
  for (const finding of reported) say(describe(finding));
}

async function chest() {
  if (process.env.DEMO_CT) return process.env.DEMO_CT;
  const ct = path.join(folder, 'phantom');
  const [, ...nodules] = (await pulmo('phantom', '--out', ct)).trim().split('\n');
  for (const row of nodules) {
    const [x, y, z, diameter, texture] = row.split(',');
    say(`A synthetic chest with one ${texture} nodule of ${diameter} mm at LPS ${x} ${y} ${z} mm.`);
  }
  return ct;
}

async function main() {
  if (process.env.DEMO_CT && !existsSync(process.env.DEMO_CT)) throw new Error(`DEMO_CT: there is no ${process.env.DEMO_CT}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  const data = path.join(folder, 'data');
  const dicomPort = await portNear(11112);
  const httpsPort = await portNear(8443);
  const appliance = await serve(folder, {
    data_folder: data, dicom_port: dicomPort, https_port: httpsPort, quiet_ms: 2000, disk_reserve_mb: 64,
    organization: 'Demonstration',
  });
  let stopping = false;
  const stop = async (status) => {
    if (stopping) return;
    stopping = true;
    await appliance.stop();
    process.exit(status);
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop(0));
  try {
    const password = (await pulmo('user', 'add', 'demo', '--name', 'Demo Radiologist', '-c', appliance.configPath)).trim();
    say((await pulmo('send', `127.0.0.1:${dicomPort}`, 'PULMO', await chest())).trim());
    const sent = Date.now();
    say('Waiting for the result');
    const client = new Client(httpsPort, path.join(data, 'https-certificate.pem'));
    await client.login('demo', password);
    const study = await until('no result', 600, async () => (await client.studies()).find(
      ({ state }) => ['analysed', 'refused', 'failed'].includes(state)));
    say(`The result came ${((Date.now() - sent) / 1000).toFixed(1)} s after the last slice, 2 s of them to be sure that it was the last.`);
    report(study, await client.analysis(study.study_uid));
    say(`\n  https://localhost:${httpsPort}/    user: demo    password: ${password}\n`);
    say('Research use only. Not for diagnosis.');
    if (process.env.DEMO_ONCE === '1') return await stop(0);
    say('The browser will warn of the certificate, which was made a moment ago. Ctrl-C ends the demo.');
  } catch (error) {
    if (stopping) return; // by Ctrl-C: what fails now fails because of it
    console.error(`make demo: ${error.message}`);
    console.error(appliance.log().split('\n').slice(-20).join('\n'));
    await stop(1);
  }
}

main().catch((error) => {
  console.error(`make demo: ${error.message}`);
  process.exit(1);
});
