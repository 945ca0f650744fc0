// Memory that is refused to a process at an allocation of the test's choice: memory_preload.c.

import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { program, sleep } from '../../packaging/appliance.mjs';

const preload = path.join(process.env.PULMO_BUILD ?? path.dirname(program), 'tests', 'reliability', 'libmemory_preload.so');

/** struct control */
const BYTES = 32;
const AT = { armed: 0, times: 4, skip: 8, seen: 16, failed: 24 };

export class Memory {
  constructor(folder) {
    this.file = path.join(folder, 'memory');
    this.trace = path.join(folder, 'memory-trace');
    writeFileSync(this.file, Buffer.alloc(BYTES));
    this.control = openSync(this.file, 'r+');
  }

  /** For the one process that is looked at. */
  get env() {
    return { ...process.env, LD_PRELOAD: preload, MEMORY_CONTROL: this.file, MEMORY_TRACE: this.trace, ...(this.except && { MEMORY_EXCEPT: this.except }) };
  }

  write(armed, order) {
    writeSync(this.control, order, 0, 4, AT.armed);
    writeSync(this.control, order, 4, BYTES - 4, 4);
    order.writeUInt32LE(armed, AT.armed);
    writeSync(this.control, order, 0, 4, AT.armed);
  }

  /** From now on: after `skip` allocations one fails, or `times` of them (0 = all until it is disarmed). */
  arm(skip, times = 1) {
    const order = Buffer.alloc(BYTES);
    order.writeUInt32LE(times, AT.times);
    order.writeBigUInt64LE(BigInt(skip), AT.skip);
    this.write(1, order);
  }

  /** Only counts. */
  watch() { this.arm(2 ** 50); }

  /** { seen, failed } since it was armed. */
  disarm() {
    writeSync(this.control, Buffer.alloc(4), 0, 4, AT.armed);
    const order = readFileSync(this.file);
    return { seen: Number(order.readBigUInt64LE(AT.seen)), failed: Number(order.readBigUInt64LE(AT.failed)) };
  }

  /** Until an allocation has failed since it was armed, or `ended` comes first: whether one has. */
  async met(ended) {
    let over = false;
    ended.finally(() => { over = true; }).catch(() => {});
    const failed = () => readFileSync(this.file).readBigUInt64LE(AT.failed) > 0n;
    while (!over && !failed()) await sleep(10);
    return failed();
  }

  /** The calls above the allocation that failed last: addresses in their files, for addr2line. */
  place() { return readFileSync(this.trace, 'utf8').split('#').at(-1); }

  close() { closeSync(this.control); }
}
