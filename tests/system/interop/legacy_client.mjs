// The client of subscriptions-transport-ws: node legacy_client.mjs <URL>.
import transport from 'subscriptions-transport-ws';
import WebSocket from 'ws';
import { follow, say } from './orders.mjs';

const url = process.argv[2].replace('http', 'ws');
// It chooses its delays itself: from 0.2 s on while `minTimeout` is that short.
const client = new transport.SubscriptionClient(url, { reconnect: true, minTimeout: 1000 }, WebSocket);
client.onConnected(() => say({ name: '', opened: true }));
client.onReconnected(() => say({ name: '', opened: true }));

await follow(({ query, variables }, sink) => client.request({ query, variables }).subscribe(sink).unsubscribe);
