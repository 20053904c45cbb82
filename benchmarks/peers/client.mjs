// The client of graphql-ws on ws: counts events from the first to `complete`.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const client = createClient({ url: process.argv[2], webSocketImpl: WebSocket, retryAttempts: 0 });
const query = 'subscription { resourceUpdates { id workflowId state data createdAt updatedAt } }';
let events = 0;
let started = 0;
client.subscribe({ query }, {
  next: () => {
    if (events === 0) started = performance.now();
    events += 1;
  },
  error: (error) => { console.error(error); process.exit(1); },
  complete: () => {
    console.log(JSON.stringify({ events, seconds: (performance.now() - started) / 1000 }));
    client.dispose();
  },
});
