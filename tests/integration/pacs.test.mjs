// A study's whole way: Orthanc sends it, Pulmo analyses it, SEG and SR arrive back in Orthanc in the same study, a reader
// sees the heatmap at the nodule, accepts, signs, and the VERIFIED SR is in Orthanc. Prints how long each step took.
//
//   node tests/integration/pacs.test.mjs                    the phantom, whose nodule is known
//   PULMO_CT=<folder> node tests/integration/pacs.test.mjs  a real CT; PULMO_NODULE=x,y,z (LPS mm) when one is known

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Client, peakMemory, pulmo, until } from '../../packaging/appliance.mjs';
import { Reader } from './reader.mjs';
import { pair, phantom, skip, test, upload } from './scenario.mjs';

const distance = (a, b) => Math.hypot(...a.map((value, axis) => value - b[axis]));
const isVerified = ({ modality, tags }) => modality === 'SR' && tags.VerificationFlag === 'VERIFIED';

/** The CT and, where it is known, a nodule in it: { center, diameter }. */
async function source(folder) {
  if (!process.env.PULMO_CT) {
    const { ct, nodules } = await phantom(folder);
    return { ct, nodule: nodules[0] };
  }
  const center = process.env.PULMO_NODULE?.split(',').map(Number);
  return { ct: process.env.PULMO_CT, nodule: center && { center, diameter: 30 } };
}

/** Peers judge every object: none of their lines may say "Error". */
async function validate(folder, orthanc, objects) {
  for (const { id, modality } of objects) {
    const file = path.join(folder, `${id}.dcm`);
    writeFileSync(file, await orthanc.file(id));
    const verdicts = [spawnSync('dciodvfy', [file], { encoding: 'utf8' })];
    if (modality === 'SR') verdicts.push(spawnSync('dsrdump', [file], { encoding: 'utf8' }));
    for (const { error, stdout, stderr, status } of verdicts) {
      if (error) throw error;
      assert.doesNotMatch(stdout + stderr, /^(Error|E: )/m, `${modality}: ${(stdout + stderr).slice(0, 2000)}`);
      if (modality === 'SR') assert.equal(status, 0);
    }
  }
}

/** The objects belong to the study and the patient of the images, and say what they are. */
function checkObjects(objects, image, reported) {
  const expected = reported ? ['SEG', 'SR'] : ['SR'];
  assert.deepEqual(objects.map(({ modality }) => modality).sort(), expected);
  for (const { tags } of objects) {
    assert.equal(tags.StudyInstanceUID, image.StudyInstanceUID);
    assert.equal(tags.PatientID, image.PatientID);
    assert.match(JSON.stringify(tags), /Research use only|not for diagnosis/i, `${tags.Modality}: the notice`);
  }
  const sr = objects.find(({ modality }) => modality === 'SR');
  assert.equal(sr.tags.VerificationFlag, 'UNVERIFIED');
  return sr;
}

async function read(context, { httpsPort, password, studyUid, nodule, first }) {
  const reader = await Reader.open(httpsPort);
  if (!reader) skip('Chromium or playwright-core is not installed');
  context.onEnd(() => reader.close());
  await reader.login('jane', password);
  context.step('Chromium: logged in, the worklist is shown');
  await reader.openStudy(studyUid);
  context.step('Chromium: the study is open, its first image drawn');
  const place = nodule?.center ?? first?.center_lps_mm;
  if (place && first) {
    await reader.seesHeatAt(place);
    context.step('Chromium: the heatmap covers the nodule; one key hides it');
    await reader.accept(first.id);
  }
  if (process.env.PULMO_SCREENSHOT) await reader.page.screenshot({ path: process.env.PULMO_SCREENSHOT });
  await reader.sign(password);
  context.step('Chromium: accepted and signed');
  assert.deepEqual(reader.errors, [], 'no script of the page failed');
}

await test('pacs', async (context) => {
  const { step, folder } = context;
  const { ct, nodule } = await source(folder);
  const { orthanc, appliance, httpsPort, data } = await pair(context);
  const password = (await pulmo('user', 'add', 'jane', '--name', 'Jane Reader', '-c', appliance.configPath)).trim();
  const { study, count } = await upload(orthanc, ct);
  step(`${count} slices are in Orthanc`);

  await orthanc.send('pulmo', study);
  const acknowledged = Date.now();
  step('Orthanc sent them, Pulmo acknowledged the last one');

  const client = new Client(httpsPort, path.join(data, 'https-certificate.pem'));
  await client.login('jane', password);
  const { study_uid: studyUid } = await until('no result', 600, async () => (await client.studies()).find(
    ({ state }) => ['analysed', 'refused', 'failed'].includes(state)));
  const analysis = await client.analysis(studyUid);
  assert.equal(analysis.status, 'analysed', (analysis.reasons ?? []).join('; '));
  const reported = analysis.findings.filter((finding) => finding.reported);
  const objects = await until('SEG and SR do not arrive', 120, async () => {
    const found = await orthanc.results(study);
    return found.length >= (reported.length ? 2 : 1) && found;
  });
  const seconds = ((Date.now() - acknowledged) / 1000).toFixed(1);
  step(`SEG and SR are in Orthanc: ${seconds} s after the last acknowledgement, 2.0 s of them quiet time`);
  console.log(`            ${JSON.stringify(analysis.timings_ms)}`);
  console.log(`            peak memory, MiB: ${JSON.stringify(peakMemory(appliance.pid))}`);
  console.log(`            ${reported.length} of ${analysis.findings.length} candidates reported; first: ` +
    JSON.stringify(analysis.findings[0], ['center_lps_mm', 'diameter_mm', 'probability', 'probability_low', 'probability_high']));

  const image = await orthanc.get(`/instances/${(await orthanc.get(`/studies/${study}/instances`)).find(
    ({ MainDicomTags: { ImagePositionPatient } }) => ImagePositionPatient !== undefined).ID}/simplified-tags`);
  const report = checkObjects(objects, image, reported.length);
  await validate(folder, orthanc, objects);
  step('SEG and SR lie in the source study and pass dciodvfy and dsrdump');
  if (nodule) {
    const near = reported.find((finding) => distance(finding.center_lps_mm, nodule.center) < nodule.diameter / 2);
    assert.ok(near, 'the known nodule is a finding');
    console.log(`            the known nodule is finding ${near.id}, ${distance(near.center_lps_mm, nodule.center).toFixed(1)} mm from its centre`);
  }

  await read(context, { httpsPort, password, studyUid, nodule, first: reported[0] });
  const verified = await until('the VERIFIED SR does not arrive', 120, async () => (await orthanc.results(study)).find(isVerified));
  step('the VERIFIED SR is in Orthanc');
  const [predecessor] = verified.tags.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence;
  assert.equal(predecessor.ReferencedSOPInstanceUID, report.uid, 'it names its predecessor');
  assert.equal(verified.tags.VerifyingObserverSequence[0].VerifyingOrganization, 'Test Hospital');
  assert.match(verified.tags.VerifyingObserverSequence[0].VerifyingObserverName, /Jane/);
  if (reported.length) assert.match(JSON.stringify(verified.tags.ContentSequence), /accepted/i, 'it carries the verdict');
  await validate(folder, orthanc, [verified]);
  assert.equal((await client.studies()).find(({ study_uid: uid }) => uid === studyUid).state, 'signed');
  await pulmo('audit', 'verify', '-c', appliance.configPath);
  step('the signed report passes the validators, the audit chain is whole');
  assert.doesNotMatch(readFileSync(appliance.logPath, 'utf8'), new RegExp(image.PatientID), 'no patient identifier in the log');
  console.log(`            peak memory, MiB: ${JSON.stringify(peakMemory(appliance.pid))}`);
});
