// The client of subscriptions-transport-ws, told what to do by lines of JSON, and telling what it hears in others:
// node legacy_client.mjs <URL>.
import { createInterface } from 'node:readline';
import transport from 'subscriptions-transport-ws';
import WebSocket from 'ws';

const [url] = process.argv.slice(2);
// It chooses its delays itself: from 0.2 s on while `minTimeout` is that short.
const client = new transport.SubscriptionClient(url, { reconnect: true, minTimeout: 1000 }, WebSocket);
const say = (message) => console.log(JSON.stringify(message));
const ends = {};
client.onConnected(() => say({ name: '', opened: true }));
client.onReconnected(() => say({ name: '', opened: true }));

for await (const line of createInterface({ input: process.stdin })) {
  const { name, query, variables } = JSON.parse(line);
  if (query === undefined) {
    ends[name]();
    say({ name, end: 'complete' });
  } else {
    const { unsubscribe } = client.request({ query, variables }).subscribe({
      next: (payload) => say({ name, next: payload }),
      error: (error) => say({ name, end: error.message ?? JSON.stringify(error) }),
      complete: () => say({ name, end: 'complete' }),
    });
    ends[name] = unsubscribe;
  }
}
process.exit();
