// Two models on live traffic: one installed as a shadow looks at a study, too, and only the result of the one in use is
// seen and sent; promoted, it makes the next result without a restart; rolled back, the former one does again. An old
// result is replayed with the model that it names.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Client, pulmo, root, until } from '../../packaging/appliance.mjs';
import { randomiseModel } from './randomise.mjs';
import { pair, phantom, test, upload } from './scenario.mjs';

const shipped = path.join(root, 'models', 'model.json');

await test('models', async (context) => {
  const { step, folder } = context;
  const { orthanc, appliance, httpsPort, data } = await pair(context, { passes: 2 });
  const model = (...args) => pulmo('model', ...args, '-c', appliance.configPath);
  const modelJson = async (...args) => JSON.parse(await model(...args, '--json'));
  const auditRows = async (action) => (await pulmo('audit', 'export', '-c', appliance.configPath)).trim().split('\n')
    .map((line) => JSON.parse(line)).filter((row) => row.action === action);

  /** Sends a phantom of its own; resolves to its study and its finished result. */
  const analysed = async (seed, results) => {
    const place = path.join(folder, `ct-${seed}`);
    mkdirSync(place);
    const { ct } = await phantom(place, '--seed', seed);
    const { study } = await upload(orthanc, ct);
    await orthanc.send('pulmo', study);
    const rows = await until(`study ${seed} is not analysed`, 900, async () => {
      const done = await auditRows('analyse');
      return done.length === results && done;
    });
    const [, id, sha256] = /^result (\d+), .*model (\w+)$/.exec(rows.at(-1).detail);
    return { study, id, sha256, uid: rows.at(-1).study_uid };
  };

  randomiseModel(shipped, path.join(folder, 'random'), 1);
  const other = path.join(folder, 'random', 'model.json');
  const spec = JSON.parse(readFileSync(other, 'utf8'));
  spec.detector.candidates_max = 3; // it sees something everywhere: three are explained as well as forty
  writeFileSync(other, JSON.stringify(spec));
  assert.match(await model('install', other), /does NOT find the phantom's nodule/);
  assert.match(await model('install', shipped), /finds the phantom's nodule/);
  const { models, configuration } = await modelJson('list');
  const random = models.find(({ sha256 }) => sha256 !== configuration.sha256).sha256;
  await assert.rejects(model('shadow', configuration.sha256), /is in use/);
  await model('shadow', random.slice(0, 12));
  step('a second model is installed, and a shadow');

  const first = await analysed(1, 1);
  assert.equal(first.sha256, configuration.sha256, 'the result is of the model in use');
  await until('the shadow says nothing', 900, async () => (await modelJson('compare')).totals.studies === 1);
  const compared = await modelJson('compare');
  const [seen] = compared.studies;
  assert.equal(compared.shadow_sha256, random);
  assert.deepEqual([seen.study_uid, String(seen.result), seen.model_sha256], [first.uid, first.id, configuration.sha256]);
  assert.deepEqual([seen.status, seen.shadow_status], ['analysed', 'analysed']);
  assert.ok(seen.only_in_use >= 1, 'the nodule, which random weights do not find');
  assert.equal(seen.both, 0);
  assert.match(await model('compare'), /only in use .*to the other/);
  step(`both have looked: ${seen.only_in_use} finding(s) only of the one in use, ${seen.only_shadow} only of the shadow`);

  const objects = async (study) => (await orthanc.results(study)).map(({ modality }) => modality).sort();
  await until('nothing arrives', 300, async () => (await objects(first.study)).length === 2);
  const password = (await pulmo('user', 'add', 'jane', '-c', appliance.configPath)).trim();
  const client = new Client(httpsPort, path.join(data, 'https-certificate.pem'));
  await client.login('jane', password);
  assert.deepEqual((await client.studies()).map(({ state, result_id: id }) => [state, String(id)]), [['analysed', first.id]]);

  await model('promote', random);
  assert.deepEqual((await modelJson('list')).models.find(({ sha256 }) => sha256 === random).state, 'active');
  await assert.rejects(model('compare'), /no model is a shadow now/);
  const second = await analysed(2, 2);
  assert.equal(second.sha256, random, 'the promoted model made the next result, without a restart');
  step('promoted: the next result is of the other model');

  await model('rollback');
  const third = await analysed(3, 3);
  assert.equal(third.sha256, configuration.sha256);
  step('rolled back: the next one is of the former again');

  const replayed = await pulmo('replay', second.id, '-c', appliance.configPath);
  assert.match(replayed, / (\d+) files computed again, \1 identical, 0 different/);
  step('the result between them is replayed with the model that it names, byte for byte');

  assert.deepEqual(await objects(first.study), ['SEG', 'SR'], 'the PACS has one result of the first study');
  assert.equal((await auditRows('shadow')).length, 1, 'the shadow ended with its promotion');
  assert.equal((await auditRows('model-promote')).length, 1);
  assert.equal((await auditRows('model-rollback')).length, 1);
  assert.match(await pulmo('audit', 'verify', '-c', appliance.configPath), /whole/);
  await pulmo('backup', path.join(folder, 'backup'), '-c', appliance.configPath);
  await pulmo('restore', path.join(folder, 'backup'), '--check');
  assert.match(appliance.log(), / model opened .*by=promotion/);
});
