// The finding comes from what the model learned: with random weights of the same spread it is gone.

import assert from 'node:assert/strict';
import path from 'node:path';
import { pulmo, root } from '../../packaging/appliance.mjs';
import { randomiseModel } from './randomise.mjs';
import { phantom, test } from './scenario.mjs';

const distance = (a, b) => Math.hypot(...a.map((value, axis) => value - b[axis]));

async function found(ct, nodule, model) {
  const { findings } = JSON.parse(await pulmo('analyze', ct, '--json', '--model', model));
  return findings.filter((finding) => finding.reported && distance(finding.center_lps_mm, nodule.center) < nodule.diameter / 2);
}

await test('random-weights', async ({ folder, step }) => {
  const { ct, nodules: [nodule] } = await phantom(folder);
  const learned = path.join(root, 'models', 'model.json');
  assert.equal((await found(ct, nodule, learned)).length, 1, 'the model as it is reports the nodule, once');
  step('the model as it is finds the nodule');
  for (const seed of [1, 2]) {
    const weights = randomiseModel(learned, path.join(folder, `random-${seed}`), seed);
    assert.deepEqual(await found(ct, nodule, path.join(folder, `random-${seed}`, 'model.json')), [], `random weights ${seed}`);
    step(`${weights} random weights (seed ${seed}) do not`);
  }
});
