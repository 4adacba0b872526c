// @event-driven-io/emmett-postgresql: `node run.mjs DATABASE_URL FILE`. What it does and why: bench/peers/emmett_events.py.
import { readFileSync } from 'node:fs';
import { sql } from '@event-driven-io/dumbo';
import { projections } from '@event-driven-io/emmett';
import {
  getPostgreSQLEventStore,
  postgreSQLRawBatchSQLProjection,
} from '@event-driven-io/emmett-postgresql';

const CONNECTIONS = 10;
const TYPE = 'DeliveryUnderstood';

const [url, path] = process.argv.slice(2);
const [head, ...lines] = readFileSync(path, 'utf8').trimEnd().split('\n');
const models = JSON.parse(head);
const deliveries = lines.map((line) => JSON.parse(line));

// One statement for each table, with the last row of each key: a statement may not touch a row twice.
const upserts = (events) => {
  const rows = new Map();
  for (const { data } of events)
    for (const [model, key, row] of data.rows) {
      if (!rows.has(model)) rows.set(model, new Map());
      rows.get(model).set(key, row);
    }
  return Object.entries(models)
    .filter(([model]) => rows.has(model))
    .map(([model, statement]) => sql(statement, JSON.stringify([...rows.get(model).values()])));
};

const tables = postgreSQLRawBatchSQLProjection({ name: 'tables', canHandle: [TYPE], evolve: upserts });

const inline = getPostgreSQLEventStore(url, { projections: projections.inline([tables]) });
await inline.schema.migrate();
const waiting = deliveries.values();
const work = async () => {
  for (const { stream, rows } of waiting) await inline.appendToStream(stream, [{ type: TYPE, data: { rows } }]);
};
const started = performance.now();
await Promise.all(Array.from({ length: CONNECTIONS }, work));
const took = (performance.now() - started) / 1000;
await inline.close();
console.log(JSON.stringify({ rows: deliveries.length / took }));
