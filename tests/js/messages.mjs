// Reads streams as the client does: each line of JSON is a list of streams, which are lists of
// chunks; what each makes of the message that the ones before have made.  Prints the messages.
import { createInterface } from "node:readline";
import { asSchema, readUIMessageStream, uiMessageChunkSchema } from "ai";

const schema = asSchema(uiMessageChunkSchema);

async function read(streams) {
  let message;
  for (const chunks of streams) {
    for (const chunk of chunks) {
      const checked = await schema.validate(chunk);
      if (!checked.success) throw new Error(`${JSON.stringify(chunk)}: ${checked.error}`);
    }
    const stream = new ReadableStream({
      start(controller) {
        for (const chunk of chunks) controller.enqueue(structuredClone(chunk));
        controller.close();
      },
    });
    let failed;
    const onError = (error) => (failed = error);
    for await (const seen of readUIMessageStream({ message, stream, onError })) message = seen;
    if (failed && failed.message !== chunks.at(-1).errorText) throw failed;
  }
  return message ?? null;
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = await read(JSON.parse(line)).catch((error) => ({ error: `${error}` }));
  console.log(JSON.stringify(message));
}
