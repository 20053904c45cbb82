// The server of subscriptions-transport-ws: node legacy_server.mjs <port, 0 for any>.
import { createServer } from 'node:http';
import { execute, subscribe } from 'graphql';
import transport from 'subscriptions-transport-ws';
import { readers, schema } from './schema.mjs';

const inits = [];
const server = createServer((_request, response) => response.end(JSON.stringify({ inits, readers: readers.count })));
transport.SubscriptionServer.create(
  {
    schema,
    execute,
    subscribe,
    keepAlive: 100,
    onConnect: (payload) => {
      inits.push(payload);
      if (payload.refuse) throw new Error('not you');
    },
  },
  { server, path: '/graphql' },
);
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
