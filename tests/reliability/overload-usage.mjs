// What the processes of an appliance use: memory, threads, descriptors; and how many rows its store has.

import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { processTree } from '../../packaging/appliance.mjs';

const field = (status, name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)[1]);

/** { scp: { rssKb, anonymousKb, threads, descriptors }, ... } of the children of a supervisor, which is `serve`. */
export function usage(pid) {
  const processes = {};
  for (const id of processTree(pid)) {
    try {
      const words = readFileSync(`/proc/${id}/cmdline`, 'utf8').split('\0').filter(Boolean);
      const status = readFileSync(`/proc/${id}/status`, 'utf8');
      processes[words.includes('--only') ? words.at(-1) : 'serve'] = {
        rssKb: field(status, 'VmRSS'), anonymousKb: field(status, 'RssAnon'), threads: field(status, 'Threads'),
        descriptors: readdirSync(`/proc/${id}/fd`).length,
      };
    } catch { /* it ended meanwhile */ }
  }
  return processes;
}

const ROWS = `
import json, sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=20)
tables = [name for name, in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
rows = {name: database.execute(f'SELECT count(*) FROM {name}').fetchone()[0] for name in tables}
one = lambda sql: database.execute(sql).fetchone()[0] or 0
waits = {'studies': one('SELECT count(*) FROM study WHERE revision > queued_revision'),
         'jobs': one("SELECT count(*) FROM job WHERE state IN ('queued', 'leased')"),
         'sendings': one("SELECT count(*) FROM outbox WHERE state IN ('queued', 'leased')")}
contents = one('SELECT sum(blob_size) FROM (SELECT blob_sha256, blob_size FROM instance UNION SELECT blob_sha256, blob_size'
               ' FROM artifact UNION SELECT blob_sha256, blob_size FROM study_artifact)')
whole = 'not asked' if len(sys.argv) < 3 else one('PRAGMA integrity_check')
print(json.dumps({'rows': rows, 'waits': waits, 'contents': contents, 'integrity': whole}))
`;

/** Of a store, running or not: { rows: { table: count }, waits: what is still to do, contents: bytes, integrity }. */
export async function store(data, ...whole) {
  const { stdout } = await promisify(execFile)('python3', ['-c', ROWS, path.join(data, 'pulmo.db'), ...whole]);
  return JSON.parse(stdout);
}

export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}
