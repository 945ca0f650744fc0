// The PACS is down when the result is ready, moves to another port, and Pulmo is stopped and started meanwhile: the
// objects arrive where the PACS is now, once.

import assert from 'node:assert/strict';
import { serve, sleep, until } from '../../packaging/appliance.mjs';
import { pair, phantom, test, upload } from './scenario.mjs';

const sentLines = (log) => log.split('\n').filter((line) => / outbox sent /.test(line));

await test('destination-down', async (context) => {
  const { step } = context;
  const { orthanc, appliance, httpsPort, dicomPort } = await pair(context);
  const { ct } = await phantom(context.folder);
  const { study } = await upload(orthanc, ct);
  await orthanc.send('pulmo', study);
  await orthanc.stop();
  step('the study is sent, the PACS is down');

  await until('no attempt to send', 300, () => / outbox not sent /.test(appliance.log()));
  // The outbox is woken by the commit, and may have tried before the worker has said that it is done.
  await until('the job is not done', 30, () => / worker job done /.test(appliance.log()));
  step('the result is ready and could not be sent');

  assert.equal(await appliance.stop(), 0);
  await orthanc.move();
  const destinations = `ORTHANC@127.0.0.1:${orthanc.dicomPort}`;
  const again = await serve(`${context.folder}/pulmo`,
    { ...appliance.settings, destinations, dicom_port: dicomPort, https_port: httpsPort });
  context.onEnd(async () => { assert.equal(await again.stop(), 0); });
  await until('no attempt after the restart', 300, () => again.log().slice(appliance.log().indexOf('stopping')).match(/ outbox not sent /));
  step('Pulmo was stopped, told where the PACS is now, started, and tried again');

  await orthanc.start();
  const results = await until('the objects do not arrive', 600, async () => {
    const found = await orthanc.results(study);
    return found.length >= 2 && found;
  });
  step('the PACS is up again and has the objects');
  await sleep(5000); // long enough for an object that comes twice
  assert.deepEqual((await orthanc.results(study)).map(({ modality }) => modality).sort(), ['SEG', 'SR']);
  assert.equal(results.length, 2);
  assert.equal(sentLines(again.log()).length, 2, 'each object was sent once');
});
