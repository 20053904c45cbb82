// The npm package eventsource: node event_source_client.mjs <URL>…, each named by its number; it ends with its input.
import { EventSource } from 'eventsource';
import { listen } from './event_source.mjs';

process.argv.slice(2).forEach((url, number) => {
  listen(EventSource, url, String(number), (message) => console.log(JSON.stringify(message)));
});
process.stdin.resume().on('end', () => process.exit());
