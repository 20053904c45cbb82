// mercurius on Fastify, by either of its subprotocols: node mercurius_server.mjs <which> <port, 0 for any>.
import Fastify from 'fastify';
import mercurius from 'mercurius';
import { readers, schema } from './schema.mjs';

const [, , which, port] = process.argv;
const inits = [];
const methods = {};
const app = Fastify();
app.addHook('onRequest', async (request) => {
  if (request.url !== '/asked' && !request.ws) methods[request.method] = (methods[request.method] ?? 0) + 1;
});
if (which === 'mercurius, legacy protocol') {
  // It answers with the first subprotocol that is offered, so that it is offered the legacy one alone.
  app.server.prependListener('upgrade', (request) => {
    request.headers['sec-websocket-protocol'] = 'graphql-ws';
  });
}
app.register(mercurius, {
  schema,
  subscription: {
    keepAlive: 100,
    onConnect: ({ payload }) => {
      inits.push(payload);
      return !payload?.refuse;
    },
  },
});
app.get('/asked', async () => ({ methods, readers: readers.count, inits }));
await app.listen({ port: Number(port), host: '127.0.0.1' });
console.log(`ready: ${app.server.address().port}`);
