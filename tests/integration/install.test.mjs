// packaging/install.sh, where it has nothing to do and where it cannot do what is asked.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { root } from '../../packaging/appliance.mjs';

const folder = mkdtempSync(path.join(tmpdir(), 'pulmo-install-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
cpSync(path.join(root, 'packaging', 'install.sh'), path.join(folder, 'install.sh'));
writeFileSync(path.join(folder, 'packages-here.txt'), '# a comment\nbash # always there\ncoreutils\n');
writeFileSync(path.join(folder, 'packages-lacking.txt'), 'pulmo-is-no-package\n');
chmodSync(folder, 0o755);
chmodSync(path.join(folder, 'install.sh'), 0o755);

function install(list, prefix = []) {
  const [program, ...rest] = [...prefix, '/bin/sh', path.join(folder, 'install.sh'), list];
  return spawnSync(program, rest, { encoding: 'utf8', input: '' });
}

const nothing = install('here');
assert.deepEqual([nothing.status, nothing.stdout, nothing.stderr], [0, '', ''], 'silent when nothing is missing');

const unknown = install('no-such-list');
assert.equal(unknown.status, 1);
assert.match(unknown.stderr, /^packaging\/install\.sh: no such list: no-such-list\n$/);

if (process.getuid() === 0) {
  // nobody, without a terminal: neither root nor a sudo that lets it
  const refused = install('lacking', ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']);
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /^packaging\/install\.sh: these packages are missing, and .*pulmo-is-no-package\s*\n$/);
  assert.equal(refused.stdout, '');
}
console.log('install.sh: silent, or one clear line');
