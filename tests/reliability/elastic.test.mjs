// Analysis processes follow the queue: while studies wait for the one that always runs, the supervisor starts spare ones up
// to workers_max; those that are killed with a study in their hands lose nothing; without work they end, and the one stays.

import assert from 'node:assert/strict';
import path from 'node:path';
import { freePort, until } from '../../packaging/appliance.mjs';
import { skip, test } from '../integration/scenario.mjs';
import { ANALYSE, Ledger } from './crash-check.mjs';
import { asStudy, chest } from './crash-instances.mjs';
import { Lane, gateless, missing } from './crash-lab.mjs';

const STUDIES = 3;
const CEILING = 3;

const analyses = async (lane, ...states) => (await lane.state()).jobs.filter((job) => job.kind === ANALYSE && states.includes(job.state));
const started = (log, name) => [...log.matchAll(new RegExp(`child=${name} pid=(\\d+)`, 'g'))].map(([, pid]) => Number(pid));
const ended = (log) => [...log.matchAll(/ spare worker ended /g)].length;

function kill(pid, signal) {
  try { process.kill(pid, signal); } catch (fault) { if (fault.code !== 'ESRCH') throw fault; }
}

const why = await missing({ trace: false });
if (why) skip(why);
await test('elastic', async ({ folder, onEnd, step }) => {
  const port = await freePort();
  const lane = await Lane.open(path.join(folder, 'lane'),
    { dicom_port: port, https_port: await freePort(), workers_max: CEILING, worker_idle_s: 2, quiet_ms: 300,
      model: gateless(path.join(folder, 'model')) }); // takes its time
  onEnd(() => lane.pacs.process.kill());
  const ct = await chest(path.join(folder, 'chest'));
  const ledger = new Ledger();
  const reception = lane.start('scp'); // nobody analyses while the queue is filled
  onEnd(() => reception.kill());
  await reception.line(/ scp listening /);
  for (let n = 1; n <= STUDIES; n++) assert.ok(await ledger.send(port, asStudy(ct, `2.25.7707${n}`)));
  await reception.stop();

  const serve = lane.start();
  onEnd(() => serve.kill());
  await serve.line(/ child started child=work /);
  const [only] = started(serve.log, 'work');
  await serve.line(/ child started child=spare /, { seconds: 120 });
  await until('no spare worker has taken a study', 120, async () => (await analyses(lane, 'leased')).length > 1);
  const killed = started(serve.log, 'spare');
  for (const pid of killed) kill(pid, 'SIGKILL');
  await serve.line(/ child ended child=spare .*signal=9/, { seconds: 60 });
  step(`${killed.length} spare workers were killed with studies in their hands`);

  await until('not every study is analysed', 240, async () => (await analyses(lane, 'done')).length === STUDIES);
  const { results, jobs } = await lane.state();
  assert.equal(results.length, STUDIES, 'one result a study');
  assert.deepEqual(jobs.filter(({ state }) => state === 'dead'), []);
  await until('spare workers stay without work', 60, async () => started(serve.log, 'spare').length === ended(serve.log) + killed.length);
  const again = serve.log.length;
  kill(only, 0); // the one that always runs does
  step('without work the spare ones have ended');

  assert.equal(serve.child.kill('SIGTERM') && await serve.ended, 0, serve.log.slice(again));
  assert.deepEqual(await analyses(lane, 'leased'), []);
  await lane.verifyAudit();
  step('and the appliance stops as ever');
});
