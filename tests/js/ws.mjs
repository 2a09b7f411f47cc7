// Says something over a socket and follows the session, coming back with its cursor after each
// cut; prints each frame and answer as a line of JSON until a run ends.
import WebSocket from "ws";

const [url, key, content] = process.argv.slice(2);
let cursor = "0";
let answered = false;

function open() {
  const socket = new WebSocket(`${url}?after=${cursor}`, {
    headers: { Authorization: `Bearer ${key}` },
  });
  let over = false;
  socket.on("open", () => {
    const body = { content };
    const said = { id: "first", verb: "message", body, idempotency_key: "only-once" };
    if (!answered) socket.send(JSON.stringify(said));
  });
  socket.on("message", (data) => {
    console.log(data.toString());
    const frame = JSON.parse(data);
    if (frame.re === "first") answered = true;
    if (frame.id) cursor = frame.id;
    if (frame.event === "run_ended") {
      over = true;
      socket.close();
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => over || setImmediate(open));
}
open();
