// One object for a whole CT: PixelMed makes a Legacy Converted Enhanced CT of the phantom, Orthanc sends it, and what is
// found is what is found in the classic series. SEG and SR name the object once and its frames one by one, the viewer
// shows its slices, and the result is replayed byte for byte.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Client, pulmo, until } from '../../packaging/appliance.mjs';
import { Reader } from './reader.mjs';
import { filesBelow, pair, phantom, skip, test, upload } from './scenario.mjs';

const pixelmed = '/usr/share/java/pixelmed.jar';
const LEGACY_CONVERTED_ENHANCED_CT = '1.2.840.10008.5.1.4.1.1.2.2';

/** The classic series of one folder as one multi-frame object in another. */
function convert(classic, folder) {
  if (!existsSync(pixelmed)) skip('PixelMed is not installed');
  mkdirSync(folder);
  const { error, status, stderr } = spawnSync('java', ['-cp', pixelmed, 'com.pixelmed.dicom.MultiFrameImageFactory', classic, folder],
    { encoding: 'utf8' });
  if (error) throw error;
  assert.equal(status, 0, stderr);
  assert.equal(filesBelow(folder).length, 1, 'one object');
}

/** What does not depend on the random seed, which depends on UIDs. */
const places = (findings) => findings.map(({ center_lps_mm: center }) => center.map((value) => value.toFixed(3)).join(' '));

await test('enhanced', async (context) => {
  const { step, folder } = context;
  const { ct } = await phantom(folder);
  const slices = filesBelow(ct).filter((file) => file.endsWith('.dcm')).length;
  const enhanced = path.join(folder, 'enhanced');
  convert(ct, enhanced);
  const classic = JSON.parse(await pulmo('analyze', ct, '--json'));
  step(`${slices} slices are one object, and analysed as what they were`);

  const { orthanc, appliance, httpsPort, data } = await pair(context);
  const password = (await pulmo('user', 'add', 'jane', '-c', appliance.configPath)).trim();
  const { study, count } = await upload(orthanc, enhanced);
  assert.equal(count, 1);
  await orthanc.send('pulmo', study);
  const client = new Client(httpsPort, path.join(data, 'https-certificate.pem'));
  await client.login('jane', password);
  const { study_uid: studyUid, result_id: result } = await until('no result', 600, async () => (await client.studies()).find(
    ({ state }) => ['analysed', 'refused', 'failed'].includes(state)));
  const analysis = await client.analysis(studyUid);
  assert.equal(analysis.status, 'analysed', (analysis.reasons ?? []).join('; '));
  assert.equal(analysis.quality.slices, slices);
  assert.deepEqual(analysis.input_sha256.length, 1, 'one input');
  assert.deepEqual(places(analysis.findings), places(classic.findings), 'what is found in the classic series');
  step(`Pulmo analysed ${analysis.quality.slices} frames: the candidates of the classic series`);

  const objects = await until('SEG and SR do not arrive', 120, async () => {
    const found = await orthanc.results(study);
    return found.length === 2 && found;
  });
  const { tags: seg } = objects.find(({ modality }) => modality === 'SEG');
  const { tags: sr } = objects.find(({ modality }) => modality === 'SR');
  const [image] = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence;
  assert.equal(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence.length, 1);
  assert.equal(image.ReferencedSOPClassUID, LEGACY_CONVERTED_ENHANCED_CT);
  for (const group of seg.PerFrameFunctionalGroupsSequence) {
    const [source] = group.DerivationImageSequence[0].SourceImageSequence;
    assert.equal(source.ReferencedSOPInstanceUID, image.ReferencedSOPInstanceUID);
    const z = Number(group.PlanePositionSequence[0].ImagePositionPatient.split('\\')[2]);
    assert.equal(Number(source.ReferencedFrameNumber), Math.round((z + 14) / 2.5) + 1, 'the phantom begins at z = -14 mm');
  }
  const evidence = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    .flatMap(({ ReferencedSOPSequence: row }) => row.map(({ ReferencedSOPClassUID: uid }) => uid));
  assert.equal(evidence.filter((uid) => uid === LEGACY_CONVERTED_ENHANCED_CT).length, 1);
  for (const { id } of objects) {
    const file = path.join(folder, `${id}.dcm`);
    writeFileSync(file, await orthanc.file(id));
    const { error, stdout, stderr } = spawnSync('dciodvfy', [file], { encoding: 'utf8' });
    if (error) throw error;
    assert.doesNotMatch(stdout + stderr, /^Error/m);
  }
  step('SEG and SR name the object once and its frames one by one');

  assert.match(await pulmo('replay', String(result), '-c', appliance.configPath), / (\d+) files computed again, \1 identical, 0 different/);
  step('replayed byte for byte');

  const reader = await Reader.open(httpsPort);
  if (!reader) skip('Chromium or playwright-core is not installed');
  context.onEnd(() => reader.close());
  await reader.login('jane', password);
  await reader.openStudy(studyUid);
  const [first] = analysis.findings.filter(({ reported }) => reported);
  await reader.seesHeatAt(first.center_lps_mm);
  await reader.accept(first.id);
  await reader.sign(password);
  assert.deepEqual(reader.errors, []);
  await until('the VERIFIED SR does not arrive', 120, async () => (await orthanc.results(study)).find(
    ({ modality, tags }) => modality === 'SR' && tags.VerificationFlag === 'VERIFIED'));
  step('read and signed in Chromium');
});
