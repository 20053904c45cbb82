// The server of graphql-ws on ws, with one stream that is pushed to from here, by command.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { GraphQLID, GraphQLNonNull, GraphQLObjectType, GraphQLScalarType, GraphQLSchema, GraphQLString } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

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
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));

let number = 0;
async function publish({ events, together, workflows }) {
  for (let sent = 0; sent < events; sent += together) {
    for (let k = 0; k < together; k += 1, number += 1) {
      const name = workflows ? `w${number % workflows}` : '';
      const value = {
        id: `resource-${String(number).padStart(8, '0')}-3f8a-4a52`,
        workflowId: name || 'workflow-5b1e77c0-8d6f',
        state: 'in_review',
        data: { title: 'Quarterly plan', revision: number },
        createdAt: '2026-01-15T10:30:00.123Z',
        updatedAt: '2026-01-15T10:31:07.456Z',
      };
      for (const push of listeners.get(name) ?? []) push(value);
    }
    while (waiting > 0) await setImmediate();
  }
}

createInterface({ input: process.stdin }).on('line', (line) => publish(JSON.parse(line)));
