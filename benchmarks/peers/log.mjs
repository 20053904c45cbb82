// A durable log in SQLite: what is appended in one turn of the loop is one transaction, synced when it returns.
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import Database from 'better-sqlite3';

const SYNCHRONOUS = ['OFF', 'NORMAL', 'FULL', 'EXTRA'];

export function openLog(path) {
  const database = new Database(path);
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.exec('CREATE TABLE events (offset INTEGER PRIMARY KEY, channel TEXT NOT NULL, body TEXT NOT NULL)');
  const insert = database.prepare('INSERT INTO events (offset, channel, body) VALUES (?, ?, ?)');
  let offset = 0;
  let transactions = 0;
  let group = [];
  let committed;

  const insertAll = database.transaction((events) => {
    for (const [channel, body] of events) insert.run(offset += 1, channel, body);
  });

  async function commit() {
    await setImmediate();
    const events = group;
    group = [];
    insertAll(events);
    transactions += 1;
  }

  return {
    // What it is set to, as the database tells, and not as it was asked to be.
    settings: {
      journal_mode: database.pragma('journal_mode', { simple: true }),
      synchronous: SYNCHRONOUS[database.pragma('synchronous', { simple: true })],
      SQLite: database.prepare('SELECT sqlite_version()').pluck().get(),
      'better-sqlite3': JSON.parse(readFileSync('node_modules/better-sqlite3/package.json', 'utf8')).version,
    },
    counted: () => ({ events: offset, transactions }),
    append(channel, value) {
      if (group.length === 0) committed = commit();
      group.push([channel, JSON.stringify(value)]);
      return committed;
    },
  };
}
