// The server of graphql-ws on ws, with one stream that is pushed to from here, by command.
// `--log file`: each event is durable in a log of SQLite before a subscriber has it.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { GraphQLID, GraphQLNonNull, GraphQLObjectType, GraphQLScalarType, GraphQLSchema, GraphQLString } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

const { values: options } = parseArgs({ options: { log: { type: 'string' } } });
let log;
if (options.log !== undefined) {
  try {
    log = (await import('./log.mjs')).openLog(options.log);
  } catch (error) {
    console.log(JSON.stringify({ unavailable: error.code ?? String(error.message).split(/\.? Tried:|\n/)[0] }));
    process.exit();
  }
}

const text = { type: new GraphQLNonNull(GraphQLString) };
const id = { type: new GraphQLNonNull(GraphQLID) };
const Resource = new GraphQLObjectType({
  name: 'Resource',
  fields: {
    id, workflowId: id, state: text, data: { type: new GraphQLScalarType({ name: 'JSON' }) },
    createdAt: text, updatedAt: text,
  },
});

// By workflow; the empty name has those who want all.
const listeners = new Map();
let waiting = 0;

async function* follow(name) {
  const items = [];
  let wake;
  const push = (item) => { items.push(item); waiting += 1; wake?.(); };
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(push);
  try {
    for (;;) {
      if (items.length === 0) await new Promise((resolve) => { wake = resolve; });
      while (items.length > 0) {
        yield { resourceUpdates: items.shift() };
        waiting -= 1;
      }
    }
  } finally {
    listeners.get(name).delete(push);
  }
}

const schema = new GraphQLSchema({
  query: new GraphQLObjectType({ name: 'Query', fields: { hello: { type: GraphQLString } } }),
  subscription: new GraphQLObjectType({
    name: 'Subscription',
    fields: {
      resourceUpdates: {
        type: new GraphQLNonNull(Resource),
        args: { workflowId: { type: GraphQLID } },
        subscribe: (_source, { workflowId }) => follow(workflowId ?? ''),
      },
    },
  }),
});

const server = createServer((_request, response) => response.writeHead(404).end());
// No keep-alive pings: while others are measured nobody reads, and a missing pong would end the connection.
useServer({ schema }, new WebSocketServer({ server, path: '/graphql' }), 0);
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port, log: log?.settings })));

let number = 0;
function next(workflows) {
  const name = workflows ? `w${number % workflows}` : '';
  const value = {
    id: `resource-${String(number).padStart(8, '0')}-3f8a-4a52`,
    workflowId: name || 'workflow-5b1e77c0-8d6f',
    state: 'in_review',
    data: { title: 'Quarterly plan', revision: number },
    createdAt: '2026-01-15T10:30:00.123Z',
    updatedAt: '2026-01-15T10:31:07.456Z',
  };
  number += 1;
  return [name, value];
}

async function publish({ events, together, workflows, lanes = 1 }) {
  let left = events;
  async function lane() {
    while (left > 0) {
      left -= together;
      const batch = Array.from({ length: together }, () => next(workflows));
      if (log) await Promise.all(batch.map(([name, value]) => log.append(name, value)));
      for (const [name, value] of batch) {
        for (const push of listeners.get(name) ?? []) push(value);
      }
      while (waiting > 0) await setImmediate();
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane));
}

const commands = { publish, counted: () => console.log(JSON.stringify(log.counted())) };
createInterface({ input: process.stdin }).on('line', (line) => {
  const { command, ...given } = JSON.parse(line);
  commands[command](given);
});
