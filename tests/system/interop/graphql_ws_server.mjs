// The reference server of the protocol, graphql-ws on ws, with one stream of numbers.
import { createServer } from 'node:http';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { schema } from './schema.mjs';

const server = createServer((_request, response) => response.writeHead(404).end());
useServer({ schema }, new WebSocketServer({ server, path: '/graphql' }));
server.listen(0, '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
