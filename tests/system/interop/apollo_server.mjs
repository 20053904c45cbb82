// Apollo Server, with graphql-ws beside it as its documentation has it ("Subscriptions"):
// node apollo_server.mjs <which> <port, 0 for any>.
import { createServer } from 'node:http';
import { ApolloServer } from '@apollo/server';
import { ApolloServerPluginDrainHttpServer } from '@apollo/server/plugin/drainHttpServer';
import { expressMiddleware } from '@as-integrations/express5';
import express from 'express';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { readers, schema } from './schema.mjs';

const inits = [];
const methods = {};
const app = express();
const server = createServer(app);
const onConnect = ({ connectionParams }) => {
  inits.push(connectionParams);
  return !connectionParams?.refuse;
};
const cleanup = useServer({ schema, onConnect }, new WebSocketServer({ server, path: '/graphql' }));
const apollo = new ApolloServer({
  schema,
  plugins: [
    ApolloServerPluginDrainHttpServer({ httpServer: server }),
    { serverWillStart: async () => ({ drainServer: () => cleanup.dispose() }) },
  ],
});
await apollo.start();
app.get('/asked', (_request, response) => response.json({ methods, readers: readers.count, inits }));
app.use('/graphql', (request, _response, next) => {
  methods[request.method] = (methods[request.method] ?? 0) + 1;
  next();
});
app.use('/graphql', express.json(), expressMiddleware(apollo));
server.listen(Number(process.argv[3]), '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
