// A stored result is computed again: the same bytes under the recorded conditions, also of a superseded one and of one that
// was made with older instructions; under others it says what differs and agrees within 1e-4; without its model it says
// what is missing. A failed result is confirmed when it fails again.

import assert from 'node:assert/strict';
import { cpSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { program, root, until } from '../../packaging/appliance.mjs';
import { randomiseModel } from '../integration/randomise.mjs';
import { filesBelow, skip, test } from '../integration/scenario.mjs';
import { Ledger } from './crash-check.mjs';
import { Slices, chest, digest } from './crash-instances.mjs';
import { Lab, Process, gateless, missing } from './crash-lab.mjs';

const LISTENING = /listening port=(\d+)/;

/** { status, out, err } of a replay; `isa` is the administrator's ONEDNN_MAX_CPU_ISA. */
async function replay(lane, result, { isa, options = [] } = {}) {
  const env = { ...process.env, ...(isa && { ONEDNN_MAX_CPU_ISA: isa }) };
  const { stdout, stderr, code = 0 } = await promisify(execFile)(program, ['replay', String(result), '-c', lane.config, ...options], { env }).catch((error) => error);
  return { status: code, out: stdout, err: stderr };
}

async function send(lane, instances) {
  const scp = lane.start('scp');
  assert.ok(await new Ledger().send((await scp.line(LISTENING))[1], instances));
  assert.equal(await scp.stop(), 0);
}

async function analyse(lane, isa) {
  const env = { ...process.env, ...(isa && { ONEDNN_MAX_CPU_ISA: isa }) };
  const before = (await lane.state()).results.length;
  const worker = new Process([program, 'serve', '-c', lane.config, '--only', 'work'], { env });
  await until('no result', 120, async () => (await lane.state()).results.length > before);
  assert.equal(await worker.stop(), 0);
  return (await lane.state()).results.at(-1);
}

const changeSetting = (lane, key, value) => writeFileSync(lane.config,
  readFileSync(lane.config, 'utf8').split('\n').map((line) => (line.startsWith(`${key} =`) ? `${key} = ${value}` : line)).join('\n'));

function expectIdentical({ status, out, err }, what) {
  assert.equal(status, 0, `${what}: ${out}${err}`);
  assert.doesNotMatch(out, /differs:|different: /, what);
  const [, made, identical] = out.match(/(\d+) files computed again, (\d+) identical, 0 different/);
  assert.equal(made, identical);
  return Number(made);
}

function expectWithin({ status, out, err }, condition) {
  assert.equal(status, 0, `${out}${err}`);
  assert.match(out, condition);
  const [, worst] = out.match(/0 not found again; greatest difference of a probability (\S+), within 0.0001/);
  return worst;
}

const why = await missing({ trace: false });
if (why) skip(why);
await test('replay', async ({ onEnd, step }) => {
  const lab = await Lab.open(1, { destinations: '', passes: 4, threads: 2, backend: 'auto' });
  onEnd((failure) => lab.close({ keep: Boolean(failure) }));
  const [lane] = lab.lanes;
  changeSetting(lane, 'model', gateless(path.join(lab.folder, 'model'))); // findings that are not all certain
  const ct = await chest(path.join(lab.folder, 'chest'));
  const model = JSON.parse(readFileSync(path.join(root, 'models', 'model.json'), 'utf8'));

  await send(lane, ct.slice(0, -1));
  const first = await analyse(lane, 'AVX2');
  await send(lane, ct.slice(-1));
  const second = await analyse(lane);
  assert.deepEqual([first.status, second.status], [1, 1], 'both were analysed');
  assert.equal((await lane.state()).results[0].superseded_by, second.id);
  step('a result with AVX2, and one that supersedes it, with the best instructions of this machine');

  changeSetting(lane, 'passes', 5);
  changeSetting(lane, 'operating_point', 0.9);
  const configured = await replay(lane, second.id);
  const files = expectIdentical(configured, 'the current result');
  assert.match(configured.out, /configuration: passes is 5 now; the replay takes the recorded 4/);
  assert.match(configured.out, /configuration: operating_point is 0.9\d* now; the replay takes the recorded 0.7/);
  expectIdentical(await replay(lane, first.id), 'the superseded result, with the instruction set that it records');
  step(`both are identical, byte for byte (${files} files); AVX2 was taken for the first without being told, another configuration was not`);

  const older = async (isa) => {
    const other = await replay(lane, second.id, { isa });
    const [, native, here] = /the result has (\S+), this machine (\S+?)[;,.\s]/.exec(other.out) ?? [];
    if (native) step(`under ONEDNN_MAX_CPU_ISA=${isa}: ${native} against ${here}, greatest difference ${expectWithin(other, /differs: instruction set: /)}`);
    else expectIdentical(other, `a machine that has nothing better than ${isa}`);
    return native;
  };
  assert.ok((await older('AVX2')) ?? (await older('AVX')), 'some older instructions differ from those of this machine');

  randomiseModel(path.join(root, 'models', 'model.json'), path.join(lab.folder, 'random'));
  for (const name of readdirSync(path.join(root, 'models')).filter((file) => file.endsWith('.onnx')))
    cpSync(path.join(root, 'models', name), path.join(lab.folder, 'random', name), { force: false });
  const gone = await replay(lane, second.id, { options: ['--model', path.join(lab.folder, 'random', 'model.json')] });
  assert.equal(gone.status, 1);
  assert.match(gone.err, new RegExp(`missing: model ${model.name}, version ${model.version}, sha256 [0-9a-f]{64}, by which the result was made; the one named is`));
  cpSync(path.join(root, 'models'), path.join(lab.folder, 'changed'), { recursive: true });
  const weights = path.join(lab.folder, 'changed', model.detector.file);
  const bytes = readFileSync(weights);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(weights, bytes);
  const changed = await replay(lane, second.id, { options: ['--model', path.join(lab.folder, 'changed', 'model.json')] });
  assert.equal(changed.status, 1);
  assert.match(changed.err, new RegExp(`missing: model ${model.name}.*(digest|sha256|SHA-256)`));
  step(`a model that is not installed, and one with a changed bit, are named: ${changed.err.trim()}`);

  changeSetting(lane, 'backend', 'cuda'); // where there is no card, the report says that the processor stands in, and so does the replay's
  const refused = await refusedResult(lane, lab);
  expectIdentical(await replay(lane, refused.id), 'a refused result, for which a card was wanted');
  changeSetting(lane, 'backend', 'auto');
  expectIdentical(await replay(lane, refused.id), 'the same, where no card is wanted any more');
  step('a refused result is refused again, with the same report');

  await send(lane, ct.map(tooLarge));
  const failed = await analyse(lane);
  assert.equal(failed.status, 3, 'a volume of metres fails');
  const confirmed = await replay(lane, failed.id);
  expectIdentical(confirmed, 'a failed result');
  assert.match(confirmed.out, /confirmed: it fails again with the same reason: .*too large/);
  step(confirmed.out.trim().split('\n').at(-1));

  for (const file of filesBelow(path.join(lane.data, 'blobs')))
    if (statSync(file).size > 131072) rmSync(file); // a slice of 256 x 256
  const lost = await replay(lane, second.id);
  assert.equal(lost.status, 1);
  assert.match(lost.err, /missing: \d+ of the \d+ images that the result was made of were purged or lost/);
  step('a result whose images are gone says so');

  const nothing = await replay(lane, 9999);
  assert.equal(nothing.status, 1);
  step(`a result that does not exist: ${nothing.err.trim()}`);
});

/** The same slice as of another study, with a Pixel Spacing of 9 mm: no header is refused for it, and the volume would be
 *  metres long. */
function tooLarge(slice) {
  const dataset = Buffer.from(slice.dataset);
  const at = dataset.indexOf(Buffer.from([0x28, 0, 0x30, 0, 0x44, 0x53]));
  const size = dataset.readUInt16LE(at + 6);
  dataset.write('9\\9'.padEnd(size), at + 8, 'latin1');
  for (const tag of [[8, 0, 0x18, 0], [0x20, 0, 0x0d, 0], [0x20, 0, 0x0e, 0]]) { // instance, study and series of their own
    const uid = dataset.indexOf(Buffer.from([...tag, 0x55, 0x49])) + 8;
    const end = uid + dataset.readUInt16LE(uid - 2);
    const last = dataset[end - 1] ? end - 1 : end - 2;
    dataset[last] = dataset[last] === 0x37 ? 0x38 : 0x37;
    if (tag[0] === 8) slice = { ...slice, sopInstance: dataset.toString('latin1', uid, last + 1) };
  }
  return { ...slice, dataset, digest: digest(dataset) };
}

async function refusedResult(lane, lab) {
  await send(lane, (await Slices.open(path.join(lab.folder, 'phantom'))).study(1, 3));
  const result = await analyse(lane);
  assert.equal(result.status, 2);
  return result;
}
