// Actors of the example client that write down each record before they send it.
// node play.mjs EXAMPLES URL LEDGER ACTORS RECORDS
import { openSync, writeSync } from "node:fs";

const [examples, url, path, count, most] = process.argv.slice(2);
const { Actor } = await import(`${examples}/stoker.js`);
const { CartPole } = await import(`${examples}/cartpole.js`);
const ledger = openSync(path, "a");

function write(...row) {
  writeSync(ledger, JSON.stringify(row) + "\n");
}

async function play(name) {
  const actor = await Actor.connect(url, name);
  const env = new CartPole();
  while (actor.seq < most) {
    const observation = env.reset();
    write(name, actor.seq + 1, observation, null, null, "Continuing");
    let action = await actor.start(observation);
    for (let moved = {}; !(moved.terminated || moved.truncated); ) {
      moved = env.step(action);
      const end = moved.terminated ? "Terminated" : moved.truncated ? "Truncated" : "Continuing";
      write(name, actor.seq + 1, moved.observation, action, moved.reward, end);
      action = await actor.step(moved);
    }
  }
  await actor.close();
}

await Promise.all(Array.from({ length: Number(count) }, (_, index) => play(`js-${index}`)));
