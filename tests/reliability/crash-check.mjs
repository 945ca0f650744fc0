// What has to hold after any crash, a normal restart and the end of the work: asserted on what store_state reads from the
// data folder, on what the sender was answered, and on what the PACS was sent.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { Peer } from '../integration/dimse.mjs';

export const ANALYSE = 1;
export const DECODE = 2;
export const SIGN = 3;

/** A sender that keeps a ledger of every 0x0000, and what the web acknowledged. */
export class Ledger {
  stored = new Map(); // "SOP instance content" -> the instance
  sent = new Map();
  repeated = new Set(); // instances that are sent twice on purpose, and were acknowledged again
  web = new Set();
  kills = 0;

  static key({ sopInstance, digest }) { return `${sopInstance} ${digest}`; }

  /** Sends in one association what was not acknowledged yet. False when the receiver went away. */
  async send(port, instances, calling = 'CRASH') {
    const open = instances.filter((instance) => !(instance.again ? this.repeated : this.stored).has(Ledger.key(instance)));
    if (!open.length) return true;
    let peer = null;
    try {
      peer = await Peer.connect(port);
      if ((await peer.associate('PULMO', calling, [[open[0].sopClass, open[0].syntax]])) !== 'accepted') return false;
      for (const instance of open) {
        this.sent.set(Ledger.key(instance), instance);
        const status = await peer.store(instance.sopClass, instance.sopInstance, instance.dataset);
        if (status === null) return false;
        assert.equal(status, 0, `C-STORE of ${instance.sopInstance}`);
        if (instance.again) this.repeated.add(Ledger.key(instance));
        this.stored.set(Ledger.key(instance), instance);
      }
      await peer.release();
      return true;
    } catch (error) {
      if (error.code === 'ECONNREFUSED' || error.code === 'ECONNRESET' || error.code === 'EPIPE') return false;
      throw error;
    } finally {
      peer?.abort();
    }
  }
}

function unique(values, what) {
  assert.deepEqual(values.filter((value, index) => values.indexOf(value) !== index), [], `${what} twice`);
}

/** Every acknowledged instance is there with its bytes; what is there beside them was at least sent, and is whole. */
export function checkInstances(state, ledger, before = []) {
  const there = state.instances.map(({ sop, content }) => `${sop} ${content}`);
  const known = new Set([...before, ...ledger.sent.keys()]);
  unique(there, 'instance');
  for (const key of [...before, ...ledger.stored.keys()]) assert.ok(there.includes(key), `acknowledged and not there: ${key}`);
  for (const key of there) assert.ok(known.has(key), `there and never sent: ${key}`);
  unique(state.instances.filter(({ current }) => current).map(({ sop }) => sop), 'current version');
}

function checkContent(state) {
  for (const { content, ...row } of [...state.instances, ...state.artifacts, ...state.study_artifacts])
    assert.doesNotMatch(content, /^bad: /, `${JSON.stringify(row)}: ${content}`);
}

/** At most one result and one finished job a state of the study; the newest is the current one, and audited once. */
function checkResults(state) {
  const revisions = new Map(state.studies.map(({ study, revision }) => [study, revision]));
  unique(state.results.map(({ study, revision }) => `${study} revision ${revision}`), 'result of one state');
  unique(state.results.map(({ job }) => job), 'result of one job');
  unique(state.results.filter((result) => result.superseded_by === null).map(({ study }) => study), 'current result');
  for (const result of state.results) {
    assert.equal(state.jobs.find(({ id }) => id === result.job).state, 'done', `job of result ${result.id}`);
    assert.ok(result.revision <= revisions.get(result.study));
    assert.equal(state.audit.filter(({ action, detail }) => action === 'analyse' && detail.startsWith(`result ${result.id},`)).length, 1);
    const names = state.artifacts.filter((artifact) => artifact.result === result.id).map(({ name }) => name);
    assert.ok(names.includes('analysis.json') && names.includes('sr.dcm'), `result ${result.id} has its parts: ${names}`);
    assert.equal(names.includes('signed-sr.dcm'), Boolean(result.signed), `result ${result.id}: signature and signed report`);
  }
  for (const { state: jobState, study, kind, reason } of state.jobs)
    assert.ok(jobState !== 'dead', `job of kind ${kind} of ${study} is dead: ${reason}`);
}

/** Each object is marked sent once, and audited once. */
function checkOutbox(state) {
  unique(state.outbox.map(({ result, name, destination }) => `${result} ${name} ${destination}`), 'sending');
  const sent = state.outbox.filter((row) => row.state === 'sent').length;
  assert.equal(state.audit.filter(({ action }) => action === 'send').length, sent, 'one audit row an object that was sent');
  assert.deepEqual(state.outbox.filter((row) => row.state === 'dead'), []);
}

/** The PACS holds exactly the objects of the results, each under one UID with one content. */
export function checkPacs(state, received) {
  const wanted = state.outbox.filter((row) => row.state === 'sent').map(({ result, name }) =>
    state.artifacts.find((artifact) => artifact.result === result && artifact.name === name).content);
  const contents = new Map();
  for (const { uid, content } of received) {
    assert.equal(contents.get(uid) ?? content, content, `${uid} was sent twice with different content`);
    contents.set(uid, content);
  }
  const there = [...contents.values()];
  unique(there, 'object under two UIDs');
  for (const content of wanted) assert.ok(there.includes(content), 'an object was marked sent and is not in the PACS');
  return { wanted, there };
}

function checkWorklist(state) {
  for (const { study, state: shown, instances, result } of state.worklist) {
    assert.ok(instances > 0, `${study} is shown without instances`);
    assert.notEqual(shown, 'failed', `${study} is shown as failed`);
    assert.ok(!result || state.results.some(({ id, superseded_by: by }) => id === result && by === null), `${study} shows its result`);
  }
}

/** A writer that was killed leaves at most what it was writing, and never in sight. */
function checkLeftovers(data, kills) {
  const left = readdirSync(path.join(data, 'tmp'));
  assert.ok(left.length <= 64 * kills, `${left.length} files in tmp after ${kills} kills`);
}

/** What anyone can see right after the restart, before a sender comes back or a job is done: nothing lost, nothing half. */
export async function checkSight(lane, ledger, before) {
  const state = await lane.state();
  assert.deepEqual(state.integrity, ['ok']);
  assert.equal(state.foreign_keys, 0);
  checkInstances(state, ledger, before);
  checkContent(state);
  checkResults(state);
  checkWorklist(state);
}

export async function checkStore(lane, ledger, before) {
  const state = await lane.state();
  assert.deepEqual(state.integrity, ['ok']);
  assert.equal(state.foreign_keys, 0);
  await lane.verifyAudit();
  checkInstances(state, ledger, before);
  checkContent(state);
  checkResults(state);
  checkOutbox(state);
  checkPacs(state, lane.pacs.received());
  checkWorklist(state);
  checkLeftovers(lane.data, ledger.kills);
  return state;
}
