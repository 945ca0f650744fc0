// What the integration tests have in common: a folder for the run, a PACS, an appliance that knows it, a CT in the PACS.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort, program, pulmo, serve } from '../../packaging/appliance.mjs';
import { Orthanc } from './orthanc.mjs';

export function skip(why) {
  console.log(`skipped: ${why}`);
  process.exit(77);
}

/** Runs a test with a folder that is removed after success and kept, with the logs in it, after a failure. */
export async function test(name, body) {
  if (!existsSync(program)) throw new Error(`${program} is not built`);
  const folder = mkdtempSync(path.join(tmpdir(), `pulmo-${name}-`));
  const undo = [];
  const began = Date.now();
  let last = began;
  const context = {
    folder,
    onEnd: (action) => undo.unshift(action),
    step(what) {
      console.log(`${((Date.now() - last) / 1000).toFixed(2).padStart(8)} s  ${what}`);
      last = Date.now();
    },
  };
  let failure = null;
  try {
    await body(context);
  } catch (error) {
    failure = error;
  }
  for (const action of undo) await action(failure).catch((error) => { failure ??= error; });
  if (failure) {
    console.log(`${name} FAILED after ${((Date.now() - began) / 1000).toFixed(1)} s; its folder is ${folder}`);
    console.log(failure.stack);
    process.exit(1);
  }
  rmSync(folder, { recursive: true, force: true });
  console.log(`${name} passed in ${((Date.now() - began) / 1000).toFixed(1)} s`);
  process.exit(0);
}

/** Every regular file below a folder. */
export function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const full = path.join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(full) : [full];
  }).sort();
}

/** Makes the phantom; returns its folder and its nodules as the command prints them. */
export async function phantom(folder, ...options) {
  const ct = path.join(folder, 'phantom');
  const [, ...rows] = (await pulmo('phantom', '--out', ct, ...options)).trim().split('\n');
  const nodules = rows.map((row) => {
    const [x, y, z, diameter] = row.split(',').map(Number);
    return { center: [x, y, z], diameter };
  });
  return { ct, nodules };
}

/** Further settings for a run by hand: PULMO_SETTINGS="operating_point=0.3 threads=1". */
const extra = Object.fromEntries((process.env.PULMO_SETTINGS ?? '').split(' ').filter(Boolean).map((pair) => pair.split('=')));

/** A PACS and an appliance that send to each other. */
export async function pair(context, settings = {}) {
  const dicomPort = await freePort();
  const httpsPort = await freePort();
  const orthanc = await Orthanc.create(path.join(context.folder, 'orthanc'), { pulmo: { aet: 'PULMO', port: dicomPort } });
  if (!orthanc) skip('Orthanc is not installed');
  context.onEnd(() => orthanc.stop());
  const folder = path.join(context.folder, 'pulmo');
  mkdirSync(folder);
  const appliance = await serve(folder, {
    data_folder: path.join(folder, 'data'), dicom_port: dicomPort, https_port: httpsPort, dicom_bind: '127.0.0.1',
    https_bind: '127.0.0.1', calling_aets: 'ORTHANC', allowed_addresses: '127.0.0.1', quiet_ms: 2000, disk_reserve_mb: 64,
    destinations: `ORTHANC@127.0.0.1:${orthanc.dicomPort}`, organization: 'Test Hospital', ...settings, ...extra,
  });
  context.onEnd(async (failure) => {
    const status = await appliance.stop();
    if (failure) console.log(appliance.log().split('\n').slice(-25).join('\n'));
    else assert.equal(status, 0, 'the appliance stops in order');
    assert.doesNotMatch(appliance.log(), /child ended/, 'no process of the appliance died');
  });
  context.step('Orthanc and Pulmo are up');
  return { orthanc, appliance, dicomPort, httpsPort, data: path.join(folder, 'data') };
}

/** Puts a CT into the PACS; returns Orthanc's id of the study and how many instances it has. */
export async function upload(orthanc, folder) {
  let study = null;
  let count = 0;
  for (const file of filesBelow(folder)) {
    const content = readFileSync(file);
    if (content.toString('latin1', 128, 132) !== 'DICM') continue;
    study = (await orthanc.upload(content)).ParentStudy;
    count++;
  }
  assert.ok(study, `${folder} holds DICOM files`);
  return { study, count };
}
