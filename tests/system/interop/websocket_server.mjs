// Servers of GraphQL over WebSockets by others: node websocket_server.mjs <which> <port, 0 for any>.
import { createServer } from 'node:http';
import { execute, subscribe } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { createYoga } from 'graphql-yoga';
import legacy from 'subscriptions-transport-ws';
import { WebSocketServer } from 'ws';
import { readers, schema } from './schema.mjs';

const which = process.argv[2];
const inits = [];
const onConnect = ({ connectionParams }) => {
  inits.push(connectionParams);
  return !connectionParams?.refuse;
};
// graphql-yoga leaves WebSockets to graphql-ws, with its own way to execute (its documentation, "Subscriptions").
const yoga = which === 'graphql-yoga, WebSocket' ? createYoga({ schema, logging: false, maskedErrors: false }) : undefined;

const enveloped = yoga && {
  execute: (args) => args.rootValue.execute(args),
  subscribe: (args) => args.rootValue.subscribe(args),
  onSubscribe: async (context, _id, params) => {
    const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
      ...context, req: context.extra.request, socket: context.extra.socket, params,
    });
    let document;
    try {
      document = parse(params.query);
    } catch (error) {
      return [error];
    }
    const args = {
      schema,
      document,
      operationName: params.operationName,
      variableValues: params.variables,
      contextValue: await contextFactory(),
      rootValue: { execute, subscribe },
    };
    const errors = validate(args.schema, args.document);
    return errors.length ? errors : args;
  },
};

const server = createServer((request, response) => {
  if (request.url === '/asked') {
    response.end(JSON.stringify({ methods: {}, readers: readers.count, inits }));
  } else if (yoga) {
    yoga(request, response);
  } else {
    response.writeHead(404).end();
  }
});
if (which === 'subscriptions-transport-ws') {
  const onConnect = (payload) => {
    inits.push(payload);
    if (payload.refuse) throw new Error('not you');
  };
  const options = { schema, execute, subscribe, keepAlive: 100, onConnect };
  legacy.SubscriptionServer.create(options, { server, path: '/graphql' });
} else {
  useServer({ ...(enveloped ?? { schema }), onConnect }, new WebSocketServer({ server, path: '/graphql' }));
}
server.listen(Number(process.argv[3]), '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
