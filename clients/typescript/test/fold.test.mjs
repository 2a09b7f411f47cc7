import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY, fold, textOf } from "@hostler/client";

async function all(pieces) {
  const found = [];
  for await (const one of pieces) found.push(one);
  return found;
}

let seq = 0;
const fact = (event, data) => ({
  id: String(++seq),
  event,
  data: { seq, session: "ses_1", kind: event, run: "run_1", ...data },
});
const delta = (text, part = "text") => ({
  id: `${seq}.${Math.random()}`,
  event: "delta",
  data: { attempt: "att_1", part, text },
});
const said = (content, run = "run_1") =>
  fact("user_spoke", { run, input: `inp_${run}`, content, principal: "ann", metadata: {} });
const reply = (text, calls = [], attempt = "att_1") =>
  fact("model_replied", { attempt, text, calls, stop: calls.length ? "tools" : "end" });
const begun = [said("hello"), fact("run_started"), fact("model_asked", { attempt: "att_1" })];
const end = fact("run_ended", { status: "done" });

test("text is shown as it comes, and the reply replaces it", () => {
  let now = fold(EMPTY, [...begun, delta("hm", "thinking"), delta("wel"), delta("l")]);
  assert.equal(now.status, "running");
  assert.deepEqual(
    now.messages.map(({ role, text, thinking, status }) => ({ role, text, thinking, status })),
    [
      { role: "user", text: undefined, thinking: undefined, status: "waiting" },
      { role: "assistant", text: "well", thinking: "hm", status: "streaming" },
    ],
  );
  now = fold(now, [reply("well."), fact("input_processed", { input: "inp_run_1" }), end]);
  assert.deepEqual(now.messages.map((one) => one.status), ["processed", "done"]);
  assert.equal(now.messages[1].text, "well.");
  assert.deepEqual([now.status, now.run, now.open], ["idle", null, []]);
});

test("who saw the text stream and who came later see the same", () => {
  const facts = [...begun, reply("well"), end];
  const live = facts.toSpliced(3, 0, delta("we"), delta("ll"));
  assert.deepEqual(fold(EMPTY, live), fold(EMPTY, facts));
  const cut = fact("attempt_dropped", { attempt: "att_1", reason: "interrupted", text: "we" });
  const stopped = fact("run_ended", { status: "cancelled", reason: "enough" });
  const watched = fold(EMPTY, [...begun, delta("mm", "thinking"), delta("we"), cut, stopped]);
  assert.deepEqual(watched, fold(EMPTY, [...begun, cut, stopped]));
  assert.equal(watched.messages[1].status, "cut");
  assert.deepEqual(watched.problem, { run: "run_1", status: "cancelled", reason: "enough" });
});

test("an attempt that failed or was lost leaves nothing", () => {
  const lost = fact("attempt_dropped", { attempt: "att_1", reason: "worker_lost", text: "we" });
  const failed = fact("model_failed", { attempt: "att_1", error: { code: "server", message: "" } });
  for (const gone of [lost, failed]) {
    assert.equal(fold(EMPTY, [...begun, delta("we"), gone]).messages.length, 1);
  }
});

test("what waits is there until it is answered, and the calls say how they went", () => {
  const call = { id: "call_1", name: "remove", arguments: { path: "a" } };
  const about = { call: "call_1", name: "remove", arguments: { path: "a" } };
  const asked = fact("approval_asked", { ...about, digest: "d", expires_at: "z" });
  let now = fold(EMPTY, [...begun, reply("", [call]), asked]);
  assert.equal(now.status, "waiting");
  assert.deepEqual(now.approvals, [{ ...about, digest: "d", expires_at: "z" }]);
  now = fold(now, [fact("approval_given", { call: "call_1", decision: "allow" })]);
  assert.deepEqual([now.status, now.approvals], ["running", []]);
  now = fold(now, [fact("tool_started", about)]);
  assert.equal(now.messages[1].calls[0].status, "running");
  now = fold(now, [fact("tool_finished", { call: "call_1", outcome: "ok", output: "gone" })]);
  assert.deepEqual(now.messages[1].calls[0], { ...call, status: "ok", output: "gone" });
  now = fold(now, [fact("tool_started", { ...about, expires_at: "z" })]);
  assert.deepEqual([now.status, now.errands.length], ["waiting", 1]);
  assert.deepEqual(fold(now, [end]).errands, []);
});

test("what is queued stays below the run that is going, until its own begins", () => {
  const texts = (now) => now.messages.map((one) => one.content ?? one.text);
  const again = fact("model_asked", { attempt: "att_2" });
  let now = fold(EMPTY, [...begun, said("second", "run_2"), said("third", "run_3")]);
  now = fold(now, [reply("one"), again, reply("two", [], "att_2"), end]);
  assert.deepEqual(texts(now), ["hello", "one", "two", "second", "third"]);
  assert.deepEqual([now.status, now.open], ["queued", ["run_2", "run_3"]]);
  const asked = fact("model_asked", { run: "run_3", attempt: "att_3" });
  now = fold(now, [fact("run_started", { run: "run_3" }), asked, reply("well", [], "att_3")]);
  assert.deepEqual(texts(now), ["hello", "one", "two", "third", "well", "second"]);
});

test("what was dropped says so, and what is taken back is gone", () => {
  const now = fold(EMPTY, [...begun, reply("well"), end, said("more", "run_2")]);
  const dropped = fact("input_dropped", { input: "inp_run_2", reason: "replaced" });
  assert.equal(fold(now, [dropped]).messages[2].status, "dropped");
  assert.equal(fold(now, [fact("session_rewound", { before: "run_2" })]).messages.length, 2);
  assert.deepEqual(fold(now, [fact("session_rewound", { before: "run_1" })]).messages, []);
});

test("kinds that are not known are passed over, and what was is not changed", () => {
  const before = fold(EMPTY, begun);
  const kept = structuredClone(before);
  const after = fold(before, [fact("moon_rose", { phase: 0.5 }), delta("well")]);
  assert.deepEqual(before, kept);
  assert.equal(after.messages[1].text, "well");
  assert.deepEqual(fold(before, [fact("moon_rose", {})]).messages, before.messages);
});

test("the text of replies is whole, however much of it was seen to stream", async () => {
  const second = [fact("model_asked", { attempt: "att_2" }), reply("and more", [], "att_2")];
  const pieces = [[], [delta("we")], [delta("hm", "thinking"), delta("we"), delta("ll ")]];
  for (const seen of pieces) {
    const frames = [...begun, ...seen, reply("well"), ...second, end];
    const text = (await all(textOf(frames))).join("|");
    assert.equal(text.replaceAll("|", "").replace("well ", "well"), "welland more");
  }
});
