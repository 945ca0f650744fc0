// The crash matrix: every durable call of every process is a place where that process is killed, once before and once after
// the call, each time on a fresh copy of a prepared data folder; then a normal restart, the rest of the work, all checks.
//
//   node tests/reliability/crash-matrix.test.mjs            all of reception; of the slower phases a share that fits the time
//   PULMO_CRASH=full ...                                    all points of all phases (`make crash`)
//   PULMO_CRASH_LIST=1 ...                                  lists the points
//   PULMO_CRASH_SEED=7 ...                                  another share (default: the day's number)
//   PULMO_CRASH_PHASE=signing PULMO_CRASH_POINT=12-15 ...   these phases (name;name), these points

import assert from 'node:assert/strict';
import { cpus } from 'node:os';
import path from 'node:path';
import { skip } from '../integration/scenario.mjs';
import { Ledger, checkSight, checkStore } from './crash-check.mjs';
import { Slices, chest } from './crash-instances.mjs';
import { Lab, STRACED, missing } from './crash-lab.mjs';
import { needsChest, phases, prepare } from './crash-phases.mjs';
import { generator, shuffled } from './crash-seed.mjs';

const full = process.env.PULMO_CRASH === 'full';
const { seed, random } = generator();
const onlyPhases = process.env.PULMO_CRASH_PHASE?.split(';');
const onlyPoints = process.env.PULMO_CRASH_POINT?.split('-').map(Number);
const cores = Math.min(4, cpus().length);
const LANES_EACH = 3;
const LATE_TRIES = 4;
const COUNT_TRIES = 4;
const TOLD_EVERY = 50; // kills of a whole phase
const NOISE = 6; // two runs differ by a call or two, since threads meet differently
const NOISE_SHARE = 0.05;
const began = Date.now();

/** Runs the phase undisturbed: all checks hold, and these are its fault points. */
async function countPoints(lane, phase, trace = {}) {
  const ledger = new Ledger();
  await lane.reset(phase.folder);
  assert.equal(await phase.run(lane, ledger, trace), 0, `${phase.name}: the process ends in order`);
  const traced = trace.strace ? lane.straced() : lane.points().points;
  phase.check(await checkStore(lane, ledger, phase.before), ledger, lane);
  return traced;
}

/** One kill, a normal restart, the checks. False when the run ended before it came to the point. */
async function killOnce(lane, phase, { point, side }) {
  const ledger = new Ledger();
  await lane.reset(phase.folder);
  await phase.run(lane, ledger, { point, side });
  const { killed, points } = lane.points();
  if (!killed) return false;
  ledger.kills++;
  let seen = 0;
  ledger.onRestart = async () => { seen++; await checkSight(lane, ledger, phase.before); };
  try {
    assert.equal(await phase.run(lane, ledger), 0, 'the restarted process ends in order');
    assert.equal(seen, 1, 'the store was looked at after the restart');
    phase.check(await checkStore(lane, ledger, phase.before), ledger, lane);
  } catch (error) {
    const [call, file] = points[point - 1];
    error.message = `${phase.name}: killed ${side} point ${point} (${call} ${file}): ${error.message}`;
    throw Object.assign(error, { lane });
  }
  return true;
}

/** Kills at the targets with all lanes side by side until they are done, the time is over or one failed. */
async function killAll(lanes, phase, targets, seconds) {
  const deadline = Date.now() + 1000 * seconds;
  const tally = { killed: 0, late: [], failure: null };
  await Promise.all(lanes.map(async (lane) => {
    while (targets.length && !tally.failure && Date.now() < deadline) {
      const target = targets.shift();
      try {
        if (!(await killOnce(lane, phase, target))) tally.late.push(target);
        else if (++tally.killed % TOLD_EVERY === 0 && full) console.log(`    ${tally.killed} done, ${targets.length} to go`);
      } catch (error) {
        tally.failure ??= error;
      }
    }
  }));
  if (tally.failure) throw tally.failure;
  return tally;
}

function describe(points) {
  const calls = new Map();
  for (const [call] of points) calls.set(call, (calls.get(call) ?? 0) + 1);
  return [...calls].sort((a, b) => b[1] - a[1]).map(([call, times]) => `${times} ${call}`).join(', ');
}

async function runPhase(lab, phase) {
  const started = Date.now();
  const { lanes, lanes: [lane] } = lab;
  let points, counted, same, agree = false;
  for (let tries = 0; !agree && tries < COUNT_TRIES; tries++) { // two runs in which associations shared their commits alike
    points = await countPoints(lane, phase);
    counted = await countPoints(lane, phase, { strace: true });
    same = points.filter(([call]) => STRACED.includes(call)).length; // strace cannot tell what made a file
    agree = Math.abs(counted - same) <= Math.max(NOISE, NOISE_SHARE * same);
  }
  assert.ok(agree, `${phase.name}: strace counts ${counted}, kill_at ${same}`);
  if (process.env.PULMO_CRASH_LIST) points.forEach(([call, file], index) => console.log(`    ${index + 1} ${call} ${file}`));
  const both = points.flatMap((_, index) => ['before', 'after'].map((side) => ({ point: index + 1, side })));
  const bounded = !full && phase.seconds !== undefined;
  let targets = bounded ? shuffled(both, random) : [...both];
  if (onlyPoints) targets = both.filter(({ point }) => point >= onlyPoints[0] && point <= onlyPoints.at(-1));
  const tally = await killAll(lanes, phase, targets, bounded && !onlyPoints ? phase.seconds : Infinity);
  let { killed, late } = tally;
  for (let tries = 0; late.length && tries < LATE_TRIES; tries++) { // threads took another order: fewer calls that time
    const again = await killAll(lanes, phase, [...late], Infinity);
    killed += again.killed;
    late = again.late;
  }
  console.log(`${phase.name} (${phase.process}): ${points.length} points x 2 = ${both.length} kills, ${killed} done and checked` +
    `${late.length ? `, ${late.length} not reached in ${1 + LATE_TRIES} runs` : ''} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  console.log(`    ${describe(points)}; strace counts ${counted} of ${same}`);
  return { points: both.length, killed };
}

async function main() {
  const why = await missing();
  if (why) skip(why);
  const lab = await Lab.open(LANES_EACH * cores); // most of a run is waiting
  let failure = null;
  const total = { points: 0, killed: 0 };
  try {
    const slices = await Slices.open(path.join(lab.folder, 'slices'));
    const whole = !onlyPhases || onlyPhases.some(needsChest);
    const prepared = await prepare(lab, { slices, chest: whole && (await chest(path.join(lab.folder, 'chest-files'))) });
    console.log(`prepared in ${((Date.now() - began) / 1000).toFixed(1)} s; seed ${seed}${full ? ', all points' : ''}`);
    for (const phase of phases({ slices, prepared })) {
      if (onlyPhases && !onlyPhases.includes(phase.name)) continue;
      if (phase.missing) {
        console.log(`${phase.name}: not tested, ${phase.missing}`);
        continue;
      }
      const { points, killed } = await runPhase(lab, phase);
      total.points += points;
      total.killed += killed;
    }
  } catch (error) {
    failure = error;
  }
  await lab.close({ keep: failure !== null });
  if (failure) {
    console.log(`crash matrix FAILED; its folder is ${failure.lane?.folder ?? lab.folder}`);
    console.log(`${failure.message}\n${failure.stack}`);
    process.exit(1);
  }
  console.log(`crash matrix: ${total.killed} of ${total.points} kills done and checked in ${((Date.now() - began) / 1000).toFixed(0)} s`);
}

await main();
process.exit(0);
