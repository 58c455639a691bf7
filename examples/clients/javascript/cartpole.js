// Play CartPole in JavaScript, and let a stoker server learn it.
//
//   stoker serve --env CartPole-v1
//   node cartpole.js http://127.0.0.1:8000 [ACTORS] [TOKEN]

import { fileURLToPath } from "node:url";
import { Actor } from "./stoker.js";

/** The pole on a cart of Barto, Sutton and Anderson (1983), with the numbers of Gymnasium's CartPole-v1. */
export class CartPole {
  reset() {
    this.state = Array.from({ length: 4 }, () => 0.1 * Math.random() - 0.05);
    this.steps = 0;
    return this.state;
  }

  step(action) {
    const [x, v, angle, turning] = this.state;
    const force = action === 1 ? 10 : -10;
    const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
    const pushed = (force + 0.05 * turning ** 2 * sin) / 1.1;
    const spun = (9.8 * sin - cos * pushed) / (0.5 * (4 / 3 - (0.1 * cos ** 2) / 1.1));
    const moved = pushed - (0.05 * spun * cos) / 1.1;
    this.state = [x + 0.02 * v, v + 0.02 * moved, angle + 0.02 * turning, turning + 0.02 * spun];
    const terminated = Math.abs(this.state[0]) > 2.4 || Math.abs(this.state[2]) > Math.PI / 15;
    const truncated = ++this.steps === 500 && !terminated;
    return { observation: this.state, reward: 1, terminated, truncated };
  }
}

async function play(actor, onEpisode, isOver) {
  const env = new CartPole();
  while (!isOver()) {
    let action = await actor.start(env.reset());
    for (let moved = {}; !(moved.terminated || moved.truncated) && !isOver(); ) {
      moved = env.step(action);
      action = await actor.step(moved);
    }
    if (!isOver()) onEpisode(env.steps);
  }
  await actor.close();
}

async function main(url, count = "8", token = undefined) {
  const lengths = []; // of the episodes; the reward of an episode is its length
  const mean = (last = lengths.slice(-100)) => last.reduce((sum, length) => sum + length, 0) / last.length;
  const names = Array.from({ length: Number(count) }, (_, index) => `cartpole-js-${index}`);
  const actors = await Promise.all(names.map((name) => Actor.connect(url, name, token)));
  const isOver = () => actors.some((actor) => actor.isDone) || (lengths.length >= 100 && mean() >= 475);
  const onEpisode = (length) => {
    lengths.push(length);
    if (lengths.length % 50 === 0) console.log(report());
  };
  const report = () => `${lengths.length} episodes, mean reward of the last 100: ${mean().toFixed(1)}`;
  await Promise.all(actors.map((actor) => play(actor, onEpisode, isOver)));
  console.log(`ended: ${report()}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(...process.argv.slice(2));
