// A server of GraphQL over server-sent events by others: node sse_server.mjs <which> <port, 0 for any>.
import { createServer } from 'node:http';
import { createHandler } from 'graphql-sse/lib/use/http';
import { createYoga } from 'graphql-yoga';
import { readers, schema } from './schema.mjs';

const listeners = {
  'graphql-sse, single connection': () => createHandler({ schema }),
  // Without tokens it has no streams that operations share.
  'graphql-sse, distinct connections': () => createHandler({ schema, authenticate: () => null }),
  'graphql-yoga': () => createYoga({ schema, logging: false, maskedErrors: false }),
};

// graphql-sse leaves it unhandled where the client has gone in the middle of a write.
process.on('unhandledRejection', (error) => {
  if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') throw error;
});

const listener = listeners[process.argv[2]]();
const methods = {};
const server = createServer((request, response) => {
  if (request.url === '/asked') {
    response.end(JSON.stringify({ methods, readers: readers.count, inits: [] }));
  } else {
    methods[request.method] = (methods[request.method] ?? 0) + 1;
    listener(request, response);
  }
});
server.listen(Number(process.argv[3]), '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
