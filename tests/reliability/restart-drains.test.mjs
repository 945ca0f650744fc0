// The whole appliance is stopped in the middle of its work (SIGTERM, as an upgrade does it): associations in progress end
// by themselves, new ones are told to come back, an object on its way to the PACS arrives, a job goes back to the queue;
// after the start everything is there once.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { answers, freePort, sleep, until } from '../../packaging/appliance.mjs';
import { IMPLICIT_LITTLE, Peer, VERIFICATION, associateRequest } from '../integration/dimse.mjs';
import { skip, test } from '../integration/scenario.mjs';
import { ANALYSE, Ledger, checkInstances } from './crash-check.mjs';
import { Slices, chest } from './crash-instances.mjs';
import { Lane, Process, gateless, missing } from './crash-lab.mjs';

const A_ASSOCIATE_RJ = 3;
const A_RELEASE_RP = 6;
const A_ABORT = 7;
const DRAIN_MS = 8000;
const SUPERVISOR_MS = 15000;
/** Of the small studies; the chest is the phantom's own. */
const ours = ({ study }) => study.includes('.10.999.6.');

/** A PACS that takes two seconds an object. */
async function slowPacs(folder) {
  const port = await freePort();
  mkdirSync(folder, { recursive: true });
  const process = new Process(['storescp', '--quiet', '+xa', '+B', '-uf', '--sleep-after', '2', '-aet', 'SLOW', '-od', folder, String(port)]);
  await until('storescp does not listen', 30, () => answers(port));
  return { port, process };
}

async function associated(port, instance, calling) {
  const peer = await Peer.connect(port);
  assert.equal(await peer.associate('PULMO', calling, [[instance.sopClass, instance.syntax]]), 'accepted');
  return peer;
}

async function acknowledged(ledger, peer, instance) {
  ledger.sent.set(Ledger.key(instance), instance);
  const status = await peer.store(instance.sopClass, instance.sopInstance, instance.dataset);
  assert.equal(status, 0, `C-STORE of ${instance.sopInstance}`);
  ledger.stored.set(Ledger.key(instance), instance);
}

/** A command whose data set is sent only after the stop. */
async function half(ledger, peer, instance) {
  ledger.sent.set(Ledger.key(instance), instance);
  peer.beginStore(instance.sopClass, instance.sopInstance);
  return async () => {
    peer.message(instance.dataset, false);
    assert.equal(await peer.status(), 0, 'the C-STORE in progress was finished and answered');
    ledger.stored.set(Ledger.key(instance), instance);
  };
}

async function expectTurnedAway(port) {
  const peer = await Peer.connect(port);
  peer.write(associateRequest('PULMO', 'LATE', [[VERIFICATION, IMPLICIT_LITTLE]]));
  const answer = await peer.next(5);
  peer.abort();
  assert.equal(answer?.type, A_ASSOCIATE_RJ, 'a new association is rejected');
  assert.deepEqual([...answer.body.subarray(1, 4)], [2, 3, 1], 'transient, presentation, temporary congestion (PS3.8 table 9-21)');
}

const why = await missing({ trace: false });
if (why) skip(why);
await test('restart-drains', async ({ folder, onEnd, step }) => {
  const slow = await slowPacs(path.join(folder, 'slow'));
  onEnd(() => slow.process.kill());
  const port = await freePort();
  const lane = await Lane.open(path.join(folder, 'lane'),
    { dicom_port: port, https_port: await freePort(), passes: 8, destinations: `SLOW@127.0.0.1:${slow.port}`,
      model: gateless(path.join(folder, 'model')) }); // takes its time
  onEnd(() => lane.pacs.process.kill());
  const slices = await Slices.open(path.join(folder, 'phantom'));
  const ct = await chest(path.join(folder, 'chest'));
  const ledger = new Ledger();
  let serve = lane.start();
  onEnd(() => serve.kill());
  await serve.line(/ scp listening /);

  assert.ok(await ledger.send(port, slices.study(1, 3))); // refused soon, and its report goes to the slow PACS
  await until('no object is being sent', 120, async () => (await lane.state()).outbox.some(({ state }) => state === 'leased'));
  assert.ok(await ledger.send(port, ct));
  await until('the chest is not being analysed', 60, async () => (await lane.state()).jobs.some((job) => job.kind === ANALYSE && job.state === 'leased' && !ours(job)));
  const [first, second, third, fourth] = slices.study(2, 4);
  const busy = await associated(port, first, 'BUSY');
  const idle = await associated(port, first, 'IDLE');
  await acknowledged(ledger, busy, first);
  const finish = await half(ledger, busy, second);
  const sentBefore = (await lane.state()).outbox.filter(({ state }) => state === 'sent').length;
  step('an association in the middle of a C-STORE, one idle, one job, one sending');

  const began = Date.now();
  serve.child.kill('SIGTERM');
  await sleep(700);
  await expectTurnedAway(port);
  await finish();
  await acknowledged(ledger, busy, third);
  step('a new association was told to come back; the one in progress went on');
  await busy.release();
  await expectTurnedAway(port);
  const abort = await idle.next(12);
  const waited = Date.now() - began;
  assert.deepEqual([abort?.type, abort?.body[2]], [A_ABORT, 2], 'the idle one is aborted by the service provider');
  assert.ok(waited > DRAIN_MS - 1000 && waited < DRAIN_MS + 2500, `after ${waited} ms`);
  assert.equal(await serve.ended, 0, serve.log);
  const stopped = Date.now() - began;
  assert.ok(stopped < SUPERVISOR_MS + 2000, `stopped within ${stopped} ms`);
  step(`the idle association was aborted after ${waited} ms, the appliance ended after ${stopped} ms`);

  const still = await lane.state();
  checkInstances(still, ledger);
  assert.equal(still.associations, 0, 'no association is left open');
  assert.deepEqual(still.jobs.filter(({ state }) => state === 'leased'), [], 'no job is left with a lease');
  assert.deepEqual(still.outbox.filter(({ state }) => state === 'leased'), [], 'no sending is left with a lease');
  assert.ok(still.outbox.filter(({ state }) => state === 'sent').length > sentBefore, 'the object on its way arrived, and is known to have');
  const [job] = still.jobs.filter((each) => each.kind === ANALYSE && !ours(each));
  assert.ok(job.state === 'done' || (job.state === 'queued' && job.attempt === 0), `the analysis: ${JSON.stringify(job)}`);
  step(`the analysis is ${job.state}`);

  serve = lane.start();
  await serve.line(/ scp listening /);
  assert.ok(await ledger.send(port, [fourth]), 'who was turned away comes back');
  await until('not everything is done', 180, async () => {
    const state = await lane.state();
    return !state.jobs.some((each) => each.state === 'queued' || each.state === 'leased') && !state.outbox.some((each) => each.state !== 'sent')
      && state.studies.every(({ revision, queued_revision: queued }) => revision === queued);
  });
  const end = await lane.state();
  checkInstances(end, ledger);
  assert.equal(end.results.filter((result) => !ours(result)).length, 1, 'the chest was analysed once');
  assert.deepEqual(end.jobs.filter(({ state }) => state === 'dead'), []);
  assert.equal(serve.child.kill('SIGTERM') && await serve.ended, 0);
  await lane.verifyAudit();
  step('after the start everything is there, once');
});
