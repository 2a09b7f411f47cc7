// Follows a session as a page would; prints each frame as a line of JSON until a run ends.
import { EventSource } from "eventsource";

const [url, key, ...kinds] = process.argv.slice(2);
const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
});
// A page stays open between two tries; Node would end.
const page = setInterval(() => {}, 1000);
for (const kind of kinds) {
  source.addEventListener(kind, ({ lastEventId: id, type: event, data }) => {
    console.log(JSON.stringify({ id, event, data }));
    if (event !== "run_ended") return;
    source.close();
    clearInterval(page);
  });
}
