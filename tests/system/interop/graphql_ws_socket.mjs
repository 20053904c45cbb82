// The client of graphql-ws, which carries the subscriptions of urql and of Apollo Client.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { say } from './orders.mjs';

globalThis.WebSocket = WebSocket; // as in a browser: GraphQLWsLink looks at it

/** Make the client for a server's HTTP URL; it tells each connection that it opens. */
export function graphqlWs(url) {
  return createClient({
    url: url.replace('http', 'ws'),
    // By default it gives up at the first attempt that fails, as while the server restarts.
    shouldRetry: () => true,
    on: { connected: () => say({ name: '', opened: true }) },
  });
}
