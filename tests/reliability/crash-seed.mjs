// Numbers that a seed gives again (mulberry32). Seed: PULMO_CRASH_SEED, otherwise the day's number, so that each day tries
// something else and a failure can be repeated.

export function generator(seed = Number(process.env.PULMO_CRASH_SEED ?? Math.floor(Date.now() / 86400000))) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return { seed, random };
}

/** The items in another order (Fisher-Yates). */
export function shuffled(items, random) {
  const order = [...items];
  for (let index = order.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [order[index], order[other]] = [order[other], order[index]];
  }
  return order;
}
