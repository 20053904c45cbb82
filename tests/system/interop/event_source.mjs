// What an EventSource hears, in Node and in a page of a browser.
/** Read a URL; `say` is called with each event. */
export function listen(EventSource, url, name, say) {
  const source = new EventSource(url);
  source.addEventListener('next', (event) => {
    say({ name, next: JSON.parse(event.data), id: event.lastEventId });
  });
  source.addEventListener('complete', () => {
    source.close();
    say({ name, end: 'complete' });
  });
  source.addEventListener('open', () => say({ name, opened: true }));
}
